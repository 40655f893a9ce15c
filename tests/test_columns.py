"""Columns of one's own: guessed by name and cells, joined, filtered; the mapping that is advised works."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retailrec.cli.options import DatasetOptions, parse_columns
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.columns import guess_columns, join_time, unread_columns
from retailrec.datasets import load_dataset, open_alike, open_dataset, still_there
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.table import with_our_names
from retailrec.errors import DataError, SettingError
from retailrec.jobs.settings import Settings, read_reading, read_settings
from retailrec.jobs.week_settings import read_week

N = 30
IDS = [1, 2, 3] * 10
DAYS = ["31.01.2024", "02.02.2024", "15.03.2024"] * 10
ISO = ["2024-01-31", "2024-02-02", "2024-03-15"] * 10


@pytest.mark.parametrize(
    ("columns", "guessed"),
    [
        (
            {"Kundennr": IDS, "Artikelnummer": IDS, "Bondatum": DAYS, "Uhrzeit": ["17:30"] * N},
            {"user_id": "Kundennr", "item_id": "Artikelnummer", "time": "Bondatum+Uhrzeit"},
        ),
        (
            {"household": IDS, "prod": IDS, "day": [5, 40, 700] * 10, "basket": IDS},
            {"user_id": "household", "item_id": "prod", "time": "day", "basket_id": "basket"},
        ),
        (
            {"Customer ID": IDS, "StockCode": IDS, "InvoiceDate": ["2010-12-01 08:26:00"] * N},
            {"user_id": "Customer ID", "item_id": "StockCode", "time": "InvoiceDate"},
        ),
        (
            {"cliente": IDS, "producto": IDS, "fecha": ISO, "precio": [1.5] * N},
            {"user_id": "cliente", "item_id": "producto", "time": "fecha", "price": "precio"},
        ),
        (
            {"client": IDS, "article": IDS, "jour": ISO, "quantité": [1] * N, "ticket": IDS},
            {
                "user_id": "client",
                "item_id": "article",
                "time": "jour",
                "basket_id": "ticket",
                "quantity": "quantité",
            },
        ),
        (
            {"visitorid": IDS, "itemid": IDS, "timestamp": [1433221332117] * N},
            {"user_id": "visitorid", "item_id": "itemid", "time": "timestamp"},
        ),
        ({"SHOP_DATE": [20060413] * N, "SHOP_HOUR": [17] * N}, {"time": "SHOP_DATE+SHOP_HOUR"}),
        ({"bought": [date(2024, 1, 31)] * N}, {"time": "bought"}),  # by its cells alone
        (
            {
                "EAN": IDS,
                "Bezeichnung": ["Tee", "Käse", "Öl"] * 10,
                "Warengruppe": ["A", "B", "A"] * 10,
            },
            {"item_id": "EAN", "name": "Bezeichnung", "category_1": "Warengruppe"},
        ),
        (  # a workbook's cells, as text
            {
                "Nº ticket": IDS,
                "Fecha": ["2024-01-31 00:00:00", "2024-02-02 00:00:00"] * 15,
                "Hora": ["1899-12-31 09:05:00", "1899-12-31 17:30:00"] * 15,
                "Loyalty Card": IDS,
                "Unidades": [1] * N,
            },
            {
                "user_id": "Loyalty Card",
                "time": "Fecha+Hora",
                "basket_id": "Nº ticket",
                "quantity": "Unidades",
            },
        ),
        (
            {
                "Nr karty": IDS,
                "Kod towaru": IDS,
                "Data sprzedaży": DAYS,
                "Godzina": ["17:30"] * N,
                "Nr paragonu": IDS,
                "Ilość": ["1,0"] * N,
                "Wartość brutto": ["2,50"] * N,
                "Sklep": IDS,
            },
            {
                "user_id": "Nr karty",
                "item_id": "Kod towaru",
                "time": "Data sprzedaży+Godzina",
                "basket_id": "Nr paragonu",
                "quantity": "Ilość",
                "value": "Wartość brutto",
                "store": "Sklep",
            },
        ),
        (
            {"Código de artículo": IDS, "Nº de cliente": IDS, "Grupo": ["Łódź"] * N},
            {"user_id": "Nº de cliente", "item_id": "Código de artículo"},
        ),
        ({"Fecha": ["2024-01-31 10:00:00"] * N, "Hora": ["10:00"] * N}, {"time": "Fecha"}),
        (  # a web shop's lines, whose orders say some facts once
            {
                "Name": [f"#{i // 2}" for i in range(N)],
                "Email": ["a@x", "a@x", "b@x"] * 10,
                "Paid at": ["2024-01-31 10:00:00 +0100", None, "2024-02-02 11:00:00 +0100"] * 10,
                "Created at": ["2024-01-31 09:00:00 +0100"] * 20 + ["2024-02-02 11:00:00 +0100"] * 10,
                "Lineitem quantity": ["1"] * N,
                "Lineitem name": ["Tea", "Rice", "Oil"] * 10,
                "Lineitem price": ["7.25"] * N,
                "Lineitem sku": IDS,
            },
            {
                "user_id": "Email",
                "item_id": "Lineitem sku",
                "time": "Created at",
                "quantity": "Lineitem quantity",
                "price": "Lineitem price",
                "name": "Lineitem name",
            },
        ),
        (
            {
                "Дата": DAYS,
                "Номер чека": IDS,
                "Карта": IDS,
                "Номенклатура": ["Чай", "Рис", "Сыр"] * 10,
                "Код товара": IDS,
                "Количество": [1] * N,
                "Сумма": ["7,25"] * N,
            },
            {
                "user_id": "Карта",
                "item_id": "Код товара",
                "time": "Дата",
                "basket_id": "Номер чека",
                "quantity": "Количество",
                "value": "Сумма",
                "name": "Номенклатура",
            },
        ),
        (
            {"Müşteri No": IDS, "Ürün Kodu": IDS, "Tarih": DAYS, "Fiş No": IDS, "Tutar": ["7,25"] * N},
            {
                "user_id": "Müşteri No",
                "item_id": "Ürün Kodu",
                "time": "Tarih",
                "basket_id": "Fiş No",
                "value": "Tutar",
            },
        ),
        (  # money with its sign
            {
                "Date": ["01/31/24", "02/02/24", "03/15/24"] * 10,
                "Time": ["17:30:00"] * N,
                "Item": ["Latte", "Chai", "Bagel"] * 10,
                "Qty": ["1.0"] * N,
                "Gross Sales": ["$2.00"] * N,
                "Net Sales": ["-$0.50", "$1,000.50", "$2.00"] * 10,
                "Transaction ID": IDS,
                "Customer ID": IDS,
            },
            {
                "user_id": "Customer ID",
                "item_id": "Item",
                "time": "Date+Time",
                "basket_id": "Transaction ID",
                "quantity": "Qty",
                "value": "Net Sales",
            },
        ),
        ({"bought": ["20240131"] * N, "cost": ["7.25", "1,00", "$2"] * 10}, {"time": "bought"}),
        ({"user_id": IDS, "created": ISO, "sold_at": ISO}, {"user_id": "user_id", "time": "sold_at"}),
        # nothing rather than something wrong
        ({"item": IDS, "Name": ["Ann", "Bob"] * 15}, {"item_id": "item"}),  # whose name?
        (
            {"order_number": [1, 2, 40] * 10, "days_since_prior_order": [7, 8, 40] * 10},
            {"basket_id": "order_number"},
        ),
        ({"day": [1, 2, 7] * 10}, {}),  # a day of the week or month is no date
        ({"year": [2023, 2024, 2024] * 10, "date": [1, 2, 3] * 10}, {}),
        ({"client": list(range(N))}, {}),  # no two lines share it
        ({"client": IDS, "customer": IDS}, {}),  # which one?
        ({"client": IDS, "customer_id": IDS}, {"user_id": "customer_id"}),
        ({"product_name": ["a"] * N, "customer_age": IDS, "birth_date": ISO}, {}),
        ({"item_price": [1.5] * N, "signup": ISO, "valid_until": ISO}, {}),
    ],
)
def test_a_guess_is_right_or_none(columns: dict[str, Any], guessed: dict[str, str]) -> None:
    assert guess_columns(pl.DataFrame(columns)) == guessed


def test_all_missing_columns_are_said_at_once_in_a_line_that_works(tmp_path: Path) -> None:
    lines = pl.DataFrame({"Kunde": IDS, "Artikel": IDS, "Datum": DAYS, "Bon Nr": IDS, "x": ["?"] * N})
    with pytest.raises(DataError, match="lack columns 'user_id', 'item_id', 'time'") as error:
        RetailData.from_frames(lines)
    (advised,) = re.findall(r"--columns '(.*)'\.$", str(error.value))
    assert advised == "user_id=Kunde,item_id=Artikel,time=Datum,basket_id=Bon Nr"
    lines.write_csv(tmp_path / "r.csv", separator=";")
    data = load_dataset("table", tmp_path / "r.csv", parse_columns(advised))
    assert (data.n_users, data.start) == (3, datetime(2024, 1, 31))


def test_tills_and_web_shops_are_guessed() -> None:
    """As Square, WooCommerce and Lightspeed export lines."""
    ids = pl.DataFrame({"SKU": IDS, "Customer ID": IDS, "Item": ["a", "b", "c"] * 10, "Sale ID": IDS})
    assert guess_columns(ids) == {
        "user_id": "Customer ID",
        "item_id": "SKU",
        "basket_id": "Sale ID",
        "name": "Item",
    }
    woo = pl.DataFrame({"Email (Billing)": IDS, "SKU": IDS, "Quantity (- Refund)": [1] * N})
    assert guess_columns(woo)["user_id"] == "Email (Billing)"
    assert guess_columns(woo)["quantity"] == "Quantity (- Refund)"


def test_an_amount_is_money_where_pieces_stand_apart() -> None:
    amounts = {"amount": [1.5] * N}
    assert "value" not in guess_columns(pl.DataFrame(amounts))
    both = guess_columns(pl.DataFrame({"qty": [1] * N, **amounts}))
    assert (both["quantity"], both["value"]) == ("qty", "amount")


def test_columns_under_other_names_are_not_left_out_in_silence(tmp_path: Path) -> None:
    cells: dict[str, Any] = {"user_id": IDS, "item_id": IDS, "day": ISO, "ticket": IDS, "qty": [2] * N}
    lines = pl.DataFrame(cells | {"amount": [1.5] * N, "unit_price": [0.75] * N})
    items = pl.DataFrame({"item_id": [1, 2, 3], "Bezeichnung": ["a", "b", "c"], "category": [1, 1, 2]})
    for name, table in (("transactions", lines), ("items", items)):
        table.write_csv(tmp_path / f"{name}.csv")

    def said(path: Path, advised: str, catalogue: pl.DataFrame | None = None) -> list[str]:
        reading = Reading(parse_columns(advised), catalogue=catalogue)
        return open_dataset("table", path, reading).data().report.notes

    alone, money = tmp_path / "transactions.csv", "basket_id=ticket,quantity=qty,value=amount"
    assert said(alone, "time=day")[0].endswith(f"--columns time=day,{money}")
    assert not said(alone, f"time=day,{money}")
    described = f"time=day,{money},name=Bezeichnung,category_1=category"
    assert said(tmp_path, "time=day")[0].endswith(f"--columns {described}")
    assert not said(tmp_path, described)
    assert not said(alone, "time=day", with_our_names(items, {}))  # read as a model was fitted
    (note,) = unread_columns(lines.drop("ticket", "qty"), {}, items.with_columns(item=pl.lit(7)))
    assert note.endswith("--columns price=unit_price,name=Bezeichnung,category_1=category")
    lines = lines.with_columns(department=pl.Series(["a", "b", "c"] * 10))
    assert not unread_columns(lines.drop("ticket", "qty", "department"), parse_columns("value=amount"))
    (note,) = unread_columns(lines, parse_columns(f"time=day+ticket,{money},price=unit_price"))
    assert note.endswith("category_1=department")


def test_columns_called_as_what_is_inside_are_said_by_their_own_names(tmp_path: Path) -> None:
    lines = pl.DataFrame({"user": IDS, "item": IDS, "item_": [1.5] * N, "timestamp": ISO})
    lines.write_csv(tmp_path / "r.csv")
    with pytest.raises(DataError, match=r"they have .'user', 'item', 'item_', 'timestamp'") as error:
        RetailData.from_frames(lines)
    (advised,) = re.findall(r"--columns (.*)\.$", str(error.value))
    assert advised == "user_id=user,item_id=item,time=timestamp"
    data = load_dataset("table", tmp_path / "r.csv", parse_columns(advised))
    assert data.n_users == 3


def test_what_can_not_be_told_is_left_open() -> None:
    with pytest.raises(DataError, match=r"which column is 'time' can't be told") as error:
        RetailData.from_frames(pl.DataFrame({"client": IDS, "sku": IDS, "day": [1, 2, 7] * 10}))
    assert "--columns user_id=client,item_id=sku,time=..." in str(error.value)


def test_a_mistyped_mapping_names_what_is_near() -> None:
    lines = pl.DataFrame({"client": IDS, "item_id": IDS, "time": ISO})
    with pytest.raises(DataError, match=r"lack column 'clent'.*Correct the mapping: 'client'"):
        RetailData.from_frames(lines, columns={"user_id": "clent"})


def test_clocks_without_dates_are_no_time() -> None:
    lines = pl.DataFrame({"user_id": IDS, "item_id": IDS, "date": ISO, "time": ["17:30"] * N})
    with pytest.raises(DataError, match=r"--columns time=date\+time\.$"):
        RetailData.from_frames(lines)
    assert RetailData.from_frames(lines, columns={"time": "date+time"}).start == datetime(
        2024, 1, 31, 17, 30
    )


@pytest.mark.parametrize(
    ("days", "clocks", "first", "second"),
    [
        (["31.01.2024", "01.02.2024"], ["9:05", "17:30"], "2024-01-31 09:05", "2024-02-01 17:30"),
        ([20240131, 20240201], [9, 17], "2024-01-31 09:00", "2024-02-01 17:00"),
        (["2024-01-31", "2024-02-01"], [905, 1730], "2024-01-31 09:05", "2024-02-01 17:30"),
        (["2024-01-31", "2024-02-01"], ["0905", "1730"], "2024-01-31 09:05", "2024-02-01 17:30"),
        (["2024-01-31", "2024-02-01"], [None, "17:30"], "2024-01-31 00:00", "2024-02-01 17:30"),
        ([31, 32], [905, 1730], "2000-01-31 09:05", "2000-02-01 17:30"),  # day 1 is 2000-01-01
        (
            [date(2024, 1, 31), date(2024, 2, 1)],
            [time(9, 5), time(17, 30)],
            "2024-01-31 09:05",
            "2024-02-01 17:30",
        ),
        (
            ["2024-01-31 00:00:00", "2024-02-01 00:00:00"],  # as a workbook's cells are
            ["1899-12-31 09:05:00", "1899-12-31 17:30:00"],
            "2024-01-31 09:05",
            "2024-02-01 17:30",
        ),
    ],
)
def test_a_date_and_a_clock_are_joined(
    days: list[Any], clocks: list[Any], first: str, second: str
) -> None:
    lines = pl.DataFrame({"user_id": [1, 2], "item_id": [3, 4], "day": days, "at": clocks})
    data = RetailData.from_frames(lines, columns={"time": "day+at"})
    assert data.log["time"].dt.to_string("%Y-%m-%d %H:%M").to_list() == [first, second]


def test_clocks_are_read_alike_in_all_parts() -> None:
    notation: dict[str, str] = {}

    def clocks(*cells: int) -> list[str]:
        lines = pl.DataFrame({"day": ["2024-01-31"] * len(cells), "at": cells})
        joined, columns = join_time(lines, {"time": "day+at"}, notation)
        return joined[columns["time"]].str.slice(11).to_list()

    assert clocks(905, 1730) == ["09:05", "17:30"]
    assert clocks(5, 15) == ["00:05", "00:15"]  # after midnight, not at five
    notation.clear()
    assert clocks(5, 15) == ["05:00", "15:00"]
    with pytest.raises(DataError, match="hours and minutes as numbers here, and hours in the parts"):
        clocks(905, 1730)


def test_a_column_with_a_plus_in_its_name_is_one() -> None:
    lines = pl.DataFrame({"a+b": ["2024-01-31"], "a": ["x"], "b": ["y"]})
    joined, columns = join_time(lines, {"time": "a+b"})
    assert joined.equals(lines)
    assert columns == {"time": "a+b"}


@pytest.mark.parametrize("columns", [{"user_id": "who", "item_id": "who"}, {"item_id": "user_id"}])
def test_who_bought_and_what_are_two_columns(columns: dict[str, str]) -> None:
    lines = pl.DataFrame({"who": [1], "user_id": [1], "item_id": [2], "time": ["2024-01-31"]})
    with pytest.raises(DataError, match="is named as user_id and as item_id"):
        RetailData.from_frames(lines, columns=columns)


def test_events_that_are_no_purchases_are_counted(tmp_path: Path) -> None:
    events = ["view", "transaction", "addtocart", "transaction", None]
    lines = pl.DataFrame({"user_id": [1] * 5, "item_id": [3, 4, 5, 6, 7], "time": ["2024-01-31"] * 5})
    lines.with_columns(event=pl.Series(events)).write_csv(tmp_path / "events.csv")
    data = load_dataset("table", tmp_path / "events.csv", where=["event=transaction"])
    assert data.items["item_id"].to_list() == [4, 6]
    assert data.report.rejected == {"not event=transaction": 3}
    both = load_dataset("table", tmp_path / "events.csv", where=["event=view", "event=addtocart"])
    assert both.items["item_id"].to_list() == [3, 5]
    with pytest.raises(DataError, match="there is no column 'kind'"):
        load_dataset("table", tmp_path / "events.csv", where=["kind=transaction"])
    with pytest.raises(SettingError, match="expected column=value"):
        load_dataset("table", tmp_path / "events.csv", where=["transaction"])


def test_conditions_name_any_column_and_are_met_again_in_the_next_file(tmp_path: Path) -> None:
    events = ["sale", "gift", "sale", "gift", "order"]
    lines = {"who": [1] * 5, "item_id": [3, 4, 5, 6, 7], "time": ["2024-01-31"] * 5, "Ort": events}
    file = tmp_path / "events.csv"
    pl.DataFrame({**lines, "reason": events}).write_csv(file)  # a name that lines use inside
    for where in ("reason=sale", "store=sale", "Ort = sale"):
        columns = {"user_id": "who", "store": "Ort"}
        data = load_dataset("table", file, columns, where=[where])
        assert data.items["item_id"].to_list() == [3, 5]
        again = open_alike(data.report.reading, file).data()
        assert again.report.rejected == data.report.rejected
        assert f"--where {where} (read)" in " ".join(again.report.notes)


def test_a_published_format_has_no_conditions(tmp_path: Path) -> None:
    (tmp_path / "ta.csv").write_text("TRANSACTION_DT,CUSTOMER_ID,PRODUCT_ID,AMOUNT,SALES_PRICE\n")
    with pytest.raises(SettingError, match="--where is for 'table' only"):
        load_dataset("ta-feng", tmp_path / "ta.csv", where=["AMOUNT=1"])
    with pytest.raises(SettingError, match="--where is for 'table' only"):
        open_alike({"dataset": "ta-feng"}, tmp_path / "ta.csv", Reading(where=["AMOUNT=1"]))


def test_order_numbers_and_gaps_make_a_calendar(tmp_path: Path) -> None:
    lines = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "order_number": [1, 2, 2, 1, 2],
            "days_since_prior_order": [None, 9, 9, None, 2],
            "item_id": [7, 7, 8, 7, 9],
        }
    )
    lines.write_csv(tmp_path / "orders.csv")
    data = load_dataset("table", tmp_path / "orders.csv", {"time": "order_number"})
    days = data.log.group_by("user", "basket").agg(pl.col("time").first()).sort("user", "time")["time"]
    gaps = [int((days[i + 1] - days[i]).days) for i in (0, 2)]
    assert gaps == [9, 2]  # as the column says
    assert days[1] == days[3]  # last orders are of one week
    assert data.report.reading["columns"] == {"time": "order_number"}
    assert "no dates" in " ".join(data.report.notes)
    marked = lines.with_columns(item_id=pl.Series(["Käse"] * 5)).write_csv()
    (tmp_path / "orders.csv").write_bytes(marked.encode("cp1252"))
    again = load_dataset("table", tmp_path / "orders.csv", {"time": "order_number"}, encoding="cp1252")
    assert again.items["item_id"].to_list() == ["Käse"]


def test_receipts_from_a_day_on_are_not_known(tmp_path: Path) -> None:
    lines = pl.DataFrame({"user_id": IDS, "item_id": IDS, "time": ISO}).unique(maintain_order=True)
    lines.write_csv(tmp_path / "r.csv")
    data = load_dataset("table", tmp_path / "r.csv", until="2024-03-01")
    assert (data.n_users, data.end) == (2, datetime(2024, 3, 1))  # the third comes in March alone
    assert data.report.rejected == {"at or after 2024-03-01 00:00": 1}
    with pytest.raises(DataError, match="no receipt comes later, the last is of 2024-03-15"):
        load_dataset("table", tmp_path / "r.csv", until="2025-03-01")
    with pytest.raises(DataError, match="none of the 3 lines"):
        load_dataset("table", tmp_path / "r.csv", until="2014-03-01")


def test_the_next_file_is_read_as_the_last_one(tmp_path: Path) -> None:
    first = pl.DataFrame(
        {"Kunde": IDS, "Artikel": IDS, "Tag": DAYS, "Uhr": ["9:00"] * N, "Müll": [1] * N}
    )
    (tmp_path / "r.csv").write_bytes(first.write_csv(separator=";").encode("cp1252"))
    columns = {"user_id": "Kunde", "item_id": "Artikel", "time": "Tag+Uhr"}
    kept = load_dataset("table", tmp_path / "r.csv", columns, encoding="cp1252").report.reading
    assert kept == {"dataset": "table", "columns": columns, "encoding": "cp1252"}
    again = open_alike(kept, tmp_path / "r.csv").data()
    assert again.start == datetime(2024, 1, 31, 9)
    pl.DataFrame({"user_id": [1], "item_id": [2], "time": ["2024-05-01"]}).write_csv(tmp_path / "s.csv")
    assert open_alike(kept, tmp_path / "s.csv").data().start == datetime(2024, 5, 1)


def test_a_published_format_is_known_again(tmp_path: Path) -> None:
    frame = {"Invoice": ["1", "2"], "StockCode": ["10001", "10002"], "Description": ["A", "B"]}
    more = {"Quantity": [1, 2], "InvoiceDate": ["2010-12-01 08:26:00"] * 2, "Price": [1.5, 2.0]}
    table = pl.DataFrame({**frame, **more, "Customer ID": [1, 2], "Country": ["UK"] * 2})
    table.write_csv(tmp_path / "sheet.csv")
    kept = load_dataset("online-retail", tmp_path).report.reading
    assert kept == {"dataset": "online-retail"}
    assert open_alike(kept, tmp_path / "sheet.csv").data().n_items == 2
    table = table.with_columns(
        pl.lit("03/04/2010 08:26").alias("InvoiceDate"), Country=pl.lit("Curaçao")
    )
    (tmp_path / "sheet.csv").write_bytes(table.write_csv().encode("cp1252"))
    kept = load_dataset("online-retail", tmp_path, encoding="cp1252", time_format="%d/%m/%Y %H:%M")
    assert open_alike(kept.report.reading, tmp_path / "sheet.csv").data().start == kept.start


def test_a_mapping_is_used_where_the_file_needs_it() -> None:
    columns = {"user_id": "who", "time": "day+clock", "value": "paid"}
    used, rest = still_there(columns, ["user_id", "who", "day", "clock", "item_id"])
    assert used == {"time": "day+clock"}  # there is a user_id, and nothing paid
    assert rest == {"user_id": "who", "value": "paid"}


def test_a_mapping_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "till.toml").write_text('[columns]\nuser_id = "Kunde"\ntime = "Tag+Uhr"\n')
    assert parse_columns(str(tmp_path / "till.toml")) == {"user_id": "Kunde", "time": "Tag+Uhr"}
    (tmp_path / "till.toml").write_text("user_id = 3\n")
    with pytest.raises(SettingError, match='lines such as user_id = "client"'):
        parse_columns(str(tmp_path / "till.toml"))


def test_settings_of_a_run_and_a_week_say_how_receipts_are_read(tmp_path: Path) -> None:
    """Alike: a mapping in place or in a file beside the settings; what an option says counts more."""
    (tmp_path / "till.toml").write_text('user_id = "Kunde"\ntime = "Tag"\n')
    (tmp_path / "old.csv").write_text("kind,old,new\nuser,1,2\n")
    said = 'columns = "till.toml"\nencoding = "cp1252"\nchanged_ids = "old.csv"\n'
    run, week = tmp_path / "run.toml", tmp_path / "week.toml"
    run.write_text(f"{said}k = 3\n")
    week.write_text(f'{said}receipts = "exports"\n')
    expected = Reading(
        {"user_id": "Kunde", "time": "Tag"}, "cp1252", None, [], [], ChangedIds({"1": "2"})
    )
    assert read_reading(run) == expected == read_week(week).settings.reading()
    assert read_settings(run) == Settings(k=3)
    assert read_week(week).files == {"changed_ids": tmp_path / "old.csv"}
    week.write_text(week.read_text().replace('"till.toml"', '{ user_id = "Kunde", time = "Tag" }'))
    assert read_week(week).settings.reading() == expected
    wanted = DatasetOptions("table", config=run, encoding="cp1250", where=["Art=Verkauf"])
    assert wanted.reading() == replace(expected, encoding="cp1250", where=["Art=Verkauf"])
    assert DatasetOptions("table").reading() == PLAIN
    for file, read in ((run, read_reading), (week, read_week)):
        file.write_text(f'{said.replace("till", "tull")}receipts = "x"\n')
        with pytest.raises(SettingError, match=r"columns .*tull.toml can't be read: No such file"):
            read(file)
    run.write_text("columns = 3\n")
    with pytest.raises(SettingError, match="setting 'columns"):
        read_reading(run)
    run.write_text('colums = "till.toml"\n')
    with pytest.raises(SettingError, match=r"there is no setting 'colums'; 'columns'\? "):
        read_settings(run)


def test_a_mapping_names_columns_of_catalogue_and_users_too(tmp_path: Path) -> None:
    lines = pl.DataFrame({"Karta": [1, 1, 2], "Kod": [7, 8, 9], "Data": ["2024-01-31"] * 3})
    items = pl.DataFrame(
        {"Kod": [7, 8, 9], "Nazwa": ["Ser", "Torba", "Chleb"], "Grupa": ["A", "B", "A"]}
    )
    people = pl.DataFrame({"Karta": [1, 2], "Miasto": ["X", "Y"]})
    for name, table in (("transactions", lines), ("catalog", items), ("customers", people)):
        table.write_csv(tmp_path / f"{name}.csv", separator=";")
    columns = {
        "user_id": "Karta",
        "item_id": "Kod",
        "time": "Data",
        "name": "Nazwa",
        "category_1": "Grupa",
    }
    data = load_dataset("table", tmp_path, columns, not_products=["category_1=B"])
    assert data.items.filter(name="Ser")["category_1"].to_list() == ["A"]
    assert data.users.rows() == [(1, "X"), (2, "Y")]
    assert data.report.rejected == {"not a product": 1}
    kept = {**data.report.reading, "catalogue": data.items}  # as a model has it
    again = open_alike(kept, tmp_path, PLAIN).data()
    assert (again.items.equals(data.items), again.users.equals(data.users)) == (True, True)
    apart = Reading(columns, not_products=["category_1=B"], catalogue=with_our_names(items, columns))
    alone = open_dataset("table", tmp_path / "transactions.csv", apart).data()  # as a week has it
    assert alone.log.height == 2
    (tmp_path / "later").mkdir()
    lines.write_csv(tmp_path / "later" / "day.csv")
    assert open_alike(kept, tmp_path / "later", PLAIN).data().log.height == 2


def test_a_table_without_names_of_columns_is_refused_in_these_words(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("7,tea,2024-01-31 10:00:00,2.50\n8,tea,2024-02-01 11:00:00,2\n")
    with pytest.raises(DataError, match="The first line seems to hold values: write a line with"):
        load_dataset("table", tmp_path / "lines.csv")


@pytest.mark.parametrize("name", ["receipts.csv", "receipts.xlsx"])
def test_a_title_above_the_table_is_taken_for_no_column(tmp_path: Path, name: str) -> None:
    rows = [["Sales", None, None], ["user_id", "item_id", "time"], ["7", "tea", "2024-01-31"]]
    if name.endswith("csv"):
        text = "\n".join(",".join(cell or "" for cell in row) for row in rows)
        (tmp_path / name).write_text(text + "\n")
    else:
        pl.DataFrame(rows, orient="row").write_excel(tmp_path / name, include_header=False)
    with pytest.raises(DataError, match="names hardly a column: if the table begins further down"):
        load_dataset("table", tmp_path / name)


@pytest.mark.parametrize("column", ["item_id", "name"])
def test_words_of_tills_for_what_is_no_product_are_named(tmp_path: Path, column: str) -> None:
    words = ["Subtotal", "VAT 20%", "Versandkosten", "Service charge", "Доставка"]
    products = ["Total 0% yoghurt", "Cash & Carry bag of rice", "Change of scene", "A12"]
    lines = pl.DataFrame({"user_id": 1, "item_id": range(9), "time": "2024-01-31"})
    for word in words:
        texts = pl.Series(column, [word, *products, *products])
        lines.with_columns(texts).write_csv(tmp_path / "lines.csv")
        (note,) = load_dataset("table", tmp_path / "lines.csv").report.notes
        assert note.startswith(f"by {column!r} these may be no products: {word!r} (1 of"), note
        assert note.count("line") == 1, note


def test_items_that_are_no_products_are_left_out_by_name_or_category(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    lines = pl.DataFrame({"who": [1, 1, 2, 2], "sku": [7, 8, 9, 10], "time": ["2024-01-31"] * 4})
    lines = lines.with_columns(Art=pl.Series(["sale", "Bag, large", "sale", "sale"]))
    lines.write_csv(tmp_path / "shop" / "receipts.csv")
    items = pl.DataFrame(
        {
            "item_id": [7, 8, 9, 10],
            "name": ["Rye", "x", "PFAND 0,25", "Diesel"],
            "category_1": list("abcd"),
        }
    )
    items.write_csv(tmp_path / "shop" / "items.csv")
    columns = {"user_id": "who", "item_id": "sku"}
    data = load_dataset("table", tmp_path / "shop", columns)
    assert "by 'name' these may be no products: 'Diesel' (1 of 4 lines), 'PFAND 0,25'" in str(
        data.report.notes
    )
    said = ["name=pfand*", "category_1=D", "Art=bag*"]
    data = load_dataset("table", tmp_path / "shop", columns, not_products=said)
    assert data.report.rejected == {"not a product": 3}
    assert "no products" not in str(data.report.notes)
    assert "no item of the catalogue" not in str(data.report.notes)
    none = load_dataset("table", tmp_path / "shop", columns, not_products=[*said, "name=diesl"])
    assert "--not-products name=diesl: no item of the catalogue is that" in none.report.notes
    kept = data.report.reading  # without the catalogue of the folder that of the model is looked at
    file = tmp_path / "shop" / "receipts.csv"
    again = open_alike({**kept, "catalogue": data.items}, file).data()
    assert again.report.rejected == data.report.rejected
    assert "--not-products name=pfand* category_1=D (no such column" in str(
        open_alike(kept, file).data().report.notes
    )
    for wrong, why in ((["name"], "expected column=text"), (["kind=a"], "there is no column 'kind'")):
        with pytest.raises((SettingError, DataError), match=why):
            load_dataset("table", tmp_path / "shop", columns, not_products=wrong)


def test_rejected_lines_name_their_file_and_the_line_in_it(tmp_path: Path) -> None:
    head = "user_id,item_id,time,note\n"
    (tmp_path / "a.csv").write_text(
        head + '1,7,2024-01-01,x\n\n,7,2024-01-01,"two\nlines"\n,8,2024-01-02,y\n'
    )
    (tmp_path / "b.csv").write_text(head + "1,7,2024-01-03,x\n,9,2024-01-01,z\n")
    rejects = load_dataset("table", tmp_path).report.rejects
    found = [(Path(file).name, line) for file, line in rejects.select("file", "line").rows()]
    assert found == [("a.csv", 4), ("a.csv", 6), ("b.csv", 3)]
    for name in "ab":
        text = (tmp_path / f"{name}.csv").read_text().splitlines()
        for file, line in found:
            assert file != f"{name}.csv" or text[line - 1].startswith(",")
    frame = pl.DataFrame({"user_id": [1, None], "item_id": [7, 8], "time": ["2024-01-01"] * 2})
    (tmp_path / "c").mkdir()
    frame.write_parquet(tmp_path / "c" / "c.parquet")
    assert load_dataset("table", tmp_path / "c").report.rejects["line"].to_list() == [2]
    returned = {"user_id": [1, 2], "item_id": [7, 8], "time": ["2024-01-01"] * 2, "quantity": [1, -1]}
    pl.DataFrame(returned).write_parquet(tmp_path / "c" / "c.parquet")
    rejects = load_dataset("table", tmp_path / "c").report.rejects
    assert rejects.select("line", "reason").rows() == [(2, "return or cancellation")]
    assert RetailData.from_frames(frame).report.rejects["line"].to_list() == [1]  # of a frame, from 0
