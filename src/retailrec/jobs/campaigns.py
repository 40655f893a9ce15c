"""The jobs of the command line: allocate from files, plan an experiment, tell what came of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Days, checked
from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.files import read_table
from retailrec.data.parsing import ids_like, parse_number, parse_time, typed_ids
from retailrec.errors import DataError, SettingError
from retailrec.offers.allocation import Allocation, allocate, report_json
from retailrec.offers.campaign import Campaign, read_campaign
from retailrec.offers.counterfactual import (
    CounterfactualReport,
    ImpressionsReport,
    first_requests,
    judge_impressions,
    judge_policy,
    list_length,
)
from retailrec.offers.experiments import (
    METRICS,
    Design,
    ExperimentReport,
    detectable_effect,
    experiment_result,
    outcomes,
    power_of,
    required_shoppers,
    window_around,
)
from retailrec.offers.ledger import Ledger, pool_frame
from retailrec.offers.problem import group_column, group_names
from retailrec.offers.uplift import UpliftReport, fit_uplift, known_pairs, pairs_meet
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report.page import render_campaign, render_counterfactual, render_uplift
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.work import LocalStorage, staged, write_frame, write_json, write_result, write_text

MOST_ROWS = 25  # of a table on the page
_EXAMPLES = 12


def campaign_summary(
    found: Allocation, campaign: Campaign, items: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Figures of a campaign: who gets what, how budgets are spent, prices, what gave way.

    Parameters
    ----------
    found, campaign : the allocation and its settings
    items : catalogue with `item_id` and, if there, `name`, `supplier`, `category`

    Returns
    -------
    A dictionary with `campaign` (settings), `report` (`AllocationReport` without its constraints),
    `products`, `groups` (by supplier, category), `lists` (shoppers by number of offers), `budgets`,
    `limits` (that bind or gave way, dearest first), `n_limits`, `examples`.
    """
    names = _names(items)
    report = found.report.as_dict()
    constraints = report.pop("constraints")
    budgets = [c for c in constraints if c["kind"] == "budget"]
    limits = [c for c in constraints if c["kind"] == "limit"]
    binding = [c for c in limits if c["price"] or c["missing"]]
    binding.sort(key=lambda c: (-c["missing"], -abs(c["price"]), c["name"]))
    offers = found.offers.with_columns(pl.col("item_id").cast(pl.String))
    products = _totals(offers, "item_id").with_columns(
        name=pl.col("item_id").replace_strict(names, default=pl.col("item_id"))
    )
    sizes = found.shoppers.filter(arm="treated").group_by("offers").len().sort("offers")
    return {
        "campaign": campaign.model_dump(mode="json", exclude_defaults=True),
        "report": report,
        "products": products.head(MOST_ROWS).to_dicts(),
        "n_products": products.height,
        "groups": _groups(offers, items),
        "lists": sizes.to_dicts(),
        "budgets": budgets,
        "limits": binding[:MOST_ROWS],
        "n_binding": len(binding),
        "n_limits": len(limits),
        "examples": _examples(offers, names),
    }


def _names(items: pl.DataFrame | None) -> Mapping[str, str]:
    """Item id as text -> readable name; nothing without names."""
    if items is None or not {"item_id", "name"} <= set(items.columns):
        return {}
    table = items.select(typed_ids(items["item_id"]), "name").cast(pl.String).drop_nulls()
    return dict(table.iter_rows())


def _totals(offers: pl.DataFrame, key: str) -> pl.DataFrame:
    """Offers, shoppers' worth, expected cost and mean price by a column, most offers first."""
    return (
        offers.group_by(key)
        .agg(
            offers=pl.len(),
            value=pl.col("value").sum(),
            expected_cost=pl.col("expected_cost").sum(),
            price=pl.col("price").mean(),
        )
        .sort("offers", "value", key, descending=[True, True, False])
    )


