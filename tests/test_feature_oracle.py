"""Every registered feature, by value, against SQL over the same receipts.

The table of formulas below is written from the features' descriptions. A feature that is registered
and has no formula here fails `test_every_feature_has_a_formula`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

from retailrec.candidates import Pairs
from retailrec.data import RetailData
from retailrec.features import FEATURES
from retailrec.features.assemble import FeatureSet
from retailrec.schema import CATEGORIES

END = datetime(2024, 3, 1)
# ages at which a window opens or closes; events lie on them to the day
EDGES = (7, 14, 28, 56, 84, 91, 336, 364)

# one row an event, with what formulas are made of
EVENTS = """
create view e as
with raw as (
  select "user", item, basket, quantity, value, time,
    case when not isnan(discount) then abs(discount) end as off,
    epoch(timestamp '2024-03-01' - time) / 86400 as age
  from log)
select *,
  value / quantity as price,
  case when value + off > 0 then off / (value + off) end as share_off,
  isodow(time) >= 6 as weekend,
  epoch(time - date_trunc('day', time)) / 3600 as hour,
  count(*) over (partition by basket) as basket_size,
  dense_rank() over (partition by "user" order by basket desc) - 1 as back,
  row_number() over (partition by "user", item order by basket desc) - 1 as nth_newest,
  lag(age) over (partition by "user", item order by basket) - age as gap,
  max(age) over (partition by "user", item) as first_age,
  min(age) over (partition by "user", item) as last_age
from raw;
create view visits as
select "user", basket, any_value(age) as age, any_value(weekend) as weekend, count(*) as n,
  lag(any_value(age)) over (partition by "user" order by basket) - any_value(age) as gap
