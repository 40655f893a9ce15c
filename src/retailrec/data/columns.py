"""The caller's columns and the standard ones: mapped, joined, or guessed for an error's advice."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data.files import FILE
from retailrec.data.parsing import EARLIEST, parse_time
from retailrec.data.paths import read_toml
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.schema import CATEGORIES, NAME, TRANSACTIONS

_KNOWN = tuple(c.name for c in TRANSACTIONS)


def read_columns(path: Path, who: str) -> dict[str, str]:
    """Standard name -> the file's, of a TOML file; a table ``[columns]`` of such lines will do.

    Raises
    ------
    SettingError
        If the file can't be read or holds something else.
    """
    found = read_toml(path, who=who)
    found = found.get("columns", found)
    if not (isinstance(found, dict) and all(isinstance(theirs, str) for theirs in found.values())):
        raise SettingError(
            f'{who} {path} must hold lines such as user_id = "client"; a table [columns] of such lines '
            f"will do."
        )
    return found


def join_time(
    frame: pl.DataFrame, columns: Mapping[str, str], notation: dict[str, str] | None = None
) -> tuple[pl.DataFrame, dict[str, str]]:
    """The frame with the column that `time` names, joined where it is a date and a clock in two.

    ``{"time": "date+clock"}`` names two columns. A clock of whole numbers is one of hours (17), or of
    hours and minutes (1730), or with seconds (173059), by its longest cell; `notation` remembers which
    for the parts of one export. A date without a clock stays a date. Numbers of days gain the part of
    the day. Of a workbook's cells the midnight of dates and the day of clocks are left out.

    Returns
    -------
    frame, and `columns` with the joined column under `time`

    Examples
    --------
    >>> lines = pl.DataFrame({"day": ["31.01.2024", "01.02.2024"], "at": [905, 1730]})
    >>> joined, columns = join_time(lines, {"time": "day+at"})
    >>> joined[columns["time"]].to_list()
    ['31.01.2024 09:05', '01.02.2024 17:30']
    """
    named = columns.get("time", "")
    day_name, clock_name = day_and_clock(named, frame.columns)
    if clock_name is None:
        return frame, dict(columns)
    day, clock = frame[day_name], _clock(frame[clock_name], {} if notation is None else notation)
    if isinstance(day.dtype, pl.Datetime):
        day = day.dt.date()
    if day.dtype.is_numeric() and not _written_out(day):
        parts = clock.str.split(":").list.eval(pl.element().cast(pl.Float64, strict=False))
        padded = parts.list.concat(pl.Series([[0.0, 0.0, 0.0]]).new_from_index(0, len(parts)))
        seconds = sum(padded.list.get(i) * 60 ** (2 - i) for i in range(3))
        joined = day.cast(pl.Float64) + seconds.fill_null(0) / 86_400
    else:
        day = day.cast(pl.String).str.replace(r"[ T]00:00(:00(\.0+)?)?$", "")
        both = pl.DataFrame([day.alias("day"), clock.alias("clock")])
        joined = both.select(
            pl.when(pl.col("day").is_not_null()).then(
                pl.concat_str("day", "clock", separator=" ", ignore_nulls=True)
            )
        ).to_series()
    return frame.with_columns(joined.alias(named)), dict(columns)


def day_and_clock(named: str, there: Sequence[str]) -> tuple[str, str | None]:
    """The columns of the day and of the clock, where ``day+clock`` names two; else the column itself.

    Examples
    --------
    >>> day_and_clock("day+at", ["day", "at"]), day_and_clock("time", ["time"])
    (('day', 'at'), ('time', None))
    """
    day, plus, clock = named.partition("+")
    return (day, clock) if plus and named not in there and {day, clock} <= set(there) else (named, None)


_WIDTHS = {2: "hours", 4: "hours and minutes", 6: "hours, minutes and seconds"}


CLOCK = r"^\d{1,6}$"  # a clock of whole numbers


def clock_notation(name: str, longest: int) -> dict[str, str]:
    """What `join_time` remembers of a column whose longest clock of whole numbers has so many digits.

    Examples
    --------
    >>> clock_notation("at", 3)
    {'clock of at': '4'}
    """
    return {f"clock of {name}": str(2 if longest <= 2 else 4 if longest <= 4 else 6)}


_CLOCK_DAY = r"^((1899-12-3[01]|1900-01-0[01])[ T])"  # of a workbook's clocks


def _clock(cells: pl.Series, notation: dict[str, str]) -> pl.Series:
    """Clocks as text with colons."""
    if isinstance(cells.dtype, pl.Datetime):
        cells = cells.dt.time()
    text = cells.cast(pl.String).str.strip_chars().str.strip_suffix(".0")
    text = text.str.replace(_CLOCK_DAY, "")
    digits = text.str.contains(CLOCK)
    if not digits.any():
        return text
    longest = int(text.filter(digits).str.len_chars().max())  # type: ignore[arg-type]
    width = int(clock_notation(cells.name, longest)[f"clock of {cells.name}"])
    before = int(notation.setdefault(f"clock of {cells.name}", str(width)))
    if before < width:
        raise DataError(
            f"column '{cells.name}' holds {_WIDTHS[width]} as numbers here, and {_WIDTHS[before]} in "
            f"the parts before. Write clocks alike, such as 09:05."
        )
    width = before
    padded = text.str.zfill(width)
    hour, minute, second = (padded.str.slice(at, 2) for at in (0, 2, 4))
    minute = minute if width > 2 else minute + "00"
    written = hour + ":" + minute + ((":" + second) if width == 6 else "")
    return text.zip_with(~digits.fill_null(False), written)


def _written_out(days: pl.Series) -> bool:
    """Are numbers dates such as 20240131?"""
    low, high = days.min(), days.max()
    return isinstance(low, int) and isinstance(high, int) and low >= 19000101 and high < 21010101


def missing_columns(frame: pl.DataFrame, columns: Mapping[str, str], who: str) -> str:
    """A sentence on required columns that a frame lacks, with a mapping to paste; "" if it has all.

    `frame` has the standard columns that are mapped already.
    """
    lacking = [c for c in TRANSACTIONS if c.required and c.name not in frame.columns]
    if not lacking:
        return "" if "time" in columns else _clock_alone(frame, columns, who)
    have = [c for c in frame.columns if c != FILE]
    if not have:
        return f"{who} have no column at all. Check the file or frame."
    free = [c for c in have if c not in _KNOWN and c not in columns]
    guessed = guess_columns(frame.select(free))
    absent = [c for c in lacking if c.name not in guessed]
    names = ", ".join(f"'{c.name}'" for c in lacking)
    meaning = f" ({lacking[0].meaning})" if len(lacking) == 1 else ""
    said = f"{who} lack column{'s' * (len(lacking) > 1)} {names}{meaning}; they have {free or have}. "
    if 2 * sum(_VALUE.fullmatch(c) is not None for c in have) >= len(have):
        return said + (
            "The first line seems to hold values: write a line with the names of the columns above it."
        )
    if 2 * sum(_UNNAMED.fullmatch(c) is not None for c in have) >= len(have):
        return said + (
            "The first line names hardly a column: if the table begins further down, take away the "
            "lines above the names of its columns."
        )
    if len(absent) == len(lacking):
        option = ",".join(f"{c.name}=..." for c in absent)
        which = "one" if len(lacking) == 1 else "some"
        return said + (
            f"If {which} of them hold{'s' * (len(lacking) == 1)} it, map it (--columns {option}); else "
            f"export {'column' if len(lacking) == 1 else 'columns'} {names}."
        )
    guessed = {name: theirs for name, theirs in guessed.items() if name not in frame.columns}
    pairs = {**{k: v for k, v in columns.items() if k not in guessed}, **guessed}
    pairs |= {c.name: "..." for c in absent}
    order = [*_KNOWN, *(name for name in pairs if name not in _KNOWN)]
    option = ",".join(f"{name}={pairs[name]}" for name in order if name in pairs)
    it = "it" if len(lacking) == 1 else "them"
    mapping = {name: theirs for name, theirs in pairs.items() if theirs != "..."}
    said += f"Map {it} with columns={mapping}, or on the command line --columns {shlex.quote(option)}"
    if absent:
        said += "; which column is " + ", which ".join(f"'{c.name}'" for c in absent) + " can't be told"
    return said + "."


def unread_columns(
    lines: pl.DataFrame, columns: Mapping[str, str], items: pl.DataFrame | None = None
) -> list[str]:
    """A note on columns that seem to be receipts, pieces, money, names or categories, and are not read.

    Nothing is read by a guess; but without a word each line would be one piece without a price, and
    items would have no category.

    Parameters
    ----------
    lines : receipt lines, with the caller's columns
    columns : standard name -> the caller's name
    items : the catalogue, by standard names, if there is one

    Examples
    --------
    >>> lines = {"user_id": [1, 1], "item_id": [2, 3], "time": ["2024-01-31"] * 2, "qty": [1, 2]}
    >>> unread_columns(pl.DataFrame(lines), {})
    ["not mapped, so not read: 'qty', which seems to be quantity; if so: --columns quantity=qty"]
    """
    known = {name: columns.get(name, name) for name in _KNOWN}
    known = {name: theirs for name, theirs in known.items() if theirs in lines.columns}
    known["time"] = columns.get("time", "time")
    found = guess_columns(lines, known)
    if items is not None:
        found = {role: name for role, name in found.items() if role not in _DESCRIBES}
        found |= {role: name for role in _DESCRIBES if (name := _guess_described(items, role))}
    there = {*columns, *lines.columns, *(() if items is None else items.columns)}
    used = {*_KNOWN, *columns.values(), *known["time"].split("+")}
    roles = ("basket_id", "quantity", "value", "price", *_DESCRIBES)
    found = {r: found[r] for r in roles if r in found and r not in there and found[r] not in used}
    if "value" in {*there, *found}:  # which a price would be for
        found.pop("price", None)
    if not found:
        return []
    said = ", ".join(f"{theirs!r}, which seems to be {name}" for name, theirs in found.items())
    option = ",".join(f"{name}={theirs}" for name, theirs in {**columns, **found}.items())
    return [f"not mapped, so not read: {said}; if so: --columns {shlex.quote(option)}"]


def _guess_described(items: pl.DataFrame, role: str) -> str | None:
    """The one column of a catalogue whose name and cells may be `role`, if there is one."""
    shape = re.compile("|".join(word for rank in _WORDS[role] for word in rank.split()))
    named = [c for c in items.columns if shape.fullmatch(_plain(c))]
    fit = [c for c in named if items[c].dtype == pl.String or (role != NAME and _holds_ids(items[c]))]
    return fit[0] if len(fit) == 1 else None


def _clock_alone(frame: pl.DataFrame, columns: Mapping[str, str], who: str) -> str:
    """A sentence where `time` holds clocks and another column the dates; else ""."""
    if frame["time"].dtype not in (pl.String, pl.Time) or not _holds_clocks(frame["time"]):
        return ""
    day = guess_columns(frame.select(c for c in frame.columns if c not in _KNOWN)).get("time")
    if day is None:
        return ""
    pairs = ",".join(f"{ours}={theirs}" for ours, theirs in {**columns, "time": f"{day}+time"}.items())
    return (
        f"column 'time' of {who} holds clocks without dates, and '{day}' the dates. Map both: "
        f"--columns {shlex.quote(pairs)}."
    )


def unknown_column(theirs: str, name: str, who: str, have: Sequence[str]) -> str:
    """A sentence on a mapping that names a column which is not there."""
    near = get_close_matches(theirs, have, 1, 0.7) or [c for c in have if c.lower() == theirs.lower()]
    cure = f"Correct the mapping: '{near[0]}'?" if near else "Correct the mapping."
    return (
        f"{who} lack column '{theirs}', which is to be '{name}'; they have "
        f"{[c for c in have if c != FILE]}. {cure}"
    )


# -- guesses ---------------------------------------------------------------------------------------

# words for each role in the languages of shops, without accents and signs; the first are surest
_WORDS: dict[str, tuple[str, ...]] = {
    "user_id": (
        "user customer cust client shopper kunde kunden kund household hh haushalt hshd household "
        "member mitglied cliente clienti klant klient asiakas musteri utente usuario acheteur foyer "
        "buyer consumer kupujici zakaznik klienta klienci vasarlo ugyfel medlem socio клиент клиента "
        "покупатель покупателя "
        "顧客 客户 会员",
        "person account visitor panelist loyalty card loyaltycard membercard clubcard karte "
        "kundenkarte bonuskarte tessera tarjeta carte cartefidelite karta karty kartaklienta "
        "kartyklienta email emailaddress customeremail emailbilling billingemail "
        "карта карты картаклиента картылояльности",
    ),
    "item_id": (
        "item product prod sku article artikel art stock produkt produit producto prodotto produto "
        "articulo articolo artigo vare tuote towar towaru produktu artykul artykulu zbozi termek "
        "urun material товар товара 商品 产品",
        "ean upc gtin asin isbn plu goods",
    ),
    "time": (
        "date datum data fecha dato pvm tarih дата 日付 dt time timestamp datetime zeitpunkt moment "
        "kaufdatum belegdatum bondatum zeitstempel horodatage",
        "day tag jour dia giorno dag dzien zeit",
    ),
    "basket_id": (
        "basket receipt bon kassenbon kassabon beleg invoice rechnung scontrino factura facture bill "
        "recibo kvitto kvittering kuitti paragon paragonu uctenka uctenky nyugta ticket tique "
        "warenkorb fis cupom чек чека",
        "order transaction trans bestellung commande pedido ordine visit saleid salenumber",
    ),
    "quantity": (
        "quantity qty menge units anzahl stueck stuck cantidad quantite quantita quantidade aantal "
        "antal ilosc mnozstvi mennyiseg miktar qte pieces pcs units uds unidades количество "
        "колво quantityrefund purchasequantity",
    ),
    "value": (
        "value paid sales spend umsatz betrag importe montant importo bedrag belop kwota "
        "revenue turnover salesvalue netsales linetotal totalprice wartosc wartoscbrutto kwotabrutto "
        "castka valor valortotal importetotal nettowert netvalue salesamount montantttc montantht "
        "belopp tutar сумма стоимость",
        "amount amt lineamount netamount grossamount purchaseamount",
    ),
    "price": (
        "price unitprice priceperunit preis prix precio prezzo prijs cena pris preco stueckpreis "
        "fiyat цена",
    ),
    "store": (
        "store filiale branch outlet tienda magasin negozio winkel shop butik sklep sklepu prodejna "
        "obchod uzlet loja магазин магазина",
    ),
    "name": (
        "name description desc bezeichnung beschreibung artikelbezeichnung artikelname artikeltext "
        "produktname produktbezeichnung warenbezeichnung itemname itemdescription itemdesc productname "
        "productdescription productdesc articlename designation libelle descripcion descrizione "
        "descricao denominazione omschrijving nazwa nazwatowaru nazwaproduktu nazev nazevzbozi "
        "navn namn artikelnamn nimi номенклатура libellearticle descrizionearticolo urunadi "
        "descripcionarticulo наименование название наименованиетовара названиетовара",
        "item product article artikel produkt",  # beside its number
    ),
    "category_1": (
        "category categoria categorie kategorie warengruppe artikelgruppe produktgruppe department "
        "abteilung rayon famille reparto departamento seccion familia grupatowarowa grupatowaru "
        "kategoria категория группатоваров productgroup itemgroup itemcategory productcategory",
    ),
}
_BEFORE = (
    r"((id|no?|nr|num|numero?|numer|cod|code|codigo|codice|kod|cislo|номер|код)"
    r"(de|del|du|do|da|di|d)?)?"
)
_NUMBERED = r"(s|n|en|r|ren)?(id|ids|nr|no|num|nummer|number|numero|code|key|kod|kodu|sk|uid)?"
_WHEN = (
    "shop shopping order purchase invoice sale sales transaction trans receipt bon beleg rechnungs "
    "bestell kauf einkaufs verkaufs basket visit event order kassen"
)
_CLOCKS = "hour clock time uhrzeit zeit stunde heure hora ora tijd klokken godzina saat at"
_NO_TIME = re.compile(
    r"since|prior|number|seq|ordern|birth|geburt|naissance|nacimiento|expir|valid|gueltig|updat"
    r"|signup|regist|first|start|end$|until|from|to$"
)
_MADE = re.compile(r"creat")  # of the line or of the user: a time where nothing else is
_AMOUNT = r"^\s*[$€£]?-?(\d{1,7}|\d{9,}|\d+[.,]\d+)\s*$"  # 20240131 may be a date
_VALUE = re.compile(r"[-+]?\d[\d.,:/ TZ-]*")  # a number or a time
# what lacks a name is called so in text and workbooks
_UNNAMED = re.compile(r"unnamed_\d+|__UNNAMED__\d+")
_NUMBER = r"^\s*[-+(\u2212]?[$€£]?[-+]?[\d., ']+[€£$]?[-)]?\s*$"
_DAYS = r"(day|tag|jour|dia|giorno|dag|date|datum)(nr|no|number)?$"
_DESCRIBES = (NAME, CATEGORIES[0])
_KIND = {"basket_id": "id", "store": "id", "user_id": "id", "item_id": "id", "time": "time"}


def guess_columns(frame: pl.DataFrame, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Standard name -> the column that seems to hold it, by name and cells; what is unsure is left out.

    Nothing is guessed rather than something wrong: an id that no two lines share, a number that is no
    date, and two columns of which either may be meant are no answer. What describes items is text of
    which an item has one. `known` columns come with the others.

    Examples
    --------
    >>> guess_columns(pl.DataFrame({
    ...     "Bon": [1, 1, 2], "Kunde": [7, 7, 8], "ArtikelNr": [3, 4, 3],
    ...     "Datum": ["31.01.2024", "31.01.2024", "01.02.2024"], "order_number": [1, 1, 2],
    ... }))
    {'user_id': 'Kunde', 'item_id': 'ArtikelNr', 'time': 'Datum', 'basket_id': 'Bon'}
    """
    plain = {c: _plain(c) for c in frame.columns}
    found = dict(known or {})
    for role, ranks in _WORDS.items():
        if role in found:
            continue
        if role == "time":
            name = _guess_time(frame, plain)
        else:
            name = _guess_named(frame, plain, role, ranks, found)
        if name is not None and name not in found.values():
            found[role] = name
    return found


