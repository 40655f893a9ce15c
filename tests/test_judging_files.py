"""Evaluation of anybody's files: what says nothing is left out, what is not known is not zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cli_support import refused, retailrec
from retailrec.data import RetailData
from retailrec.data.prefilters import AllowItems, DenyItems
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import evaluate, judge_frames
from retailrec.evaluation.bootstrap import compare_models, sign_flip_p
from retailrec.jobs.evaluate import evaluate_files
from retailrec.rankers.base import TrainingFrame
from retailrec.rankers.lightgbm import LightGBMRanker

LISTS = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": list("abbd"), "rank": [1, 2, 1, 2]})
TRUTH = pl.DataFrame({"user_id": [1, 1, 2, 3], "item_id": list("bedz"), "value": [4.0, 1.0, 3.0, 5.0]})
METRICS = ["precision@2", "recall@2", "hit_rate@2", "revenue@2"]


@pytest.mark.parametrize("word", [None, "", "NULL", "nan", " "])
@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_line_without_shopper_or_item_says_nothing(column: str, word: str | None) -> None:
    more = pl.DataFrame({"user_id": ["1"], "item_id": ["q"], "value": [9.0]}).with_columns(
        pl.Series(column, [word], pl.String)
    )
    truth = pl.concat([TRUTH.cast({"user_id": pl.String}), more])
    assert evaluate(LISTS, truth, METRICS) == evaluate(LISTS, TRUTH, METRICS)
    found = judge_frames({"": LISTS}, truth, 2)
    assert found.left_out == {f"truth: no {'shopper' if column == 'user_id' else 'item'}": 1}


def test_an_empty_place_in_a_list_is_said() -> None:
    assert judge_frames({"a": LISTS}, TRUTH, 2).notes == ()
    lists = LISTS.with_columns(rank=pl.Series([1, 3, 2, 1]))
    (note,) = judge_frames({"a": lists, "b": LISTS}, TRUTH, 2).notes
    assert note.startswith("recommendations a: 1 of 2 lists have empty places")


def test_a_return_is_no_purchase() -> None:
    back = pl.DataFrame({"user_id": [2], "item_id": ["d"], "value": [-3.0]})
    assert evaluate(LISTS, pl.concat([TRUTH, back]), METRICS) == evaluate(LISTS, TRUTH, METRICS)
    only = pl.concat([TRUTH.filter(pl.col("user_id") != 2), back])
    assert len(judge_frames({"": LISTS}, only, 2).judge.users) == 2
    quantity = TRUTH.drop("value").with_columns(quantity=pl.Series([1, 1, -1, 1]))
    assert len(judge_frames({"": LISTS}, quantity, 2).judge.users) == 2


def test_money_that_is_not_known_is_not_zero() -> None:
    money = ["money_precision@2", "money_recall@2", "revenue@2"]
    assert evaluate(LISTS, TRUTH.drop("value"), money) == dict.fromkeys(money)
    empty = TRUTH.with_columns(value=pl.lit(""), price=pl.lit("NA"))
    assert evaluate(LISTS, empty, money) == dict.fromkeys(money)
    assert evaluate(LISTS, TRUTH, ["revenue@2"]) == {"revenue@2": pytest.approx(7 / 3)}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"item_id": ["007", "008", "009", "010"]}, "items of the lists.*leading zeros"),
        ({"user_id": [91, 92, 93, 94]}, "shoppers of the lists"),
    ],
)
def test_lists_and_truth_with_nothing_in_common_are_refused(
    lists: dict[str, Any], message: str
) -> None:
    mine = LISTS.with_columns(**{c: pl.Series(v) for c, v in lists.items()})
    truth = TRUTH.with_columns(item_id=pl.Series(["7", "8", "9", "10"]))
    other = LISTS.with_columns(item_id=pl.Series(["7", "8", "9", "10"])) if "user_id" in lists else mine
    with pytest.raises(DataError, match=message):
        evaluate(
            mine if "user_id" not in lists else other.with_columns(mine["user_id"]), truth, METRICS
        )


def test_one_of_several_lists_that_meets_nothing_is_told() -> None:
    theirs = LISTS.with_columns(item_id=pl.Series(["007", "008", "009", "010"]))
    found = judge_frames({"ours": LISTS, "theirs": theirs}, TRUTH, 2)
    assert len(found.notes) == 1
    assert "items of theirs" in found.notes[0]


def test_scores_without_ranks_are_told_how_to_get_them(tmp_path: Path) -> None:
    lists = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "score": [0.9]})
    lists.write_csv(tmp_path / "lists.csv")
    lists.select("user_id", "item_id").write_csv(tmp_path / "truth.csv")
    with pytest.raises(DataError, match=r"lack columns \['rank'\].*from 1, the best score first"):
        evaluate_files({"mine": tmp_path / "lists.csv"}, tmp_path / "truth.csv", ["precision@5"])


def test_lists_without_a_line_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id,rank\n")
    TRUTH.write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="hold no line"):
        evaluate_files({"r": tmp_path / "r.csv"}, tmp_path / "t.csv", METRICS)


def test_columns_of_any_name_may_stand_beside(tmp_path: Path) -> None:
    more = LISTS.with_columns(row=pl.lit("x"), item=pl.lit(1), line=pl.lit(2))
    assert evaluate(more, TRUTH.with_columns(row=pl.lit(1)), METRICS) == evaluate(LISTS, TRUTH, METRICS)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([1.0], 1.0), ([1.0] * 3, 0.25), ([0.0] * 9, 1.0), ([4.0, 2.0, -1.0], 0.5), ([1.0] * 6, 2 / 64)],
)
def test_few_shoppers_give_no_certainty(differences: list[float], p: float) -> None:
    assert sign_flip_p(np.array(differences)[:, None]).tolist() == [p]
    n = len(differences)
    models = {"theirs": {"precision@1": np.zeros(n)}, "ours": {"precision@1": np.array(differences)}}
    found = compare_models(models, resamples=200)
    assert found.differences["p"].to_list() == [p]
    assert (found.differences["low"][0] is None) == (n < 6)
    assert (found.means["low"][0] is None) == (n < 6)


@pytest.mark.parametrize("kind", [AllowItems, DenyItems])
def test_item_lists_in_another_notation_are_an_error(kind: type, data: RetailData) -> None:
    with pytest.raises(DataError, match="none of the 2 ids of prefilter"):
        kind(["0099", "A500"])(data)
    with pytest.raises(DataError, match=r"1 of the 2 ids .* by notation only: '02' there, '2' here"):
        kind(["1", "02"])(data)
    assert kind(["1", 2, "gone"])(data).recommendable.sum() in (2, data.n_items - 2)


def test_lightgbm_takes_columns_of_any_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((400, 2), np.float32)
    frame = TrainingFrame(
        x=x,
        y=(x[:, 0] > 0.5).astype(np.float32),
        groups=np.repeat(np.arange(20), 20),
        weights=np.ones(400, np.float32),
        fold=np.zeros(400, np.int16),
        names=['size: "eur"', "city[1]{,}"],
    )
    ranker = LightGBMRanker(iterations=5, min_rows=5, column_share=1.0, threads=1).fit(frame)
    assert np.corrcoef(ranker.predict(x), x[:, 0])[0, 1] > 0.5


def test_what_is_judged_by_itself_is_refused_or_said(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    TRUTH.with_columns(rank=pl.int_range(pl.len()).over("user_id") + 1).write_csv("bought.csv")
    LISTS.write_csv("lists.csv")
    Path("link.csv").symlink_to("bought.csv")
    for file in ("bought.csv", "link.csv"):
        run = retailrec("evaluate", "--recommendations", f"ours={file}", "--truth", "bought.csv")
        refused(run, f"{file} is ours and the truth, so it would be judged by itself")
    run = retailrec(
        "evaluate", "--recommendations", "lists.csv", "--truth", "bought.csv", "--history", "bought.csv"
    )
    refused(run, "bought.csv is the history and the truth")
    pl.read_csv("bought.csv").write_parquet("copy.parquet")
    run = retailrec("evaluate", "--recommendations", "copy.parquet", "--truth", "bought.csv")
    assert run.returncode == 0
    assert "copy hold the pairs of the truth, none more or less" in " ".join(run.stdout.split())
    Path("day=1").mkdir()
    LISTS.write_csv("day=1/lists.csv")
    run = retailrec("evaluate", "--recommendations", "day=1/lists.csv", "--truth", "bought.csv")
    assert run.returncode == 0, run.stderr
    assert "pairs of the truth" not in run.stdout


def test_a_price_may_stand_in_the_line_of_who_is_not_judged() -> None:
    """Else the list seems to cost less than it does: here all of it was bought for 4 of 4 and not of 10."""
    lists = pl.DataFrame({"user_id": [1, 1], "item_id": ["a", "b"], "rank": [1, 2]})
    truth = pl.DataFrame(
        {"user_id": [1, 9], "item_id": ["a", "b"], "value": [4.0, 6.0], "price": [4.0, 6.0]}
    )
    history = pl.DataFrame({"user_id": [1], "item_id": ["a"]})
    found = evaluate(lists, truth, ["money_precision@2"], history=history)
    assert found == {"money_precision@2": pytest.approx(0.4)}


def test_without_a_metric_nothing_is_judged() -> None:
    with pytest.raises(SettingError, match="name at least one"):
        evaluate(LISTS, TRUTH, [])
