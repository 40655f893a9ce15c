"""Recommend from a saved model and a file of receipts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from retailrec.compute.progress import Progress, silent
from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_table
from retailrec.data.parsing import ids_like, ids_meet, typed_ids
from retailrec.datasets import open_alike
from retailrec.datasets.base import PLAIN, Reading
from retailrec.errors import SettingError
from retailrec.recommender.batch import (
    Batch,
    Exposures,
    ListFormat,
    artifact_key,
    recommend_to_file,
)
from retailrec.recommender.exploration import policy_name
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender


class Answers(NamedTuple):
    """What `recommend_from_files` did.

    Attributes
    ----------
    batch : shoppers, recommendations, effects of rules
    load_report : of the receipts
    """

    batch: Batch
    load_report: LoadReport


def recommend_from_files(
    model: Path,
    history: Path,
    out: Path,
    request: Request,
    *,
    users: Path | None = None,
    reading: Reading = PLAIN,
    output: ListFormat | None = None,
    exposures: Exposures | None = None,
    progress: Progress = silent,
) -> Answers:
    """Recommendations from a saved model and a file of receipts, to a file.

    Answers for the users of the file `users` (known or not), or else for those whom the request's
    eligible items name, or for all in the receipts. Called again after an interruption, it goes on with
    the first unfinished block of users. What `reading` does not say of the
    file is as when the model was fitted. With `exposures` the pools of
    explored lists are written, too.

    Raises
    ------
    DataError, SettingError
        As `recommend_to_file`.
    """
    if exposures is not None:
        exposures.check(request, out)  # before any work
    (output or ListFormat()).check(out)
    progress("load the model")
    recommender = TwoStageRecommender.load(model)
    known = recommender.items_.height
    if request.k > known:
        raise SettingError(f"k={request.k} is more than the {known:,} items that the model knows.")
    progress(f"load {history}")
    tables = open_alike(recommender.reading, history, reading)
    encoding = reading.encoding or recommender.reading.get("encoding")
    table = None if users is None else read_table(users, encoding=encoding)
    tables = replace(tables, items=None, item_columns=())
    request = request.renamed(tables.changed_ids)
    if table is not None:
        if tables.changed_ids is not None and "user_id" in table.columns:
            table = table.with_columns(typed_ids(table["user_id"]))
            table = tables.changed_ids.folded(table, "user_id")
        tables = replace(tables, users=table, user_columns=())
    data = tables.data()
    seen = data.users["user_id"].gather(data.log["user"].unique())
    wanted = None
    if table is not None:
        wanted = ids_like(table["user_id"], data.users["user_id"], who=f"{users}").unique().sort()
        ids_meet(wanted, seen, who=f"{users}", whose="the shoppers in the receipts", share=0)
    lists = {"dismissals": request.dismissals}
    if request.rules is not None:
        lists["the rule deny"] = request.rules.deny
    for name, frame in lists.items():
        if frame is not None and "user_id" in frame:
            ids_meet(frame["user_id"], data.users["user_id"], who=name, whose="the shoppers", share=0)
    key = artifact_key(model)
    if exposures is not None and not exposures.policy:
        exposures = exposures._replace(policy=policy_name(model.absolute().name, key))
    batch = recommend_to_file(
        recommender,
        data,
        out,
        request,
        users=wanted,
        key=key,
        output=output,
        exposures=exposures,
        progress=progress,
    )
    return Answers(batch, data.report)
