"""Loaders on format-true files, and on the real ones where they are."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from conftest import real
from retailrec.datasets import DATASETS, load_dataset, open_dataset
from retailrec.datasets.instacart import on_one_calendar
from retailrec.errors import DataError, SettingError
from retailrec.serving.loading import load_frames
from retailrec.serving.store import Store
from retailrec.serving.upkeep import export_shoppers

ONLINE = pl.DataFrame(
    {
        "Invoice": ["1", "1", "C2", "3", "4", "5"],
        "StockCode": ["10001", "10002a", "10001", "POST", "10001", "10002A"],
        "Description": ["LAMP", "CUP", "LAMP", "POSTAGE", "LAMP red", None],
        "Quantity": [2, 1, -2, 1, 1, 3],
        "InvoiceDate": [datetime(2010, 12, day, 9) for day in (1, 1, 2, 3, 4, 5)],
        "Price": [1.5, 2.0, 1.5, 18.0, 1.5, 2.0],
        "Customer ID": [7, 7, 7, 8, None, 8],
        "Country": ["France"] * 6,
    }
)


@pytest.mark.parametrize("kind", ["csv", "parquet", "xlsx"])
def test_online_retail(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"sheet.{kind}"
    {"csv": ONLINE.write_csv, "parquet": ONLINE.write_parquet, "xlsx": ONLINE.write_excel}[kind](path)
    data = load_dataset("online-retail", path)
    assert data.report.rejected == {"no shopper": 1, "return or cancellation": 1, "not a product": 1}
    assert data.items.select("item_id", "name").rows() == [("10001", "LAMP"), ("10002A", "CUP")]
    assert data.users.rows() == [(7, "France"), (8, "France")]
    assert data.log["value"].to_list() == [3.0, 2.0, 6.0]


def test_online_retail_sheets_that_overlap(tmp_path: Path) -> None:
    ONLINE.write_parquet(tmp_path / "a.parquet")
    ONLINE.head(2).write_parquet(tmp_path / "b.parquet")
    report = load_dataset("online-retail", tmp_path).report
    assert report.rejected["also in another file"] == 2
    assert (report.kept, report.merged) == (3, 0)


def journey(lower: bool) -> pl.DataFrame:
    names = [
        "household_key",
        "BASKET_ID",
        "DAY",
        "PRODUCT_ID",
        "QUANTITY",
        "SALES_VALUE",
        "STORE_ID",
        "RETAIL_DISC",
        "TRANS_TIME",
        "WEEK_NO",
        "COUPON_DISC",
        "COUPON_MATCH_DISC",
    ]
    if lower:
        names = [n.lower() for n in names]
        names[0], names[3] = "user_id", "item_id"
    rows = [
        (1, 100, 1, 11, 1, 2.5, 4, -0.5, 1631, 1, 0.0, 0.0),
        (1, 100, 1, 12, 2, 3.0, 4, 0.0, 1631, 1, 0.0, 0.0),
        (2, 101, 9, 99, 9000, 30.0, 4, 0.0, 900, 2, 0.0, 0.0),
        (2, 102, 10, 11, 0, 0.0, 4, 0.0, 900, 2, 0.0, 0.0),
        (2, 103, 11, 12, 1, 1.5, 4, 0.0, 2, 2, 0.0, 0.0),
    ]
    return pl.DataFrame(rows, schema=names, orient="row")


PRODUCT = pl.DataFrame(
    {
        "PRODUCT_ID": [11, 12, 99],
        "MANUFACTURER": [1, 1, 2],
        "DEPARTMENT": ["GROCERY", "PRODUCE", "KIOSK-GAS"],
        "BRAND": ["National", "Private", "National"],
        "COMMODITY_DESC": ["SOUP", "APPLES", "FUEL"],
        "SUB_COMMODITY_DESC": ["TOMATO SOUP", "GALA", "GASOLINE"],
        "CURR_SIZE_OF_PRODUCT": ["10 OZ", None, " "],
    }
)


@pytest.mark.parametrize(("lower", "name"), [(False, "transaction_data"), (True, "retail_train")])
def test_complete_journey(tmp_path: Path, lower: bool, name: str) -> None:
    journey(lower).write_csv(tmp_path / f"{name}.csv")
    PRODUCT.write_csv(tmp_path / "product.csv")
    pl.DataFrame({"AGE_DESC": ["65+"], "household_key": [2]}).write_csv(tmp_path / "hh_demographic.csv")
    data = load_dataset("complete-journey", tmp_path)
    assert data.report.rejected == {"not a product": 1, "zero quantity": 1}
    assert data.log["time"].to_list() == [datetime(2000, 1, 1, 16, 31)] * 2 + [
        datetime(2000, 1, 11, 0, 2)
    ]
    assert data.items["category_1"].to_list() == ["GROCERY", "PRODUCE", "KIOSK-GAS"]
    assert data.items["name"].to_list()[0] == "Tomato soup, 10 oz"
    assert data.users.rows() == [(1, None), (2, "65+")]


def test_complete_journey_course_files_side_by_side(tmp_path: Path) -> None:
    journey(True).head(3).write_csv(tmp_path / "retail_train.csv")
    journey(True).write_csv(tmp_path / "retail_test1.csv")
    report = load_dataset("complete-journey", tmp_path).report
    assert report.rejected["also in another file"] == 3


def test_x5_retailhero(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "client_id": ["00a1", "00a1", "ffff"],
            "transaction_id": ["t1", "t1", "t2"],
            "transaction_datetime": ["2018-12-01 07:12:45"] * 3,
            "regular_points_received": [1.0] * 3,
            "purchase_sum": [10.0, 10.0, 4.0],
            "store_id": ["s"] * 3,
            "product_id": ["0003", "9a8b", "0003"],
            "product_quantity": [2.0, 0.0, None],
            "trn_sum_from_iss": [6.0, 4.0, 4.0],
            "trn_sum_from_red": [None] * 3,
        }
    ).write_csv(tmp_path / "purchases.csv")
    pl.DataFrame({"client_id": ["00a1", "ffff"], "age": [-7000, 33], "gender": ["F", "U"]}).write_csv(
        tmp_path / "clients.csv"
    )
    pl.DataFrame(
        {"product_id": ["0003"], "level_1": ["x"], "brand_id": ["b"], "netto": [0.4]}
    ).write_csv(tmp_path / "products.csv")
    data = load_dataset("x5-retailhero", tmp_path)
    assert data.report.kept == 3
    assert data.items["item_id"].to_list() == ["0003", "9a8b"]
    assert data.users.rows() == [("00a1", None, "F"), ("ffff", 33, "U")]
    assert data.log["value"].to_list() == [6.0, 4.0, 4.0]


def test_ta_feng_published_csv(tmp_path: Path) -> None:
    (tmp_path / "ta_feng_all_months_merged.csv").write_text(
        "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE\n"
        "11/1/2000,01104905,45-49,115,110411,4710199010372,2,24,30\n"
        "11/30/2000,00418683,45-49,115,120107,4710857472535,1,48,46\n"
    )
    data = load_dataset("ta-feng", tmp_path)
    assert data.users["user_id"].to_list() == ["00418683", "01104905"]
    assert data.log["time"].to_list() == [datetime(2000, 11, 30), datetime(2000, 11, 1)]
    assert (
        data.items["category_1"].to_list() == [110411, 120107]
        or data.items["category_1"][0] == "110411"
    )


def test_who_has_nothing_left_on_the_receipt_is_no_user(tmp_path: Path) -> None:
    (tmp_path / "ta_feng.csv").write_text(
        "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,SALES_PRICE\n"
        "2000-11-01,2,45-49,115,47,2,30\n2000-11-02,1,25-29,115,47,1,9\n2000-11-02,1,25-29,115,47,-1,-9\n"
    )
    data = load_dataset("ta-feng", tmp_path)
    assert (data.users.rows(), data.report.rejected) == ([("2", "45-49")], {"voided on its receipt": 2})
    with closing(Store(str(tmp_path / "store.db")).init()) as store:
        load_frames(store, **vars(open_dataset("ta-feng", tmp_path)))
        export_shoppers(store, tmp_path / "shoppers.parquet")
    assert pl.read_parquet(tmp_path / "shoppers.parquet")["user_id"].to_list() == [2]


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(
        "client;sku;date;paid;what\n7;007;2024-01-31;2.5;tea\n8;12;2024-02-01;1;rye\n"
    )
    columns = {"user_id": "client", "item_id": "sku", "time": "date", "value": "paid", "name": "what"}
    data = load_dataset("table", tmp_path / "mine.csv", columns)
    assert data.items.select("item_id", "name").rows() == [("007", "tea"), ("12", "rye")]
    assert data.users["user_id"].to_list() == [7, 8]
    with pytest.raises(SettingError, match="--columns names"):
        load_dataset("table", tmp_path / "mine.csv", {"buyer": "client"})


def test_a_folder_with_catalogue_and_shoppers(tmp_path: Path) -> None:
    (tmp_path / "transactions.csv").write_text("user_id,item_id,time\n1,5,3\n2,6,4\n")
    (tmp_path / "items.csv").write_text("item_id,name\n5,tea\n6,rye\n9,new\n")
    (tmp_path / "users.csv").write_text("user_id,segment\n1,a\n")
    data = load_dataset("table", tmp_path)
    assert data.items["name"].to_list() == ["tea", "rye", "new"]
    assert data.users["segment"].to_list() == ["a", None]
    assert data.log["time"].to_list() == [datetime(2000, 1, 3), datetime(2000, 1, 4)]


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(SettingError, match="expected one of online-retail"):
        load_dataset("walmart", "x")
    with pytest.raises(SettingError, match="knows its columns"):
        load_dataset("ta-feng", "x", {"user_id": "y"})


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_missing_path_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder"):
        load_dataset(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "folder", "lines", "kept", "users"),
    [
        ("online-retail", "online_retail_ii", 986_668, 709_936, 5719),
        ("complete-journey", "complete_journey", 88_734, 86_962, 1872),
        ("x5-retailhero", "x5_retailhero", 11_511, 11_511, 101),
        ("ta-feng", "tafeng_nbr", 571_933, 571_933, 13_858),
    ],
)
def test_real_files(name: str, folder: str, lines: int, kept: int, users: int) -> None:
    report = load_dataset(name, real(folder)).report
    assert (report.read, report.kept, report.n_users) == (lines, kept, users)
    assert report.read == report.kept + report.merged + sum(report.rejected.values())


def instacart(folder: Path) -> Path:
    files = {
        "orders": """order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order
