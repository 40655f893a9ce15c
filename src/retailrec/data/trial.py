"""Read Parquet files in another process first: what makes the decoder die then kills that one only."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from retailrec.errors import DataError

# Names come over standard input, so nothing of them is code. A line before each file says how far it
# got. An error that is raised is none here: the reading that follows raises it again, and words it.
_PROGRAM = """
import json, sys
import polars as pl
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass
files, columns = json.load(sys.stdin)
for number, file in enumerate(files):
    print(number, flush=True)
    try:
        lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        if columns is not None:
            names = lazy.collect_schema().names()
            lazy = lazy.select([c for c in names if c.lower() in columns] or names[:1])
        for part in lazy.collect_batches(chunk_size=250_000, maintain_order=False):
            del part
    except BaseException:
        pass
print("done", flush=True)
"""


def try_parquet(files: Sequence[Path], columns: Sequence[str] | None) -> None:
    """Decode these columns (None: all) of Parquet files in a process of its own, and forget them.

    Polars' decoder raises an error for nearly every damaged page, but for some it asks for more memory
    than there is, and ends the process: a notebook with hours of work in it, or a service. Where no
    other process can be started there is no trial.

    Raises
    ------
    DataError
        If that process died; with the file it was at.
    """
    if not files or not sys.executable:
        return
    wanted = None if columns is None else [c.lower() for c in columns]
    asked = json.dumps([[str(file) for file in files], wanted])
    try:
        told = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM],
            input=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except OSError:  # no right to start one, or too many of them
        return
    said = told.stdout.split()
    if told.returncode == 0 or not said or not said[-1].isdecimal():  # whole, or it never was at a file
        return
    raise DataError(
        f"{files[int(said[-1])]} is damaged, or larger than memory: a process that decoded it on trial "
        f"was ended by {_cause(told.returncode)}. Fetch or export it again."
    )


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
