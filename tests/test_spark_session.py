"""Without Java, with another Spark, with too little memory: a sentence, and no hanging."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import spark_support
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.spark.session import (
    _read_settings,
    fits_workers,
    require_java,
    require_pyspark,
    translated,
)


def test_no_java_or_an_old_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="needs Java 17 or newer; there is none on the PATH"):
        require_java()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SettingError, match=r'java says version "1\.8.*install one'):
        require_java()


def test_no_pyspark_or_another_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(SettingError, match=r"needs PySpark 4.*pip install 'retailrec\[spark\]'"):
        require_pyspark()
    monkeypatch.undo()
    spark_support.require_spark()
    monkeypatch.setattr("pyspark.version.__version__", "3.5.9")
    with pytest.raises(SettingError, match=r"needs PySpark 4, found 3\.5\.9"):
        require_pyspark()


def test_executors_fit_the_workers_of_a_local_cluster() -> None:
    settings: dict[str, str] = {}
    fits_workers("local-cluster[2,1,1024]", settings)
    assert settings == {"spark.executor.memory": "1024m"}
    with pytest.raises(SettingError, match="more than the 512 MB of a worker"):
        fits_workers("local-cluster[2,1,512]", {"spark.executor.memory": "1g"})
    fits_workers("local[2]", settings := {})
    assert settings == {}


def test_a_file_of_settings_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "spark.toml"
    file.write_text('"spark.executor.memory" = "4g"\n[spark.sql]\nadaptive.enabled = true\n')
    assert _read_settings(file) == {
        "spark.executor.memory": "4g",
        "spark.sql.adaptive.enabled": "true",
    }
    file.write_text("memory = 4\n")
    with pytest.raises(SettingError, match=r"has 'memory'; expected Spark's settings"):
        _read_settings(file)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("x\nretailrec.errors.ArtifactError: cut short.\n at", "ArtifactError", "^cut short"),
        ("[PYTHON_VERSION_MISMATCH] Python in worker has 3.9", "SettingError", "another Python"),
        (
            "ModuleNotFoundError: No module named 'retailrec'",
            "SettingError",
            "lacks the package retailrec",
        ),
        ('Cannot run program "python9": error=2', "SettingError", "can't start Python"),
        ("Python worker exited unexpectedly (crashed)", "SettingError", "want of memory"),
        ("java.lang.OutOfMemoryError: Java heap space", "SettingError", "want of memory"),
        (
            "Python worker:\nImportError: libgfortran.so: failed to map segment from shared object",
            "SettingError",
            "failed to map segment.* most likely for want of memory",
        ),
        ("[PATH_NOT_FOUND] Path does not exist: file:/x", "DataError", "can't reach"),
        ("java.io.IOException: No space left on device", "DataError", "can't reach"),
        (
            "[PARQUET_TYPE_ILLEGAL] Illegal Parquet type: INT32 (TIME(MILLIS,false)).",
            "DataError",
            "a column of clocks .* such as 17:30",
        ),
        (
            "An exception was thrown from the Python worker:\nTraceback\n  File\nValueError: shapes (1,)",
            "RetailRecError",
            r"Spark stopped: ValueError: shapes \(1,\)",
        ),
        ("something new", "RetailRecError", "Spark stopped: something new"),
    ],
)
def test_what_spark_says_becomes_a_sentence(text: str, kind: str, said: str) -> None:
    found = translated(text)
    assert type(found).__name__ == kind
    with pytest.raises(RetailRecError, match=said):
        raise found
    assert kind != "DataError" or isinstance(found, DataError)


def test_a_library_that_fails_under_a_small_limit_of_memory_lacks_it() -> None:
    """Each fails in its own way, and most say nothing of memory."""
    text = "An exception was thrown from the Python worker:\nOSError: Could not find 'libllvmlite.so'"
    said = r"OSError: .*libllvmlite.*want of memory.*spark\.executor\.pyspark\.memory, which is 700m"
    with pytest.raises(SettingError, match=said):
        raise translated(text, "700m")
    for limit in (None, "8g"):
        assert not isinstance(translated(text, limit), SettingError)