def _groups(offers: pl.DataFrame, items: pl.DataFrame | None) -> dict[str, list[dict[str, Any]]]:
    if items is None or "item_id" not in items.columns:
        return {}
    totals: dict[str, list[dict[str, Any]]] = {}
    for kind in ("supplier", "category"):
        column = group_column(kind, items)
        if column is not None:
            ids = typed_ids(items["item_id"]).cast(pl.String)
            table = pl.DataFrame({"item_id": ids, kind: group_names(items[column])})
            joined = offers.join(table, on="item_id", how="left")
            totals[kind] = _totals(joined, kind).head(MOST_ROWS).to_dicts()
    return totals


def _examples(offers: pl.DataFrame, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Shoppers spread evenly over all who get something, with their offers."""
    users = offers["user_id"].unique(maintain_order=True)
    step = max(1, len(users) // _EXAMPLES)
    chosen = users.gather_every(step).head(_EXAMPLES)
    mine = offers.filter(pl.col("user_id").is_in(chosen.implode()))
    examples = []
    for (user,), rows in mine.group_by("user_id", maintain_order=True):
        lines = rows.select("item_id", "value", "price").to_dicts()
        for line in lines:
            line["name"] = names.get(line["item_id"], line["item_id"])
        examples.append({"user_id": str(user), "offers": lines})
    return examples


SUMMARY, PAGE = "campaign.json", "campaign.html"
RESULTS = (
    "allocation.json",
    "campaign.html",
    "campaign.json",
    "offers.parquet",
    "prices.json",
    "shoppers.parquet",
)

UPLIFT_RESULTS = ("pairs.parquet", "uplift.html", "uplift.json")


class Plan(NamedTuple):
    """What `plan_experiment` gives.

    Attributes
    ----------
    metric, n_shoppers, mean, sd : of the last window
    correlation : of the metric with spend of the window before
    effect : the difference of means that is planned for
    needed, needed_adjusted : shoppers in both arms, plain and with CUPED
    power, power_adjusted : with the shoppers that are there
    detectable, detectable_adjusted : smallest difference that they find with the power asked
    """

    metric: str
    n_shoppers: int
    mean: float
    sd: float
    correlation: float
    effect: float
    needed: int
    needed_adjusted: int
    power: float
    power_adjusted: float
    detectable: float
    detectable_adjusted: float


def allocate_files(
    pairs: Path,
    campaign: Path,
    out: Path,
    *,
    items: Path | None = None,
    users: Path | None = None,
    ledger: Path | None = None,
    record: bool = False,
    time: str | None = None,
    model: str = "",
    changed_ids: ChangedIds | None = None,
    threads: int = 0,
    progress: Progress = silent,
) -> Allocation:
    """Allocate from files into the folder `out`; with `record`, also into the ledger.

    Written are offers.parquet, shoppers.parquet, prices.json, allocation.json, campaign.json and
    campaign.html, all of them or none. With `record` the ledger is held from before past offers are
    counted until the results are in place, and only then are this campaign's offers in it: whoever
    stands in the ledger has an offer that was delivered. With a holdout the ledger also takes what was
    meant for each user, held out or not, from which uplift can be learnt. Of ids that changed, past
    offers, pairs, items and users count under the new ones.

    Raises
    ------
    DataError, SettingError
        If an input can't be used, or the ledger is not there and nothing is to be recorded.
    """
    settings = read_campaign(campaign)
    now = _moment(time)
    if record and (ledger is None or ledger.is_file()):
        raise SettingError("--record asks for --ledger FOLDER; name the folder to write to.")
    changed = changed_ids or ChangedIds()
    book = None if ledger is None else _ledger_at(ledger, record, changed)
    catalogue, people = _table(items, changed, ITEM_ID), _table(users, changed, USER_ID)
    progress(f"read {pairs}")
    scores = changed.of_lists(read_table(pairs))
    checkpoint = out.parent / f".{out.name}.search"
    with ExitStack() as stack:
        keep = None
        if record and book is not None:
            progress("wait for the ledger")
            keep = stack.enter_context(book.recording(again=settings.again))
        with staged(out, RESULTS) as folder:
            allocation = allocate(
                scores,
                settings,
                items=catalogue,
                users=people,
                ledger=book,
                now=now,
                threads=threads,
                checkpoint=checkpoint,
                progress=progress,
            )
            LocalStorage().remove(str(checkpoint))  # also where the ledger refuses what was found
            progress("write")
            summary = campaign_summary(allocation, settings, catalogue)
            write_frame(allocation.offers, folder / "offers.parquet")
            write_frame(allocation.shoppers, folder / "shoppers.parquet")
            allocation.prices.save(folder / "prices.json")
            write_text(report_json(allocation.report), folder / "allocation.json")
            write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", folder / SUMMARY)
            write_text(render_campaign(summary), folder / PAGE)
            if keep is not None:
                meant = None
                if settings.holdout:
                    meant = allocation.meant(scores, settings, now, catalogue)
                keep(allocation.ledger_rows(now, model=model), meant)
    return allocation


def _table(
    path: Path | None, changed: ChangedIds | None = None, id_column: str = ""
) -> pl.DataFrame | None:
    table = None if path is None else read_table(path)
    if table is None or not changed or id_column not in table.columns:
        return table
    return changed.folded(table.with_columns(typed_ids(table[id_column])), id_column)


def _ledger_at(path: Path, record: bool, changed: ChangedIds) -> Ledger:
    """The ledger at a path; an empty folder is one without offers yet.

    Only `record` makes the folder, and none begins among other files: the path may be mistyped.
    """
    is_new = record and not path.exists()
    if path.is_dir():
        is_new = all(p.name.startswith(".") for p in path.iterdir())
    return Ledger(path, changed) if is_new else Ledger(path, changed).require()


@checked
def plan_experiment(
    data: RetailData,
    *,
    days: Days,
    effect: float,
    metric: str = "spend",
    design: Design | None = None,
    margin: Any = None,
) -> Plan:
    """Sample size and power from receipts: all users' last `days`, and as many before.

    Parameters
    ----------
    effect : smallest relative change of the mean that would matter, such as 0.02

    Raises
    ------
    DataError, SettingError
        If the metric is unknown, receipts are too short, or a setting is out of range.
    """
    design = design or Design()
    if metric not in METRICS or (metric == "margin" and margin is None):
        raise SettingError(
            f"experiment: metric must be one of {', '.join(METRICS)}, and margin needs a file of "
            f"margins; got '{metric}'."
        )
    if not effect > 0:
        raise SettingError(f"experiment: effect must be above 0, not {effect}. Correct it.")
    start = window_around(data.end, days, days)[1]
    if data.log.is_empty() or data.log["time"].min() > window_around(start, days, days)[1]:  # type: ignore[operator]
        raise DataError(
            f"experiment: receipts must hold two windows of {days:g} days before {data.end:%Y-%m-%d}; "
            f"give longer receipts or fewer days."
        )
    table = outcomes(data, data.users["user_id"], start, days, margin=margin)
    if metric not in table.columns:
        raise DataError(
            f"experiment: the receipts have no money (value or price), so no {metric} can be planned; "
            f"plan another metric (purchases, bought), or bring receipts with money."
        )
    values, before = table[metric].to_numpy(), table["spend_before"].to_numpy()
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if not mean or not sd:
        raise DataError(
            f"experiment: '{metric}' is the same for all {len(values):,} shoppers in the last {days:g} "
            f"days (mean {mean:g}); nothing can be planned from that. Give longer receipts."
        )
    related = float(np.corrcoef(values, before)[0, 1]) if before.std() else 0.0
    adjusted = Design(
        design.control_share, design.power, design.level, float(np.clip(related, -0.999, 0.999))
    )
    change, n = effect * mean, len(values)
    return Plan(
        metric,
        n,
        mean,
        sd,
        related,
        change,
        required_shoppers(sd, change, design),
        required_shoppers(sd, change, adjusted),
        power_of(n, sd, change, design),
        power_of(n, sd, change, adjusted),
        detectable_effect(n, sd, design),
        detectable_effect(n, sd, adjusted),
    )


def result_of_files(
    ledger: Path,
    campaign: str,
    data: RetailData,
    *,
    days: float,
    margin: Path | None = None,
    segment: str | None = None,
    planned_holdout: float | None = None,
    out: Path | None = None,
    page: Path | None = None,
    changed_ids: ChangedIds | None = None,
) -> ExperimentReport:
    """What a campaign changed; written to `out` as JSON and into the page of the folder `page`.

    Raises
    ------
    DataError, SettingError
        If an input can't be used.
    """
    summary = None if page is None else _read_summary(page, campaign)
    result = experiment_result(
        Ledger(ledger, changed_ids or ChangedIds()).require(),
        campaign,
        data,
        days=days,
        margin=_table(margin),
        segment=segment,
        planned_holdout=planned_holdout,
    )
    if out is not None:
        write_result(result.as_dict(), out)
    if page is not None and summary is not None:
        write_result(render_campaign(summary, result.as_dict()), page / PAGE)
    return result


def counterfactual_of_files(
    ledger: Path,
    data: RetailData,
    policy: Path,
    *,
    days: float,
    logged: str | None = None,
    rules: Path | None = None,
    margin: Path | None = None,
    segment: str | None = None,
    out: Path | None = None,
    page: Path | None = None,
    changed_ids: ChangedIds | None = None,
    progress: Progress = silent,
) -> CounterfactualReport:
    """What new lists would have sold, by the explored pools of a ledger.

    Parameters
    ----------
    policy : file of the new lists, or folder of a saved model, which makes them: see `lists_of_model`
    rules : TOML file of business rules for a model's lists
    out, page : files for the figures (JSON) and the page for people

    Raises
    ------
    DataError, SettingError
        If an input can't be used, or the log can't tell.
    """
    pool = Ledger(ledger, changed_ids or ChangedIds()).read_pool(logged)
    if policy.is_dir():
        new = lists_of_model(policy, pool, data, rules=rules, progress=progress)
    elif rules is None:
        new = read_table(policy)
    else:
        raise SettingError(f"--rules are for the lists of a model, and {policy} holds lists already.")
    progress("judge")
    report = judge_policy(pool, new, data, days=days, margin=_table(margin), segment=segment)
    if out is not None:
        write_result(report.as_dict(), out)
    if page is not None:
        write_result(render_counterfactual(report.as_dict(), report.sentence()), page)
    return report


def lists_of_model(
    folder: Path,
    log: pl.DataFrame,
    data: RetailData,
    *,
    rules: Path | None = None,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The lists that a saved model would have made for a log's users, with the receipts before them.

    As many items as the log showed, as of the midnight before each user's first list.

    Raises
    ------
    DataError
        If the model was fitted on receipts after the first list: it has seen what came of it.
    """
    progress("load the model")
    model = TwoStageRecommender.load(folder)
    first, _ = first_requests(pool_frame(log, who="the log"))
    request = Request.read({"k": list_length(first), "rules": rules})
    start: Any = first["time"].min()
    if model.end_ > start:
        raise DataError(
            f"the model of {folder} knows receipts until {model.end_:%Y-%m-%d %H:%M}, and the log's "
            f"first list is of {start:%Y-%m-%d %H:%M}: it has seen what came of the lists that it is "
            f"to be judged by. Fit it on receipts before the log."
        )
    asked = (
        first.select("user_id", day=pl.col("time").dt.truncate("1d")).unique().sort("day", "user_id")
    )
    lists = []
    for number, ((day,), rows) in enumerate(asked.group_by("day", maintain_order=True)):
        progress("lists of the model", number, asked["day"].n_unique())
        users = ids_like(rows["user_id"], data.users["user_id"], who="the log's users")
        lists.append(model.recommend(data, users, replace(request, at=day)))
    return pl.concat(lists)


_TOLD_APART = 8  # different rows: of fewer, all may come in even numbers by chance


def impressions_of_file(
    log: Path, policy: str, *, reward: str, chance: str, item: str, only: str | None = None
) -> ImpressionsReport:
    """Mean reward of another policy from a table of impressions.

    Parameters
    ----------
    policy : ``uniform``, or the column of the chances under the other policy
    reward, chance, item : columns
    only : ``column=value``: the rows that count

    Raises
    ------
    DataError, SettingError
        If a column is missing, or the log can't tell.
    """
    rows = read_table(log)
    column, _, value = (only or "").partition("=")
    asked = [reward, chance, item] + [column] * bool(only) + [policy] * (policy != "uniform")
    for name in asked:
        if name not in rows.columns:
            raise DataError(f"{log} lacks column '{name}'; it has {rows.columns[:12]}. Name another.")
    if rows.is_empty():
        raise DataError(f"{log} holds no impression; give a row for each.")
    notes, n = [], rows.height
    if {"user_id", "time"} <= set(rows.columns):  # two rows of one instant, not of one date, are one
        clock = rows["time"].cast(pl.String).str.contains(r"[1-9]\d?:|:.*[1-9]")
        rows = rows.unique(maintain_order=True) if clock.any() else rows
    if n := n - rows.height:
        notes.append(f"{n:,} rows of {log} repeat another one, user and time included, and count once")
    n_items = rows[item].drop_nulls().n_unique()
    times = rows.hash_rows().value_counts().to_series(1).to_numpy()
    if len(times) >= _TOLD_APART and (again := int(np.gcd.reduce(times))) > 1:
        notes.append(
            f"every row of {log} stands in it {again:,} times, or a multiple of that, and counts as "
            f"often; if it was put together from copies, the interval is too narrow"
        )
    if only:
        rows = rows.filter(pl.col(column).cast(pl.String) == value)
    if rows.is_empty():
        raise DataError(f"{log} has no row with {only}. Correct --only, which is COLUMN=VALUE.")

    def numbers(name: str) -> NDArray[np.float64]:
        return parse_number(rows[name], who=str(log)).fill_null(np.nan).to_numpy()

    new = np.full(rows.height, 1 / max(n_items, 1)) if policy == "uniform" else numbers(policy)
    users = rows["user_id"] if "user_id" in rows.columns else None
    found = judge_impressions(numbers(reward), numbers(chance), new, users=users)
    return replace(found, notes=(*notes, *found.notes))


def uplift_of_files(
    ledger: Path,
    data: RetailData,
    pairs: Path,
    out: Path,
    *,
    days: float,
    margin: Path | None = None,
    threads: int = 0,
    seed: int = 0,
    changed_ids: ChangedIds | None = None,
    progress: Progress = silent,
) -> UpliftReport:
    """Learn what offers change from a ledger with explored pools, and say it of pairs, into `out`.

    Written are pairs.parquet, the pairs with `uplift_margin`, uplift.json, how sure that is, and
    uplift.html, a page for people.

    Raises
    ------
    DataError, SettingError
        If an input can't be used, or the ledger is too small to tell.
    """
    table = known_pairs(read_table(pairs), data)  # before minutes of learning
    with staged(out, UPLIFT_RESULTS) as folder:
        learnt = fit_uplift(
            Ledger(ledger, changed_ids or ChangedIds()).read_pool(every=True),
            data,
            days=days,
            margin=_table(margin),
            threads=threads,
            seed=seed,
            progress=progress,
        )
        progress("score pairs")
        write_frame(learnt.score(table, data, threads=threads), folder / "pairs.parquet")
        strange = pairs_meet(table["user_id"], table["item_id"], data)
        report = replace(learnt.report, notes=(*learnt.report.notes, *strange))
        write_json(folder / "uplift.json", report.as_dict())
        page = render_uplift(report.as_dict(), report.sentence())
        write_text(page, folder / "uplift.html")
    return report


def _read_summary(folder: Path, campaign: str) -> dict[str, Any]:
    """The figures that `allocate_files` left for the page."""
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        name = summary["report"]["campaign"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{folder / SUMMARY} holds no figures of a campaign ({error}); name the folder that "
            f"`retailrec allocate` wrote."
        ) from error
    if name != campaign:
        raise DataError(
            f"{folder} holds campaign '{name}', not '{campaign}'; name the folder of that campaign."
        )
    return summary


def _moment(text: str | None) -> datetime:
    """A time given as text; now without it."""
    if text is None:
        return datetime.now().replace(microsecond=0)
    try:
        moment: datetime = parse_time(pl.Series("time", [text]), who="--time")[0]
    except DataError as error:
        raise SettingError(
            f"--time is {text!r}; expected a time such as 2024-05-01 or 2024-05-01 08:00:00."
        ) from error
    return moment
