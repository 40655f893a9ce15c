# Everything a newcomer needs. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := -m pytest -n $(or $(WORKERS),2) --dist loadfile
READY := $(VENV)/.ready

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-28s %s\n", $$1, $$2}'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --group dev -e .
	@touch $(READY)

setup: $(READY) ## make .venv with everything in it (the others do this by themselves)

demo: $(READY) ## run the main job on a year of real groceries
	$(BIN)/retailrec demo --out out/demo

serve: $(READY) ## a generated shop behind the HTTP service and its pages; prints the address
	$(BIN)/retailrec serve --demo out/serve

test: $(READY) ## run the quick tests (WORKERS=2)
	$(BIN)/python $(PYTEST) -m "not slow"

test-slow: $(READY) ## run the others: Spark, browser, PostgreSQL, kills, fuzz, the docs' code blocks (WORKERS=2)
	$(BIN)/python $(PYTEST) -m slow

fuzz: $(READY) ## mutated files at every door (N=5000 SEED=0 SECONDS=1200)
	$(BIN)/python tests/fuzzing.py --n $(or $(N),5000) --seed $(or $(SEED),0) --seconds $(or $(SECONDS),1200)

kills: $(READY) ## real commands ended in the middle of their work, and two at one target (N=60 PAIRS=20)
	$(BIN)/python tools/kills.py --n $(or $(N),60) --pairs $(or $(PAIRS),20)

test-oldest: ## run the tests with the oldest versions that pyproject.toml states, in .venv-oldest (minutes)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	.venv-oldest/bin/python tools/oldest.py > .venv-oldest/requirements.txt
	.venv-oldest/bin/python -m pip install --quiet -r .venv-oldest/requirements.txt -e .
	.venv-oldest/bin/python $(PYTEST) -m "not slow" -W ignore::DeprecationWarning -W ignore::ResourceWarning $(TESTS)

wheel-check: $(READY) ## build the wheel and look into it
	$(BIN)/python -m pytest tests/test_package.py

docs: $(READY) ## build the documentation site into out/site; a broken link is an error
	$(BIN)/mkdocs build --strict --quiet

reference: $(READY) ## write docs/reference/ and llms.txt again, after names or pages have changed
	$(BIN)/python tools/reference.py

hooks: ## check formatting, lint and types before each commit
	git config core.hooksPath .githooks

mutants: $(READY) ## break the package on purpose, see whether tests notice (WING=features; goes on where it stopped)
	$(BIN)/python tools/mutants.py $(WING)

check: $(READY) ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

frozen: $(READY) ## lists and metrics of three shops, to the last digit those of before (SHOPS="generated" WRITE=1)
	$(BIN)/python benchmarks/frozen.py --shops $(or $(SHOPS),journey online-retail generated) $(if $(WRITE),--write)

bench: bench-startup bench-metrics bench-next-basket bench-sources bench-matching bench-simulate bench-online bench-scale ## the quick benchmarks

bench-startup: $(READY) ## seconds to import and to show help
	$(BIN)/python benchmarks/startup.py

bench-next-basket: $(READY) ## Ta-Feng next-basket board against published figures
	$(BIN)/python benchmarks/next_basket.py

bench-sources: $(READY) ## what each source finds and adds
	$(BIN)/python benchmarks/sources.py

bench-stage-one: $(READY) ## processor seconds of what sources learn and propose (BESIDE=../other/src)
	$(BIN)/python benchmarks/stage_one.py $(BESIDE)

bench-matching: $(READY) ## matching beside bare implicit calls (SHOPPERS=20000)
	$(BIN)/python benchmarks/matching.py $(or $(SHOPPERS),20000)

bench-weekly: $(READY) ## what steady lists cost, and what new items get (WEEKS=5 SHOP=coop)
	$(BIN)/python benchmarks/weekly.py --weeks $(or $(WEEKS),5) --shop $(or $(SHOP),journey)

bench-offers: $(READY) ## coupon response: which of a campaign's products will be bought
	$(BIN)/python benchmarks/offers.py

bench-walkthrough: $(READY) ## the course's method beside ours on the real year (FOLDER=...)
	$(BIN)/python benchmarks/walkthrough.py $(FOLDER)

bench-next-basket-two-stage: $(READY) ## the two-stage model on the same board
	$(BIN)/python benchmarks/next_basket_two_stage.py

bench-ablations: $(READY) ## what feature families and sources are worth to the ranker
	$(BIN)/python benchmarks/ablations.py

bench-peers: $(READY) ## RecTools' two-stage model beside ours (SHOPPERS=20000)
	$(BIN)/python benchmarks/peers.py $(or $(SHOPPERS),10000 20000)

bench-scale: $(READY) ## every step from receipts to the offers of all users (USERS="20000 400000" PROFILE=large)
	$(BIN)/python benchmarks/scale.py $(or $(USERS),20000) $(or $(PROFILE),auto)

