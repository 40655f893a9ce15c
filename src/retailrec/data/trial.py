"""Parquet files are looked at before they are decoded: a damaged one is a sentence and no dead process.

Polars' decoder raises an error for nearly every damaged page, but where a page's header is damaged it
may ask for more memory than there is, and that ends the process: a notebook with hours of work in it,
or a service. So the foot and the headers of all pages are read first, which is quick, and only a file
whose numbers don't add up is decoded on trial, in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

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
    """Refuse Parquet files that make the decoder die on one of these columns (None: all).

    What `adds_up` is taken for whole; the others are decoded in a process of its own, and forgotten.
    Where no other process can be started there is no trial.

    Raises
    ------
    DataError
        If that process died; with the file it was at.
    """
    files = [file for file in files if not adds_up(file)]
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


def adds_up(file: Path) -> bool:
    """Do the numbers in a Parquet file's foot and in the headers of its pages fit each other?

    Pages must fill each column chunk from its first byte to its last and hold as many values as the
    foot says, and chunks of a group of rows as many as the group where no value is a list. False, too,
    for what is no Parquet file, is encrypted, or keeps its columns in other files.
    """
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - 8, 0))
            end = stream.read(8)
            start = size - 8 - int.from_bytes(end[:4], "little")
            if end[4:] != b"PAR1" or start < 4:
                return False
            stream.seek(start)
            foot = _struct(stream.read(size - 8 - start), 0)[0]
            groups = foot.get(_GROUPS, [])
            nested = any(field.get(_REPETITION) == _REPEATED for field in foot[_SCHEMA])
            return foot[_ROWS] == sum(group[_GROUP_ROWS] for group in groups) and all(
                _pages_add_up(stream, chunk[_META], start)
                and _ELSEWHERE not in chunk
                and (nested or chunk[_META][_VALUES] == group[_GROUP_ROWS])
                for group in groups
                for chunk in group[_CHUNKS]
            )
    except (OSError, IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False  # whatever makes of it what it is not


# numbers of fields in parquet.thrift
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4  # of FileMetaData
_REPETITION, _REPEATED = 3, 2  # of SchemaElement
_CHUNKS, _GROUP_ROWS = 1, 3  # of RowGroup
_ELSEWHERE, _META = 1, 3  # of ColumnChunk
_VALUES, _UNPACKED, _PACKED, _DATA_AT, _DICTIONARY_AT = 5, 6, 7, 9, 11  # of ColumnMetaData
_KIND, _PAGE_UNPACKED, _PAGE_PACKED = 1, 2, 3  # of PageHeader
_OF_KIND = {0: 5, 2: 7, 3: 8}  # kind of page -> its own header: data, dictionary, data of version 2
_HEAD = 4096  # bytes in which a page's header usually has room


def _pages_add_up(stream: BinaryIO, chunk: dict[int, Any], limit: int) -> bool:
    at = min(place for place in (chunk[_DATA_AT], chunk.get(_DICTIONARY_AT)) if place)
    end, values, unpacked = at + chunk[_PACKED], 0, 0
    if not 4 <= at <= end <= limit:
        return False
    while at < end:
        head, length = _page_header(stream, at, end)
        own = head[_OF_KIND[head[_KIND]]]
        if min(own[1], head[_PAGE_PACKED], head[_PAGE_UNPACKED]) < 0:
            return False
        if head[_KIND] == 2:
            if own[1] > head[_PAGE_UNPACKED]:
                return False
        else:
            values += own[1]
        if head[_KIND] == 3 and (
            min(own[2], own[3], own[5], own[6]) < 0
            or own[5] + own[6] > head[_PAGE_PACKED]
            or max(own[2], own[3]) > own[1]
        ):
            return False
        at += length + head[_PAGE_PACKED]
        unpacked += length + head[_PAGE_UNPACKED]
    return bool(at == end and values == chunk[_VALUES] and unpacked <= chunk[_UNPACKED])


def _page_header(stream: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    """A page's header, and how many bytes it takes."""
    room = _HEAD
    while True:
        stream.seek(at)
        data = stream.read(min(room, end - at))
        try:
            return _struct(data, 0)
        except IndexError:
            if room >= end - at:
                raise
            room *= 8


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol: number of field -> value; and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _signed(data, at)
        fields[number], at = (kind & 15 == 1, at) if kind & 15 <= 2 else _value(data, at, kind & 15)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind in (4, 5, 6):  # integers of 16, 32 and 64 bits
        return _signed(data, at)
    if kind == 8:  # bytes
        length, at = _unsigned(data, at)
        return data[at : at + length], at + length
    if kind in (9, 10):  # a list or set
        size, of = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = _unsigned(data, at)
        values = []
        for _ in range(size):
            value, at = _value(data, at, of)
            values.append(value)
        return values, at
    if kind == 12:
        return _struct(data, at)
    if kind == 7:  # a float of 8 bytes
        return None, at + 8
    if kind in (1, 2, 3):  # a byte, or a truth value in a list
        return data[at], at + 1
    raise ValueError(f"there is no kind {kind} in a Parquet file")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return value >> 1 ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
