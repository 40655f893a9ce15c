"""Recommendations for everybody, block by block, to a file: bounded memory, resumable, never half.

Each block of shoppers becomes a part beside the file; the parts become the file in one step when all
are there. A rerun with the same model, data and wishes takes over the parts it finds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.artifact import versions
from retailrec.data import Histories, RetailData
from retailrec.errors import DataError
from retailrec.rules import Rules
from retailrec.tables import whole_file, write_frame, write_text
from retailrec.two_stage import TwoStageRecommender

BLOCK_USERS, BLOCK_LINES = 16_384, 2_000_000  # a block ends where either is reached
_PLAN = "plan.json"
Effects = dict[str, dict[str, int]]


class Batch(NamedTuple):
    """What `recommend_to_file` did.

    Attributes
    ----------
    n_users, n_rows : shoppers asked for, recommendations written
    effects : rule -> how often it removed, bound and gave way
    n_taken_over : blocks that an earlier, interrupted call had finished
    """

    n_users: int
    n_rows: int
    effects: Effects
    n_taken_over: int


def recommend_to_file(
    model: TwoStageRecommender, data: RetailData, out: Path, k: int = 10, *,
    users: NDArray[np.integer] | None = None, rules: Rules | None = None, reasons: bool = False,
    key: str | None = None, progress: Callable[[str], None] = lambda step: None,
    block_lines: int = BLOCK_LINES,
) -> Batch:  # fmt: skip
    """Write `model.recommend` (with `reasons`, `model.explain`) of many shoppers to `out`.

    Parameters
    ----------
    data : receipts in the model's item codes (`model.coded`)
    out : ends in .parquet or .csv
    users : codes in `data` of the shoppers to answer for; all of them by default
    key : stands for the model, such as `artifact_key`; without it nothing is taken over
    block_lines : receipt lines after which a block ends, which bounds memory

    Raises
    ------
    DataError
        If the file can't be written, or there is nobody to answer for.
    """
    chosen = np.arange(data.n_users) if users is None else np.asarray(users, np.int64)
    if out.suffix not in (".parquet", ".csv"):
        raise DataError(f"{out} must end in .parquet or .csv.")
    if not len(chosen):
        raise DataError("there is no shopper to recommend for; give receipts or a file of users.")
    parts = out.with_name(f".{out.name}.parts")
    try:
        wishes = [chosen.tolist(), k, _described(rules), reasons, block_lines, versions()]
        _prepare(parts, None if key is None else [key, data.fingerprint(), *wishes])
        files, taken_over, done = [], 0, 0
        for number, block in enumerate(blocks(data, chosen, block_lines)):
            file = parts / f"part-{number:06d}.parquet"
            files.append(file)
            if file.is_file():
                taken_over += 1
            else:
                _write_block(model, data.histories(block), file, k, rules, reasons)
            done += len(block)
            progress(f"recommend {done:,} of {len(chosen):,} shoppers")
        found = _combine(files, out)
        shutil.rmtree(parts)
    except OSError as error:
        raise DataError(f"{out} can't be written: {error}. Finished parts stay in {parts}.") from error
    return Batch(len(chosen), *found, taken_over)


def blocks(
    data: RetailData, users: NDArray[np.integer], block_lines: int = BLOCK_LINES
) -> Iterator[NDArray[np.integer]]:
    """Consecutive shoppers, cut where a block has `BLOCK_USERS` of them or `block_lines` lines."""
    lines = np.bincount(data.log["user"].to_numpy(), minlength=data.n_users)[users]
    start, size = 0, 0
    for at in range(len(users)):
        if at > start and (at - start == BLOCK_USERS or size + lines[at] > block_lines):
            yield users[start:at]
            start, size = at, 0
        size += int(lines[at])
    yield users[start:]


def artifact_key(folder: Path) -> str:
    """Hex digits that stand for a saved model."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def _described(rules: Rules | None) -> list[str]:
    """Every setting of the rules, lists of items and shoppers as a hash of all their rows."""
    values = [] if rules is None else [getattr(rules, f.name) for f in fields(rules)]
    frames = [v.hash_rows(seed=0).sum() if isinstance(v, pl.DataFrame) else v for v in values]
    return [repr(v) for v in frames]


def _prepare(parts: Path, plan: Sequence[object] | None) -> None:
    """A folder for the parts; what another plan left there is removed."""
    text = None if plan is None else hashlib.sha256(json.dumps(plan).encode()).hexdigest()
    if parts.is_dir():
        kept = (parts / _PLAN).read_text() if (parts / _PLAN).is_file() else None
        if text is not None and kept == text:
            return
        shutil.rmtree(parts)
    parts.mkdir(parents=True)
    write_text(text or "", parts / _PLAN)


def _write_block(
    model: TwoStageRecommender,
    history: Histories,
    file: Path,
    k: int,
    rules: Rules | None,
    reasons: bool,
) -> None:
    answer = model.explain if reasons else model.recommend
    frame = answer(history, k, rules)
    write_text(json.dumps(model.rules_report), file.with_suffix(".json"))
    write_frame(frame, file)  # comes last: a block is finished when it is there


def _combine(files: list[Path], out: Path) -> tuple[int, Effects]:
    """All parts below each other, in one step; number of rows, and effects of rules added up."""
    effects: Effects = {}
    for file in files:
        for rule, did in json.loads(file.with_suffix(".json").read_text()).items():
            total = effects.setdefault(rule, dict.fromkeys(did, 0))
            for name, n in did.items():
                total[name] += n
    with whole_file(out) as partial:
        lazy = pl.scan_parquet(files)
        (lazy.sink_parquet if out.suffix == ".parquet" else lazy.sink_csv)(partial)
    n_rows = int(pl.scan_parquet(files).select(pl.len()).collect().item())
    return n_rows, effects
