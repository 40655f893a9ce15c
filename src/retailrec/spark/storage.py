"""Files and folders where Spark reads and writes: a local disk, HDFS, an object store."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retailrec.errors import DataError
from retailrec.work import LocalStorage, Storage, fingerprint

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


def absolute(path: str | Path) -> str:
    """A path with its scheme: workers stand in other folders, so none may be relative.

    Examples
    --------
    >>> absolute("/data/a b.parquet"), absolute("hdfs://name/data")
    ('file:///data/a b.parquet', 'hdfs://name/data')
    """
    text = str(path)
    return text if _SCHEME.match(text) else "file://" + str(Path(text).expanduser().absolute())


def local_path(path: str) -> Path | None:
    """The path on this machine's disk; None where it lies elsewhere."""
    return Path(re.sub(r"^file:/+", "/", path)) if path.startswith("file:/") else None


def escaped(path: str) -> str:
    """A path in which no sign stands for others."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)


class HadoopStorage(Storage):
    """Hadoop's view of the file system that a path lies in."""

    def __init__(self, session: SparkSession, path: str) -> None:
        self._jvm: Any = session._jvm
        java: Any = session._jsparkSession
        self._configuration = java.sessionState().newHadoopConf()
        self._system = self._path(path).getFileSystem(self._configuration)

    def _path(self, path: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(path)

    def exists(self, path: str) -> bool:
        return bool(self._system.exists(self._path(path)))

    def is_folder(self, path: str) -> bool:
        """Is there a folder?"""
        return self.exists(path) and bool(self._system.getFileStatus(self._path(path)).isDirectory())

    def files(self, folder: str) -> list[str]:
        found = self._system.listStatus(self._path(folder)) if self.exists(folder) else ()
        return sorted(status.getPath().getName() for status in found)

    def described(self, path: str) -> tuple[int, int]:
        """Bytes of a file, and when it was written (milliseconds)."""
        status = self._system.getFileStatus(self._path(path))
        return int(status.getLen()), int(status.getModificationTime())

    def make_folder(self, path: str) -> None:
        self._system.mkdirs(self._path(path))

    def remove(self, path: str) -> None:
        self._system.delete(self._path(path), True)

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name, in one step where the system can.

        Raises
        ------
        DataError
            If it can't be done.
        """
        if not self._system.rename(self._path(source), self._path(target)):
            raise DataError(
                f"{source} can't be renamed to {target}; expected a place that may be written to. "
                f"Check rights and whether something stands there."
            )

    def read_text(self, path: str) -> str:
        stream = self._system.open(self._path(path))
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def write_text(self, text: str, path: str) -> None:
        partial = path.rpartition("/")[0] + "/_partial-" + path.rpartition("/")[2]
        stream = self._system.create(self._path(partial), True)
        try:
            self._jvm.org.apache.commons.io.IOUtils.write(text, stream, "UTF-8")
        finally:
            stream.close()
        self.remove(path)
        self.rename(partial, path)

    def digest(self, path: str) -> str:
        """Hex digits of a file's size and time, or of those of all files below a folder."""
        if not self.is_folder(path):
            return fingerprint(self.described(path))
        return fingerprint([[name, self.digest(f"{path}/{name}")] for name in self.files(path)])

    def hold(self, folder: str) -> AbstractContextManager[None]:
        """As on a disk of this machine; elsewhere no process is kept off."""
        if (here := local_path(folder)) is not None:
            return LocalStorage().hold(str(here))
        self.make_folder(folder)
        return nullcontext()