def _guess_named(
    frame: pl.DataFrame,
    plain: Mapping[str, str],
    role: str,
    ranks: Sequence[str],
    found: Mapping[str, str],
) -> str | None:
    before, ending = (_BEFORE, _NUMBERED) if role in _KIND else ("", "")
    if role == "value" and "quantity" not in found:  # an amount may be that of pieces
        ranks = ranks[:1]
    for words in ranks:
        shape = re.compile(f"{before}({'|'.join(words.split())}){ending}")
        named = [c for c, name in plain.items() if shape.fullmatch(name) and c not in found.values()]
        if role in _DESCRIBES:
            good = [c for c in named if _describes(frame, c, found.get("item_id"))]
        else:
            fits = _holds_ids if role in _KIND else _holds_numbers
            good = [c for c in named if fits(frame[c])]
        if len(good) > 1:  # customer_id beside customer: the one that says that it is an id
            good = [c for c in good if re.search(r"(id|nr|no|number|nummer|code|key|sku)$", plain[c])]
        if len(good) == 1:
            return good[0]
        if good or len(named) > 1:
            return None
    return None


def _guess_time(frame: pl.DataFrame, plain: Mapping[str, str]) -> str | None:
    words = "|".join(word for rank in _WORDS["time"] for word in rank.split())
    shape = re.compile(f"({'|'.join(_WHEN.split())})?({words})(id|nr|no|number)?|.+at")
    plain = {c: n for c, n in plain.items() if not _NO_TIME.search(n) and _is_filled(frame[c])}
    made = {c: name for c, name in plain.items() if _MADE.search(name)}
    rest = {c: name for c, name in plain.items() if c not in made}
    dated = [c for c, n in rest.items() if shape.fullmatch(n) and _holds_times(frame[c], n)]
    dated = dated or [c for c in rest if _holds_times(frame[c], "")]
    dated = dated or [c for c in made if _holds_times(frame[c], "")]
    if len(dated) > 1:  # a timestamp says more than its day
        dated = [c for c in dated if _has_clock(frame[c])] or dated
    if len(dated) != 1:
        return None
    if not _has_clock(frame[dated[0]]):
        clocks = [
            c
            for c, name in plain.items()
            if re.fullmatch(f"({'|'.join(_WHEN.split())})?({'|'.join(_CLOCKS.split())})", name)
            and c != dated[0]
            and _holds_clocks(frame[c])
        ]
        if len(clocks) == 1:
            return f"{dated[0]}+{clocks[0]}"
    return dated[0]


