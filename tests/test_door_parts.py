"""Sources, rankers, prefilters and rules of one's own go through fit, save, load, config and reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from door_support import SHOP, lines_of, quick
from retailrec.candidates import CandidateGenerator, Candidates, OwnPurchases, Pairs
from retailrec.components import forget
from retailrec.compute.topk import topk_rows
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.data.prefilters import Prefilter
from retailrec.errors import ArtifactError, SettingError
from retailrec.jobs.settings import read_settings
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.recommender.rules import Rule, RuleRequest, read_rules
from retailrec.recommender.two_stage import TwoStageRecommender


@dataclass
class Cheapest(CandidateGenerator):
    """Items whose mean price is lowest, for whoever asks."""

    dearest: float = 1e9
    theme = "cheap"
    price_: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "cheapest"

    def _fit(self, data: RetailData) -> None:
        item, value = data.log["item"].to_numpy(), data.log["value"].to_numpy()
        total = np.bincount(item, value, data.n_items)
        self.price_ = (total / np.maximum(np.bincount(item, minlength=data.n_items), 1)).astype("f4")

    def _candidates(self, history: History, k: int) -> Candidates:
        items = np.flatnonzero(self.allowed_).astype(np.int32)
        best = topk_rows(np.array([0, len(items)]), items, -self.price_[items], k)
        return Candidates(*(np.repeat(part, len(history), axis=0) for part in best))

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        return -self.price_[pairs.items]


@dataclass
class LinearRanker(Ranker, type="linear"):
    """Correlation of each column with the label."""

    power: float = 1.0
    weights_: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "linear"

    @property
    def gives_probability(self) -> bool:
        return False

    def fit(self, train: TrainingFrame, valid: TrainingFrame | None = None) -> LinearRanker:
        x = np.nan_to_num(train.x).astype(np.float64)
        centred = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
        self.weights_ = centred.T @ (train.y - train.y.mean()) / np.maximum(x.std(0), 1e-6)
        return self

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.contributions(x).sum(1)

    def contributions(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return (np.nan_to_num(x) * self.weights_).astype(np.float32)

    def importances(self) -> NDArray[np.float64]:
        return np.abs(self.weights_) / np.abs(self.weights_).sum()

    def save(self, folder: Path) -> None:
        np.save(folder / "weights.npy", self.weights_, allow_pickle=False)

    def load(self, folder: Path) -> LinearRanker:
        self.weights_ = np.load(folder / "weights.npy", allow_pickle=False)
        return self


@dataclass(frozen=True)
class OddItems(Prefilter):
    """Items with an odd code; the others can't be bought."""

    remainder: int = 1
    hides_from_all = True

    def keeps(self, data: RetailData) -> pl.Series:
        return pl.Series(np.arange(data.n_items) % 2 == self.remainder)


@dataclass(frozen=True)
class NeverBought(Rule):
    """Only items that the shopper never bought."""

    def allows(self, request: RuleRequest) -> NDArray[np.bool_]:
        return request.event_pair < 0


def test_parts_of_ones_own_go_the_whole_way(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'n_candidates = 20\nprerank = false\nlabel_windows = 1\n[[sources]]\ntype = "cheapest"\n'
        'dearest = 5.0\n[[sources]]\ntype = "own_purchases"\n[ranker]\ntype = "linear"\npower = 2.0\n'
        '[[prefilters]]\ntype = "odd_items"\nremainder = 0\n'
    )
    fitted = read_settings(tmp_path / "c.toml").model().fit(SHOP)
    assert fitted.sources_[0].dearest == 5.0
    fitted.save(tmp_path / "m")
    loaded = TwoStageRecommender.load(tmp_path / "m")
    told = fitted.explain(SHOP, k=4)
    assert loaded.explain(SHOP, k=4).equals(told)
    codes = SHOP.items.with_row_index("code")
    assert (told.join(codes, on="item_id")["code"] % 2 == 0).all()
    assert told["reasons"].str.contains("cheap").any()
    (tmp_path / "r.toml").write_text('[[more]]\ntype = "never_bought"\n')
    answer = fitted.answer(SHOP, k=4, rules=read_rules(tmp_path / "r.toml"))
    bought = lines_of(SHOP).select("user_id", "item_id")
    assert answer.lists.join(bought, on=["user_id", "item_id"], how="semi").is_empty()
    assert answer.report.rules["never_bought"]["removed"] > 0


def test_a_class_that_is_not_imported_is_named_at_load(tmp_path: Path) -> None:
    quick(sources=[Cheapest(), OwnPurchases()]).fit(SHOP).save(tmp_path / "m")
    forget(Cheapest)
    try:
        with pytest.raises(
            ArtifactError, match=r"'Cheapest', which is not known.*Import .*test_door_parts"
        ):
            TwoStageRecommender.load(tmp_path / "m")
    finally:
        Cheapest.__init_subclass__()
    assert TwoStageRecommender.load(tmp_path / "m").sources_[0].name == "cheapest"


def test_save_refuses_what_could_not_be_loaded_and_keeps_the_old_model(tmp_path: Path) -> None:
    quick().fit(SHOP).save(tmp_path / "m")
    before = (tmp_path / "m" / "manifest.json").read_bytes()
    fitted = quick(sources=[Cheapest(), OwnPurchases()]).fit(SHOP)
    forget(Cheapest)
    try:
        with pytest.raises(ArtifactError, match="could not be loaded again"):
            fitted.save(tmp_path / "m")
    finally:
        Cheapest.__init_subclass__()
    assert (tmp_path / "m" / "manifest.json").read_bytes() == before
    assert sorted(p.name.split("-")[0] for p in (tmp_path / "m").iterdir()) == ["data", "manifest.json"]
    TwoStageRecommender.load(tmp_path / "m")


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(SettingError, match="has that name"):

        @dataclass
        class Popularity(CandidateGenerator):
            pass
