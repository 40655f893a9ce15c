"""What Spark says when it fails, as a sentence: who, what was expected, what came, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from retailrec import errors
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.spark.session import quiet

_OWN = re.compile(r"retailrec\.errors\.(\w+): ([^\n]+)")
_MEMORY = re.compile(
    r"MemoryError|OutOfMemoryError|exit code:? 137|SIGKILL|Python worker exited unexpectedly|"
    r"ExecutorLostFailure|MALLOC|Cannot allocate memory|can't spawn worker thread"
)
_PLACES = re.compile(
    r"PATH_NOT_FOUND|TABLE_OR_VIEW_NOT_FOUND|FileNotFoundException|NoSuchFileException|"
    r"FAILED_READ_FILE|Permission denied|AccessDeniedException|No space left|UnknownHostException|"
    r"ConnectException|Mkdirs failed|UNABLE_TO_INFER_SCHEMA|Illegal Parquet type"
)


@contextmanager
def in_words() -> Iterator[None]:
    """Spark's exceptions within become errors of the package; errors that workers raise come as such.

    Raises
    ------
    RetailRecError
        In place of what PySpark or the JVM raised.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with quiet():
            yield
    except (PySparkException, Py4JError) as error:
        raise translated(str(error)) from error


def translated(text: str) -> RetailRecError:
    """The error of the package that stands for Spark's message.

    Examples
    --------
    >>> translated("PythonException: ...\\nretailrec.errors.DataError: no line.\\n")
    DataError('no line.')
    """
    if own := _OWN.search(text):
        kind = getattr(errors, own[1], RetailRecError)
        return kind(own[2].strip()) if issubclass(kind, RetailRecError) else RetailRecError(own[2])
    if "PYTHON_VERSION_MISMATCH" in text:
        return SettingError(
            f"Spark's workers run another Python than this program: {_line(text, 'MISMATCH')}. Set "
            f"spark.pyspark.python to one of the same version, with retailrec in it."
        )
    if lacking := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text):
        return SettingError(
            f"the Python of Spark's workers lacks the package {lacking[1]}; expected what this program "
            f"has. Install retailrec[spark] on every machine, or set spark.pyspark.python."
        )
    if re.search(r"Cannot run program|CANNOT_RUN_PYTHON", text):
        return SettingError(
            f"Spark's workers can't start Python: {_line(text, 'Cannot run program')}. Set "
            f"spark.pyspark.python to a path that is there on every machine."
        )
    if found := _MEMORY.search(text):
        return SettingError(
            f"a worker of Spark ended in the middle ({_line(text, found[0])}), most likely for want of "
            f"memory. Give it more (spark.executor.memoryOverhead, which Python's share comes from), "
            f"fewer tasks at a time (spark.executor.cores), or fewer lines at a time (shard_lines)."
        )
    if "TIMESTAMP(NANOS" in text:
        return DataError(
            "the receipts hold times in nanoseconds, which Spark does not read. Write them in "
            "microseconds: with pandas to_parquet(..., coerce_timestamps='us'), with Polars "
            "cast(pl.Datetime('us'))."
        )
    if found := _PLACES.search(text):
        return DataError(
            f"Spark can't reach what it should read or write: {_line(text, found[0])}. Name a table "
            f"or a path that every machine of the cluster can open, and of Parquet."
        )
    raised = re.search(r"^[A-Za-z_][\w.]*(?:Error|Exception): [^\n]+", text, re.M)
    what = raised[0][:300].rstrip(". ") if raised else _line(text, "")
    return RetailRecError(
        f"Spark stopped: {what}. Its log says more; check the master, the settings and the receipts."
    )


def _line(text: str, word: str) -> str:
    """The line of a long message that holds `word`, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if word in line), lines[0] if lines else "nothing was said")
    return line[:300].rstrip(". ")
