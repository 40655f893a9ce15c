"""The report: its numbers against plain counts, its page against what browsers and strangers may do."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.errors import DataError
from retailrec.jobs.evaluate import baselines, hold_out
from retailrec.jobs.run import run
from retailrec.jobs.settings import Settings
from retailrec.recommender.explanations import item_labels
from retailrec.report import drawings, summary
from retailrec.report.page import meaning, render, render_markdown
from retailrec.simulator.shop import small_data

SETTINGS = Settings(
    horizon_days=14,
    ranker={"type": "lightgbm", "iterations": 15},
    label_windows=3,
    calibrate=True,
    threads=1,
    sources=[{"type": "own_purchases"}, {"type": "popularity"}, {"type": "item_item"}],
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    rules = out / "rules.toml"
    rules.write_text("max_per_category = 1\n")
    run(small_data(users=150), SETTINGS, out / "results", dataset="<made & up>", rules=rules, folds=2)
    return out / "results"


@pytest.fixture(scope="module")
def report(ran: Path) -> dict[str, Any]:
    return json.loads((ran / "report.json").read_text())


class Page(HTMLParser):
    """Tags that a page opens and does not close, and what it points to."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for name, v in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for name, v in attrs if name in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"<{tag}> is closed where another is open"


def read(text: str) -> Page:
    page = Page()
    page.feed(text)
    return page


def test_the_page_is_one_file_that_fetches_nothing(ran: Path) -> None:
    text = (ran / "report.html").read_text()
    page = read(text)
    assert page.open == []
    assert page.tags.count("script") == 1  # the one that sorts tables
    assert not [link for link in page.links if not link.startswith("#")]
    assert not re.search(r"url\((?!#)|@import", text)
    assert page.tags.count("article") == summary.EXAMPLES
    assert page.tags.count("figure") >= 12
    for part in ("results", "data", "matching", "ranking", "examples", "rules", "settings"):
        assert f'<section id="{part}">' in text


def test_probabilities_of_a_calibrated_model_are_drawn(report: dict[str, Any]) -> None:
    bins = report["ranking"]["reliability"]
    assert [set(each) for each in bins] == [{"n", "predicted", "observed"}] * len(bins)
    assert "Do probabilities hold?" in render(report)
    assert "Do probabilities hold?" not in render(
        report | {"ranking": report["ranking"] | {"reliability": None}}
    )


def test_people_come_first_and_the_evidence_after(report: dict[str, Any]) -> None:
    text = render(report)
    assert text.index('id="offers"') < text.index('id="results"') < text.index('id="data"')
    three = text[text.index('id="offers"') : text.index('id="results"')]
    assert three.count("<article>") == 3
    assert three.count("<ol>") == 3 * len(report["models"])


def test_ours_stands_against_the_best_simple_method_and_all_pairs_are_folded(
    report: dict[str, Any],
) -> None:
    text = render(report)
    metric = next(iter(report["models"]["two_stage"]))
    simple = max(
        (name for name in report["models"] if name != "two_stage"),
        key=lambda name: report["models"][name][metric],
    )
    heading = text.index("Ours against the best simple method")
    assert f"<code>{simple}</code>" in text[heading : heading + 400]
    folded = text.index("<summary>All pairs of models</summary>")
    ours, pairs = text[heading:folded], text[folded : text.index("</details>", folded)]
    known = [r for r in report["differences"] if r["difference"] is not None]
    assert ours.count("</tr>") == 1 + sum(
        (r["model"], r["versus"]) == ("two_stage", simple) for r in known
    )
    assert pairs.count("</tr>") == 1 + len(known)
    assert "Share of the first 5 recommendations that were bought" in text[:heading]


