"""A generated supermarket in the Complete Journey's own columns, whose right answers are known.

What it models, each a switch of `Shop`: households with demographics, budgets and rhythms; a
catalogue tree with readable names and a long tail; tastes by segment and household; loyalty to a
brand and switching (`loyalty`); needs that return after a time of their own (`replenishment`);
things bought together (`complements`); promotions and price sensitivity (`promotions`); seasons
and holidays (`seasons`); launches and delistings (`launches`);
habits that change (`drift`); returns and till dirt (`dirt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Range, Seed, check_settings
from retailrec.compute.csr import row_of_pair
from retailrec.compute.shards import map_shards
from retailrec.data import RetailData
from retailrec.data.parsing import DAY_ONE
from retailrec.errors import SettingError
from retailrec.simulator import households as kernels
from retailrec.simulator.truth import Truth
from retailrec.work import write_result

# department: commodities (sub-commodities), price level, days until it runs out
TREE: dict[str, tuple[str, float, float]] = {
    "PRODUCE": (
        "APPLES:GALA,FUJI,GRANNY SMITH;BANANAS:YELLOW,ORGANIC;SALAD:ICEBERG,SPRING MIX,"
        "SPINACH;TOMATOES:VINE,CHERRY,ROMA;POTATOES:RUSSET,RED,SWEET;ONIONS:YELLOW,RED;"
        "BERRIES:STRAWBERRY,BLUEBERRY;CITRUS:ORANGE,LEMON;HERBS:BASIL,CILANTRO",
        2.4,
        11,
    ),
    "DAIRY": (
        "MILK:WHOLE,SKIM,TWO PERCENT;YOGURT:PLAIN,FRUIT,GREEK;CHEESE:CHEDDAR,MOZZARELLA,"
        "SLICED;BUTTER:SALTED,UNSALTED;EGGS:LARGE,FREE RANGE;CREAM:SOUR,WHIPPING",
        3.2,
        12,
    ),
    "BAKERY": (
        "BREAD:WHITE,WHEAT,RYE;ROLLS:BURGER,DINNER;CAKES:LAYER,CUP;BAGELS:PLAIN,SESAME",
        2.9,
        10,
    ),
    "MEAT": (
        "BEEF:GROUND,STEAK,ROAST;CHICKEN:BREAST,WINGS,WHOLE;PORK:CHOPS,RIBS;"
        "BACON:SMOKED,TURKEY;SAUSAGE:BREAKFAST,DINNER",
        7.5,
        18,
    ),
    "FROZEN": (
        "PIZZA:CHEESE,PEPPERONI;ICE CREAM:VANILLA,CHOCOLATE,BARS;VEGETABLES:PEAS,CORN,MIXED;"
        "MEALS:SINGLE,FAMILY;POTATO:FRIES,HASH BROWNS",
        4.4,
        24,
    ),
    "GROCERY": (
        "PASTA:SPAGHETTI,PENNE,MACARONI;PASTA SAUCE:TOMATO,ALFREDO;RICE:WHITE,BROWN;CEREAL:"
        "FLAKES,GRANOLA,KIDS;SOUP:TOMATO,CHICKEN,CREAM;CANNED FISH:TUNA,SALMON;BEANS:BLACK,"
        "BAKED;OIL:OLIVE,CANOLA;FLOUR:WHITE,WHOLE;SUGAR:WHITE,BROWN;SPICES:PEPPER,MIXED;"
        "JAM:STRAWBERRY,GRAPE;PEANUT BUTTER:CREAMY,CRUNCHY;CONDIMENTS:KETCHUP,MUSTARD,MAYO;"
        "BAKING MIX:CAKE,PANCAKE;BABY FOOD:FRUIT,VEGETABLE",
        2.7,
        32,
    ),
    "SNACKS": (
        "CHIPS:POTATO,TORTILLA;COOKIES:CHOCOLATE,OAT;CRACKERS:SALTED,CHEESE;"
        "CANDY:CHOCOLATE,GUMMY;NUTS:PEANUT,MIXED;SALSA:MILD,HOT",
        3.1,
        19,
    ),
    "DRINKS": (
        "SOFT DRINKS:COLA,DIET COLA,LEMON;WATER:STILL,SPARKLING;JUICE:ORANGE,APPLE;"
        "COFFEE:GROUND,BEANS,INSTANT;TEA:BLACK,GREEN;BEER:LAGER,ALE;WINE:RED,WHITE",
        5.2,
        20,
    ),
    "HOUSEHOLD": (
        "PAPER:TOILET,TOWEL,TISSUE;LAUNDRY:POWDER,LIQUID,SOFTENER;CLEANING:BATHROOM,"
        "KITCHEN;DISHES:LIQUID,TABS;BAGS:TRASH,FREEZER;CANDLES:SCENTED,TAPER",
        6.1,
        45,
    ),
    "DRUG GM": (
        "SHAMPOO:DRY,DAILY;SOAP:BAR,LIQUID;TOOTHPASTE:MINT,WHITENING;VITAMINS:MULTI,C;"
        "PAIN RELIEF:TABLETS,GEL;DIAPERS:SMALL,LARGE;BATTERIES:AA,AAA",
        7.2,
        55,
    ),
    "PET": ("DOG FOOD:DRY,WET;CAT FOOD:DRY,WET;CAT LITTER:CLUMPING,CLAY;PET TREATS:DOG,CAT", 6.4, 22),
    "SEASONAL": (
        "GARDEN:SEEDS,SOIL;GRILLING:CHARCOAL,TOOLS;HOLIDAY:LIGHTS,WRAP;SCHOOL:PENS,PAPER",
        8.8,
        150,
    ),
}
_PAIRS = (
    "PASTA:PASTA SAUCE,CHIPS:SALSA,CEREAL:MILK,BREAD:BUTTER,PEANUT BUTTER:JAM,COFFEE:CREAM,"
    "BURGER:CONDIMENTS,BEEF:ROLLS,SALAD:TOMATOES,DOG FOOD:PET TREATS,CAKES:CANDLES,BAGELS:CHEESE"
)
PARTNERS = {first: second for first, _, second in (pair.partition(":") for pair in _PAIRS.split(","))}
BRANDS, STYLES, SIZES = (
    words.split(",")
    for words in (
        "SUNNY FARM,OAKWELL,BLUE RIDGE,HARVEST HOME,NORTHFIELD,GOLDEN SPOON,RIVERBEND,MEADOWLARK,"
        "STONE MILL,CLEARBROOK,MAPLE LANE,SILVER PINE,GREENWAY,OLD TOWN,BRIGHT DAY,COPPER KETTLE",
        "CLASSIC,FAMILY,SELECT,LIGHT,ORGANIC,VALUE,PREMIUM,ORIGINAL,FRESH,NATURAL",
        "SMALL,6 OZ,10 OZ,12 OZ,16 OZ,24 OZ,LARGE,2 PACK,4 PACK,FAMILY SIZE",
    )
)


def sub_commodities() -> list[tuple[str, str, str]]:
    """Department, commodity and sub-commodity, one row a sub-commodity."""
    return [
        (department, commodity.partition(":")[0], sub)
        for department, (tree, _, _) in TREE.items()
        for commodity in tree.split(";")
        for sub in commodity.partition(":")[2].split(",")
    ]


SHARD = 1000  # households a file is made of; part of the format, not of the machine
_SEGMENTS = 8
FILES = ("transaction_data", "product.parquet", "hh_demographic.parquet", "truth")
_TRUTH_USERS = 20_000
_WEEKDAYS = np.array([0.75, 0.7, 0.7, 0.75, 0.9, 1.0, 0.95])  # day 1 is a Saturday: index 0


@dataclass(frozen=True)
class Shop:
    """A supermarket and its households; the same fields give the same bytes.

    Attributes
    ----------
    users, items, weeks : households, catalogue items, length
    seed : of everything
    tail : exponent of item popularity within a sub-commodity; larger is more concentrated
    scale : size of receipts, 1 is about nine lines a receipt
    replenishment ... dirt : switches of what is modelled
    """

    users: Annotated[int, Range(1, 100_000_000)] = 1500
    items: Annotated[int, Range(1, 10_000_000)] = 3000
    weeks: Annotated[int, Range(2, 5_200)] = 52  # dates stay within reach
    seed: Seed = 0
    tail: Annotated[float, Range(0, 10)] = 0.8
    scale: Annotated[float, Range(0, 100, above=True)] = 1.0
    replenishment: bool = True
    loyalty: bool = True
    complements: bool = True
    promotions: bool = True
    seasons: bool = True
    launches: bool = True
    drift: bool = True
    dirt: bool = True

    def __post_init__(self) -> None:
        check_settings(self, "shop")
        if self.items < self.n_subs:
            raise SettingError(f"shop: items must be at least {self.n_subs}, not {self.items}.")

    @property
    def n_subs(self) -> int:
        """Sub-commodities of the catalogue tree."""
        return len(sub_commodities())

    @property
    def days(self) -> int:
        """Length in days."""
        return self.weeks * 7

    @cached_property
    def world(self) -> kernels.World:
        """The arrays that the kernels read: see `retailrec.simulator.households`."""
        rng = np.random.default_rng([self.seed, 1])
        table = sub_commodities()
        n = len(table)
        department = np.array([list(TREE).index(row[0]) for row in table])
        subs = np.zeros((n, 6))
        periods = np.array([TREE[row[0]][2] for row in table])
        subs[:, kernels.PERIOD] = 0.85 * periods * np.exp(0.35 * rng.standard_normal(n))
        subs[:, kernels.WEIGHT] = np.exp(0.6 * rng.standard_normal(n)) / np.sqrt(periods)
        seasonal = np.array([row[0] in ("SEASONAL", "PRODUCE") for row in table])
        subs[:, kernels.AMPLITUDE] = np.where(seasonal, 0.45, 0.12) * rng.random(n)
        subs[:, kernels.PHASE] = 2 * np.pi * rng.random(n)
        commodities = [row[1] for row in table]
        subs[:, kernels.PARTNER] = [
            commodities.index(PARTNERS[c]) if c in PARTNERS else -1 for c in commodities
        ]
        subs[:, kernels.PARTNER_P] = 0.35
        tilt = np.exp(0.7 * rng.standard_normal((_SEGMENTS, len(TREE))))[:, department]
        segment_cum = np.cumsum(subs[:, kernels.WEIGHT] * tilt, axis=1)
        first = np.linspace(0, self.items, n + 1).astype(np.int64)
        weights = np.empty(self.items)
        cum = np.empty(self.items)
        for sub in range(n):
            shelf = slice(first[sub], first[sub + 1])
            size = first[sub + 1] - first[sub]
            zipf = 1.0 / np.arange(1, size + 1) ** self.tail
            weights[shelf] = rng.permutation(zipf)
            cum[shelf] = np.cumsum(weights[shelf])
        sub_cum = np.cumsum(subs[:, kernels.WEIGHT])
        life = np.column_stack([np.full(self.items, -1e9), np.full(self.items, 1e9)])
        launched = rng.random(self.items) < 0.15
        life[launched, 0] = self.days * rng.random(launched.sum())
        gone = rng.random(self.items) < 0.08
        life[gone, 1] = np.maximum(life[gone, 0], 0) + self.days * (0.2 + rng.random(gone.sum()))
        level = np.array([TREE[row[0]][1] for row in table])
        price = 0.6 * np.repeat(level, np.diff(first)) * np.exp(0.45 * rng.standard_normal(self.items))
        price = np.maximum(np.round(price * 10) / 10 - 0.01, 0.29)
        needs = (self.replenishment, self.loyalty, self.complements)
        switches = np.array([*needs, self.promotions, self.seasons, self.launches, self.drift])
        brand = rng.integers(0, len(BRANDS), self.items)
        return kernels.World(
            subs, segment_cum, first, cum, sub_cum, life, price, _WEEKDAYS, switches, self.scale, brand
        )

    def products(self) -> pl.DataFrame:
        """The catalogue, `PRODUCT_ID` = item number + 1, with readable names."""
        rng = np.random.default_rng([self.seed, 2])
        first = self.world.first
        sub = row_of_pair(first)
        table = sub_commodities()
        brand = self.world.brand
        style, size = (rng.integers(0, len(words), self.items) for words in (STYLES, SIZES))
        brands = np.array(BRANDS)[brand]
        private = brand < 3
        return pl.DataFrame(
            {
                "PRODUCT_ID": np.arange(1, self.items + 1),
                "MANUFACTURER": brand + 1,
                "DEPARTMENT": [table[s][0] for s in sub],
                "BRAND": np.where(private, "Private", "National"),
                "COMMODITY_DESC": [table[s][1] for s in sub],
                "SUB_COMMODITY_DESC": [f"{table[s][1]} {table[s][2]}" for s in sub],
                "CURR_SIZE_OF_PRODUCT": np.array(SIZES)[size],
                "PRODUCT_NAME": [
                    f"{b} {STYLES[t]} {table[s][2]} {table[s][1]} {SIZES[z]}"
                    for b, t, s, z in zip(brands, style, sub, size, strict=True)
                ],
            }
        )

    def shards(self) -> Iterator[pl.DataFrame]:
        """Receipt lines, `SHARD` households at a time."""

        yield from map_shards(self._lines, self.users, size=SHARD, threads=2)

    def households(self) -> pl.DataFrame:
        """Demographics of a third of the households, as in the Complete Journey."""
        rng = np.random.default_rng([self.seed, 3])
        known = np.flatnonzero(rng.random(self.users) < 0.33)
        traits = [kernels.simulate_shard(self.seed, int(h), 1, 0, self.world)[2] for h in known]
        segment = np.array([row[0, kernels.SEGMENT] for row in traits]).astype(int)
        ages = ["19-24", "25-34", "35-44", "45-54", "55-64", "65+"]
        income = ["Under 15K", "15-24K", "25-34K", "35-49K", "50-74K", "75-99K", "100-124K"]
        noise = rng.integers(-1, 2, (2, len(known)))
        return pl.DataFrame(
            {
                "household_key": known + 1,
                "AGE_DESC": [ages[i] for i in np.clip(segment * 6 // _SEGMENTS + noise[0], 0, 5)],
                "INCOME_DESC": [income[i] for i in np.clip(segment % 4 * 2 + noise[1], 0, 6)],
                "KID_CATEGORY_DESC": np.where(segment % 2 == 0, "None/Unknown", "1+"),
            }
        )

    def truth(
        self,
        cutoff_day: int,
        horizon_days: int,
        users: NDArray[np.integer] | None = None,
        *,
        repetitions: int = 200,
        top: int = 200,
    ) -> Truth:
        """How likely each household is to buy each item in [cutoff_day, cutoff_day + horizon_days).

        Counted over `repetitions` futures that start from the household's true state; the standard
        error of a probability p is sqrt(p (1 - p) / repetitions).

        Parameters
        ----------
        cutoff_day : days since the start, 0 is day 1
        users : household numbers from 0; all by default
        top : items kept a household, most likely first
        """
        chosen = np.arange(self.users) if users is None else np.asarray(users)

        def shard(rows: slice) -> pl.DataFrame:
            counts = np.zeros((2, self.items), np.int32)
            parts = []
            count: Any = kernels.count_futures
            window = (self.days, cutoff_day, horizon_days, repetitions)
            for household in chosen[rows]:
                items, n, n_any = count(self.seed, int(household), *window, self.world, counts)
                best = np.argsort(-n.sum(axis=1), kind="stable")[:top]
                columns = {
                    "user_id": np.full(len(best), household + 1),
                    "item_id": items[best].astype(np.int64) + 1,
                    "p": n[best].sum(axis=1) / repetitions,
                    "p_first": n[best, 0] / (repetitions / 2),
                    "p_second": n[best, 1] / (repetitions / 2),
                    "p_any": np.full(len(best), n_any / repetitions),
                }
                parts.append(pl.DataFrame(columns))
            return pl.concat(parts)

        frame = pl.concat(map_shards(shard, len(chosen), size=200, threads=2))
        return Truth(frame, DAY_ONE + timedelta(days=cutoff_day), horizon_days, repetitions)

    def _lines(self, rows: slice) -> pl.DataFrame:
        start, n = rows.start, rows.stop - rows.start
        whole, money, _ = kernels.simulate_shard(self.seed, start, n, self.days, self.world)
        household, visit, day, minute, item, quantity = whole.T
        lines = pl.DataFrame(
            {
                "household_key": household.astype(np.int64) + 1,
                "BASKET_ID": (household.astype(np.int64) + 1) * 100_000 + visit,
                "DAY": day + 1,
                "PRODUCT_ID": item.astype(np.int64) + 1,
                "QUANTITY": quantity,
                "SALES_VALUE": money[:, 0].astype(np.float64).round(2),
                "STORE_ID": household % 40 + 1,
                "RETAIL_DISC": money[:, 1].astype(np.float64).round(2),
                "TRANS_TIME": minute // 60 * 100 + minute % 60,
                "WEEK_NO": day // 7 + 1,
                "COUPON_DISC": np.zeros(len(day)),
                "COUPON_MATCH_DISC": np.zeros(len(day)),
            }
        )
        return self._with_dirt(lines, start) if self.dirt else lines

    def _with_dirt(self, lines: pl.DataFrame, start: int) -> pl.DataFrame:
        """One line in 200 is doubled as a return, a free line or a zero quantity."""
        rng = np.random.default_rng([self.seed, 4, start])
        where = np.flatnonzero(rng.random(lines.height) < 0.005)
        kind = rng.integers(0, 3, len(where))
        extra = lines[where].with_columns(
            QUANTITY=pl.Series(np.where(kind == 0, -1, np.where(kind == 1, 0, 1)), dtype=pl.Int32),
            SALES_VALUE=pl.Series(np.where(kind == 0, -1.0, 0.0)),
        )
        return pl.concat([lines, extra])

    def write(self, out: Path, *, truth_days: int | None = None) -> int:
        """Write ``transaction_data/``, ``product``, ``hh_demographic`` and ``truth/`` as Parquet.

        `truth/` covers the last `truth_days` of the receipts and the first 20,000 households; None
        leaves it out. Returns the number of receipt lines.

        Raises
        ------
        SettingError
            If `truth_days` is less than one, or no less than the length of the receipts.
        """
        if truth_days is not None and not 0 < truth_days < self.days:
            raise SettingError(
                f"truth_days must lie between 1 and {self.days - 1}, the receipts' length, "
                f"not {truth_days}."
            )
        receipts = out / "transaction_data"
        receipts.mkdir(parents=True, exist_ok=True)
        n_lines = 0
        for number, lines in enumerate(self.shards()):
            lines.write_parquet(receipts / f"part-{number:05d}.parquet")
            n_lines += lines.height
        self.products().write_parquet(out / "product.parquet")
        self.households().write_parquet(out / "hh_demographic.parquet")
        if truth_days is not None:
            users = np.arange(min(self.users, _TRUTH_USERS))
            self.truth(self.days - truth_days, truth_days, users).write(out / "truth")
        return n_lines


PRESETS: dict[str, Shop] = {
    "small": Shop(),
    "complete-journey": Shop(users=2500, items=92_000, weeks=102, scale=1.08),
    "x5": Shop(users=400_000, items=43_000, weeks=17, scale=0.62),
}


def preset_shop(name: str, **changes: float | None) -> Shop:
    """A preset shop with some fields changed; None leaves a field as it is.

    Raises
    ------
    SettingError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise SettingError(f"there is no preset '{name}'; expected one of {', '.join(PRESETS)}.")
    given: dict[str, Any] = {k: v for k, v in changes.items() if v is not None}
    return replace(PRESETS[name], **given)


