"""What the command line asks of Spark."""

from __future__ import annotations

import atexit
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.table import rules_of
from retailrec.errors import SettingError
from retailrec.jobs.recommend import Answers
from retailrec.jobs.run import Everybody
from retailrec.recommender.batch import Batch, Exposures
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.spark.fitting import SparkLog, sampled_data
from retailrec.spark.recommending import recommend, recommend_cleaned
from retailrec.spark.session import connect
from retailrec.spark.sources import columns_in, require_parquet
from retailrec.spark.storage import absolute
from retailrec.spark.tasks import share_modules

WORKPLACE = "spark.retailrec.workplace"


def recommend_on_spark(
    model: Path,
    history: Path,
    out: Path,
    request: Request,
    *,
    users: Path | None = None,
    reading: Reading = PLAIN,
    master: str | None = None,
    settings: Path | None = None,
    modules: Sequence[str] | None = None,
    exposures: Exposures | None = None,
    progress: Progress = silent,
) -> Answers:
    """Lists from a saved model and receipts in Parquet or a table, to a folder of Parquet.

    Raises
    ------
    SettingError
        If Spark can't be used.
    DataError
        As `recommend`.
    """
    require_parquet(history)
    progress("start Spark")
    session = connect(master, settings)
    share_modules(session, modules or ())
    return recommend(
        model,
        _named(history),
        out,
        request,
        users=users,
        reading=reading,
        session=session,
        exposures=exposures,
        progress=progress,
    )


def load_on_spark(
    receipts: Path,
    reading: Reading,
    sample: int,
    master: str | None,
    settings: Path | None,
    modules: Sequence[str] | None = None,
    progress: Progress = silent,
) -> RetailData:
    """A sample of the shoppers of Parquet or a table, whose facts of items count everybody.

    What lies between stays until the program ends, in the folder that Spark's setting
    `spark.retailrec.workplace` names; on one machine a temporary one will do.

    Raises
    ------
    SettingError
        If Spark can't be used, or a cluster has no such folder.
    DataError
        If the receipts can't be read.
    """
    require_parquet(receipts)
    progress("start Spark")
    session = connect(master, settings)
    share_modules(session, modules or ())
    named = session.sparkContext.getConf().get(WORKPLACE)
    if named is None:
        if not str(session.sparkContext.master).startswith("local"):
            raise SettingError(
                f"on a cluster cleaned receipts need a folder that every machine sees; name it in the "
                f'file of --spark-settings: "{WORKPLACE}" = "hdfs://...".'
            )
        named = tempfile.mkdtemp(prefix="retailrec-")
        atexit.register(shutil.rmtree, named, ignore_errors=True)
    folder = f"{absolute(named).rstrip('/')}/{secrets.token_hex(8)}"
    given = _named(receipts)
    data = sampled_data(
        session,
        given,
        folder,
        sample=sample,
        reading=reading,
        line_rules=rules_of(reading, columns_in(session, given)),
        progress=progress,
    )
    data.report.reading = reading.kept("table")
    return data


def lists_of_all(data: RetailData) -> Everybody:
    """What `run` calls to write the lists of all shoppers: a folder of Parquet in place of a file.

    Raises
    ------
    SettingError
        If the data is no sample of a log on Spark.
    """
    whole = data.whole
    if not isinstance(whole, SparkLog):
        raise SettingError("lists_of_all needs a log on Spark; give data of load_on_spark.")

    def write(model: TwoStageRecommender, out: Path, request: Request, progress: Progress) -> Batch:
        with tempfile.TemporaryDirectory(prefix="retailrec-") as aside:
            folder = Path(aside) / "model"
            model.save(folder)
            return recommend_cleaned(whole.session, folder, whole.cleaned, out, request, progress).batch

    return write


def _named(receipts: Path) -> Path | str:
    """A name without a path's signs is a table, if there is no such file."""
    return receipts if receipts.exists() or "/" in str(receipts) else str(receipts)
