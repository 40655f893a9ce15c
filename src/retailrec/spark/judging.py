"""Everybody judged on a cluster: a window of the local engine, part by part, and values a shopper."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from retailrec.candidates import CandidateGenerator
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.errors import DataError, SettingError
from retailrec.evaluation.segments import grouped
from retailrec.evaluation.window import longest
from retailrec.metrics import parse_metric
from retailrec.metrics.base import Values, compute_metric
from retailrec.recommender.artifact import save_artifact, versions
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import CATEGORIES, USER_ID
from retailrec.spark.failures import in_words
from retailrec.spark.judge_tasks import (
    LISTS,
    JudgePlan,
    facts_of_judged,
    judged_types,
    values_of_judged,
    write_known,
)
from retailrec.spark.shipping import ship
from retailrec.spark.staging import sql_schema
from retailrec.spark.whole import SparkLog

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class SparkWindow:
    """A window in which everybody is judged, where models learnt from a sample; a `Window`.

    Workers judge whole shoppers as the local engine does, and tell a row a shopper. Means are taken on
    this machine, in order of shopper, so they are those of one machine to the last digit.

    Attributes
    ----------
    past : the sample, prefilters applied
    lines : receipts of all shoppers, parted by shopper, kept on the workers' disks until `close`
    plan : of the window
    users : ids of the judged shoppers, ascending
    groups : segment -> group of each; attributes of shoppers make none, since a sample's are known only
    """

    session: SparkSession
    past: RetailData
    lines: DataFrame
    plan: JudgePlan
    users: pl.Series
    groups: Mapping[str, pl.Series]

    @classmethod
    def of(cls, split: Split, end: datetime) -> SparkWindow:
        """Of all shoppers who bought in the window and have history.

        Raises
        ------
        DataError
            If there is none.
        SettingError
            If the data is no sample of a log on Spark.
        """
        whole = split.past.whole
        if not isinstance(whole, SparkLog):
            raise SettingError(
                "SparkWindow judges by a log on Spark; give data of retailrec.spark, or LocalWindow."
            )
        plan = judge_plan(whole, split.past, end)
        with in_words():
            from pyspark import StorageLevel

            lines = whole.of_shoppers(end).persist(StorageLevel.DISK_ONLY)
            kinds = {USER_ID: whole.kinds[USER_ID], "receipts": "long", "days": "long"}
            if CATEGORIES[0] in split.past.items.columns:
                kinds["favourite"] = "string"
            facts = told(lines, replace(plan, kinds=kinds), facts_of_judged).sort(USER_ID)
        if facts.is_empty():
            lines.unpersist()
            raise DataError(
                f"nobody with history bought anything in the evaluation window from {plan.cutoff}. "
                f"Use another horizon."
            )
        return cls(whole.session, split.past, lines, plan, facts[USER_ID], grouped(facts))

    def values(self, model: Any, metrics: Sequence[str]) -> dict[str, Values]:
        """Metric -> (n_users,) values of the lists of a fitted model; (1,) of lists together.

        Raises
        ------
        DataError
            If the receipts are others than before.
        SettingError
            If the model is a function, which has no files for workers.
        """
        if not isinstance(model, TwoStageRecommender | CandidateGenerator):
            raise SettingError(
                f"{model!r} can't be judged on Spark, which takes recommenders and sources; write it "
                f"as a CandidateGenerator, or stay with the local engine."
            )
        together = [m for m in metrics if parse_metric(m)[0].together]
        alone = tuple(m for m in metrics if m not in together)
        kinds = {USER_ID: self.plan.kinds[USER_ID], **dict.fromkeys(alone, "double")}
        if together:
            kinds[LISTS] = "string"
        name = shipped_model(self.session, model)
        judge = partial(values_of_judged, model=name, k=longest(metrics), metrics=alone)
        with in_words():
            found = told(self.lines, replace(self.plan, kinds=kinds), judge).sort(USER_ID)
        if not found[USER_ID].equals(self.users):
            raise DataError("receipts changed while models were judged; begin anew.")
        values = {m: found[m].to_numpy() for m in alone}
        if together:
            items = np.array([row.split(" ") for row in found[LISTS]], np.int32)
            context = {"items": items, "n_recommendable": int(self.past.recommendable.sum())}
            values |= {m: compute_metric(m, context) for m in together}
        return {m: values[m] for m in metrics}

    def close(self) -> None:
        """Free the workers' disks."""
        self.lines.unpersist()


def judge_plan(whole: SparkLog, past: RetailData, end: datetime) -> JudgePlan:
    """The plan of a window, with what is known of items before it put on every machine."""
    known = shipped_folder(whole.session, lambda folder: write_known(past, folder))
    own = {name: version for name, version in versions().items() if name != "python"}
    return JudgePlan(known, past.end, end, {USER_ID: whole.kinds[USER_ID]}, own)


def shipped_folder(session: SparkSession, write: Callable[[Path], None]) -> str:
    """The name under which every machine has what `write` puts into a folder."""
    name = f"retailrec-{secrets.token_hex(8)}"
    with TemporaryDirectory(prefix="retailrec-") as aside:
        write(Path(aside))
        ship(session, Path(aside), name)
    return name


def shipped_model(session: SparkSession, model: Any) -> str:
    """The name under which every machine has the files of something fitted."""
    name = shipped_folder(
        session, lambda folder: save_artifact(model, folder / "model", judged_types())
    )
    return f"{name}/model"


def told(lines: DataFrame, plan: JudgePlan, judge: Callable[..., Any]) -> pl.DataFrame:
    """What a worker's function tells of all shoppers."""
    found = lines.mapInArrow(partial(judge, plan), sql_schema(plan.kinds)).toArrow()
    return pl.DataFrame(pl.from_arrow(found))