def small_data(
    users: int = 300, weeks: int = 40, items: int = 600, seed: int = 0, **switches: bool
) -> RetailData:
    """Generated data in memory, for examples and tests."""
    return data_of(Shop(users=users, items=items, weeks=weeks, seed=seed, **switches))


def data_of(shop: Shop) -> RetailData:
    """A shop's receipts, loaded as the Complete Journey's are."""
    from retailrec.datasets import complete_journey

    return complete_journey.from_tables(
        pl.concat(shop.shards()), shop.products(), shop.households(), "generated shop"
    )


# what examples of the documentation and of each command's help read
EXAMPLE_FILES = (
    *("shop/transactions.csv", "shop/items.csv", "receipts.csv", "receipts_so_far.csv"),
    *("exports/until-today.csv", "till.csv", "till.toml", "wanted.csv", "eligible.csv", "sent.csv"),
    *("products.csv", "deny.csv", "margin.csv", "spring_items.csv", "scores.csv", "spring.toml"),
    *("week.toml", "theirs.csv", "ours.csv", "bought.csv"),
)
_TILL = """[columns]
user_id = "Kunde"
item_id = "Artikel"
time = "Datum+Uhrzeit"
basket_id = "Bon"
quantity = "Menge"
value = "Umsatz"
"""
_CAMPAIGN = """name = "spring"
value = "probability_margin"
holdout = 0.2

[offers]
at_most = 3

[[limit]]
by = "product"
at_most = "stock"

[[budget]]
at_most = 20
"""
_WEEK = """receipts = "exports"
folder = "weeks"

[request]
k = 5

[model]
horizon_days = 14
"""


