"""Files for all machines: a folder as one archive, unpacked once on each."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def ship(session: SparkSession, folder: Path, name: str) -> None:
    """Put a folder's files on every machine under this name, once a session."""
    context: Any = session.sparkContext
    if any(name in str(place) for place in context.listArchives):
        return
    # machines that join later fetch it too, so it stays for as long as the program
    packed = lasting_folder() / f"{name}.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    context.addArchive(f"{packed}#{name}")


def shipped(name: str) -> Path:
    """Where a worker finds them."""
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


def lasting_folder() -> Path:
    """A new folder of this machine that goes when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="retailrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