def test_the_curve_is_the_fitted_rankers_own_on_the_held_out_weeks() -> None:
    data = small_data(users=150)
    held_out = hold_out(data, SETTINGS)
    model = SETTINGS.model().fit(held_out.past)
    found = summary.describe_ranking(model, held_out, 0)
    assert found["importances"]["columns"]
    trees, ndcg = zip(*found["curve"], strict=True)
    assert trees[-1] == model.ranker_.n_trees == 15
    past, target = held_out.filtered(model.prefilters)
    users = np.intersect1d(target["user"].unique().to_numpy(), past.active_users())
    history, bought = past.history(codes=users), set(target.select("user", "item").rows())
    proposed, lists = model.stage_one.pool(history), model.recommend_codes(history, 10).items
    discount, values = 1 / np.log2(np.arange(2, 12)), []
    for row, user in enumerate(users.tolist()):
        of_user = proposed.items[proposed.indptr[row] : proposed.indptr[row + 1]]
        if n := sum((user, item) in bought for item in of_user.tolist()):
            hits = [(user, item) in bought for item in lists[row].tolist()]
            values.append(discount[hits].sum() / discount[:n].sum())
    assert ndcg[-1] == pytest.approx(np.mean(values))
    assert ndcg[0] != ndcg[-1]


def test_names_from_data_are_text_on_the_page(report: dict[str, Any]) -> None:
    evil = "<script>alert('x')</script>"
    report = json.loads(json.dumps(report))
    report["examples"][0]["often"][0]["item"] = evil
    report["examples"][0]["user"] = evil
    report["data"]["load"]["rejected"] = {evil: 3}
    text = render(report)
    assert "<made" not in text
    assert "&lt;made &amp; up&gt;" in text
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;") == 3
    plain = render_markdown(report)
    assert "<script" not in plain
    assert "<made" not in plain


def test_the_page_is_made_of_the_numbers_beside_it(ran: Path, report: dict[str, Any]) -> None:
    """`report.json`, read back by anybody, gives the page that was written."""
    assert render(report) == (ran / "report.html").read_text()
    assert render_markdown(report) == (ran / "report.md").read_text()


def test_the_page_says_what_the_metrics_say(ran: Path, report: dict[str, Any]) -> None:
    metrics = json.loads((ran / "metrics.json").read_text())
    text = (ran / "report.html").read_text()
    for values in metrics["models"].values():
        for value in values.values():
            assert f"{value:.4f}" in text
    assert {key: report[key] for key in metrics} == metrics
    assert metrics["rules"]["max_per_category"]["bound"] > 0
    assert f"{metrics['rules']['max_per_category']['bound']:,}" in text


def test_rules_shape_what_is_written(ran: Path) -> None:
    data = small_data(users=150)
    lists = pl.read_parquet(ran / "recommendations.parquet")
    named = lists.join(data.items.select("item_id", "category_1"), on="item_id")
    assert named.group_by("user_id", "category_1").len()["len"].max() == 1


def test_folds_give_mean_and_spread(report: dict[str, Any]) -> None:
    folds = report["folds"]
    assert folds["n"] == 2
    row = next(r for r in folds["summary"] if (r["model"], r["metric"]) == ("popular", "precision@5"))
    last = report["models"]["popular"]["precision@5"]
    other = 2 * row["mean"] - last
    assert row["spread"] == pytest.approx(np.std([last, other], ddof=1))
    assert row["spread"] > 0


def lines(*rows: tuple[str, str, int, float]) -> RetailData:
    days = [f"2024-01-{day:02d}" for _, _, day, _ in rows]
    frame = pl.DataFrame(
        {
            "user_id": [r[0] for r in rows],
            "item_id": [r[1] for r in rows],
            "time": days,
            "value": [r[3] for r in rows],
        }
    )
    return RetailData.from_frames(frame)


def test_data_is_described_as_counted_by_hand() -> None:
    found = summary.describe_data(
        lines(
            ("ann", "tea", 1, 2.0),
            ("ann", "rice", 1, 3.0),
            ("ann", "tea", 9, 2.0),
            ("ann", "tea", 15, 2.0),
            ("bob", "tea", 15, 4.0),
        ),
        horizon_days=7,
    )
    assert found["glance"]["repeat_share_7d"] == 1  # Ann's tea; Bob bought nothing before
    # the data ends at the end of the 15th: weeks from the 2nd and the 9th are whole
    assert found["weeks"] == [
        {"start": "2024-01-02", "receipts": 0, "value": 0.0},
        {"start": "2024-01-09", "receipts": 3, "value": 8.0},
    ]
    shares = {(b["from"], b["to"]): b["share"] for b in found["receipt_sizes"]}
    assert (shares[1, 2], shares[2, 3]) == (0.75, 0.25)
    assert {b["from"]: b["share"] for b in found["gaps_days"]}[7] == 0.5  # 8 days; the other gap is 6
    assert found["long_tail"] == [{"items": 0.5, "lines": 0.8}, {"items": 1.0, "lines": 1.0}]


