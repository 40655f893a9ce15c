"""Cells to ids, numbers and times: one meaning a column, or an error that names the cells."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from retailrec.data.files import whole_numbers
from retailrec.errors import DataError, SettingError

# what programs write where nothing is known: pandas' NA words, SQL, Oracle, MySQL, spreadsheets
_NOTHING = (
    *("nan", "null", "none", "na", "n/a", "<na>", "nat", "nil", "(null)", "undefined", "-nan"),
    *("#n/a", "#na", "#null!", "#value!", "#ref!", "#name?", "#div/0!", "#num!", "\\n", ""),
)
MISSING = tuple(
    {form for w in _NOTHING for form in (w, w.upper(), w.capitalize())} | {"NaN", "NaT", "\\N"}
)
# byte order marks within a file that was put together, and spaces that have no width, at either end
_UNSEEN = r"^[\s\u{feff}\u{200b}-\u{200f}\u{2060}]+|[\s\u{feff}\u{200b}-\u{200f}\u{2060}]+$"
# the same signs one by one, for single ids: what has the property White_Space, and the marks
_ENDS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff\u2060" + "".join(
    map(chr, range(0x2000, 0x2010))
)
_EPOCH = datetime(1970, 1, 1)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?")
# else Polars panics at a column whose zone it does not know; `clock_there` takes it off
os.environ.setdefault("POLARS_IGNORE_TIMEZONE_PARSE_ERROR", "1")
_WHOLE = re.compile(r"0*(\d+?)(?:\.0)?", re.ASCII)
_EXACT = {"Float16": 2**11, "Float32": 2**24, "Float64": 2**53}  # whole numbers up to here
_DAYS_OF_NO_YEAR = 5  # so many days of months tell that they are none of a count
_NUMBERS = ("quantity", "value", "price", "discount")  # columns of one table
_FEW_IDS = 10  # as many large ids are floats by chance once in a thousand times
_FEW = 0.03  # share of cells that may be unlike the rest before a column is refused
_SIGN = r"(\p{Sc})"
_POINT_OR_THOUSAND = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"  # 1.234: a bit over one, or a thousand?
# less than nothing as tills and ledgers write it: (1.50), 1.50- and with the minus of typesetters
_NEGATIVE = (r"^\(([^()+-]+)\)$", r"^([^+-]*\d)[-\u2212]$", r"^\u2212(.+)$")
_MONEY = r"[\s\u00a0\u202f'’\p{Sc}]"  # blanks between thousands, apostrophes, currency signs


def without_missing(text: pl.Series) -> pl.Series:
    """Text without blanks around it; words that say that nothing is known become null.

    Examples
    --------
    >>> without_missing(pl.Series(["7 ", "NULL", "nan", "Nantes"])).to_list()
    ['7', None, None, 'Nantes']
    """
    text = text.str.strip_chars()
    if (text.str.len_bytes() != text.str.len_chars()).any():  # else there is nothing unseen in it
        text = text.str.replace_all(_UNSEEN, "")
    nothing = text.is_in(list(MISSING))
    return text.set(nothing, None) if nothing.any() else text


def bare_id(text: str) -> str:
    """One id as `without_missing` leaves it: without blanks and unseen marks around it.

    Examples
    --------
    >>> bare_id(" u005\u200b")
    'u005'
    """
    return text.strip(_ENDS)


def typed_ids(ids: pl.Series) -> pl.Series:
    """Ids as Int64 if they are whole numbers, else as the text they are: ``"7"`` stays ``"7"``.

    Floats come from frames in which a missing id turned integers into floats (``13085.0``). Hashes
    beyond 64 bits are text. Blanks around text are taken off, and words such as ``NULL`` are missing.

    Examples
    --------
    >>> typed_ids(pl.Series(["10", "nan"])).to_list(), typed_ids(pl.Series([10.0, None])).to_list()
    (['10', None], [10, None])

    Raises
    ------
    DataError
        If they are neither numbers nor text.
    """
    kind = ids.dtype
    if kind.is_integer():
        whole = ids.cast(pl.Int64, strict=False)
        return whole if whole.null_count() == ids.null_count() else ids.cast(pl.String)
    if kind.is_float() or kind.is_decimal():
        ids = ids.fill_nan(None) if kind.is_float() else ids
        exact = _EXACT.get(str(kind))
        if exact is not None and ((ids.abs() >= exact) & ids.is_finite()).any():
            raise DataError(
                f"ids in column '{ids.name}' are {kind} numbers of {exact:,} and more, where "
                f"neighbours are the same number and different ids become one. Give integers or text."
            )
        whole = ids.cast(pl.Int64, strict=False)
        same = (
            whole.null_count() == ids.null_count() and (whole.cast(kind) == ids).fill_null(True).all()
        )
        # 7 is 7 in every part of a log, also beside 7.5
        return whole if same else ids.cast(pl.String).str.replace(r"\.0+$", "")
    if kind == pl.Null:
        return ids.cast(pl.Int64)
    try:
        if kind.is_nested() or kind == pl.Object:
            raise pl.exceptions.SchemaError("a list has no order")
        text = ids.cast(pl.String)
        if kind == pl.Binary and text.str.contains(r"[\x00-\x1f]").any():
            raise pl.exceptions.SchemaError("bytes that are no text")
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"ids in column '{ids.name}' must be integers or text, not {ids.dtype}. Convert them."
        ) from error
    return without_missing(text)


def ids_like(ids: pl.Series, like: pl.Series, *, who: str) -> pl.Series:
    """`ids` in the type of `like`, so that a CSV's ``7`` meets a Parquet file's ``"7"``.

    Raises
    ------
    DataError
        If `like` holds integers and some of `ids` are other text.
    """
    ids = typed_ids(ids)
    if ids.dtype == like.dtype:
        return ids
    if like.dtype == pl.String:
        return ids.cast(pl.String)
    whole = whole_numbers(ids)
    if whole.dtype != like.dtype and ids.null_count() < len(ids):
        text = ids.filter((ids.cast(pl.Int64, strict=False).cast(pl.String) != ids).fill_null(True))
        raise DataError(
            f"'{like.name}' holds integers, but {who} hold text such as {text.drop_nulls()[0]!r}; "
            f"write the ids alike in both."
        )
    return whole.cast(like.dtype)


def check_columns(
    frame: pl.DataFrame, needed: Sequence[str], optional: Sequence[str] = (), *, who: str
) -> None:
    """Refuse a table that lacks a column, or has one that would be passed over.

    For tables of rules and lists, whose columns say what holds where and when: one that is not known,
    such as a store, limits what the others say.

    Raises
    ------
    DataError
        If so, with the columns that are meant.

    Examples
    --------
    >>> check_columns(pl.DataFrame({"item_id": [7]}), ["item_id"], ["from", "until"], who="available")
    """
    takes = ", ".join(needed) + (f" and, if wanted, {', '.join(optional)}" if optional else "")
    for name in needed:
        if name not in frame.columns:
            raise DataError(f"{who} lacks column '{name}'; it has {frame.columns} and takes {takes}.")
    if unknown := [c for c in frame.columns if c not in (*needed, *optional)]:
        raise DataError(
            f"{who} has columns that would not be read: {', '.join(map(repr, unknown))}. It takes "
            f"{takes}; rename them, or leave them out if what they say does not matter."
        )


def look_alikes(ids: pl.Series) -> list[str]:
    """What is odd about distinct ids, in sentences: for the report of a load.

    Examples
    --------
    >>> look_alikes(pl.Series("user_id", ["007", "7", "8"]))
    ["user_id: 1 ids are others with leading zeros or '.0', such as '007' and '7', and count apart; \
    write them alike"]
    """
    if ids.dtype == pl.Int64:
        long = ids.filter(ids.abs() >= 10**15)
        if len(long) and (long % 10 == 0).all():
            return [
                f"{ids.name}: all {len(long):,} ids of 16 digits and more end in 0, such as {long[0]}; "
                f"a spreadsheet keeps 15 digits, so different ones may have become one"
            ]
        huge = ids.filter(ids.abs() > _EXACT["Float64"])
        if len(huge) >= _FEW_IDS and huge.cast(pl.Float64).cast(pl.Int64, strict=False).equals(huge):
            return [
                f"{ids.name}: all {len(huge):,} ids of 16 digits and more, such as {huge[0]}, are "
                f"numbers that floating point keeps, as workbooks do; different ones may have become "
                f"one, so export that column as text"
            ]
    if ids.dtype != pl.String:
        return []
    notes, changed = zero_twins(ids)
    folded = _folded(ids)
    twins = ids.filter(folded.is_duplicated() & ~changed)
    if len(twins):
        one = twins[0]
        other = ids.filter((folded == _folded(pl.Series([one]))[0]) & (ids != one))[0]
        notes.append(
            f"{ids.name}: {len(twins):,} ids differ from others by case, Unicode form or blanks only, "
            f"such as {one!r} and {other!r}, and count apart; write them alike"
        )
    masked = ids.str.contains(_MASKED)
    if n := int(masked.sum()):
        notes.append(
            f"{ids.name}: {n:,} ids are masked, such as {ids.filter(masked)[0]!r}, so different ones "
            f"may have become one; export them whole, or with a number for each"
        )
    short = ids.str.contains(_SHORTENED)
    if n := int(short.sum()):
        notes.append(
            f"{ids.name}: {n:,} ids are written as {ids.filter(short)[0]!r}, as spreadsheets show long "
            f"numbers, so different ones may have become one; export that column as text"
        )
    dated = ids.str.contains(_DATED)
    if n := int(dated.sum()):
        notes.append(
            f"{ids.name}: {n:,} ids are dates, such as {ids.filter(dated)[0]!r}, as spreadsheets make "
            f"of codes like MAR-1, so different ones may have become one; export that column as text"
        )
    return notes


def zero_twins(ids: pl.Series) -> tuple[list[str], pl.Series]:
    """Distinct texts that are others but for leading zeros or '.0': a sentence, and which they are.

    Examples
    --------
    >>> zero_twins(pl.Series("basket_id", ["007", "7", "8", "09", "009"]))[1].to_list()
    [True, False, False, True, True]
    """
    plain = ids.str.replace(r"^0+(\d)", "${1}").str.replace(r"^(\d+)\.0$", "${1}")
    changed = (plain != ids) & plain.is_duplicated()
    if not (n := int(changed.sum())):
        return [], changed
    one, stripped = ids.filter(changed)[0], plain.filter(changed)[0]
    other = ids.filter((plain == stripped) & (ids != one)).sort()[-1]
    return [alike_note(ids.name, n, one, other)], changed


def zero_forms(text: str) -> list[str]:
    """Other ids that are a whole number's but for leading zeros or '.0', with up to 20 digits.

    Examples
    --------
    >>> zero_forms("0017")[:3], zero_forms("a17")
    (['17', '17.0', '017'], [])
    """
    if not (found := _WHOLE.fullmatch(text)):
        return []
    plain = found[1]
    forms = [plain, f"{plain}.0", *(plain.zfill(n) for n in range(len(plain) + 1, 21))]
    return [form for form in forms if form != text]


def alike_note(column: str, n: int, one: str, other: str) -> str:
    """What to say of ids that are others but for leading zeros or '.0'."""
    return (
        f"{column}: {n:,} ids are others with leading zeros or '.0', such as {one!r} and {other!r}, "
        f"and count apart; write them alike"
    )


def look_alike_key(ids: pl.Series) -> pl.Series:
    """Text that is the same for ids of which `look_alikes` may say that they are alike.

    For ids that are looked through part by part: only those whose text several have are to be compared.

    Examples
    --------
    >>> look_alike_key(pl.Series(["007", "7.0", "Ann ", "1E+12"])).to_list()
    ['7', '7', 'ann', '']
    """
    folded = _folded(ids).str.replace(r"^0+(\d)", "${1}").str.replace(r"^(\d+)\.0$", "${1}")
    return folded.set(ids.str.contains(f"{_SHORTENED}|{_MASKED}"), "")


_MASKED = r"(^|[^A-Za-z])[xX]{4,}|\*{2,}|•{2,}|#{3,}"  # a card number; a cell too narrow for its number
_SHORTENED = r"^\d([.,]\d+)?[eE]\+\d+$"
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DATED = rf"^(?:\d{{4}}-\d\d-\d\d(?:[ T]00:00:00)?|\d{{1,2}}-{_MONTH}(?:-\d\d)?|{_MONTH}-\d\d)$"


def _folded(ids: pl.Series) -> pl.Series:
    """Ids without what people don't see in them: case, Unicode form, blanks within."""
    return ids.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", "")


