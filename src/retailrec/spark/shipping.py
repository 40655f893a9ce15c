"""Files for all machines: a folder as one archive, unpacked once on each."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MODULES = "RETAILREC_MODULES"  # in a worker's environment: modules to import, commas between


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


def share_modules(session: SparkSession, names: Sequence[str]) -> None:
    """Let workers import modules of one's own, which this process has imported, before any work.

    A module that lies on disk travels with its package; workers that have it keep their own.
    """
    if not names:
        return
    context: Any = session.sparkContext
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        module = importlib.import_module(name)
        folders = [Path(p) for p in getattr(module, "__path__", ())]
        file = getattr(module, "__file__", None)
        if folders:
            packed = lasting_folder() / f"{name}.zip"
            with zipfile.ZipFile(packed, "w") as archive:
                for source in (p for folder in folders for p in sorted(folder.rglob("*.py"))):
                    archive.write(source, source.relative_to(folders[0].parent).as_posix())
            context.addPyFile(str(packed))
        elif file is not None:
            context.addPyFile(file)
    context.environment[MODULES] = ",".join(names)


def import_shared() -> None:
    """Import, in a worker, the modules that `share_modules` named."""
    for name in filter(None, os.environ.get(MODULES, "").split(",")):
        importlib.import_module(name)


def lasting_folder() -> Path:
    """A new folder of this machine that goes when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="retailrec-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
