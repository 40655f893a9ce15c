"""The same lists and the same account of the receipts from Spark as from one machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import spark_support
from retailrec.candidates import Popularity
from retailrec.data import RetailData, unit_prices
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_parts, read_table
from retailrec.datasets.base import PLAIN, Reading
from retailrec.errors import DataError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.batch import recommend_from_files
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.request import Request
from retailrec.recommender.rules import read_rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data
from spark_support import QUICK, lists

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with spark_support.spark("local[2]") as session:
        yield session


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spark_support.write_shop(tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="module")
def here(shop: Path) -> Any:
    """What one machine says."""
    out = shop / "here.parquet"
    return recommend_from_files(shop / "model", shop / "receipts", out, Request(k=5)), lists(out)


def test_lists_and_the_account_are_those_of_one_machine(
    session: Any, shop: Path, here: Any, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    local, expected = here
    told: list[tuple[str, int, int]] = []
    there = recommend(
        shop / "model",
        shop / "receipts",
        tmp_path / "there",
        5,
        waves=3,
        shard_lines=700,
        progress=lambda step, done=0, total=0: told.append((step, done, total)),
    )
    assert lists(tmp_path / "there").equals(expected)
    assert there.load_report.as_dict() == local.load_report.as_dict()
    assert len(there.load_report.rejected) >= 6  # soiled enough to say something
    assert there.batch == local.batch
    assert told[-1] == ("recommend", 3, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]  # no parts


@pytest.mark.parametrize("ids", ["text", "numbers"])
def test_alike_ids_and_several_currencies_are_said_as_on_one_machine(
    session: Any, tmp_path: Path, ids: str
) -> None:
    from retailrec.spark.sources import source
    from retailrec.spark.staging import stage

    n = 400
    row = pl.int_range(pl.len())
    lines = pl.select(user_id=pl.int_range(n) % 40, item_id=pl.int_range(n) % 9).with_columns(
        pl.datetime(2024, 1, 1).dt.offset_by(pl.format("{}d{}m", row % 30, row)).alias("time"),
        value=pl.lit(2.0),
        currency=pl.when(row == 7).then(pl.lit("USD")).otherwise(pl.lit("EUR")),
    )
    if ids == "text":
        odd = {3: "Anna B", 13: "anna  b", 5: "007", 15: "7", 6: "1.2E+15", 17: "\u00e9", 18: "e\u0301"}
        user = pl.col("user_id").replace_strict(odd, default=pl.format("u{}", "user_id"))
        lines = lines.with_columns(user, pl.format("i{}", pl.col("item_id")).alias("item_id"))
        receipt = pl.when(row == 50).then(pl.lit("0041")).when(row == 60).then(pl.lit("41"))
        lines = lines.with_columns(receipt.otherwise(pl.format("r{}", row)).alias("basket_id"))
    else:
        lines = lines.with_columns(pl.col("user_id") * 10 + 4_000_000_000_000_000)
    lines.write_parquet(tmp_path / "lines.parquet")
    here = RetailData.from_frames(lines).report.notes
    given = source(session, tmp_path / "lines.parquet", {})
    there = stage(session, given, PLAIN, str(tmp_path / "cleaned")).report.notes
    assert there == here
    assert len(here) == (5 if ids == "text" else 2), here


def test_shoppers_without_lines_are_data_too() -> None:
    tasks = pytest.importorskip("retailrec.spark.tasks")
    mapping = pytest.importorskip("retailrec.spark.mapping")
    plan = tasks.UserPlan(None, datetime(2024, 1, 1), 10, False, {})
    kinds = {
        "user_id": "long",
        "item_id": "string",
        "time": "timestamp",
        "quantity": "double",
        "value": "double",
        "line": "long",
    }
    lines = mapping.with_kinds(pl.DataFrame(), kinds)
    assert lines.is_empty()
    report = LoadReport("part")
    data = tasks.data_of_lines(lines, plan, pl.DataFrame({"user_id": [7]}), report)
    assert data.users["user_id"].to_list() == [7]
    assert (data.log.height, report.kept, report.first) == (0, 0, None)


def test_shoppers_asked_for_rules_and_reasons_are_those_of_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    asked = pl.DataFrame({"user_id": [3, 99_999, 7, 3], "segment": ["a", "b", None, "a"]})
    asked.write_csv(tmp_path / "asked.csv")
    (tmp_path / "rules.toml").write_text("max_per_category = 1\nskip_bought_days = 7\n")
    rules = read_rules(tmp_path / "rules.toml")
    out = tmp_path / "here.parquet"
    local = recommend_from_files(
        shop / "model",
        shop / "receipts",
        out,
        Request(k=4, rules=rules, reasons=True),
        users=tmp_path / "asked.csv",
    )
    there = recommend(
        shop / "model",
        shop / "receipts",
        tmp_path / "there",
        4,
        waves=2,
        users=tmp_path / "asked.csv",
        rules=rules,
        reasons=True,
    )
    assert lists(tmp_path / "there").equals(lists(out))
    assert lists(out)["user_id"].n_unique() == 3
    assert there.batch == local.batch


def test_new_items_are_found_as_on_one_machine(session: Any, shop: Path, tmp_path: Path) -> None:
    from retailrec.spark import recommend

    model = QUICK.model()
    model.discover = Discovery(ranker=LightGBMRanker("binary", iterations=5))
    model.fit(small_data(users=120, weeks=26)).save(tmp_path / "model")
    wishes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"purpose": "discover"}, {"purpose": "discover"}),
        ({"slots": "replenish=2,discover=3"}, {"slots": {"replenish": 2, "discover": 3}}),
    ]
    for said, wish in wishes:
        out = tmp_path / f"{'-'.join(wish)}.parquet"
        local = recommend_from_files(
            tmp_path / "model", shop / "receipts", out, Request.read({"k": 5} | said)
        )
        there = recommend(tmp_path / "model", shop / "receipts", tmp_path / out.stem, 5, **wish)
        assert lists(tmp_path / out.stem).equals(lists(out))
        assert lists(out).height > 500
        assert there.batch == local.batch


def written(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(path)
    return path


def test_types_of_tables_are_read_as_one_machine_reads_them(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """Decimals, floats with holes for ids, a time with a zone, a list, a table of the catalog."""
    from retailrec.spark import recommend

    lines = (
        pl.read_parquet(shop / "receipts" / "*.parquet")
        .with_columns(
            pl.col("value").cast(pl.Decimal(12, 2)),
            pl.col("user_id").cast(pl.Float64),
            pl.col("quantity").cast(pl.Int16),
            pl.col("time").dt.replace_time_zone("UTC"),
            pl.col("basket_id").cast(pl.String).alias("receipt"),
            tags=pl.lit([["a", "b"]]).first(),
        )
        .drop("basket_id")
    )
    file, columns = written(lines, tmp_path / "lines.parquet"), {"basket_id": "receipt"}
    session.read.parquet(str(file)).write.saveAsTable("lines", path=f"file://{tmp_path}/table")
    out = tmp_path / "here.parquet"
    local = recommend_from_files(shop / "model", file, out, Request(k=3), reading=Reading(columns))
    there = recommend(shop / "model", "lines", tmp_path / "there", 3, reading=Reading(columns))
    assert lists(tmp_path / "there").equals(lists(out))
    ours, theirs = there.load_report.as_dict(), local.load_report.as_dict()
    assert (ours.pop("source"), theirs.pop("source")) == ("lines", "lines.parquet")
    assert ours == theirs
    assert ours["zone"] == "UTC"


def test_old_ids_are_those_of_one_machine(session: Any, shop: Path, tmp_path: Path) -> None:
    from retailrec.spark import recommend

    rows = [("user", "3", "7"), ("user", "7", "card"), ("item", "5", "9")]
    changed = ChangedIds.of(pl.DataFrame(rows, ["kind", "old", "new"], orient="row"))
    reading = Reading(changed_ids=changed, not_products=["item_id=11"])
    out, asked = tmp_path / "here.parquet", tmp_path / "asked.parquet"
    pl.DataFrame({"user_id": [3, 8, 9]}).write_parquet(asked)
    more: dict[str, Any] = {"reading": reading, "users": asked}
    local = recommend_from_files(shop / "model", shop / "receipts", out, Request(k=3), **more)
    there = recommend(shop / "model", shop / "receipts", tmp_path / "there", 3, **more)
    assert lists(tmp_path / "there").equals(lists(out))
    assert "card" in lists(out)["user_id"]
    assert there.load_report.as_dict() == local.load_report.as_dict()
    assert there.load_report.changed["user"] > 0


def test_times_with_a_zone_are_those_of_one_machine_and_the_last_receipt_ends_the_data(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """The shop's clock as the file tells it; a receipt that goes on over midnight is of its first day."""
    from retailrec.spark import recommend

    lines = pl.read_parquet(shop / "receipts" / "*.parquet").filter(pl.col("time").dt.year() > 1990)
    last = lines["time"].max()
    assert isinstance(last, datetime)
    late = datetime(last.year, last.month, last.day, 23, 50) + timedelta(days=1)
    over = lines.head(2).with_columns(
        user_id=pl.lit(3, pl.Int64),
        basket_id=pl.lit(10**6, pl.Int32),
        quantity=pl.lit(1.0),
        value=pl.lit(2.0),
        time=pl.Series([late, late + timedelta(minutes=20)]),
    )
    zoned = pl.concat([lines, over.select(lines.columns).cast(lines.schema)]).with_columns(
        pl.col("time").dt.replace_time_zone(
            "America/New_York", ambiguous="earliest", non_existent="null"
        )
    )
    file, out = written(zoned, tmp_path / "lines.parquet"), tmp_path / "here.parquet"
    local = recommend_from_files(shop / "model", file, out, Request(k=3))
    there = recommend(shop / "model", file, tmp_path / "there", 3)
    assert lists(tmp_path / "there").equals(lists(out))
    ours, theirs = there.load_report.as_dict(), local.load_report.as_dict()
    assert ours == theirs
    assert (ours["zone"], ours["last"]) == ("America/New_York", late.isoformat())
    assert there.batch.report.notes == local.batch.report.notes


