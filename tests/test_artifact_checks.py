"""A model whose parts do not fit each other is refused, however rightly it was signed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from retailrec.errors import ArtifactError
from retailrec.recommender.two_stage import TwoStageRecommender

WHOLE = Path(__file__).parent / "artifacts" / "format-1" / "model"
POPULAR, ITEM_ITEM, ALS, TIFU, FUSION = 1, 2, 3, 4, 5


def put(path: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Change what stands at ``sources_.1.share_`` of a model."""

    def changed(model: Any) -> None:
        *before, last = path.split(".")
        for name in before:
            model = model[int(name)] if name.isdecimal() else getattr(model, name)
        setattr(model, last, change(getattr(model, last)))

    return changed


def wider(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), (matrix.shape[0], 10**6))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put(f"sources_.{POPULAR}.share_", lambda a: a[:-1]), r"Popularity.share_ has shape \(179,\)"),
        (put(f"sources_.{POPULAR}.share_", lambda a: a.astype(int)), "kind 'f'"),
        (put(f"sources_.{POPULAR}.share_", lambda a: a.astype(np.float16)), "kind 'f'"),
        (
            put(f"sources_.{POPULAR}.allowed_", lambda a: np.append(a, True)),
            r"allowed_ has shape \(181,\)",
        ),
        (put(f"sources_.{ITEM_ITEM}.similarity_", wider), "similarity_ has shape"),
        (put(f"sources_.{TIFU}.reference_", wider), "reference_ has shape"),
        (put(f"sources_.{ALS}.factors_", lambda a: a[:, :2].copy()), "2 factors of 4"),
        (put(f"sources_.{ALS}.factors_", lambda a: a.ravel()), "factors_ has shape"),
        (put(f"sources_.{FUSION}.sources_.1.similarity_", wider), "similarity_ has shape"),
        (put(f"sources_.{FUSION}.catalogue_key_", lambda key: "0" * 32), "coded by another catalogue"),
        (put("features_.catalogue_key_", lambda key: "0" * 32), "coded by another catalogue"),
        (put("features_.items_", lambda a: a[:, 1:]), "item features have shape"),
        (put("features_.items_", lambda a: a[1:]), "item features have shape"),
        (put("features_.categories_", lambda a: a + 1_000_000), "categories are from"),
        (put("features_.categories_", lambda a: a[:, :1]), "categories have shape"),
        (
            put("features_.layout_", lambda f: f.filter(pl.col("scope") != "user")),
            "learnt from 134 columns",
        ),
        (put("items_", lambda f: f[1:]), "one price an item"),
        (put("items_", lambda f: f.drop("item_id")), "no catalogue"),
        (put("items_", lambda f: f.with_columns(item_id=pl.lit(7, pl.Int64))), "every id once"),
        (put("items_", lambda f: f.with_columns(recommendable=pl.lit(1))), "may be recommended"),
        (put("prices_", lambda a: a[1:]), "one price an item"),
        (put("end_", lambda t: None), "when it was fitted"),
        (put("sources_", lambda parts: parts[1:]), "5 fitted sources of 6"),
        (put("calibrator_.steps_", lambda a: a[:1]), "no steps"),
        (put("preranker_", lambda ranker: 7), "preranker_ is a int"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, change: Callable[[Any], None], problem: str
) -> None:
    model = TwoStageRecommender.load(WHOLE)
    change(model)
    model.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match=problem):
        TwoStageRecommender.load(tmp_path / "model")


def test_a_model_that_fits_is_loaded_again(tmp_path: Path) -> None:
    TwoStageRecommender.load(WHOLE).save(tmp_path / "model")
    assert TwoStageRecommender.load(tmp_path / "model").items_.height == 180


@pytest.mark.slow
def test_checks_are_no_assertions(tmp_path: Path) -> None:
    """`python -O` takes assertions away; a forged model is refused all the same."""
    model = TwoStageRecommender.load(WHOLE)
    model.sources_[POPULAR].share_ = np.zeros(3, np.float32)
    model.save(tmp_path / "model")
    code = (
        "import sys; from retailrec import TwoStageRecommender; assert False\n"
        "TwoStageRecommender.load(sys.argv[1])"
    )
    found = subprocess.run(
        [sys.executable, "-O", "-c", code, str(tmp_path / "model")], capture_output=True, text=True
    )
    assert "ArtifactError: the model's parts do not fit each other" in found.stderr