def ids_meet(
    ids: pl.Series,
    known: pl.Series,
    *,
    who: str,
    whose: str,
    share: float = 0.5,
    refuse: bool = True,
    notation: bool = True,
) -> str | None:
    """Whether ids of two files mean the same things: None, or a sentence with examples of both sides.

    The check of every list of ids beside receipts: catalogue, shoppers, deny, availability, truth.

    Parameters
    ----------
    ids, known : the list's, and those it should be among; compared as text
    who, whose : what they are called in the sentence, in the plural (``"the items denied"``)
    share : a sentence comes when less than this share of the distinct ids is known
    refuse : raise where none is
    notation : a sentence comes as well where some are known but for case, blanks or leading zeros

    Raises
    ------
    DataError
        If no id meets and `refuse`.

    Examples
    --------
    >>> ids_meet(pl.Series([1, 2]), pl.Series(["1", "2", "3"]), who="the items", whose="the receipts")
    >>> print(ids_meet(pl.Series(["07"]), pl.Series([7]), who="the items", whose="the receipts",
    ...                refuse=False))
    none of the 1 ids of the items is among those of the receipts: '07' there, 7 here. They would meet
    without leading zeros; write the ids alike in both.
    >>> print(ids_meet(pl.Series(["Tea", "JAM"]), pl.Series(["Tea", "Jam"]), who="the items",
    ...                whose="the receipts"))
    1 of the 2 ids of the items differ from those of the receipts by notation only: 'JAM' there, 'Jam' \
here; write the ids alike in both.
    """
    own, other = typed_ids(ids).drop_nulls().unique(), typed_ids(known).drop_nulls().unique()
    if own.is_empty():
        return None
    left, right = own.cast(pl.String), other.cast(pl.String)
    met = left.is_in(right.implode())
    n_met = int(met.sum())
    if n_met >= max(share * len(own), 1):
        return _otherwise(left.filter(~met), right, len(own), who, whose) if notation else None
    missing, present = own.filter(~met), other.filter(~right.is_in(left.implode()))
    first = ", ".join(repr(x) for x in missing.sort().head(2))
    second = (
        ", ".join(repr(x) for x in (present if len(present) else other).sort().head(2)) or "nothing"
    )
    note = (
        f"none of the {len(own):,} ids of {who} is"
        if not n_met
        else f"only {n_met:,} of the {len(own):,} ids of {who} are"
    )
    note += f" among those of {whose}: {first} there, {second} here."
    hint = _hint(missing.cast(pl.String), right, n_met, max(share, 0.5) * len(own))
    note += f" {hint} write the ids alike in both." if hint else " Check that they are of one system."
    if not n_met and refuse:
        raise DataError(note)
    return note


