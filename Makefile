# Everything a newcomer needs. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-28s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e .
	@touch $(READY)

setup: $(READY) ## make .venv with everything in it (the others do this by themselves)

demo: $(READY) ## run the main job on a generated supermarket
	$(BIN)/retailrec demo --out out/demo

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(READY) ## run the tests that take long: the docs' code blocks, the notebook
	$(BIN)/python -m pytest -m slow

test-oldest: ## run the tests with the oldest versions that pyproject.toml states, in .venv-oldest (minutes)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	.venv-oldest/bin/python tools/oldest.py > .venv-oldest/requirements.txt
	.venv-oldest/bin/python -m pip install --quiet -r .venv-oldest/requirements.txt -e .
	.venv-oldest/bin/python -m pytest -m "not slow" $(TESTS)

wheel-check: $(READY) ## build the wheel and look into it
	$(BIN)/python -m pytest tests/test_package.py

docs: $(READY) ## build the documentation site into out/site; a broken link is an error
	$(BIN)/mkdocs build --strict --quiet

reference: $(READY) ## write docs/reference/ and llms.txt anew, after names or pages have changed
	$(BIN)/python tools/reference.py

hooks: ## check formatting, lint and types before each commit
	git config core.hooksPath .githooks

mutants: $(READY) ## break the package on purpose, see whether tests notice (WING=features; goes on where it stopped)
	$(BIN)/python tools/mutants.py $(WING)

check: $(READY) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: bench-startup bench-metrics bench-next-basket bench-sources bench-matching bench-simulate bench-online bench-scale ## the quick benchmarks

bench-startup: $(READY) ## seconds to import and to show help
	$(BIN)/python benchmarks/startup.py

bench-next-basket: $(READY) ## Ta-Feng next-basket board against published figures
	$(BIN)/python benchmarks/next_basket.py

bench-sources: $(READY) ## what each source finds and adds
	$(BIN)/python benchmarks/sources.py

bench-matching: $(READY) ## matching beside bare implicit calls (SHOPPERS=20000)
	$(BIN)/python benchmarks/matching.py $(or $(SHOPPERS),20000)

bench-next-basket-two-stage: $(READY) ## the two-stage model on the same board
	$(BIN)/python benchmarks/next_basket_two_stage.py

bench-ablations: $(READY) ## what feature families and sources are worth to the ranker
	$(BIN)/python benchmarks/ablations.py

bench-peers: $(READY) ## RecTools' two-stage model beside ours (SHOPPERS=20000)
	$(BIN)/python benchmarks/peers.py $(or $(SHOPPERS),10000 20000)

bench-scale: $(READY) ## every step from receipts to everybody's offers (USERS="20000 400000" PROFILE=large)
	$(BIN)/python benchmarks/scale.py $(or $(USERS),20000) $(or $(PROFILE),auto)

bench-online: $(READY) ## milliseconds for one shopper (PROFILE=large)
	$(BIN)/python benchmarks/online.py $(or $(PROFILE),large)

bench-floor: $(READY) ## share of scoring time inside libraries' kernels (PROFILE=small)
	$(BIN)/python benchmarks/floor.py $(or $(PROFILE),small)

bench-profiles: $(READY) ## what each profile costs in quality and time (SHOPPERS=20000)
	$(BIN)/python benchmarks/profiles.py $(or $(SHOPPERS),20000) $(VARIANT)

bench-metrics: $(READY) ## a million shoppers judged, 100,000 resampled
	$(BIN)/python benchmarks/metrics.py

bench-simulate: $(READY) ## seconds and memory to generate X5's size (SHOP_USERS=400000)
	$(BIN)/python benchmarks/simulate.py $(or $(SHOP_USERS),400000)

bench-realism: $(READY) ## generated receipts beside real ones
	$(BIN)/python benchmarks/realism.py

clean: ## remove what was built
	rm -rf $(VENV) .venv-oldest out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup demo test test-slow test-oldest wheel-check docs reference hooks mutants check bench bench-startup bench-next-basket bench-next-basket-two-stage bench-sources bench-ablations bench-matching bench-peers bench-scale bench-online bench-floor bench-profiles bench-metrics bench-simulate bench-realism clean
.DEFAULT_GOAL := help
