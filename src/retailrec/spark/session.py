"""A Spark session that suits the package, and what Spark says when it fails, in sentences."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from retailrec import errors
from retailrec.data.paths import read_toml
from retailrec.errors import DataError, RetailRecError, SettingError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA = 17  # the oldest that Spark 4 runs on
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")
_UNITS = {"": 2**20, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_WAIT = 60  # seconds until a cluster that gives no worker is given up
_OURS: dict[str, str] = {
    "spark.ui.enabled": "false",  # no page for people is served unless it is asked for
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",  # as the local engine reads instants with a zone
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    # without a bound by bytes, for which the size of a batch is computed at each row
    "spark.sql.execution.arrow.maxBytesPerBatch": "2147483647",
    "spark.sql.files.maxPartitionBytes": "32m",  # some 5 million lines of packed receipts a task
    "spark.sql.maxConcurrentOutputFileWriters": "300",  # partitions are written without a sort
}


def connect(
    master: str | None = None, settings: Mapping[str, str] | Path | None = None, *, wait: float = _WAIT
) -> SparkSession:
    """The session that is active, or else a new one.

    Parameters
    ----------
    master : Spark's master URL, such as ``local[2]`` or ``spark://host:7077``; that of Spark's own
        configuration by default, and ``local[*]`` without one
    settings : Spark's settings, or a TOML file of them (``"spark.executor.memory" = "8g"``)
    wait : seconds for a cluster to give a first worker

    Raises
    ------
    SettingError
        If PySpark or Java is missing or too old, another session runs with another master, or no
        worker comes.
    """
    require_pyspark()
    from pyspark.sql import SparkSession

    given = _read_settings(settings) if isinstance(settings, Path) else dict(settings or {})
    active = SparkSession.getActiveSession()
    if active is not None:
        have = active.sparkContext.master
        if master is not None and master != have:
            raise SettingError(
                f"a Spark session with master {have} is running already, not {master}; stop it "
                f"(spark.stop()) or leave the master out."
            )
        return active
    require_java()
    fits_workers(master, given)
    if master is not None and master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder: Any = SparkSession.builder.appName("retailrec")
    if master is not None:
        builder = builder.master(master)
    for name, value in {**_OURS, **given}.items():
        builder = builder.config(name, value)
    with quiet():
        try:
            session: SparkSession = builder.getOrCreate()
        except Exception as error:
            raise SettingError(
                f"Spark can't be started with master {master or 'local[*]'}: "
                f"{_first_line(error)}. Check --master and --spark-settings."
            ) from error
    _await_workers(session, wait)
    return session


def require_pyspark() -> None:
    """Raise a SettingError unless PySpark 4 can be imported."""
    try:
        import pyspark
        from pyspark.version import __version__ as found
    except ImportError as error:
        raise SettingError(
            "the Spark engine needs PySpark 4, which is not installed; pip install 'retailrec[spark]'."
        ) from error
    if found.split(".")[0] != "4":
        raise SettingError(
            f"the Spark engine needs PySpark 4, found {found} in {Path(pyspark.__file__).parent}; "
            f"pip install 'retailrec[spark]'."
        )


def require_java() -> None:
    """Raise a SettingError unless a Java that Spark 4 runs on is there."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    cure = "install one (apt-get install openjdk-17-jre-headless) or set JAVA_HOME."
    if java is None or not os.access(java, os.X_OK):
        where = f"in JAVA_HOME={home}" if home else "on the PATH"
        raise SettingError(f"Spark needs Java {JAVA} or newer; there is none {where}. Please {cure}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', shown)
    if version is None or int(version[1]) < JAVA:
        found = version[0] if version else (shown.splitlines() or ["nothing"])[0]
        raise SettingError(f"Spark needs Java {JAVA} or newer; {java} says {found}. Please {cure}")


def fits_workers(master: str | None, settings: dict[str, str]) -> None:
    """Let executors fit into the workers of a ``local-cluster``, where Spark would wait for ever.

    Raises
    ------
    SettingError
        If the settings ask for more memory than its workers have.
    """
    found = _LOCAL_CLUSTER.fullmatch(master or "")
    if found is None:
        return
    megabytes = int(found[3])
    asked = settings.setdefault("spark.executor.memory", f"{megabytes}m")
    if in_bytes(asked) > megabytes * 2**20:
        raise SettingError(
            f"spark.executor.memory={asked} is more than the {megabytes} MB of a worker of {master}; "
            f"no executor could start. Ask for less, or give workers more."
        )


def in_bytes(text: str) -> int:
    """Spark's way to write sizes, in bytes; without a unit they are MiB.

    Examples
    --------
    >>> in_bytes("2g") == 2048 * in_bytes("1m") == in_bytes("2048")
    True

    Raises
    ------
    SettingError
        If it is no size.
    """
    found = re.fullmatch(r"\s*(\d+)\s*([kmgt]?)b?\s*", text.lower())
    if found is None:
        raise SettingError(f"{text!r} is no size of memory; write it as '512m' or '4g'.")
    return int(found[1]) * _UNITS[found[2]]


@contextmanager
def quiet() -> Iterator[None]:
    """PySpark says at each call that it does not know the newest pandas yet; nothing here uses it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pandas.*", category=FutureWarning)
        yield


def cores(session: SparkSession) -> int:
    """Tasks that run at a time."""
    return max(1, session.sparkContext.defaultParallelism)


def _read_settings(path: Path) -> dict[str, str]:
    flat = dict(_flat(read_toml(path, who="--spark-settings")))
    if strange := [name for name in flat if not name.startswith("spark.")]:
        raise SettingError(
            f"--spark-settings {path} has {strange[0]!r}; expected Spark's settings, such as "
            f'"spark.executor.memory" = "4g". Correct the name.'
        )
    return flat


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, str(value).lower() if isinstance(value, bool) else str(value)


def _await_workers(session: SparkSession, wait: float) -> None:
    """Raise a SettingError if a cluster gives no worker: Spark itself would wait without a word."""
    context: Any = session.sparkContext
    if context.master.startswith("local[") or context.master == "local":
        return
    until = monotonic() + wait
    while context._jsc.sc().getExecutorMemoryStatus().size() < 2:  # the driver is one of them
        if monotonic() > until:
            asked = context.getConf().get("spark.executor.memory", "1g")
            session.stop()
            raise SettingError(
                f"the cluster {context.master} gave no worker within {wait:g} seconds; expected one "
                f"with spark.executor.memory={asked} to spare. Ask for less, or free some."
            )
        sleep(0.1)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


_OWN = re.compile(r"retailrec\.errors\.(\w+): ([^\n]+)")
_MEMORY = re.compile(
    r"MemoryError|OutOfMemoryError|exit code:? 137|SIGKILL|Python worker exited unexpectedly|"
    r"ExecutorLostFailure|MALLOC|Cannot allocate memory|can't spawn worker thread|failed to map segment"
)
_LIBRARIES = 2 * 2**30  # bytes of addresses below which a worker may fail while it loads libraries
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
    from py4j.protocol import Py4JError, Py4JNetworkError
    from pyspark import SparkContext
    from pyspark.errors import PySparkException

    try:
        with quiet():
            yield
    except (PySparkException, Py4JError) as error:
        context: Any = SparkContext._active_spark_context
        gone = context is None or isinstance(error, Py4JNetworkError)  # the JVM answers no more
        limit = None if gone else context.getConf().get("spark.executor.pyspark.memory")
        raise translated(str(error), limit) from error


def translated(text: str, limit: str | None = None) -> RetailRecError:
    """The error of the package for Spark's message.

    Parameters
    ----------
    text : what Spark says
    limit : ``spark.executor.pyspark.memory``, which bounds the addresses of a worker; where it is
        small, libraries fail to load in ways that do not speak of memory

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
        return _starved(_line(text, found[0]), limit)
    if "DATA_TYPE_MISMATCH" in text and (found := re.search(r"reading file (\S+?)\.? ", text)):
        return DataError(
            f"the files differ in what a column holds: {found[1]} has one of another type than the "
            f"first file. Write them alike."
        )
    if "UNSUPPORTED_TIME_TYPE" in text or re.search(r"PARQUET_TYPE_ILLEGAL.*\(TIME\(", text):
        return DataError(
            "the receipts have a column of clocks in a type (Parquet's TIME) that this Spark does not "
            "read: of milliseconds, or Spark is older than 4.1. Write it as text, such as 17:30."
        )
    if found := _PLACES.search(text):
        return DataError(
            f"Spark can't reach what it should read or write: {_line(text, found[0])}. Name a table "
            f"or a path that every machine of the cluster can open, and of Parquet."
        )
    raised = re.search(r"^[A-Za-z_][\w.]*(?:Error|Exception): [^\n]+", text, re.M)
    what = raised[0][:300].rstrip(". ") if raised else _line(text, "")
    if limit and in_bytes(limit) < _LIBRARIES and "Python worker" in text:
        return _starved(what, limit)
    return RetailRecError(
        f"Spark stopped: {what}. Its log says more; check the master, the settings and the receipts."
    )


def _starved(what: str, limit: str | None) -> SettingError:
    more = (
        f"spark.executor.pyspark.memory, which is {limit} and bounds all that its Python may address"
        if limit
        else "spark.executor.memoryOverhead, which Python's share comes from"
    )
    return SettingError(
        f"a worker of Spark ended in the middle ({what}), most likely for want of memory. Give it more "
        f"({more}), fewer tasks at a time (spark.executor.cores), or fewer lines at a time "
        f"(shard_lines)."
    )


def _line(text: str, word: str) -> str:
    """The line of a long message that holds `word`, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if word in line), lines[0] if lines else "nothing was said")
    return line[:300].rstrip(". ")