def write_examples(folder: Path) -> None:
    """Write sixty users' receipts of forty weeks, and what the examples name beside them.

    `shop` has receipts and a catalogue in standard columns, ``receipts.csv`` the same lines under other
    names, ``till.csv`` a German till's (dates and clocks apart, decimal commas), with ``till.toml`` to
    read it; ``week.toml`` publishes lists from ``exports``. The lists, margins and offers are of the
    same shop.

    Raises
    ------
    DataError
        If a file can't be written.
    """
    data = small_data(users=60, weeks=40)
    lines = receipt_lines(data).with_columns(
        pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"),
        pl.col("quantity").cast(pl.Int64),
        pl.col("value").cast(pl.Float64).round(2),
    )
    for name, frame in _tables(data, lines).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_result(frame, folder / name)
    clock = pl.col("time").str.to_datetime()
    till = lines.select(
        Kunde="user_id",
        Artikel="item_id",
        Datum=clock.dt.to_string("%d.%m.%Y"),
        Uhrzeit=clock.dt.to_string("%H:%M"),
        Bon="basket_id",
        Menge="quantity",
        Umsatz="value",
    )
    write_result(till.write_csv(separator=";", decimal_comma=True), folder / "till.csv")
    write_result(_TILL, folder / "till.toml")
    write_result(_CAMPAIGN, folder / "spring.toml")
    write_result(_WEEK, folder / "week.toml")


