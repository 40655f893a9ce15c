"""A Spark session that suits the package, or a sentence that says what is missing."""

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

from retailrec.data.toml_files import read_toml
from retailrec.errors import SettingError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA = 17  # the oldest that Spark 4 runs on
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")
_UNITS = {"": 2**20, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_WAIT = 60  # seconds until a cluster that gives no worker is given up
_OURS: dict[str, str] = {
    "spark.ui.enabled": "false",  # nothing listens that nobody asked for
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",  # as the local engine reads instants with a zone
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    # without a bound by bytes, for which the size of a batch is computed anew at each row
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

    wanted = _read_settings(settings) if isinstance(settings, Path) else dict(settings or {})
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
    fits_workers(master, wanted)
    if master is not None and master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder: Any = SparkSession.builder.appName("retailrec")
    if master is not None:
        builder = builder.master(master)
    for name, value in {**_OURS, **wanted}.items():
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
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', told)
    if version is None or int(version[1]) < JAVA:
        shown = version[0] if version else (told.splitlines() or ["nothing"])[0]
        raise SettingError(f"Spark needs Java {JAVA} or newer; {java} says {shown}. Please {cure}")


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
    told = read_toml(path, who="--spark-settings")
    flat = dict(_flat(told))
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
