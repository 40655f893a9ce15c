"""Items that are no products, such as bags, deposits and fuel: a rule against them, and likely ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import polars as pl

from retailrec.data import RetailData, item_lines
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LineRule, beside
from retailrec.data.parsing import typed_ids
from retailrec.errors import DataError, SettingError
from retailrec.schema import CATEGORIES, ITEM_ID, NAME

# how tills name it, in some languages; a word before it and three behind may stand there
_WORDS = (
    "(carrier|plastic|paper|shopping) ?bags?|tragetaschen?|tragetüten?|einkaufstüten?|papiertüten?|"
    "sacs? (de )?caisse|bolsas?|buste|sacchetto|deposits?|pfand|leergut|consigne|statiegeld|pant|"
    "gift ?(cards?|vouchers?)|vouchers?|gutscheine?|geschenkkarten?|cartes? cadeaux?|coupons?|"
    "fuel|gasoline|petrol|diesel|benzin|essence|kraftstoff|postage|shipping|carriage|delivery|versand|"
    "porto|spenden?|donations?|charity|bank charges?|fees?|gebühren?|manual|adjust(ments?)?|rounding|"
    "discounts?|rabatt|kortings?(bon)?|lotto|lottery|tip|gratuity|trinkgeld|service charges?|rundung|"
    "versandkosten|livraison|frais( de port)?|доставка|скидк[аи]|подарочн\\w+ карт\\w+"
)
# words that are part of what products are called, too
_ALONE = (
    "((grand|sub|zwischen) ?)?(total|summe|итого)|payments?|cash( tendered)?|change( due)?|пакет|"
    "((sales|value added) )?(tax|vat|mwst|ust|tva|iva|btw|ндс)[ (]*([\\d.,]+ ?%)?"
)
_LIKELY = rf"(?i)^\W*((\w+\W+)?({_WORDS})(\W+\w+){{0,3}}|{_ALONE})\W*$"
_NAMED = 3  # of each column


def not_products(
    patterns: Sequence[str],
    items: pl.DataFrame | None,
    there: Sequence[str],
    columns: Mapping[str, str] = MappingProxyType({}),
    changed_ids: ChangedIds | None = None,
) -> tuple[LineRule, ...]:
    """A rule against items that are no products: deposits, fuel, gift cards.

    Parameters
    ----------
    patterns : ``category_1=FUEL``, ``name=*deposit*``: all of the text, whatever its case; ``*`` is any
        part of it
    items : the catalogue, in which a column is looked for first
    there, columns : columns of the lines, and standard name -> theirs
    changed_ids : of the lines, whose item ids are the new ones

    Raises
    ------
    SettingError
        If a pattern is not of that form.
    DataError
        If neither catalogue nor lines have the column.
    """
    by_column: dict[str, list[str]] = {}
    for text in patterns:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and name and value):
            raise SettingError(f"--not-products is {text!r}; expected column=text, as category_1=FUEL.")
        by_column.setdefault(name, []).append(text)
    ours = {theirs: name for name, theirs in columns.items()}
    found = []
    for name, said in by_column.items():
        shape = _shape(said)
        if items is not None and name in items.columns and name != ITEM_ID:
            other = typed_ids(items.filter(pl.col(name).cast(pl.String).str.contains(shape))["item_id"])
            other = other if changed_ids is None else changed_ids.applied(other)
            found.append(pl.col("item_id").cast(pl.String).is_in(other.cast(pl.String).to_list()))
        elif (theirs := columns.get(name, name)) in there:
            column = pl.col(ours.get(theirs, beside(theirs)))
            found.append(column.cast(pl.String).str.contains(shape).fill_null(False))
        else:
            raise DataError(
                f"--not-products {name}=...: there is no column '{name}'; the receipts have {[*there]}"
                + ("." if items is None else f", the catalogue {items.columns}.")
            )
    return (LineRule("not a product", pl.any_horizontal(found)),) if found else ()


def unmet(patterns: Sequence[str], items: pl.DataFrame) -> list[str]:
    """Patterns of `not_products` that no item of a catalogue meets, a sentence each.

    Examples
    --------
    >>> items = pl.DataFrame({"item_id": [7, 8], "category_1": ["FUEL", "DAIRY"]})
    >>> unmet(["category_1=fuel", "category_1=BOTTLES", "name=bag"], items)
    ['--not-products category_1=BOTTLES: no item of the catalogue is that']
    """
    return [
        f"--not-products {pattern}: no item of the catalogue is that"
        for pattern in patterns
        if (name := pattern.partition("=")[0].strip()) in items.columns
        and name != ITEM_ID
        and not items[name].cast(pl.String).str.contains(_shape([pattern])).any()
    ]


def _shape(patterns: Sequence[str]) -> str:
    """A regular expression that is met by the texts of patterns of one column."""
    texts = (pattern.partition("=")[2].strip() for pattern in patterns)
    shapes = (".*".join(pl.escape_regex(part.strip()) for part in text.split("*")) for text in texts)
    return f"(?is)^\\s*({'|'.join(shapes)})\\s*$"


def likely(data: RetailData) -> list[str]:
    """What of the items sold is no product by its id, name or category, a sentence a column.

    Examples
    --------
    >>> lines = {"user_id": [1, 1, 2], "item_id": [7, 8, 9], "time": ["2024-01-01"] * 3}
    >>> items = pl.DataFrame({"item_id": [7, 8, 9], "name": ["Rye bread", "Carrier bag", "Tea"]})
    >>> print(*likely(RetailData.from_frames(pl.DataFrame(lines), items)))
    by 'name' these may be no products: 'Carrier bag' (1 of 3 lines); leave such items out, as with
    --not-products 'name=Carrier bag'
    """
    notes, sold = [], data.items.with_columns(n=item_lines(data)).filter(pl.col("n") > 0)
    lines = int(sold["n"].sum())
    for column in (ITEM_ID, NAME, *CATEGORIES):
        if data.items.schema.get(column) != pl.String:
            continue
        found = sold.filter(pl.col(column).str.contains(_LIKELY))
        found = found.group_by(column).agg(pl.col("n").sum().cast(pl.Int64))
        if found.is_empty():
            continue
        first = found.sort("n", column, descending=[True, False]).head(_NAMED).rows()
        some = ", ".join(f"{text!r} ({n:,} of {lines:,} lines)" for text, n in first)
        more = f" and {found.height - _NAMED:,} more" if found.height > _NAMED else ""
        notes.append(
            f"by '{column}' these may be no products: {some}{more}; leave such items out, as with "
            f"--not-products '{column}={first[0][0]}'"
        )
    return notes
