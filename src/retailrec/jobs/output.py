"""What jobs write: aside first, put in place when all is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from retailrec.compute.memory import release_memory
from retailrec.compute.progress import Progress, silent
from retailrec.data.locks import locked
from retailrec.data.writing import folder_aside
from retailrec.errors import DataError
from retailrec.jobs.targets import check_target, replace_results


@dataclass
class Timer:
    """Seconds of each step of a job."""

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside, and give back the memory that it let go."""
        self.progress(name)
        started = perf_counter()
        yield
        release_memory()
        self.seconds[name] = round(perf_counter() - started, 3)


@contextmanager
def staged(out: Path, names: Iterable[str] = ()) -> Iterator[Path]:
    """A folder aside; its entries take the place of `names` in `out` only if nothing fails.

    A process that is killed leaves the results of before or the new ones. `out` is held meanwhile: a
    second process is refused.

    Raises
    ------
    DataError
        If `out` can't be written to, holds one of `names` that is not ours, or is being written to.
    """
    out, names = Path(out), tuple(names)
    check_target(out, names)
    made = not out.exists()
    try:
        with locked(out):
            made = made or not any(out.iterdir())
            same_disk = out.stat().st_dev == out.parent.stat().st_dev
            place = out.parent if same_disk and os.access(out.parent, os.W_OK) else out
            try:
                with folder_aside(place) as staging:
                    yield staging
                    replace_results(staging, out, names)
            except BaseException:
                if made and not any(out.iterdir()):
                    shutil.rmtree(out, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(f"results can't be written to {out}: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with a line end; NaN is refused, what JSON does not know becomes text."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")
