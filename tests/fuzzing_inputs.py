"""Receipts, cells, bytes and words that `fuzzing.py` makes its inputs of, each from a seed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

CELLS = [
    "",
    "NULL",
    "nan",
    "-1",
    "0",
    "2,50",
    "1.234,5",
    "1,234",
    "1e9",
    "inf",
    "x",
    "007",
    "7 ",
    "Möhre",
    '12"',
    '"',
    '""',
    "a\tb",
    "31/01/2024",
    "2024-13-01",
    "2034-01-01",
    "19730",
    "99999999999999999999",
    "=1+1",
    "2024-01-31T10:00:00Z",
    "'",
    "\\",
    "\u200b",
    "чай",
    "1 000",
    "$3",
]
PIECES = [
    b'"',
    b'""',
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"\xe4",
    b"\xef\xbb\xbf",
    b"\t",
    b" ",
    b"\\",
]


def table(rng: np.random.Generator) -> pl.DataFrame:
    """Some receipts, all of them right."""
    n = int(rng.integers(3, 30))
    start = datetime(2024, 1, 1)
    return pl.DataFrame(
        {
            "user_id": [int(u) for u in rng.integers(0, 6, n)],
            "item_id": [f"i{i}" for i in rng.integers(0, 8, n)],
            "time": [(start + timedelta(hours=int(h))).isoformat(" ") for h in rng.integers(0, 900, n)],
            "quantity": [int(q) for q in rng.integers(1, 4, n)],
            "value": [round(float(v), 2) for v in rng.random(n) * 9 + 0.1],
            "descr": [str(rng.choice(["TEA", "RYE, DARK", 'PAN 12"', "", "чай"])) for _ in range(n)],
        }
    )


def with_cells(frame: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The table as text, a few cells changed, a column renamed now and then."""
    frame = frame.cast(pl.String)
    for _ in range(int(rng.integers(0, 4)) if frame.height else 0):
        name, row = str(rng.choice(frame.columns)), int(rng.integers(frame.height))
        cells = frame[name].to_list()
        cells[row] = str(rng.choice(CELLS))
        frame = frame.with_columns(pl.Series(name, cells, pl.String))
    if rng.random() < 0.1:
        frame = frame.rename(
            {"descr": str(rng.choice(["line", "reason", "user", " value ", "row", ""]))}
        )
    return frame


def damage(path: Path, rng: np.random.Generator) -> None:
    """Some bytes changed, or the end cut off."""
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 5))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    path.write_bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.3 else data)


WORDS = [
    "nan",
    "-1",
    "1e400",
    '"x"',
    "true",
    "[]",
    "{}",
    "[[1]]",
    "9" * 30,
    "null",
    "[" * 200,
    "=",
    "\n",
    '"',
    "#",
    "\u0000",
]


def words(text: str, rng: np.random.Generator) -> bytes:
    """The text with values replaced and bytes changed."""
    parts = text.split(" ")
    for _ in range(int(rng.integers(1, 3))):
        parts[int(rng.integers(len(parts)))] = str(rng.choice(WORDS))
    data = bytearray(" ".join(parts).encode())
    if rng.random() < 0.3:
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(data)


def change_word(file: Path, rng: np.random.Generator) -> None:
    """Four bytes of a file, which may be a place, replaced by what is often too much."""
    data = bytearray(file.read_bytes())
    if len(data) > 8:
        at = int(rng.integers(len(data) - 4))
        new = [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"9999", b"-1 -", b" nan"]
        data[at : at + 4] = new[int(rng.integers(len(new)))]
        file.write_bytes(data)