def _otherwise(missing: pl.Series, known: pl.Series, n: int, who: str, whose: str) -> str | None:
    """A sentence on missing ids, of `n`, that are known in another notation; None without such."""
    if missing.is_empty():
        return None
    key, keys = look_alike_key(missing), look_alike_key(known)
    alike = key.is_in(keys.implode()) & (key != "")
    if not (n_alike := int(alike.sum())):
        return None
    one = missing.filter(alike).sort()[0]
    other = known.filter(keys == look_alike_key(pl.Series([one]))[0]).sort()[0]
    return (
        f"{n_alike:,} of the {n:,} ids of {who} differ from those of {whose} by notation only: {one!r} "
        f"there, {other!r} here; write the ids alike in both."
    )


def _hint(left: pl.Series, right: pl.Series, n_met: int, enough: float) -> str:
    ways = (
        ("without leading zeros;", r"^0+(\d)"),
        ("without a decimal part (7.0);", r"^(\d+)\.0$"),
        ("without other signs than letters and digits;", r"[^\p{L}\p{N}]+"),
    )
    for words, pattern in ways:
        value = "" if "p{L}" in pattern else "${1}"
        plain = left.str.replace_all(pattern, value), right.str.replace_all(pattern, value)
        if n_met + int(plain[0].is_in(plain[1].implode()).sum()) >= enough:
            return f"They would meet {words}"
    if n_met + int(left.str.to_lowercase().is_in(right.str.to_lowercase().implode()).sum()) >= enough:
        return "They would meet in lower case;"
    return ""