def test_a_day_and_a_clock_are_joined_as_on_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """Clocks as whole numbers, which most parts of the file hold shorter than the longest one."""
    from retailrec.spark import recommend

    lines = pl.read_parquet(shop / "receipts" / "*.parquet").sort("time").drop("basket_id")
    clock = (pl.col("time").dt.hour().cast(pl.Int32) * 100 + pl.col("time").dt.minute()) % 959
    late = pl.int_range(pl.len()) == 4000
    lines = lines.select(
        pl.exclude("time"),
        day=pl.col("time").dt.date(),
        at=pl.when(late).then(2205).when(pl.col("time").dt.minute() < 50).then(clock - clock % 100),
    )
    file, columns = tmp_path / "lines.parquet", {"time": "day+at"}
    lines.write_parquet(file, row_group_size=1000)
    out = tmp_path / "here.parquet"
    local = recommend_from_files(shop / "model", file, out, Request(k=3), reading=Reading(columns))
    there = recommend(shop / "model", file, tmp_path / "there", 3, reading=Reading(columns))
    assert lists(tmp_path / "there").equals(lists(out))
    assert there.load_report.as_dict() == local.load_report.as_dict()


def test_text_files_are_refused_in_words(shop: Path, tmp_path: Path) -> None:
    from retailrec.spark.sources import require_parquet

    lines = pl.read_parquet(shop / "receipts" / "b0*.parquet").head(5)
    (tmp_path / "texts").mkdir()
    lines.write_csv(tmp_path / "texts" / "a.csv")
    for path in (tmp_path / "texts", tmp_path / "texts" / "a.csv"):
        with pytest.raises(DataError, match="is no Parquet"):
            require_parquet(path)  # before Spark starts