def test_receipts_that_are_no_longer_than_the_horizon_say_how_long_they_are() -> None:
    two_days = lines(("ann", "tea", 1, 2.0), ("bob", "tea", 2, 4.0))
    with pytest.raises(DataError, match="the receipts span 2 days, no more than the horizon of 2 days"):
        hold_out(two_days, Settings(horizon_days=2))


def test_examples_show_what_happened(report: dict[str, Any]) -> None:
    receipts = [e["receipts"] for e in report["examples"]]
    assert receipts == sorted(receipts)
    for example in report["examples"]:
        assert set(example["lists"]) == {*baselines(), "two_stage"}
        for items in example["lists"].values():
            for item in items:
                assert item["bought"] == (item["item"] in example["bought"])
        assert all(item["reason"] for item in example["lists"]["two_stage"])
        assert example["often"][0]["times"] >= example["often"][-1]["times"]


def test_a_method_looks_the_same_in_every_drawing(report: dict[str, Any]) -> None:
    names = [*report["models"], *report["matching"]["sources"]]
    styles = drawings.styles(names)
    assert len({*styles.values()}) == len({*names, "pool"})
    assert drawings.styles(["mine"])["two_stage"] == styles["two_stage"]
    for name in report["models"]:
        drawn = [
            drawings.draw_results(report["intervals"], styles),
            drawings.draw_segment(report["results"]["segments"], "tenure", "precision@5", styles),
        ]
        for svg in drawn:
            marker = rf'fill="([^"]+)"[^<]*></(?:polygon|circle)><text[^>]*>{name}</text>'
            assert re.findall(marker, svg) == [styles[name].colour]


def test_legends_name_every_method_whatever_is_drawn_first() -> None:
    rows = [
        {"segment": "tenure", "group": "new", "mean": 0.25, "n_users": 4},
        {"segment": "tenure", "group": "old", "mean": None, "n_users": 0},
    ]
    drawn = drawings.draw_segment({"popular": rows, "two_stage": rows}, "tenure", "recall@10")
    assert ">popular</text>" in drawn
    assert ">two_stage</text>" in drawn


def test_the_first_paragraph_says_purchases_money_and_what_is_not_sure(report: dict[str, Any]) -> None:
    text = render_markdown(report).split("\n\n")[1]
    n, models = report["evaluation"]["n_users"], report["models"]
    ours = models["two_stage"]["precision@5"]
    simple = max((m for m in models if m != "two_stage"), key=lambda m: models[m]["precision@5"])
    assert f"{ours * 5:.2f} purchases a shopper, {ours * 5 * n:,.0f} in all" in text
    money = report["results"]["details"]["two_stage"]["revenue@5"]
    assert f"and {money * n:,.0f} in money" in text
    assert report["methods"][simple] in text
    row = next(
        r
        for r in report["differences"]
        if (r["model"], r["versus"], r["metric"]) == ("two_stage", simple, "precision@5")
    )
    assert f"{row['low'] * 5 * n:+,.0f} to {row['high'] * 5 * n:+,.0f} purchases" in text
    assert "had not seen one" in text


def test_every_method_has_a_name_in_words(report: dict[str, Any]) -> None:
    used = {*report["models"], *report["matching"]["sources"]}
    assert used <= set(report["methods"])
    assert report["methods"]["own_purchases"] == "own purchases, most often first"
    assert all(report["methods"][name] for name in used)


def test_a_metric_is_explained_by_its_docstring_with_its_k() -> None:
    assert meaning("precision@5") == "Share of the first 5 recommendations that were bought, 0 to 1"
    for name in (*SETTINGS.metrics, *summary.DETAILS):
        assert len(meaning(name)) > 20