def parse_number(values: pl.Series, *, who: str, notation: dict[str, str] | None = None) -> pl.Series:
    """Float64; text that is no number becomes NaN, and what is missing stays null.

    Decimal commas and thousands marks are read where the column's cells agree, or those of another
    column of its table. `notation` remembers what the columns and parts before this one agreed on.

    Raises
    ------
    DataError
        If more than a few of the cells are no numbers, or point and comma can't be told apart.

    Examples
    --------
    >>> parse_number(pl.Series("value", ["2", "2,50", "1.234,00", "NULL"]), who="lines").to_list()
    [2.0, 2.5, 1234.0, None]
    """
    if values.dtype.is_numeric() or values.dtype == pl.Null:
        return values.cast(pl.Float64).fill_nan(None)
    if values.dtype == pl.Boolean or values.dtype.is_nested() or values.dtype.is_temporal():
        raise DataError(
            f"column '{values.name}' of {who} must hold numbers, not {values.dtype}; map another "
            "column."
        )
    text = values.cast(pl.String)
    number = text.cast(pl.Float64, strict=False)
    odd = number.is_null() & text.is_not_null()
    marked = notation.get(values.name) if notation is not None else None
    if not odd.any() and marked is None:
        thousands = text.filter(text.str.contains(_POINT_OR_THOUSAND)).head(1)
        if len(thousands):
            _refuse_points_of_thousands(text, who)
            if notation is not None:
                notation[f"points of {values.name}"] = thousands[0]
        return number.fill_nan(None)
    text = without_missing(text)
    number = _marked_numbers(text, who, {} if notation is None else notation).fill_nan(None)
    odd = number.is_null() & text.is_not_null()
    n_odd, filled = int(odd.sum()), len(text) - text.null_count()
    if n_odd * 2 > filled or (n_odd > max(_FEW * filled, 10)):
        raise DataError(
            f"column '{values.name}' of {who} must hold numbers; {n_odd:,} of {filled:,} cells do "
            f"not, for example {text.filter(odd)[0]!r}. Write 1234.56 or 1234,56 all through, or "
            "map another column."
        )
    return number.set(odd, float("nan")) if n_odd else number


