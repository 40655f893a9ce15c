"""What jobs write: aside first, put in place when all is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

from retailrec.compute.progress import Progress, silent
from retailrec.data.files import clear_partials
from retailrec.errors import DataError, RetailRecError


@dataclass
class Timer:
    """Seconds of each step of a job."""

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        self.progress(name)
        started = perf_counter()
        yield
        self.seconds[name] = round(perf_counter() - started, 3)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside the results; its files move into `out` only if nothing fails.

    Raises
    ------
    DataError
        If `out` can't be written to.
    """
    out = Path(out)
    made = not out.exists()
    staging: Path | None = None
    try:
        if out.is_file():
            raise DataError(f"--out {out} is a file; name a folder.")
        out.mkdir(parents=True, exist_ok=True)
        clear_partials(out)
        staging = Path(mkdtemp(prefix=f".partial-{os.getpid()}-", dir=out))
        yield staging
        for file in sorted(staging.iterdir()):
            target = out / file.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(file, target)
    except BaseException as error:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, RetailRecError):
            raise DataError(f"results can't be written to {out}: {error}.") from error
        raise
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with a line end; NaN is refused, what JSON does not know becomes text."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")
