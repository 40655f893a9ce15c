"""What the command line asks of Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from retailrec.compute.progress import Progress, silent
from retailrec.errors import SettingError
from retailrec.recommender.rules import read_rules
from retailrec.spark.recommending import Recommended, recommend
from retailrec.spark.session import connect


def recommend_on_spark(
    model: Path, history: Path, users: Path | None, k: int, columns: Mapping[str, str], out: Path, *,
    rules: Path | None = None, reasons: bool = False, master: str | None = None,
    settings: Path | None = None, modules: Sequence[str] | None = None, progress: Progress = silent,
) -> Recommended:  # fmt: skip
    """Lists from a saved model and receipts in Parquet or a table, to a folder of Parquet.

    Raises
    ------
    SettingError
        If modules of one's own are wanted, which workers would have to import, or Spark can't be used.
    DataError
        As `recommend`.
    """
    if modules:
        raise SettingError(
            f"--import {modules[0]} is not there with --engine spark: workers would have to import it "
            f"too. Call retailrec.spark from a program whose workers do."
        )
    wanted_rules = None if rules is None else read_rules(rules)
    progress("start Spark")
    session = connect(master, settings)
    # a name without a path's signs is a table, if there is no such file
    receipts = history if history.exists() or "/" in str(history) else str(history)
    return recommend(
        model, receipts, out, k, users=users, rules=wanted_rules, reasons=reasons, columns=columns,
        session=session, progress=progress,
    )  # fmt: skip