def _marked_numbers(text: pl.Series, who: str, notation: dict[str, str]) -> pl.Series:
    """Numbers with thousands marks, by the decimal mark that the cells agree on; others null."""
    _require_one_currency(text, who, notation)
    bare = text.str.replace_all(_MONEY, "")
    for written in _NEGATIVE:
        bare = bare.str.replace(written, "-${1}")
    plain = bare.str.contains(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    by_comma = bare.str.contains(r"^[+-]?(\d{1,3}(\.\d{3})+|\d+)?,\d+$")
    by_point = bare.str.contains(r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$")
    either = bare.str.contains(r"^[+-]?[1-9]\d{0,2},\d{3}$")  # 1,234: a thousand, or a bit over one?
    dots = bare.str.contains(r"^[+-]?\d{1,3}(\.\d{3}){2,}(,\d+)?$")
    point_like = (plain & bare.str.contains(r"\.") & ~bare.str.contains(_POINT_OR_THOUSAND)) | (
        by_point & ~either
    )
    comma_like = (by_comma & ~either) | dots
    n_point, n_comma, n_either = int(point_like.sum()), int(comma_like.sum()), int(either.sum())
    before = notation.get(text.name)
    if n_comma and n_point:
        few = min(n_comma, n_point)
        if few > _FEW * (n_comma + n_point):
            one, other = text.filter(comma_like)[0], text.filter(point_like)[0]
            raise DataError(
                f"column '{text.name}' of {who} has decimal commas and decimal points, for example "
                f"{one!r} and {other!r}; use one of them."
            )
    found = "," if n_comma > n_point else "." if n_point else None
    if found and before and found != before:
        raise DataError(
            f"column '{text.name}' of {who} has decimals written with '{before}' in one part and with "
            f"'{found}' in another, for example {text.filter(comma_like | point_like)[0]!r}; use one."
        )
    mark = found or before
    if mark is None and n_either:  # numbers of one table are written alike: amounts tell what 3,000 is
        others = {notation[name] for name in _NUMBERS if name in notation}
        mark = others.pop() if len(others) == 1 else None
    if mark is None and not n_either:
        _refuse_points_of_thousands(bare, who)
    if mark is None and n_either:
        raise DataError(
            f"column '{text.name}' of {who}: in {text.filter(either)[0]!r} the comma may part "
            "thousands or decimals, and no other cell tells which. Write the numbers without "
            "thousands marks."
        )
    if mark == "," and (seen := notation.get(f"points of {text.name}")):
        raise DataError(
            f"column '{text.name}' of {who} holds {seen!r} in a part without decimal commas, where the "
            f"point was taken for a decimal one, and decimal commas in another. Write the numbers "
            f"without thousands marks."
        )
    if mark:
        notation[text.name] = mark
    if mark == ",":
        readable = by_comma | dots | bare.str.contains(r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)$")
        digits = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    else:
        readable, digits = plain | by_point, bare.str.replace_all(",", "", literal=True)
    return digits.set(~readable, None).cast(pl.Float64, strict=False)


def _refuse_points_of_thousands(text: pl.Series, who: str) -> None:
    """Raise if points may part thousands: all stand before three digits, beside 990 and never 1990."""
    pointed = text.filter(text.str.contains(".", literal=True))
    whole = text.filter(text.str.contains(r"^[+-]?\d{3,}$"))
    if pointed.is_empty() or whole.is_empty() or not pointed.str.contains(_POINT_OR_THOUSAND).all():
        return
    if whole.str.contains(r"^[+-]?[1-9]\d\d$").all():
        raise DataError(
            f"column '{text.name}' of {who}: in {pointed[0]!r} the point may part thousands or "
            f"decimals; all points stand before three digits, and whole numbers such as "
            f"{whole[0]!r} have none. Write the numbers without thousands marks, and decimals with "
            f"one or two digits."
        )


def _require_one_currency(text: pl.Series, who: str, notation: dict[str, str]) -> None:
    """Raise if cells have signs of two currencies: their numbers can't be added up."""
    signs = text.str.extract(_SIGN).drop_nulls().unique().sort().to_list()
    before = notation.get(f"currency of {text.name}")
    if before and before not in signs:
        signs = [before, *signs] if signs else signs
    if len(signs) > 1:
        some = " and ".join(
            repr(text.filter(text.str.contains(sign, literal=True)).first() or sign)
            for sign in signs[:2]
        )
        raise DataError(
            f"column '{text.name}' of {who} has amounts in several currencies, for example {some}; "
            f"convert them to one."
        )
    if signs:
        notation[f"currency of {text.name}"] = signs[0]


def nested(kind: Any) -> bool:
    """Does a column of this type hold lists, structs or foreign objects?"""
    return bool(kind.is_nested()) or kind in (pl.Object, pl.Binary)


DAY_ONE = datetime(2000, 1, 1)  # day number 1
EARLIEST, LATEST = datetime(1980, 1, 1), datetime(2100, 1, 1)
_EPOCH, _SPREADSHEET = datetime(1970, 1, 1), datetime(1899, 12, 30)

_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y"),
    *("%m-%d-%Y", "%m.%d.%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y"),
    *("%d-%b-%Y", "%y-%m-%d", "%y/%m/%d", "%y.%m.%d", "%d %b %Y", "%d-%b-%y", "%d %b %y"),
    *("%b %d, %Y", "%b %d %Y", "%Y-%b-%d", "%Y %b %d", "%d %B %Y", "%d-%B-%Y", "%B %d, %Y"),
    "%B %d %Y",
)
_CLOCKS = (
    *("", " %H:%M:%S%.f", " %H:%M", "T%H:%M:%S%.f", "T%H:%M", " %I:%M:%S %p", " %I:%M %p"),
    *(" %I:%M:%S%p", " %I:%M%p", ", %H:%M:%S", ", %H:%M", "%H%M%S", "T%H%M%S", "%H%M"),
)
_ZONE = r"(?i)(\d:\d\d(?::\d\d)?(?:\.\d+)?|T\d{4}(?:\d\d)?)\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"
_ZONE_MARK = re.compile(r"\s*%[:#]{0,3}z")
_SAMPLE = 5000
_A_DAY = 86_400_000_000  # microseconds
# what numbers may count: from when, in units of how many microseconds, from which number on
_COUNTS = (
    (DAY_ONE - timedelta(days=1), _A_DAY, 0),
    (_EPOCH, _A_DAY, 3653),
    (_SPREADSHEET, _A_DAY, 29221),
    *((_EPOCH, unit, 10 * 365 * _A_DAY // unit) for unit in (1_000_000, 1_000, 1)),
)
_FEW_WORDS = 3  # numbers that may stand for no time among dates: 0, -1
_FEW_TIMES = 0.01  # share of cells in another notation that are counted as unreadable, not refused


class Format(NamedTuple):
    """A date and the clocks that come with it: ``2024-01-31`` and ``2024-01-31 10:00`` are alike."""

    day: str
    clocks: tuple[str, ...]

    def read(self, text: pl.Series) -> pl.Series:
        """Times, null where neither fits."""
        found = pl.Series(text.name, [None], pl.Datetime("us")).new_from_index(0, len(text))
        for clock in self.clocks:
            if found.null_count() == 0:
                break
            parsed = text.str.to_datetime(self.day + clock, time_unit="us", strict=False)
            found = found.zip_with(found.is_not_null(), parsed)
        long_ago = found.dt.year() < 1000  # %Y takes 24 for the year 24
        return found.set(long_ago.fill_null(False), None)


def parse_time(values: pl.Series, *, who: str, time_format: str | None = None) -> pl.Series:
    """Datetime("us") from timestamps, dates, day numbers (1 = 2000-01-01), YYYYMMDD or text.

    Text is read by the one notation that fits most cells; the other cells become null. Zones of text
    are taken off: times are those on the shop's clock. `time_format` states the notation, as for
    `datetime.strptime`.

    Raises
    ------
    DataError
        If no notation fits, two each fit cells that the other does not, day and month can't be told
        apart, or cells are of different zones.
    SettingError
        If `time_format` is no format.

    Examples
    --------
    >>> parse_time(pl.Series("time", ["31-01-2024 5:30 PM"]), who="lines")[0]
    datetime.datetime(2024, 1, 31, 17, 30)
    """
    name, kind = values.name, values.dtype
    if isinstance(kind, pl.Datetime):
        return clock_there(values.to_physical(), kind.time_unit, kind.time_zone, who)
    if kind == pl.Date or kind == pl.Null:
        return values.cast(pl.Datetime("us"))
    if (kind.is_integer() or kind.is_float()) and time_format is None:
        return _time_from_numbers(values.cast(pl.Float64), who)
    if kind.is_nested() or kind in (pl.Object, pl.Binary, pl.Boolean, pl.Time, pl.Duration):
        raise DataError(f"column '{name}' of {who} must hold times, not {kind}; map another column.")
    text = without_missing(values.cast(pl.String))
    filled = len(text) - text.null_count()
    if time_format is not None:
        return _stated(text, time_format, who)
    number = text.cast(pl.Float64, strict=False)
    # 010224 is the first of a month, and not the day 10,224
    led = int(text.str.contains(r"^0\d").sum() or 0)
    if filled and led <= filled // 20 and number.null_count() <= text.null_count() + filled // 20:
        _refuse_two_notations(text, number.is_null(), "numbers", who)
        return _time_from_numbers(number, who)
    bare = _without_zone(text.str.replace(r"(:\d\d),(\d+)", "${1}.${2}"), who)
    read = [(found, parsed) for found in _candidates(bare) for parsed in [found.read(bare)]]
    if not read:
        raise DataError(
            f"column '{name}' of {who} must hold times; can't read "
            f"{text.drop_nulls().head(1).to_list()}. Give timestamps, dates (2024-01-31) or day "
            "numbers, or state the notation (--time-format '%d %m %Y')."
        )
    chosen, best = min(read, key=lambda pair: (pair[1].null_count(), _mostly_to_come(pair[1])))
    _refuse_ambiguous(bare, read, chosen, best, who)
    return best.alias(name)


def times_or_none(values: pl.Series, *, who: str) -> pl.Series:
    """As `parse_time`, of a column whose empty cells mean something: any other cell must be a time.

    Raises
    ------
    DataError
        As `parse_time`, or if it reads a cell as nothing that is not empty.

    Examples
    --------
    >>> times_or_none(pl.Series("until", ["2024-05-01", " "]), who="available")[1] is None
    True
    """
    words = values.dtype in (pl.String, pl.Categorical, pl.Enum)
    text = without_missing(values.cast(pl.String)) if words else values
    if text.null_count() == len(text):
        return text.cast(pl.Datetime("us"), strict=False)
    times = parse_time(text, who=who)
    if len(wrong := text.filter(times.is_null() & text.is_not_null())):
        raise DataError(
            f"column '{values.name}' of {who} must hold times or be empty; {len(wrong):,} cells are "
            f"neither, such as {wrong[0]!r}. Correct them."
        )
    return times


def clock_there(ticks: pl.Series, unit: str, zone: str | None, who: str) -> pl.Series:
    """Timestamps that a clock in a zone showed, of integers since 1970 in UTC; far ones at the ends.

    Raises
    ------
    DataError
        If the zone is not known.

    Examples
    --------
    >>> clock_there(pl.Series([0]), "ms", "+05:30", "lines")[0]
    datetime.datetime(1970, 1, 1, 5, 30)
    """
    per_second = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    ends = [int((end - _EPOCH).total_seconds()) * per_second for end in (datetime.min, datetime.max)]
    low, high = (min(max(end, -(2**63)), 2**63 - 1) for end in ends)
    ticks = ticks.clip(low, high)  # Polars panics where it shows an instant beyond its calendar
    if (offset := _OFFSET.fullmatch(zone or "+00")) is not None:  # which Polars does not know as a zone
        sign, hours, minutes = offset.groups()
        away = int(f"{sign}1") * (int(hours) * 3600 + int(minutes or 0) * 60) * per_second
        return (ticks + away).cast(pl.Datetime(unit)).cast(pl.Datetime("us"))  # type: ignore[arg-type]
    try:
        there = ticks.cast(pl.Datetime(unit, zone))  # type: ignore[arg-type]
        return there.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"column '{ticks.name}' of {who} has the zone {zone!r}, which is not known; give one such "
            f"as Europe/Berlin or +02:00, or times without a zone."
        ) from error


def as_instant(value: Any, *, who: str, zone: str | None = None) -> datetime:
    """An instant on the shop's clock, from a datetime, a date, text or what NumPy and pandas have.

    One with a zone is converted to `zone`, that of the receipts, where they have one.

    Raises
    ------
    DataError
        If it is no instant.

    Examples
    --------
    >>> as_instant("2024-02-01", who="asof")
    datetime.datetime(2024, 2, 1, 0, 0)
    """
    found = value
    if hasattr(value, "to_pydatetime"):
        found = value.to_pydatetime()
    elif type(value).__name__ == "datetime64":
        found = value.astype("datetime64[us]").item()
    elif isinstance(value, str):
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            found = None
    if isinstance(found, date) and not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)
    if not isinstance(found, datetime):
        raise DataError(
            f"{who} must be an instant, such as datetime(2024, 1, 31) or '2024-01-31', not {value!r}."
        )
    if found.tzinfo is None:
        return found
    if zone:
        instant = pl.Series([found.astimezone(UTC).replace(tzinfo=None)], dtype=pl.Datetime("us"))
        found = clock_there(instant.to_physical(), "us", zone, who)[0]
    return found.replace(tzinfo=None)


def _stated(text: pl.Series, time_format: str, who: str) -> pl.Series:
    shape = time_format.replace(".%f", "%.f")
    if _ZONE_MARK.search(shape):  # times are those that the shop's clock showed
        text, shape = _without_zone(text, who), _ZONE_MARK.sub("", shape)
    try:
        pl.Series(["2024"]).str.to_datetime(shape, time_unit="us", strict=False)
        parsed = text.str.to_datetime(shape, time_unit="us", strict=False)
    except pl.exceptions.PolarsError as error:
        raise SettingError(
            f"time format {time_format!r} is none; expected one such as '%d/%m/%Y %H:%M' ({error})."
        ) from error
    if isinstance(parsed.dtype, pl.Datetime) and parsed.dtype.time_zone:
        parsed = parsed.dt.replace_time_zone(None)
    filled = len(text) - text.null_count()
    if filled and len(parsed) - parsed.null_count() < filled / 2:
        raise DataError(
            f"column '{text.name}' of {who} is not written as {time_format!r}, for example "
            f"{text.filter(parsed.is_null() & text.is_not_null())[0]!r}. Correct the time format."
        )
    return parsed


def _without_zone(text: pl.Series, who: str) -> pl.Series:
    """Text without zones; two offsets an hour apart are one place in summer and winter."""
    if not text.str.contains(_ZONE).any():
        return text
    zone = text.str.extract(_ZONE, 2)
    sign = (
        pl.Series([1]).new_from_index(0, len(zone)).set(zone.str.starts_with("-").fill_null(False), -1)
    )
    digits = zone.str.replace_all(r"\D", "")
    minutes = digits.str.slice(0, 2).cast(pl.Int64, strict=False).fill_null(0) * 60
    minutes += digits.str.slice(2, 2).cast(pl.Int64, strict=False).fill_null(0)
    offsets = (minutes * sign).filter(text.is_not_null()).unique().sort()
    mixed = bool(zone.filter(text.is_not_null()).is_null().any())
    if mixed or len(offsets) > 2 or int(offsets[-1]) - int(offsets[0]) > 60:
        some = text.filter(zone.is_not_null())[0]
        other = text.filter(zone.is_null() if mixed else (minutes * sign) != (minutes * sign)[0])
        raise DataError(
            f"column '{text.name}' of {who} holds times of different zones, for example {some!r} and "
            f"{other.drop_nulls()[0]!r}; convert them to one."
        )
    return text.str.replace(_ZONE, "${1}")


def _candidates(text: pl.Series) -> list[Format]:
    """Notations that fit some cell of a sample, or of the whole where the sample says nothing."""
    known = text.drop_nulls()
    sample = known.gather_every(max(1, len(known) // _SAMPLE))
    for cells in (sample, known):
        shapes = _shape(cells)
        found = {
            (day, clock)
            for shape in shapes.unique().to_list()
            if shape in _notations()
            for alike in [cells.filter(shapes == shape)]
            for day, clock in _notations()[shape]
            if _fits(alike, day + clock)
        }
        if found:
            clocks = {day: tuple(c for c in _CLOCKS if (day, c) in found) for day in _DATES}
            return [Format(day, clocks[day]) for day in _DATES if clocks[day]]
    return []


def _shape(text: pl.Series) -> pl.Series:
    """Text without blanks, with 0 for digits in a row and a for letters: ``0-0-0a0:0``."""
    bare = text.str.replace_all(r"\s", "").str.replace_all("[0-9]+", "0")
    return bare.str.replace_all("[A-Za-z]+", "a")


@cache
def _notations() -> dict[str, list[tuple[str, str]]]:
    """Dates with clocks by the shape of what they can read: few of some 400 are worth a try."""
    both = [(day, clock) for day in _DATES for clock in _CLOCKS]
    found: dict[str, list[tuple[str, str]]] = {}
    for fraction in ("", ".0"):
        said = pl.Series([(day + clock).replace("%.f", fraction) for day, clock in both])
        digits = said.str.replace_all("%[YymdHIMS]", "0").str.replace_all("%[bBp]", "a")
        for shape, notation in zip(_shape(digits), both, strict=True):
            if notation not in found.setdefault(shape, []):
                found[shape].append(notation)
    return found


def _fits(cells: pl.Series, notation: str) -> bool:
    parsed = cells.str.to_datetime(notation, time_unit="us", strict=False)
    return bool((parsed.dt.year() >= 1000).any())


def _mostly_to_come(times: pl.Series) -> bool:
    """Do more than a few lie after today? Receipts do not: 29.02.24 is no day of 2029."""
    late = times > datetime.now() + timedelta(days=2)
    return int(late.sum()) > _FEW_TIMES * (len(times) - times.null_count())


def _refuse_ambiguous(
    text: pl.Series, read: list[tuple[Format, pl.Series]], chosen: Format, best: pl.Series, who: str
) -> None:
    """Raise if cells are in two notations, or two notations read all of them, but not alike."""
    _refuse_two_notations(text, best.is_null(), chosen.day, who)
    for other, parsed in read:
        alike = parsed.null_count() == best.null_count() and not parsed.equals(best)
        if alike and _mostly_to_come(parsed) == _mostly_to_come(best):
            raise DataError(
                f"column '{text.name}' of {who}: day and month can't be told apart, for example "
                f"{text.drop_nulls()[0]!r}. Write dates as 2024-01-31, or state which is which, "
                f"--time-format '{chosen.day}' or '{other.day}'."
            )


def seem_swapped(text: pl.Series, times: pl.Series) -> bool:
    """Do dates, which may be read either way, lie far closer together with day and month swapped?

    `times` are what `text` was read as, beside other dates that showed which notation it is.

    Examples
    --------
    >>> text = pl.Series(["01/02/2024", "02/02/2024", "03/02/2024"])
    >>> seem_swapped(text, text.str.to_datetime("%m/%d/%Y"))
    True
    """
    first = text.str.extract(r"^(\d{1,2})[/.-]\d{1,2}[/.-]\d{2,4}").cast(pl.Int8)
    read = pl.DataFrame({"first": first, "day": times.dt.date()}).drop_nulls().unique()
    day, month = read["day"].dt.day(), read["day"].dt.month()
    either = (day <= 12) & ((read["first"] == day) | (read["first"] == month))
    if read.height < 2 or not either.all():
        return False
    swapped = read.select(pl.date(pl.col("day").dt.year(), pl.lit(day), pl.lit(month))).to_series()
    near, far = (int(np.ptp(dates.to_physical().to_numpy())) for dates in (swapped, read["day"]))
    return 4 * near < far


def _refuse_two_notations(text: pl.Series, left: pl.Series, most: str, who: str) -> None:
    """Raise if more than a few of the cells that are left are times in another notation."""
    unread = text.filter(left & text.is_not_null())
    if len(unread) <= _FEW_TIMES * (len(text) - text.null_count()):
        return
    others = [found.day for found in _candidates(unread)]
    if not others and (numbers := unread.cast(pl.Float64, strict=False)).n_unique() > _FEW_WORDS:
        with suppress(DataError):
            _time_from_numbers(numbers, who)
            others, unread = ["numbers"], unread.filter(numbers.is_not_null())
    if others:
        raise DataError(
            f"column '{text.name}' of {who} holds dates in two formats: most look like {most}, others "
            f"like {others[0]}, for example {unread[0]!r}. Use one format."
        )


def _are_days_of_no_year(numbers: pl.Series) -> bool:
    """Are whole numbers days and months, as 3112 or 1231? Numbers of days end in 32 to 99, too.

    Examples
    --------
    >>> _are_days_of_no_year(pl.Series([3112, 111, 211, 3011, 1503, 705]))
    True
    >>> _are_days_of_no_year(pl.Series([101, 102, 103, 201, 301]))
    False
    """
    front, back = numbers // 100, numbers % 100
    return front.n_unique() >= _DAYS_OF_NO_YEAR and any(
        bool(day.is_between(1, 31).all() and month.is_between(1, 12).all())
        for day, month in ((front, back), (back, front))
    )


def _time_from_numbers(values: pl.Series, who: str) -> pl.Series:
    """Day numbers, seconds since 1970, or dates written as one number such as 20240131.

    Day numbers count from 2000 (1 is its first day), from 1970, or as spreadsheets do, whichever is the
    first by which nearly all lie between 1980 and today.
    """
    known = values.drop_nulls().drop_nans()
    if known.is_empty():
        return pl.Series(values.name, [None], pl.Datetime("us")).new_from_index(0, len(values))
    low, high = known.quantile(0.02, "nearest"), known.quantile(0.98, "nearest")
    least, most = float(low or 0), float(high or 0)
    digits = pl.Series(values.name, values.cast(pl.Int64, strict=False)).cast(pl.String)
    for shape, scale in (("%Y%m%d", 1), ("%Y%m%d%H%M", 10_000), ("%Y%m%d%H%M%S", 1_000_000)):
        if 19000101 * scale <= least and most < 21010101 * scale:
            return digits.str.to_datetime(shape, time_unit="us", strict=False).alias(values.name)
    if (known == known.round()).all() and _are_days_of_no_year(known.cast(pl.Int64)):
        raise DataError(
            f"column '{values.name}' of {who} holds numbers from {least:g} to {most:g} that "
            f"look like days and months without a year; give whole dates."
        )
    today = datetime.now() + timedelta(days=2)
    if least >= 1980 and most <= today.year + 1:
        raise DataError(
            f"column '{values.name}' of {who} holds numbers from {least:g} to {most:g}, which may be "
            f"years or days; give dates."
        )
    for first, unit, start in _COUNTS:
        last, end = ((t - first) / timedelta(microseconds=unit) for t in (LATEST, today))
        if start <= least and most <= end:
            inside = values.is_between(start, last).fill_null(False)
            micros = (values.set(~inside, None) * unit).round().cast(pl.Int64)
            if unit == _A_DAY:  # spreadsheets keep 15 digits of a day: 10:00 is not 9:59:59.999963
                micros = (micros + 500) // 1000 * 1000
            shift = int((first - _EPOCH) / timedelta(microseconds=1))
            return (micros + shift).cast(pl.Datetime("us")).alias(values.name)
    raise DataError(
        f"column '{values.name}' of {who} holds numbers from {least:g} to {most:g}; expected day "
        "numbers (since 2000, 1970 or a spreadsheet's), seconds since 1970 or dates such as "
        "20240131, up to today. Convert it to timestamps."
    )
