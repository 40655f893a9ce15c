"""The walk-through notebook runs from top to bottom, and its claims hold on what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "walkthrough.ipynb"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the notebook's cells leave behind, run one after the other in one place."""
    found: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), found)
    return found


@pytest.mark.slow
def test_the_notebook_runs(names: dict[str, Any]) -> None:
    results = {name: values["precision@5"] for name, values in names["results"].items()}
    assert len(results) == 5
    own = results.pop("own purchases")
    for ranker in ("lightgbm_lambdarank", "catboost"):
        assert results[f"{ranker}, all features"] > own
    assert names["matching"]["chosen_k"] >= 20
    assert names["table"]["permutation"].max() > 0
    assert names["ranker"].n_trees < 200  # it stopped early


def test_every_code_cell_shows_its_result() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code" and "for ranker" not in "".join(cell["source"]):
            assert cell["outputs"], f"{cell['id']} was not run before it was saved"