_LETTERS = str.maketrans({"ß": "ss", "ł": "l", "đ": "d", "ø": "o", "æ": "ae", "ı": "i"})


def _plain(name: str) -> str:
    """A column's name without case, accents and signs: ``Customer ID`` and ``customerId`` are alike."""
    folded = unicodedata.normalize("NFKD", name.lower().translate(_LETTERS))
    letters = re.sub(r"[\W_]", "", "".join(c for c in folded if not unicodedata.combining(c)))
    return letters.removeprefix("lineitem") or letters  # as web shops export the lines of orders


def _some(cells: pl.Series, n: int = 2_000) -> pl.Series:
    known = _known(cells)
    return known.gather_every(max(1, len(known) // n))


def _known(cells: pl.Series) -> pl.Series:
    known = cells.drop_nulls()
    return known.filter(known.str.strip_chars() != "") if known.dtype == pl.String else known


def _is_filled(cells: pl.Series) -> bool:
    """Do nine cells of ten hold something? Web shops say some facts on an order's first line alone."""
    return len(_known(cells)) >= 0.9 * len(cells)


def _holds_ids(cells: pl.Series) -> bool:
    """May cells be ids of what comes again?"""
    some = cells.drop_nulls()
    if (
        some.is_empty()
        or some.dtype.is_nested()
        or some.dtype.is_temporal()
        or some.dtype == pl.Boolean
    ):
        return False
    if some.dtype.is_float() and not (some == some.round()).all():
        return False
    few = len(some) < 20
    return few or bool(some.n_unique() < len(some) and some.n_unique() > 1)


def _holds_numbers(cells: pl.Series) -> bool:
    if cells.dtype.is_numeric():
        return True
    if cells.dtype != pl.String:
        return False
    some = _some(cells)
    return len(some) > 0 and bool(some.str.contains(_NUMBER).all())


def _describes(frame: pl.DataFrame, text: str, item: str | None) -> bool:
    """Is a column text of which an item has one, but for a few?"""
    if item is None or frame[text].dtype != pl.String or frame[text].drop_nulls().n_unique() < 2:
        return False
    known = frame.select(item, text).drop_nulls().unique()
    return known.height <= 1.05 * known[item].n_unique()


def _holds_times(cells: pl.Series, named: str) -> bool:
    """Are cells dates of the past? Numbers are if written as such, or if they count days by their name.

    `named` is the column's plain name, or "" where it says nothing of time.
    """
    if isinstance(cells.dtype, pl.Datetime | pl.Date):
        return True
    if cells.dtype.is_numeric():
        low, high = cells.min(), cells.max()
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            return False
        written, seconds = low >= 19800101 and high < 21000101, low >= 315_532_800
        counts = re.search(_DAYS, named) is not None
        days = counts and low >= 0 and 31 < high < 60_000 and not 1900 < low <= high < 2101
        if not (written or days or (seconds and named)):
            return False
        if days and not written:
            return True
    elif cells.dtype != pl.String:
        return False
    some = _some(cells, 300)
    if some.is_empty():
        return False
    if not named and some.dtype == pl.String and some.str.contains(_AMOUNT).all():
        return False
    try:
        times = parse_time(some, who="")
    except RetailRecError as error:
        return bool(named) and "can't be told apart" in str(error)
    read = times.drop_nulls()
    enough = len(read) >= 0.9 * len(some)
    return enough and bool(
        read.is_between(EARLIEST, datetime.now() + timedelta(days=2)).sum() >= 0.9 * len(read)
    )


def _has_clock(cells: pl.Series) -> bool:
    if isinstance(cells.dtype, pl.Datetime):
        day = 86_400 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[cells.dtype.time_unit]
        return bool((cells.to_physical() % day != 0).any())  # zones such as +05:30 have no clock here
    if cells.dtype == pl.String:  # a workbook writes the midnight of dates
        some = _some(cells, 300)
        midnight = some.str.contains(r"[ T]00:00:00(\.0+)?$")
        return bool((some.str.contains(r"\d:\d\d") & ~midnight).any())
    low: Any = cells.min() if cells.dtype.is_numeric() else None
    return low is not None and low >= 315_532_800 and low > 21010101


def _holds_clocks(cells: pl.Series) -> bool:
    if cells.dtype == pl.Time:
        return True
    some = _some(cells, 300)
    if some.is_empty():
        return False
    if some.dtype.is_integer():
        low, high = some.min(), some.max()
        return isinstance(low, int) and isinstance(high, int) and low >= 0 and high <= 2359
    shape = _CLOCK_DAY + r"?\s*([01]?\d|2[0-3])(:?[0-5]\d){0,2}(\.\d+)?\s*([AaPp][Mm])?\s*$"
    return some.dtype == pl.String and bool(some.str.contains(shape).all())


def check_names(columns: Mapping[str, str], known: Sequence[str]) -> None:
    """Raise a SettingError if a mapping has a standard name that means nothing."""
    if unknown := sorted(set(columns) - set(known)):
        near = get_close_matches(unknown[0], known, 1, 0.6)
        hint = f" '{near[0]}'?" if near else ""
        raise SettingError(
            f"--columns names {unknown}, which mean nothing here; expected some of {list(known)}."
            f"{hint} Write standard=yours, such as time=date."
        )