bench-week: $(READY) ## generated weeks, killed at random moments: equal, and how long (USERS=20000 WEEKS=52 KILLS=30)
	$(BIN)/python benchmarks/week.py --users $(or $(USERS),20000) --weeks $(or $(WEEKS),52) --kills $(or $(KILLS),30)

bench-checks: $(READY) ## planted faults, quiet weeks and real receipts, by the checks (USERS=1000 WEEKS=52 SHOPS="coop")
	$(BIN)/python benchmarks/checks.py --users $(or $(USERS),1000) --weeks $(or $(WEEKS),52) $(if $(SHOPS),--shops $(SHOPS)) $(if $(CLOSED),--closed $(CLOSED))

bench-watch: $(READY) ## planted changes and quiet weeks, published and watched (USERS=300 WEEKS=36 SHOPS="generated coop")
	$(BIN)/python benchmarks/watch.py --users $(or $(USERS),300) --weeks $(or $(WEEKS),36) --shops $(or $(SHOPS),generated)

bench-waiting: $(READY) ## trees beside other jobs: threads that spin and threads that sleep
	$(BIN)/python benchmarks/waiting.py

bench-online: $(READY) ## milliseconds for one shopper (PROFILE=large)
	$(BIN)/python benchmarks/online.py $(or $(PROFILE),large)

bench-serve: $(READY) ## the HTTP service under load, all or some parts (DATA=x5 PROFILE=large SECONDS=30 PARTS="latency")
	$(BIN)/python benchmarks/serve.py --data $(or $(DATA),x5) --shoppers $(or $(SHOPPERS),20000) --profile $(or $(PROFILE),large) --seconds $(or $(SECONDS),30) --many $(or $(MANY),200000) --work $(or $(WORK),out/serve-bench) $(if $(PARTS),--only $(PARTS))

bench-floor: $(READY) ## share of scoring time inside libraries' kernels (PROFILE=small)
	$(BIN)/python benchmarks/floor.py $(or $(PROFILE),small)

bench-profiles: $(READY) ## what each profile costs in quality and time (SHOPPERS=20000)
	$(BIN)/python benchmarks/profiles.py $(or $(SHOPPERS),20000) $(VARIANT)

bench-boards: $(READY) ## every board: simple methods and ours, into docs/boards.md (BOARDS="journey-28 ta-feng")
	$(BIN)/python benchmarks/boards.py --boards $(BOARDS)

bench-shapes: $(READY) ## boards of other shapes: one store, few users, items bought once (BOARDS="journey-once" SEEDS=0)
	$(BIN)/python benchmarks/boards.py --shapes --methods popular own_purchases own_decay tifu_knn fusion two_stage --seeds $(or $(SEEDS),0) --boards $(BOARDS)

bench-priors: $(READY) ## what a share of a simple order does to lists, by order and weight (BOARDS="coop-4")
	$(BIN)/python benchmarks/priors.py --boards $(BOARDS)

bench-purposes: $(READY) ## lists of what is bought again and of what is new, on real shelves (BOARDS= SEEDS="0 1 2")
	$(BIN)/python benchmarks/purposes.py --boards $(BOARDS) --seeds $(or $(SEEDS),0) --variant '$(or $(VARIANT),{})' $(if $(TUNING),--tuning)

bench-metrics: $(READY) ## a million shoppers judged, 100,000 resampled
	$(BIN)/python benchmarks/metrics.py

bench-offers-allocation: $(READY) ## offers under stock and budget beside the linear program (SHOPPERS="20000 400000")
	$(BIN)/python benchmarks/allocation.py $(or $(SHOPPERS),20000 400000)

bench-counterfactual: $(READY) ## lists judged from a log and uplift learnt, where the truth is known (SEEDS=200 SHOPPERS=5000 USERS=20000)
	$(BIN)/python benchmarks/counterfactual.py $(or $(SEEDS),200) $(or $(SHOPPERS),5000) $(or $(USERS),20000)

bench-spark: $(READY) ## recommend on Spark beside the local engine, and what it costs (LINES="1 4 16 45" HELD_OUT=8 INTO=folder)
	$(BIN)/python benchmarks/spark.py $(or $(LINES),1 4 16) --held-out $(or $(HELD_OUT),8) $(if $(INTO),--into $(INTO))

bench-simulate: $(READY) ## seconds and memory to generate X5's size (SHOP_USERS=400000)
	$(BIN)/python benchmarks/simulate.py $(or $(SHOP_USERS),400000)

bench-realism: $(READY) ## generated receipts beside real ones
	$(BIN)/python benchmarks/realism.py

clean: ## remove what was built
	rm -rf $(VENV) .venv-oldest out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: $(shell grep -oE '^[a-z-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d ':')
.DEFAULT_GOAL := help
