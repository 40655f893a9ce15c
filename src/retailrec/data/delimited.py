"""Delimited text (CSV, TSV): encoding, separator, quotation marks and lines, before anything is read.

A library that reads columns does not see what stands in columns that it skips, and says nothing about
a mark that swallows half of a file. So every byte is looked at once here: lines and fields are counted
by a reader of its own, faults are named by line number, and whoever reads the columns afterwards must
arrive at the same number of lines.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from retailrec.compute.csr import jit
from retailrec.errors import DataError, SettingError

_COUNTS = (
    *("mode", "fields", "line", "records", "width", "long_line", "plain_mark", "quoted"),
    *("broken_mark", "opened", "blank", "blank_at_end", "nul_line", "lone_return", "after_return"),
    *("extra_filled", "padded", "separators", "alike", "spans", "swallowed", "began", "touched"),
)  # what the scan of the bytes finds; lines are counted from 1, 0 is none
_SEEN = np.dtype([(name, np.int64) for name in _COUNTS])


@jit
def scan_delimited(block: Any, separator: int, state: Any) -> None:
    """Go over a block of delimited text and count lines, fields and what is odd about marks.

    `state` is one record of `_SEEN`, carried from block to block.
    Modes: 0 a field may begin, 1 within a plain field, 2 within a quoted one, 3 after its second mark.
    """
    seen = state[0]
    mode, fields, line, width = seen.mode, seen.fields, seen.line, seen.width  # what each byte asks for
    separators, touched = seen.separators, seen.touched
    after_return, extra_filled = seen.after_return, seen.extra_filled
    for at in range(len(block)):
        byte = block[at]
        if after_return:
            after_return = 0
            if byte != 10:  # a return that ends no line as Windows writes it
                if seen.lone_return == 0:
                    seen.lone_return = line
                if mode == 0:
                    mode = 1
        if byte == 0 and seen.nul_line == 0:
            seen.nul_line = line
        if byte == 34:
            touched = 1
            if fields >= width > 0:
                extra_filled = 1
            if mode == 0:
                mode, seen.opened = 2, line
                seen.quoted += 1
            elif mode == 1:
                if seen.plain_mark == 0:
                    seen.plain_mark = line
            elif mode == 2:
                mode = 3
            else:
                mode = 2
        elif byte == separator:
            touched = 1
            separators += 1
            if mode != 2:
                fields += 1
                mode = 0
        elif byte == 10:
            if mode == 2:  # the field goes on in the next line
                seen.spans += 1
                if separators != width - 1:
                    seen.alike = 0
            elif touched == 0:
                seen.blank += 1
                seen.blank_at_end += 1
                seen.began = line + 1
            else:
                fields += 1
                seen.records += 1
                seen.blank_at_end = 0
                if width == 0:
                    width = fields
                elif fields > width:
                    if extra_filled:
                        if seen.long_line == 0:
                            seen.long_line = seen.began
                    else:
                        seen.padded += 1
                if seen.spans and seen.alike and separators == width - 1 and seen.swallowed == 0:
                    seen.swallowed = seen.opened
                mode, fields, touched, extra_filled = 0, 0, 0, 0
                seen.spans, seen.alike = 0, 1
                seen.began = line + 1
            separators = 0
            line += 1
        elif byte == 13 and mode != 2:
            after_return = 1
        else:
            touched = 1
            if fields >= width > 0:
                extra_filled = 1
            if mode == 0:
                mode = 1
            elif mode == 3:
                if seen.broken_mark == 0:
                    seen.broken_mark = seen.opened
                mode = 1
    seen.mode, seen.fields, seen.line, seen.width = mode, fields, line, width
    seen.separators, seen.touched = separators, touched
    seen.after_return, seen.extra_filled = after_return, extra_filled


SEPARATORS = ",;\t|"
_BLOCK = 1 << 24
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = {
    b"\x1f\x8b": "a gzip file; give its name the ending .gz",
    b"PK\x03\x04": "a zip file or workbook; unpack it, or give its name the ending .xlsx",
    b"PAR1": "a Parquet file; give its name the ending .parquet",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; unpack it",
    b"BZh": "a bzip2 file; unpack it",
    b"\xfd7zXZ": "an xz file; unpack it",
    b"%PDF": "a PDF; export its table as CSV",
    b"\x89PNG": "a picture; export the table that it shows as CSV",
    b"\xd0\xcf\x11\xe0": "an old workbook (.xls); save it as .xlsx or CSV",
}  # what a name may hide, by the first bytes
_ONE_BYTE = ("cp125", "iso8859", "koi8", "mac", "latin")  # encodings with a byte a letter
_SEP = re.compile(rb"(\xef\xbb\xbf)?\"?sep=[^\r\n]\"?\r?\n", re.IGNORECASE)
_LIKELY = ("cp1252", "cp1250", "cp1251")  # what files that are not UTF-8 are most often written in


@dataclass(frozen=True)
class DelimitedFile:
    """A text file that has been looked through.

    Attributes
    ----------
    source : the file, or its content as UTF-8 where it had to be unpacked, decoded or mended
    separator, quoted : between fields; do marks surround fields?
    names : of the columns
    rows : lines below the header
    regular : is each row one line of the file, without blank ones between?
    """

    source: Path | bytes
    separator: str
    quoted: bool
    names: list[str]
    rows: int
    regular: bool


def open_delimited(file: Path, encoding: str | None = None) -> DelimitedFile:
    """Look through a text file: what it is written in, how many lines it has, which one is at fault.

    Text is UTF-8, what its byte order mark says, or the stated `encoding`. A mark within a plain field
    (``PAN 12" STEEL``) is a letter like others, as for pandas, DuckDB and Python's csv module.

    Raises
    ------
    DataError
        If the file is empty or not in that encoding, a quoted field does not end as it should or runs
        over lines of the table, a line has more fields than the header, or two columns share a name.
    SettingError
        If there is no such encoding.
    """
    source = _source(file, encoding)
    header = _header_text(source)
    separator = _separator(header)
    names = _names(file, header, separator)
    counts = _counted(file, source, separator, encoding)
    if counts.lone_return and counts.line == 1:  # returns alone end the lines
        with _opened(source) as stream:
            source = stream.read().replace(b"\r", b"\n")
        counts = _counted(file, source, separator, encoding)
    _refuse(file, counts, names)
    mixed = counts.plain_mark and counts.quoted  # no setting of a library reads both
    inside = counts.blank - counts.blank_at_end
    n_lines = counts.line - (not counts.touched)
    regular = counts.records + counts.blank_at_end == n_lines
    if mixed or inside or counts.padded:
        content, rows = _rewritten(file, source, separator, names)
        return DelimitedFile(content, separator, True, names, rows, regular)
    return DelimitedFile(source, separator, bool(counts.quoted), names, counts.records - 1, regular)


def line_of_rows(file: Path, encoding: str | None = None) -> list[int]:
    """The line of the file, counted from 1, in which each row below the header begins.

    For files that are not `regular`; others need not be read again.
    """
    source = _source(file, encoding)
    separator = _separator(_header_text(source))
    begins, before = [], 0
    with _text(source) as text:
        reader = csv.reader(text, delimiter=separator)
        for row in reader:
            if row:
                begins.append(before + 1)
            before = reader.line_num
    return begins[1:]


def _source(file: Path, encoding: str | None) -> Path | bytes:
    """The file or its content as UTF-8; a first line ``sep=;``, meant for spreadsheets, is blank."""
    source = _as_utf8(file, encoding)
    with _opened(source) as stream:
        if _SEP.fullmatch(stream.readline(20)):
            return b"\n" + stream.read()
    return source


def _as_utf8(file: Path, encoding: str | None) -> Path | bytes:
    """The file itself if it is UTF-8 as it lies, else its content."""
    packed = file.name.lower().endswith(".gz")
    if encoding is not None:
        try:
            known = codecs.lookup(encoding)
            "".encode(encoding)
        except (LookupError, ValueError) as error:
            raise SettingError(
                f"encoding {encoding!r} is not known; expected a name such as utf-8, cp1252, "
                "cp1251 or utf-16."
            ) from error
    with _raw(file) as stream:
        start = stream.read(6)
        for mark, kind in _OTHERS.items():
            if start.startswith(mark):
                raise DataError(f"{file} holds no text: it is {kind}.")
        found = next((name for mark, name in _BOMS if start.startswith(mark)), None)
        if found not in (None, "utf-8-sig"):
            known = codecs.lookup(str(found))
        elif encoding is None or found or known.name == "utf-8":
            return start + stream.read() if packed else file
        content = start + stream.read()
    _refuse_if_utf8(file, content, known.name)
    try:
        return content.decode(known.name).encode()
    except (UnicodeError, LookupError) as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{file} is not written in {known.name}: line {line:,} can't be "
            f"read ({getattr(error, 'reason', error)}). State the encoding that it was exported in."
        ) from error


def _refuse_if_utf8(file: Path, content: bytes, encoding: str) -> None:
    """Raise if text said to be of one byte a letter is UTF-8: other text hardly ever happens to be."""
    if not encoding.startswith(_ONE_BYTE) or content.isascii():
        return
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    raise DataError(
        f"{file} is written in UTF-8 and would be garbled as {encoding}; leave the encoding out."
    )


def _raw(file: Path) -> Any:
    return gzip.open(file, "rb") if file.name.lower().endswith(".gz") else open(file, "rb")


def _opened(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _blocks(source: Path | bytes) -> Iterator[bytes]:
    """The content in pieces, without the byte order mark."""
    with _opened(source) as stream:
        first = stream.read(_BLOCK)
        yield first.removeprefix(codecs.BOM_UTF8)
        while block := stream.read(_BLOCK):
            yield block


def _header_text(source: Path | bytes) -> str:
    with _opened(source) as stream:
        start = stream.read(1 << 20).removeprefix(codecs.BOM_UTF8)
    return start.decode("utf-8", errors="replace")


def _separator(text: str) -> str:
    """The separator that the header line holds most of, outside of marks; a comma when in doubt."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    bare = "".join(line.split('"')[::2])
    return max(SEPARATORS, key=lambda s: (bare.count(s), s == ","))


def _names(file: Path, text: str, separator: str) -> list[str]:
    """Names of the columns, without blanks around them; those that lack one get one.

    A name that stands twice is refused.
    """
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        header = next((row for row in rows if row), [])
    except csv.Error as error:
        raise DataError(
            f"{file}: the header can't be read ({error}); export the file again."
        ) from error
    if not header:
        raise DataError(f"{file} is empty; expected a header and lines below it. Export it again.")
    number = count(1)
    names = [name.strip() or f"unnamed_{next(number)}" for name in header]
    if doubled := sorted({n for n in names if names.count(n) > 1}):
        raise DataError(
            f"{file} has two columns called {doubled[0]!r}, so it can't be told which one is meant; "
            f"rename one of them."
        )
    return names


def _counted(file: Path, source: Path | bytes, separator: str, encoding: str | None) -> Any:
    """One pass over all bytes: lines, fields, marks, and whether it is UTF-8."""
    state = np.zeros(1, _SEEN).view(np.recarray)
    counts = state[0]
    counts.line = counts.began = counts.alike = 1
    decoder = codecs.getincrementaldecoder("utf-8")()
    for block in _blocks(source):
        before, pending = int(counts.line), len(decoder.getstate()[0])
        scan_delimited(np.frombuffer(block, np.uint8), ord(separator), state)
        if not block.isascii() or pending:
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                at = max(error.start - pending, 0)
                _refuse_encoding(file, block, at, before + block.count(b"\n", 0, at), encoding)
    if counts.mode == 2:
        counts.broken_mark = counts.broken_mark or counts.opened
    if len(decoder.getstate()[0]):
        raise DataError(f"{file} ends within a letter; it was cut short. Export it again.")
    return _finished(file, counts)


def _finished(file: Path, counts: Any) -> Any:
    """The counts with the last line, where nothing ends it."""
    if not counts.touched:
        return counts
    fields = counts.fields + 1
    counts.records += 1
    counts.width = counts.width or fields
    counts.blank_at_end = 0
    if fields > counts.width and counts.extra_filled:
        counts.long_line = counts.long_line or counts.began
    if fields < counts.width and not counts.broken_mark and not counts.nul_line:
        raise DataError(
            f"{file}: the last line ({counts.began:,}) ends after {fields} of {counts.width} "
            "fields; the file was cut short. Fetch or export it again."
        )
    if counts.spans and counts.alike and counts.separators == counts.width - 1:
        counts.swallowed = counts.swallowed or counts.opened
    return counts


def _refuse_encoding(file: Path, block: bytes, at: int, line: int, encoding: str | None) -> None:
    """Say which line is not UTF-8, and how it reads in the encodings that are likely."""
    if zeros := block.count(0):
        name = "utf-16-le" if 2 * block[1::2].count(0) > zeros else "utf-16-be"
        raise DataError(
            f"{file}: line {line:,} is not {encoding or 'UTF-8'} and has zero bytes; it may be UTF-16 "
            f"without its mark (--encoding {name}) or damaged. State its encoding, or export it again."
        )
    start = block.rfind(b"\n", 0, at) + 1
    stop = block.find(b"\n", at)
    raw = block[max(start, at - 40) : len(block) if stop < 0 else min(stop, at + 40)].strip()
    found: dict[str, str] = {}  # text -> the first encoding that reads it so
    for name in _LIKELY:
        with suppress(UnicodeDecodeError):
            found.setdefault(raw.decode(name), name)
    words = {text: name for text, name in found.items() if _of_words(text)} or found
    readings = [f"--encoding {name} reads {text!r}" for text, name in words.items()]
    hint = "; ".join(readings) or "see what the program that wrote it says"
    raise DataError(
        f"{file}: line {line:,} is not {encoding or 'UTF-8'}, so letters would be lost and ids "
        f"mixed up. Save it as UTF-8 or state its encoding: {hint}."
    )


def _of_words(text: str) -> bool:
    """Are signs beyond ASCII letters, and no word of two alphabets?

    Examples
    --------
    >>> [_of_words("Sprzedaż".encode("cp1250").decode(name)) for name in ("cp1250", "cp1252", "cp1251")]
    [True, False, False]
    """
    if any(not letter.isascii() and not letter.isalpha() for letter in text):
        return False
    both = re.compile("[a-z][\u0400-\u04ff]|[\u0400-\u04ff][a-z]", re.IGNORECASE)
    return both.search(text) is None


def _refuse(file: Path, counts: Any, names: list[str]) -> None:
    """Raise for what can't be read without guessing."""
    if counts.nul_line:
        raise DataError(
            f"{file}: line {counts.nul_line:,} holds a zero byte; a text file has none. It may be "
            "UTF-16 (--encoding utf-16-le) or damaged; export it again."
        )
    if counts.lone_return:
        raise DataError(
            f"{file}: line {counts.lone_return:,} holds a carriage return that ends no line, so it "
            "can't be told where the line ends. Take it away, or put the field in quotation marks."
        )
    if line := counts.swallowed or counts.broken_mark:
        raise DataError(
            f'{file}: the quotation mark (") that opens a field in line {line:,} is not closed as it '
            "should be, and what follows can't be told apart. Close it, double it within a quoted "
            'field (""), or take it away.'
        )
    if counts.long_line:
        raise DataError(_too_long(file, counts.long_line, names))


def _too_long(file: Path, line: int, names: list[str]) -> str:
    if len(names) == 1:
        return (
            f"{file}: line {line:,} has more fields than the first line, which is {names[0]!r}. If the "
            f"table begins further down, take away the lines above the names of its columns."
        )
    return (
        f"{file}: line {line:,} has more fields than the header's {len(names)}: "
        f"{names[:8]}. Put quotation marks around a field that holds the separator, or give the "
        f"extra column (of row names, say) a name in the header."
    )


def _text(source: Path | bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(_opened(source), encoding="utf-8-sig", newline="")


def _rewritten(file: Path, source: Path | bytes, separator: str, names: list[str]) -> tuple[bytes, int]:
    """The same table in one regular notation, by Python's csv module, and its number of lines."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    width, rows = len(names), -1
    with _text(source) as text:
        reader = csv.reader(text, delimiter=separator, strict=True)
        try:
            for row in reader:
                if not row:
                    continue
                if len(row) > width and any(row[width:]):
                    raise DataError(_too_long(file, reader.line_num, names))
                writer.writerow(row[:width])
                rows += 1
        except csv.Error as error:
            raise DataError(
                f"{file}: line {reader.line_num:,} can't be read ({error}); mend or export it again."
            ) from error
    return out.getvalue().encode(), rows