def test_one_shopper_of_a_million_lines_is_answered_like_the_others(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    lines = pl.read_parquet(shop / "receipts" / "b0*.parquet").filter(pl.col("user_id").is_not_null())
    n = 1_000_000
    heavy = (
        lines.sample(n, with_replacement=True, seed=0)
        .with_columns(
            user_id=pl.lit(5, pl.Int64),
            basket_id=pl.int_range(n) // 40,
            time=pl.datetime(2024, 1, 1) + pl.duration(minutes=pl.int_range(n) // 40),
        )
        .select(lines.columns)
    )
    file = written(pl.concat([lines, heavy.cast(lines.schema)]), tmp_path / "lines.parquet")
    out = tmp_path / "here.parquet"
    local = recommend_from_files(shop / "model", file, out, Request(k=3))
    there = recommend(shop / "model", file, tmp_path / "there", 3, shard_lines=20_000)
    assert lists(tmp_path / "there").equals(lists(out))
    assert there.load_report.as_dict() == local.load_report.as_dict()


def test_a_return_dates_no_receipt_whoever_is_in_the_same_part(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    """Of an item that only others bought, before the receipt's first purchase."""
    from retailrec.spark import recommend

    lines = pl.read_parquet(shop / "receipts" / "b0*.parquet").filter(pl.col("user_id").is_not_null())
    bought = lines.filter((pl.col("quantity") > 0) & pl.col("time").is_not_null())
    back = bought.gather_every(5).with_columns(
        pl.col("item_id").reverse(), -pl.col("quantity"), pl.col("time") - pl.duration(minutes=90)
    )
    file = written(pl.concat([lines, back]), tmp_path / "lines.parquet")
    out = tmp_path / "here.parquet"
    local = recommend_from_files(shop / "model", file, out, Request(k=20))
    there = recommend(shop / "model", file, tmp_path / "there", 20, shard_lines=50)
    assert lists(tmp_path / "there").equals(lists(out))
    assert there.load_report.as_dict() == local.load_report.as_dict()


def test_a_rerun_goes_on_with_the_first_unfinished_wave(
    session: Any, shop: Path, here: Any, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    def stops(step: str, done: int = 0, total: int = 0) -> None:
        if (step, done) == ("recommend", 2):
            raise KeyboardInterrupt

    wish = (shop / "model", shop / "receipts", tmp_path / "there", 5)
    with pytest.raises(KeyboardInterrupt):
        recommend(*wish, waves=4, progress=stops)
    assert not (tmp_path / "there").exists()
    again = recommend(*wish, waves=4)
    assert again.batch.n_taken_over == 2
    assert lists(tmp_path / "there").equals(here[1])
    assert again.load_report.as_dict() == here[0].load_report.as_dict()


def test_a_rerun_goes_on_where_lists_were_being_put_in_place(
    session: Any, shop: Path, here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retailrec.spark import recommend
    from retailrec.spark.storage import HadoopStorage

    moved: list[str] = []
    rename = HadoopStorage.rename

    def stops(self: HadoopStorage, source: str, target: str) -> None:
        if "/result-part/" in target:
            moved.append(target)
            if len(moved) == 2:
                raise KeyboardInterrupt
        rename(self, source, target)

    wish = (shop / "model", shop / "receipts", tmp_path / "there", 5)
    monkeypatch.setattr(HadoopStorage, "rename", stops)
    with pytest.raises(KeyboardInterrupt):
        recommend(*wish, waves=2)
    assert len(moved) == 2
    assert not (tmp_path / "there").exists()
    monkeypatch.undo()
    again = recommend(*wish, waves=2)
    assert again.batch.n_taken_over == 2
    assert lists(tmp_path / "there").equals(here[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]


def test_empty_partitions_and_frames_of_ones_own_do_no_harm(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    read_table(shop / "receipts").write_parquet(tmp_path / "one.parquet")  # a frame is one table
    one = (shop / "model", tmp_path / "one.parquet", tmp_path / "here.parquet", Request(k=5))
    recommend_from_files(*one)
    frame = session.read.parquet(str(shop / "receipts")).coalesce(1).repartition(2, "user_id")
    wide = frame.union(frame.limit(0)).repartitionByRange(40, "user_id")
    recommend(shop / "model", wide, tmp_path / "there", 5, waves=2)
    expected = lists(tmp_path / "here.parquet")
    assert lists(tmp_path / "there").drop("score").equals(expected.drop("score"))


def test_what_is_no_receipt_is_refused_in_words(session: Any, shop: Path, tmp_path: Path) -> None:
    from retailrec.spark import recommend

    def refused(receipts: Any, **more: Any) -> str:
        with pytest.raises(DataError) as error:
            recommend(shop / "model", receipts, tmp_path / "there", 5, **more)
        return str(error.value)

    frame = session.read.parquet(str(shop / "receipts"))
    assert "no table or path 'nowhere'" in refused("nowhere")
    assert "no file or folder at /no/where" in refused(Path("/no/where.parquet"))
    assert "lines.csv is no Parquet; on Spark" in refused(tmp_path / "lines.csv")
    assert "lacks column 'time'" in refused(frame.drop("time"))
    assert "must hold times, not string" in refused(
        frame.selectExpr("*", "'x' when"), reading=Reading({"time": "when"})
    )
    assert "must hold numbers, not string" in refused(
        frame.selectExpr("*", "'1,5' paid"), reading=Reading({"value": "paid"})
    )
    assert "not a Spark" in refused(3) or "not int" in refused(3)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "letters.txt").write_text("mine")
    assert "will not be replaced" in refused(shop / "receipts")
    assert (tmp_path / "there" / "letters.txt").read_text() == "mine"


def test_a_worker_says_what_is_wrong_in_the_packages_words(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import recommend

    words = pl.read_parquet(shop / "receipts" / "*.parquet").with_columns(item_id=pl.lit("tea"))
    with pytest.raises(DataError, match="'item_id' holds integers, but the fresh receipts hold text"):
        recommend(shop / "model", written(words, tmp_path / "words.parquet"), tmp_path / "there", 5)
    strange = pl.read_parquet(shop / "receipts" / "*.parquet").with_columns(pl.col("item_id") + 10**6)
    with pytest.raises(
        DataError, match=r"None of the .* receipt lines is of an item that the model knows"
    ):
        recommend(shop / "model", written(strange, tmp_path / "strange.parquet"), tmp_path / "there", 5)
    assert not (tmp_path / "there").exists()


def test_a_model_of_all_shoppers_is_that_of_one_machine(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    from retailrec.spark import fit

    data = RetailData.from_frames(read_parts(shop / "receipts", exports=True))
    local = QUICK.model().fit(data)
    there = fit(QUICK.model(), shop / "receipts", tmp_path / "model", sample=10**6)
    assert there.n_sample == data.n_users
    theirs = there.load_report.as_dict()
    ours = data.report.as_dict()
    assert (theirs.pop("source"), ours.pop("source")) == ("receipts", "transactions")
    said = [report.pop("notes")[0].partition(":")[0] for report in (theirs, ours)]
    assert said[0] == said[1]  # then examples, by file and line; lines of a frame have no file
    assert theirs == ours
    model = TwoStageRecommender.load(tmp_path / "model")
    assert model.items_.equals(local.items_)
    assert (model.start_, model.end_) == (local.start_, local.end_)
    np.testing.assert_allclose(model.prices_, local.prices_, rtol=1e-12)
    np.testing.assert_allclose(model.features_.items_, local.features_.items_, rtol=1e-6)
    assert model.features_.names == local.features_.names
    for one, other in zip(model.sources_, local.sources_, strict=True):
        pool, expected = (s.candidates(data.history(), 10) for s in (one, other))
        np.testing.assert_array_equal(pool.items, expected.items)
    lists, expected = (m.recommend(data, k=5) for m in (model, local))
    assert lists.drop("score").equals(expected.drop("score"))


def test_a_model_of_a_sample_counts_everybody(session: Any, shop: Path, tmp_path: Path) -> None:
    from retailrec.spark import fit

    data = RetailData.from_frames(read_parts(shop / "receipts", exports=True))
    there = fit(QUICK.model(), shop / "receipts", tmp_path / "model", sample=60)
    assert 30 < there.n_sample < 90
    assert there.model.report_["sample"] == {"shoppers": there.n_sample, "of": data.n_users}
    whole = FeatureSet().fit(data)
    np.testing.assert_allclose(there.model.features_.items_, whole.items_, rtol=1e-6)
    popular = next(s for s in there.model.sources_ if s.name == "popular")
    np.testing.assert_array_equal(popular.share_, Popularity().fit(data).share_)
    np.testing.assert_allclose(there.model.prices_, unit_prices(data), rtol=1e-12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