5,1,prior,2,1,17,9.0
4,1,prior,1,6,9,
6,2,prior,1,3,8,
7,1,train,3,2,10,8.0
8,2,test,2,0,10,30.0
""",
        "order_products__prior": """order_id,product_id,add_to_cart_order,reordered
4,196,1,0
5,196,1,1
5,10,2,0
6,10,1,0
9,10,1,0
""",
        "products": """product_id,product_name,aisle_id,department_id
10,"Water, sparkling",2,7
196,Soda,2,7
""",
        "aisles": "aisle_id,aisle\n2,soft drinks\n",
        "departments": "department_id,department\n7,beverages\n",
    }
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_instacart_has_gaps_for_dates_and_last_orders_in_one_week(tmp_path: Path) -> None:
    data = load_dataset("instacart", instacart(tmp_path))
    lines = data.log.join(data.users.with_row_index("user"), "user").join(
        data.items.with_row_index("item"), "item"
    )
    # nine days lie between the orders of user 1: the last week begins on the 15th, a Saturday
    assert sorted(lines.select("user_id", "item_id", "time").rows()) == [
        (1, 10, datetime(2000, 1, 16, 17)),
        (1, 196, datetime(2000, 1, 7, 9)),
        (1, 196, datetime(2000, 1, 16, 17)),
        (2, 10, datetime(2000, 1, 18, 8)),
    ]
    assert data.report.n_baskets == 3
    assert data.report.rejected == {"no shopper": 1}  # of order 9, which is not among the orders
    assert data.items.select("item_id", "name", "category_1", "category_2").rows() == [
        (10, "Water, sparkling", "beverages", "soft drinks"),
        (196, "Soda", "beverages", "soft drinks"),
    ]
    assert "30 days may have been longer" in data.report.notes[0]


def test_train_orders_of_instacart_count_where_their_lines_are(tmp_path: Path) -> None:
    instacart(tmp_path)
    (tmp_path / "order_products__train.csv").write_text("order_id,product_id\n7,10\n")
    data = load_dataset("instacart", tmp_path)
    assert data.report.n_baskets == 4
    assert data.log["time"].max() == datetime(2000, 1, 25, 8)  # 17 days from first to last: week 4


@pytest.mark.parametrize("table", ["orders", "order_products__prior", "aisles"])
def test_tables_of_instacart_whose_ids_are_numbers_in_one_and_text_in_another_meet(
    tmp_path: Path, table: str
) -> None:
    expected = load_dataset("instacart", instacart(tmp_path))
    file = tmp_path / f"{table}.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, "none" + lines[-1].lstrip("0123456789")]) + "\n")
    data = load_dataset("instacart", tmp_path)
    log = ["user", "time", "quantity"]
    assert data.log.select(log).equals(expected.log.select(log))
    assert set(expected.items["category_2"]) <= set(data.items["category_2"])


def test_what_is_missing_of_instacart_is_said(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").touch()
    with pytest.raises(DataError, match="needs the folder with orders, order_products__prior"):
        load_dataset("instacart", tmp_path / "orders.csv")
    with pytest.raises(DataError, match=r"holds no order_products__prior.csv"):
        load_dataset("instacart", tmp_path)
    instacart(tmp_path)
    orders = (tmp_path / "orders.csv").read_text()
    (tmp_path / "orders.csv").write_text(orders.replace("5,1,prior,2", "5,1,prior,4"))
    with pytest.raises(DataError, match=r"user 1 are not numbered one by one \(order_number 4\)"):
        load_dataset("instacart", tmp_path)


@pytest.mark.parametrize(
    "column", ["order_number", "order_dow", "order_hour_of_day", "days_since_prior_order"]
)
def test_orders_whose_days_can_not_be_added_up_are_refused(column: str) -> None:
    n = pl.int_range(200, eager=True)
    orders = pl.DataFrame({"order_id": n, "user_id": n // 2, "order_number": n % 2 + 1}).with_columns(
        order_dow=n % 7, order_hour_of_day=n % 24, days_since_prior_order=n % 2 * 9.0
    )
    assert on_one_calendar(orders)["time"].null_count() == 0
    wrong = pl.when(pl.col("order_id") == 77).then(pl.lit("?!"))
    odd = orders.with_columns(wrong.otherwise(pl.col(column).cast(pl.String)).alias(column))
    with pytest.raises(DataError, match=f"column '{column}' of the orders holds '.!', .* in 1 rows"):
        on_one_calendar(odd)
    if column == "order_number":
        none = pl.when(pl.col("order_id") != 77).then(pl.col(column))
        with pytest.raises(DataError, match="not numbered one by one"):
            on_one_calendar(orders.with_columns(none.alias(column)))


def test_instacart_real() -> None:
    data = load_dataset("instacart", real("instacart"))
    assert (data.n_users, data.log.height, data.report.n_baskets) == (593, 150_000, 15_183)
    last = data.log.group_by("user").agg(pl.col("time").max())["time"]
    assert (data.end - last.min()).days < 7  # type: ignore[operator]


WEEK = """SHOP_WEEK,SHOP_DATE,SHOP_WEEKDAY,SHOP_HOUR,QUANTITY,SPEND,PROD_CODE,PROD_CODE_10,PROD_CODE_20,PROD_CODE_30,PROD_CODE_40,CUST_CODE,{segments},BASKET_ID,STORE_CODE
200607,20060415,7,19,2,0.93,PRD1,CL1,DEP1,G1,D1,CUST7,BG,BU,9941001,STORE1
200607,20060413,5,20,1,1.03,PRD2,CL2,DEP2,G2,D2,,AZ,DI,9941002,STORE1
"""


@pytest.mark.parametrize("segments", ["seg_1,seg_2", "CUST_PRICE_SENSITIVITY,CUST_LIFESTAGE"])
def test_sort_of_real_weeks(tmp_path: Path, segments: str) -> None:
    (tmp_path / "transactions_200607.csv").write_text(WEEK.format(segments=segments))
    later = WEEK.format(segments=segments).replace("200604", "200605").replace("99410", "99411")
    (tmp_path / "transactions_200612.csv").write_text(later)
    (tmp_path / "time.csv").write_text("shop_week,date_from,date_to\n200607,20060410,20060416\n")
    data = load_dataset("sort-of-real", tmp_path)
    assert data.report.rejected == {"no shopper": 2}
    assert data.log["time"].to_list() == [datetime(2006, 4, 15, 19), datetime(2006, 5, 15, 19)]
    assert data.log.select("quantity", "value", "store").unique().rows() == [(2.0, 0.93, "STORE1")]
    assert data.users.rows() == [("CUST7", "BG", "BU")]
    assert data.items.select(f"category_{i}" for i in (1, 2, 3, 4)).rows() == [
        ("D1", "G1", "DEP1", "CL1")
    ]


def test_a_folder_without_weekly_files_is_not_sort_of_real(tmp_path: Path) -> None:
    (tmp_path / "time.csv").write_text("shop_week\n200607\n")
    with pytest.raises(DataError, match=r"holds no weekly file; expected transactions_200607\.csv"):
        load_dataset("sort-of-real", tmp_path)


def test_sort_of_real_week_real() -> None:
    data = load_dataset("sort-of-real", real("sort_of_real_week"))
    assert (data.report.read, data.report.rejected) == (4000, {"no shopper": 713})
    assert data.users.height == 320
