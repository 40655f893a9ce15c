"""Recommend from a saved model and a file of receipts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_parts, read_table
from retailrec.data.parsing import ids_like, ids_meet
from retailrec.errors import SettingError
from retailrec.recommender.among import read_among
from retailrec.recommender.batch import Batch, artifact_key, recommend_to_file
from retailrec.recommender.purposes import check_purpose
from retailrec.recommender.rules import read_rules
from retailrec.recommender.slots import parse_slots
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
    users: Path | None,
    k: int,
    columns: dict[str, str],
    out: Path,
    *,
    rules: Path | None = None,
    reasons: bool = False,
    encoding: str | None = None,
    time_format: str | None = None,
    among: Sequence[Path] = (),
    safe_csv: bool = False,
    purpose: str = "mixed",
    slots: str | None = None,
    progress: Progress = silent,
) -> Answers:
    """Recommendations from a saved model and a file of receipts, to a file.

    Answers for the shoppers of the file `users` (known or not), or else for those whom the files
    `among` list, or for all in the receipts. `among` limits what is ranked: see `read_among`. Called
    again after an interruption, it goes on with the first unfinished block of shoppers. `purpose` and
    `slots` (such as ``replenish=3,discover=2``) are those of `TwoStageRecommender.recommend`.

    Raises
    ------
    SettingError
        If `k` < 1, there is no such purpose, or slots make no sense.
    """
    if k < 1:
        raise SettingError(f"k must be at least 1, not {k}.")
    wanted_slots = None if slots is None else parse_slots(slots)
    wanted_purpose = check_purpose(purpose, "recommend")
    wanted_rules = None if rules is None else read_rules(rules)
    lists = read_among(among) if among else None
    progress("load the model")
    recommender = TwoStageRecommender.load(model)
    table = None if users is None else read_table(users, encoding=encoding)
    progress(f"load {history}")
    data = RetailData.from_frames(
        read_parts(history, encoding=encoding, exports=True),
        users=table,
        columns=columns,
        report=LoadReport(history.name),
        time_format=time_format,
    )
    seen = data.users["user_id"].gather(data.log["user"].unique())
    wanted = None
    if table is not None:
        wanted = ids_like(table["user_id"], data.users["user_id"], who=f"{users}").unique().sort()
        ids_meet(wanted, seen, who=f"{users}", whose="the shoppers in the receipts", share=0)
    if wanted_rules is not None and wanted_rules.deny is not None and "user_id" in wanted_rules.deny:
        denied = wanted_rules.deny["user_id"]
        ids_meet(denied, data.users["user_id"], who="the rule deny", whose="the shoppers", share=0)
    batch = recommend_to_file(
        recommender,
        data,
        out,
        k,
        users=wanted,
        rules=wanted_rules,
        reasons=reasons,
        among=lists,
        key=artifact_key(model),
        safe_csv=safe_csv,
        purpose=wanted_purpose,
        slots=wanted_slots,
        progress=progress,
    )
    return Answers(batch, data.report)