from e group by "user", basket;
create view weeks as
select items.item, w.week, count(e.item) as n
from items cross join range(12) w(week)
left join e on e.item = items.item and greatest(ceil(e.age / 7) - 1, 0) = w.week
group by all;
"""
PAIR = {
    "pair_receipts": "count(distinct basket)",
    "pair_receipts_28d": "count(*) filter (age <= 28)",
    "pair_receipts_91d": "count(*) filter (age <= 91)",
    "pair_receipts_last_year": "count(*) filter (age > 336 and age <= 364)",
    "pair_decayed_30d": "sum(power(0.5, age / 30))",
    "pair_decayed_120d": "sum(power(0.5, age / 120))",
    "pair_days_since": "min(age)",
    "pair_days_since_first": "max(age)",
    "pair_receipts_back": "min(back)",
    "pair_last_five": "coalesce(sum(power(2, -back - 1)) filter (back < 5), 0)",
    "pair_last_ten": "count(*) filter (back < 10)",
    "pair_streak": "count(*) filter (back = nth_newest)",
    "pair_gap": "avg(gap)",
    "pair_gap_std": "case when count(gap) > 1 then stddev_pop(gap) end",
    "pair_gap_largest": "max(gap)",
    "pair_gap_last": "arg_max(gap, basket)",
    "pair_quantity": "avg(quantity)",
    "pair_value": "coalesce(sum(value), 0)",
    "pair_price": "avg(price)",
    "pair_basket_size": "avg(basket_size)",
    "pair_units": "sum(quantity)",
    "pair_value_91d": "coalesce(sum(value) filter (age <= 91), 0)",
    "pair_receipts_since_first": "max(back) + 1",
    "pair_gap_receipts": "case when count(*) > 1 then (max(back) - min(back)) / (count(*) - 1) end",
    "pair_discounted_share": "avg((share_off > 0.005)::int)",
}
USER = {
    "user_receipts": "count(distinct basket)",
    "user_items": "count(distinct item)",
    "user_value": "coalesce(sum(value), 0)",
    "user_days_since_visit": "min(age)",
    "user_tenure": "max(age)",
    "user_receipts_28d": "count(distinct basket) filter (age <= 28)",
    "user_receipts_91d": "count(distinct basket) filter (age <= 91)",
    "user_receipts_last_year": "count(distinct basket) filter (age > 336 and age <= 364)",
    "user_gap": '(select avg(gap) from visits where visits."user" = e."user")',
    "user_gap_std": (
        "(select case when count(gap) > 1 then stddev_pop(gap) end from visits "
        'where visits."user" = e."user")'
    ),
    "user_basket_size": '(select avg(n) from visits where visits."user" = e."user")',
    "user_last_basket_size": '(select arg_max(n, basket) from visits where visits."user" = e."user")',
    "user_price": "avg(price)",
    "user_quantity": "avg(quantity)",
    "user_repeat_share": "1 - count(distinct item) / count(*)",
    "user_repeat_share_91d": "count(gap) filter (age <= 91) / nullif(count(*) filter (age <= 91), 0)",
    "user_rebuy_rate_28d": (
        "count(distinct item) filter (first_age > 28 and last_age <= 28) / "
        "nullif(count(distinct item) filter (first_age > 28), 0)"
    ),
    "user_value_28d": "coalesce(sum(value) filter (age <= 28), 0)",
    "user_value_91d": "coalesce(sum(value) filter (age <= 91), 0)",
    "user_value_per_receipt": "coalesce(sum(value), 0) / count(distinct basket)",
    "user_receipts_per_week": "count(distinct basket) / (max(age) / 7 + 1)",
    "user_units_per_week": "sum(quantity) / (max(age) / 7 + 1)",
    "user_visit_due": 'min(age) / ((select avg(gap) from visits where visits."user" = e."user") + 1)',
    "user_weekend_share": "count(distinct basket) filter (weekend) / count(distinct basket)",
    "user_hour": "avg(hour)",
    "user_discounted_share": "avg((share_off > 0.005)::int)",
}
ITEM = {
    "item_receipts": "count(distinct basket)",
    "item_buyers": 'count(distinct "user")',
    "item_buyers_7d": 'count(distinct "user") filter (age <= 7)',
    "item_buyers_28d": 'count(distinct "user") filter (age <= 28)',
    "item_buyers_91d": 'count(distinct "user") filter (age <= 91)',
    "item_receipts_last_year": "count(*) filter (age > 336 and age <= 364)",
    "item_trend": "(count(*) filter (age <= 14) / 14) / (greatest(count(*) filter (age <= 56), 1) / 56)",
    "item_age": "max(age)",
    "item_days_since_sale": "min(age)",
    "item_receipts_per_buyer": 'count(*) / count(distinct "user")',
    "item_repeat_share": '1 - count(distinct "user") / count(*)',
    "item_rebuy_rate_28d": (
        '(count(distinct "user") filter (first_age > 28 and last_age <= 28) + 0.5) / '
        '(count(distinct "user") filter (first_age > 28) + 10)'
    ),
    "item_gap": "avg(gap)",
    "item_gap_std": "case when count(gap) > 1 then stddev_pop(gap) end",
    "item_price": "avg(price)",
    "item_price_28d_ratio": "avg(price) filter (age <= 28) / avg(price)",
    "item_quantity": "avg(quantity)",
    "item_basket_size": "avg(basket_size)",
    "item_new_buyers_28d": 'count(distinct "user") filter (first_age <= 28)',
    "item_units": "sum(quantity)",
    "item_value": "coalesce(sum(value), 0)",
    "item_receipts_per_week": "count(*) / (max(age) / 7 + 1)",
    "item_price_7d_ratio": "avg(price) filter (age <= 7) / avg(price)",
    "item_weekend_share": "avg(weekend::int)",
    "item_hour": "avg(hour)",
    "item_discounted_share": "avg((share_off > 0.005)::int)",
    "item_discount_28d": "avg(share_off) filter (age <= 28)",
}
ITEM_WEEK = {
    "item_week_count": "count(*) filter (n > 0)",
    "item_week_spread": "stddev_pop(n) / nullif(avg(n), 0)",
    "item_week_of_peak": "sum(n) filter (week = 0) / nullif(max(n), 0)",
    "item_week_slope": "regr_slope(n, -week::double)",
}
CATEGORY = {
    "category_lines": "count(*)",
    "category_lines_28d": "count(*) filter (age <= 28)",
    "category_days_since": "min(age)",
    "category_items": "count(distinct item)",
    "category_price": "avg(price)",
}
# over one row a (shopper, item) with the columns above
MATCH = {
    "match_due": "pair_days_since / (pair_gap + 1)",
    "match_due_item": "pair_days_since / (item_gap + 1)",
    "match_overdue": "pair_days_since - pair_gap_largest",
    "match_due_deviations": "(pair_days_since - pair_gap) / (pair_gap_std + 1)",
    "match_receipt_share": "pair_receipts / user_receipts",
    "match_receipt_share_since_first": (
        "(pair_receipts / (pair_days_since_first + 7)) / (user_receipts / (user_tenure + 7))"
    ),
    "match_receipts_per_week": "pair_receipts / (pair_days_since_first / 7 + 1)",
    "match_price_level": "item_price / user_price",
    "match_sale_recency": "pair_days_since - item_days_since_sale",
    "match_newness": "item_age - user_days_since_visit",
    "match_due_receipts": "(pair_receipts_back + 1) / pair_gap_receipts",
    "match_receipt_share_from_first": "pair_receipts / pair_receipts_since_first",
    "match_line_share": "pair_receipts / (user_receipts * user_basket_size)",
    "match_category_share": "pair_receipts / category_2_lines",
    "match_price_change": "item_price * item_price_28d_ratio / pair_price",
    "match_hour_distance": "abs(user_hour - item_hour)",
}
FORMULAS = {
    "pair": PAIR,
    "user": USER,
    "item": ITEM,
    "item_week": ITEM_WEEK,
    "category": CATEGORY,
    "match": MATCH,
}


def awkward_receipts() -> RetailData:
    """Receipts on the edges of windows and off them, and what else goes wrong at a till.

    Shopper 0 has one basket; of shopper 1 no value is known; shopper 2 came three times on one day, twice
    at one time; shopper 39 is in the catalogue of shoppers only. The item that sorts last is never sold,
    the one before it was last sold on the cutoff, which is not known yet.
    """
    rng = np.random.default_rng(5)
    rows = []
    for user in range(39):
        days = rng.choice(400, 1 if user == 0 else 9 + user % 7, replace=False) + 1
        days = np.where(rng.random(len(days)) < 0.5, days, rng.choice(EDGES, len(days)))
        for receipt, day in enumerate(days):
            hours = int(rng.integers(0, 24)) if rng.random() < 0.4 else 0
            time = END - timedelta(days=int(day), hours=-hours)
            if user == 2 and receipt < 3:
                time = END - timedelta(days=10, hours=-min(receipt, 1))
            for item in rng.choice(18, rng.integers(1, 6), replace=False):
                rows.append((user, f"{user}-{receipt}", int(item), time))
    rows += [(5, "5-late", 18, END - timedelta(days=0)), (6, "6-late", 3, END)]
    frame = pl.DataFrame(rows, schema=["user_id", "basket_id", "item_id", "time"], orient="row")
    n = frame.height
    value = rng.integers(1, 30, n) * 0.25
    off = rng.choice([0.0, 0.0, -0.5, 2.0], n)
    frame = frame.with_columns(
        quantity=pl.Series(rng.integers(1, 4, n).astype(float)),
        value=pl.Series(value),
        discount=pl.Series(np.where(rng.random(n) < 0.2, np.nan, off)).fill_nan(None),
    )
    back = frame.head(3).with_columns(quantity=-pl.col("quantity"), basket_id=pl.lit("return"))
    items = pl.DataFrame(
        {
            "item_id": range(20),
            "brand": [None if i % 6 == 5 else f"b{i % 3}" for i in range(20)],
            "category_1": [None if i == 4 else "xy"[i % 2] for i in range(20)],
            "category_2": [None if i == 7 else f"c{i % 5}" for i in range(20)],
            "weight": [None if i == 3 else i / 4 for i in range(20)],
        }
    )
    users = pl.DataFrame(
        {
            "user_id": range(40),
            "age": [None if u % 9 == 0 else 20 + u for u in range(40)],
            "segment": [None if u % 4 == 3 else ["old", "new"][u % 2] for u in range(40)],
        }
    )
    whole = RetailData.from_frames(pl.concat([frame, back]), items, users, end=END + timedelta(days=1))
    assert whole.report.rejected["return or cancellation"] == 3
    known = whole.asof(END)
    unknown = (rng.random(known.log.height) < 0.15) | (known.log["user"] == 1).to_numpy()
    value = pl.when(~pl.Series(unknown)).then(pl.col("value"))  # a log may lack them line by line
    return replace(known, log=known.log.with_columns(value))


@pytest.fixture(scope="module")
def receipts() -> RetailData:
    return awkward_receipts()


@pytest.fixture(scope="module")
def found(receipts: RetailData) -> pl.DataFrame:
    """Every column of every (shopper, item), as the package computes it."""
    n, m = receipts.n_users, receipts.n_items
    pairs = Pairs(np.arange(n + 1, dtype=np.int64) * m, np.tile(np.arange(m, dtype=np.int32), n))
    fitted = FeatureSet().fit(receipts)
    block = pl.DataFrame(fitted.rows(receipts.history(), pairs), schema=fitted.names)
    return block.with_columns(
        user=pl.Series(np.repeat(np.arange(n), m)), item=pl.Series(pairs.items, dtype=pl.Int64)
    ).fill_nan(None)


@pytest.fixture(scope="module")
def expected(receipts: RetailData) -> pl.DataFrame:
    """The same table by SQL."""
    db = duckdb.connect()
    items = receipts.items.with_row_index("item").with_columns(pl.col("item").cast(pl.Int64))
    users = receipts.users.with_row_index("user").with_columns(pl.col("user").cast(pl.Int64))
    db.register("log", receipts.log.to_arrow())
    db.register("items", items.to_arrow())
    db.register("users", users.to_arrow())
    db.execute(EVENTS)

    def view(name: str, keys: str, formulas: dict[str, str], source: str = "e") -> None:
        columns = ", ".join(f"{formula} as {column}" for column, formula in formulas.items())
        db.execute(f"create view {name} as select {keys}, {columns} from {source} group by {keys}")

    view("by_pair", '"user", item', PAIR)
    view("by_user", '"user"', USER)
    view("by_item", "item", ITEM)
    view("by_item_week", "item", ITEM_WEEK, "weeks")
    joins = ""
    for level in ("category_1", "category_2"):
        named = {k.replace("category", level, 1): v for k, v in CATEGORY.items()}
        source = f"e join (select item, {level} from items where {level} is not null) using (item)"
        view(f"by_{level}", f'"user", {level}', named, source)
        joins += f' left join by_{level} using ("user", {level})'
    matches = ", ".join(f"{formula} as {column}" for column, formula in MATCH.items())
    return db.sql(
        f"""
        select *, {matches} from users cross join items
        left join by_user using ("user") left join by_item using (item)
        left join by_item_week using (item) left join by_pair using ("user", item) {joins}
        order by "user", item
        """
    ).pl()


def columns_of(name: str) -> list[str]:
    """Columns that a feature becomes."""
    if FEATURES[name].scope != "category":
        return [name]
    return [name.replace("category", level, 1) for level in ("category_1", "category_2")]


def agree(found: pl.Series, expected: pl.Series, name: str) -> None:
    """The same values, missing at the same places; what is divided by zero is missing."""
    one = found.cast(pl.Float64).fill_null(np.nan).to_numpy()
    other = expected.cast(pl.Float64).fill_null(np.nan).to_numpy()
    other = np.where(np.isinf(other), np.nan, other)
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4, err_msg=name)


def test_every_feature_has_a_formula() -> None:
    by_scope = {scope: {f.name for f in FEATURES.values() if f.scope == scope} for scope in FORMULAS}
    assert by_scope == {scope: set(formulas) for scope, formulas in FORMULAS.items()}
    assert sum(map(len, by_scope.values())) == len(FEATURES)


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_what_its_formula_says(
    name: str, found: pl.DataFrame, expected: pl.DataFrame
) -> None:
    for column in columns_of(name):
        agree(found[column], expected[column], column)


@pytest.mark.parametrize("name", FEATURES)
def test_the_fixture_tells_a_feature_from_a_constant(name: str, expected: pl.DataFrame) -> None:
    """Several values, or a formula could be anything."""
    for column in columns_of(name):
        assert expected[column].drop_nulls().n_unique() >= 3, column


def test_attributes_are_columns(receipts: RetailData, found: pl.DataFrame) -> None:
    """Numbers as they are, words of shoppers by alphabet, brand and categories by lines in 91 days."""
    items = receipts.items
    lately = receipts.log.filter(pl.col("time") >= END - timedelta(days=91))
    sold = np.bincount(lately["item"].to_numpy(), minlength=items.height)
    agree(found["item_attribute_weight"].head(20), items["weight"], "weight")
    for word in ("brand", *[c for c in CATEGORIES if c in items.columns]):
        lines = items.select(word, lines=pl.Series(sold))
        total = lines.select(pl.when(pl.col(word).is_not_null()).then(pl.col("lines").sum().over(word)))
        agree(found[f"item_attribute_{word}"].head(20), total["lines"], word)
    first = found.filter(pl.col("item") == 0)
    agree(first["user_attribute_age"], receipts.users["age"], "age")
    place = receipts.users["segment"].replace_strict({"new": 0, "old": 1}, default=None)
    agree(first["user_attribute_segment"], place, "segment")


def test_the_awkward_cases_are_there(receipts: RetailData, expected: pl.DataFrame) -> None:
    log = receipts.log
    age = (END - log["time"]).dt.total_seconds() / 86_400
    for edge in EDGES:
        assert (age == edge).any(), edge
    assert (log.group_by("user").agg(pl.col("basket").n_unique())["basket"] == 1).any()
    assert log["value"].null_count() > 0
    assert log["discount"].fill_nan(None).null_count() > 0
    assert receipts.items.height - log["item"].n_unique() == 2  # never sold, and not sold yet
    assert receipts.users.height - log["user"].n_unique() == 1
    assert receipts.log["time"].max() < END
    same_time = log.group_by("user", "time").agg(pl.col("basket").n_unique())
    assert (same_time["basket"] > 1).any()