def test_drawings_stand_where_their_numbers_say() -> None:
    drawn = drawings.bars([("a", 1.0), ("b", 2.0)], "pieces")
    highs = [float(h) for h in re.findall(r'<rect[^>]*height="([\d.]+)"', drawn)]
    assert highs[1] == 2 * highs[0] > 0
    assert "<title>b: 2 pieces</title>" in drawn
    wide = re.findall(r'<rect[^>]*width="([\d.]+)"', drawings.across({"x": 3.0, "y": 1.5}, "gain"))
    assert float(wide[0]) == pytest.approx(2 * float(wide[1]), abs=0.1)
    line = drawings.lines({"one": drawings.Series([(0, 1.0), (1, None), (2, 3.0)])}, "x", "y")
    assert line.count("<polyline") == 2  # a gap parts it
    assert "nothing is known" in drawings.lines({}, "x", "y")


def test_items_are_called_by_name_else_by_category(report: dict[str, Any]) -> None:
    data = lines(("ann", "tea", 1, 2.0), ("ann", "rice", 1, 3.0))
    assert item_labels(data.items) == ["rice", "tea"]
    described = RetailData.from_frames(
        pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "time": ["2024-01-01"] * 2}),
        pl.DataFrame(
            {"item_id": [7, 8], "name": ["Green tea", None], "category_1": ["drinks", "food"]}
        ),
    )
    assert item_labels(described.items) == ["Green tea", "food 8"]


def test_items_of_one_name_are_told_apart_by_brand_then_size_then_id() -> None:
    milk = pl.DataFrame(
        {
            "item_id": [1, 2, 3, 4, 5, 6],
            "name": ["Milk", "Milk", "Milk", "Milk", "Rye", "Milk"],
            "brand": ["Alp", "Sun", "Sun", None, "Sun", "Alp"],
            "size": ["1 l", "1 l", "2 l", "1 l", "1 kg", "1 l"],
        }
    )
    assert item_labels(milk) == [
        "Milk (Alp, no. 1)",
        "Milk (Sun, 1 l)",
        "Milk (Sun, 2 l)",
        "Milk",
        "Rye",
        "Milk (Alp, no. 6)",
    ]
    sold = np.array([True, False, False, False, True, False])
    assert item_labels(milk, sold) == ["Milk", "Milk", "Milk", "Milk", "Rye", "Milk"]


def test_a_description_of_sent_coupons_says_that_it_is_one(report: dict[str, Any]) -> None:
    group = {
        "group": "sent <coupons>",
        "n_users": 1200,
        "receipts": 3.25,
        "precision": 0.5,
        "recommended": None,
        "bought": 0.25,
        "redeemed": 0.1,
    }
    sent = {"campaigns": 1, "products": 2, "caution": "No claim.", "groups": [group]}
    page = render(report | {"sent_coupons": sent})
    assert "<b>Descriptive:</b> No claim." in page
    assert "sent &lt;coupons&gt;" in page
    assert '<td class="number">1,200</td>' in page
    assert "Descriptive" not in render(report)


def test_a_name_as_long_as_a_page_is_its_beginning(report: dict[str, Any]) -> None:
    report = json.loads(json.dumps(report))
    report["examples"][0]["often"][0]["item"] = "tea" * 2000
    report["examples"][0]["lists"]["two_stage"][0]["item"] = "rye " * 2000
    for text in (render(report), render_markdown(report)):
        assert "tea" * 41 not in text
        assert text.count("rye ") <= 510
    assert "tea" * 40 + "…" in render(report)


def test_names_do_not_command_a_browser_a_terminal_or_the_direction_of_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from retailrec.cli.console import OUT
    from retailrec.report.page import environment

    name = "tea\x1b[31m\x00\x07\u202ecod\u2066 \u05d0\u200f"
    seen = (
        "tea\ufffd[31m\ufffd\ufffd\ufffdcod\ufffd \u05d0\u200f"  # a mark of a right-to-left name stays
    )
    template = environment().from_string("<p>{{ name }}</p>{{ name|md }}")
    assert template.render(name=name).count("\ufffd") == 10
    assert f"<p>{seen}</p>" in template.render(name=name)
    OUT.print(name, markup=False)
    assert capsys.readouterr().out == seen + "\n"