def receipt_lines(data: RetailData) -> pl.DataFrame:
    """The log as lines in the standard columns, under the ids of users and items."""
    return data.log.select(
        data.users["user_id"].gather(data.log["user"]),
        data.items["item_id"].gather(data.log["item"]),
        "time",
        pl.col("basket").alias("basket_id"),
        "quantity",
        "value",
    )


def _tables(data: RetailData, lines: pl.DataFrame) -> dict[str, pl.DataFrame]:
    names = {"user_id": "client", "item_id": "sku", "time": "date", "basket_id": "receipt"}
    mine = lines.rename({**names, "quantity": "units", "value": "paid"})
    users = lines.select("user_id").unique(maintain_order=True)
    items = lines.select("item_id").unique(maintain_order=True)
    pairs = lines.select("user_id", "item_id").unique(maintain_order=True)
    ranked = pairs.group_by("user_id", maintain_order=True).head(5)
    ranked = ranked.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    sold = lines.group_by("item_id", maintain_order=True).agg(
        price=(pl.col("value") / pl.col("quantity")).mean().round(2), sold=pl.len()
    )
    facts = sold.select(
        "item_id",
        margin=(0.3 * pl.col("price")).round(2),
        cost=(0.2 * pl.col("price")).round(2),
        stock=2 + pl.col("sold") // 20,
        supplier=pl.col("item_id") % 3,
    )
    receipts = lines.group_by("user_id").agg(receipts=pl.col("basket_id").n_unique())
    times = lines.group_by("user_id", "item_id", maintain_order=True).agg(times=pl.len())
    chance = (pl.col("times") / (pl.col("receipts") + 2)).round(4)
    last = lines.filter(pl.col("time") >= str(lines["time"].max())[:8]).head(400)
    return {
        "shop/transactions.csv": lines,
        "shop/items.csv": data.items.select("item_id", "name", "category_1"),
        "receipts.csv": mine,
        "receipts_so_far.csv": lines,
        "exports/until-today.csv": lines,
        "wanted.csv": users.head(3),
        "eligible.csv": items.head(20),
        "sent.csv": users.head(9).with_columns(campaign_id=1),
        "products.csv": items.head(30).with_columns(campaign_id=1),
        "deny.csv": pairs.head(40),
        "margin.csv": facts.select("item_id", "margin"),
        "spring_items.csv": facts,
        "scores.csv": times.join(receipts, on="user_id", maintain_order="left").select(
            "user_id", "item_id", probability=chance
        ),
        "theirs.csv": ranked,
        "ours.csv": ranked.with_columns(rank=6 - pl.col("rank")).filter(pl.col("rank") > 0),
        "bought.csv": last.select(
            "user_id", "item_id", "value", price=(pl.col("value") / pl.col("quantity")).round(2)
        ),
    }
