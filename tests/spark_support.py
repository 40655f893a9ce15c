"""One Spark session for all tests, and small things to ask of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# a young JVM: most of a short test is its start
_YOUNG = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
SETTINGS = {
    "spark.sql.shuffle.partitions": "3",
    "spark.driver.extraJavaOptions": _YOUNG,
    "spark.executor.extraJavaOptions": _YOUNG,
    "spark.driver.memory": "1g",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "500",  # so that shoppers cross batches
}


def require_spark() -> None:
    """Skip where Spark can't run."""
    pytest.importorskip("pyspark", reason="needs PySpark: pip install 'retailrec[spark]'")
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        pytest.skip("needs Java 17 or newer for Spark; .ci/run installs it from Debian")


@contextmanager
def spark(master: str, **more: str) -> Iterator[Any]:
    """A session of its own."""
    require_spark()
    from retailrec.spark import connect

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = connect(master, {**SETTINGS, **more})
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()
