"""Experiments: sample size and power before, the effect by randomised holdout after.

Each user counts in the arm that was drawn, whether an offer came or not (intention to treat).
Intervals are by t; CUPED takes out what earlier spend explains (Deng et al., WSDM 2013), with one
coefficient for both arms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Days, Level, check_settings, checked
from retailrec.compute.statistics import Floats, difference_of_means, holm, shares_p
from retailrec.data import RetailData, has_money
from retailrec.data.ids import id_series
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import as_instant, check_columns, ids_meet, parse_number, typed_ids
from retailrec.errors import DataError, SettingError
from retailrec.offers.arms import HOLDOUT, TREATED
from retailrec.offers.ledger import Ledger

_SRM_ALARM = 0.001
_MOST_MARGIN = 1e100  # of a unit; larger ones add up to no number
Bools = NDArray[np.bool_]
METRICS = ("bought", "purchases", "spend", "margin")


@dataclass(frozen=True)
class Effect:
    """Difference between treated and held-out shoppers, or those of two arms, in one metric.

    Attributes
    ----------
    metric : such as ``spend``; per shopper
    segment : of the shoppers, ``all`` for all of them
    adjusted : was earlier spend taken out (CUPED)?
    treated, holdout : means, adjusted ones where `adjusted`
    n_treated, n_holdout : shoppers
    difference, low, high : treated less holdout, and its interval; no interval (None) where all are
        alike, as where none bought, since how rare others are is not known
    relative : difference as a share of the holdout's mean; None if that is 0
    p, p_corrected : two-sided; over all segments, or pairs of arms, of a metric at once (Holm, 1979)
    arm, versus : whose means `treated` and `holdout` are
    """

    metric: str
    segment: str
    adjusted: bool
    treated: float
    holdout: float
    n_treated: int
    n_holdout: int
    difference: float
    low: float | None
    high: float | None
    relative: float | None
    p: float
    p_corrected: float
    arm: str = TREATED
    versus: str = HOLDOUT


@dataclass(frozen=True)
class ExperimentReport:
    """What came of a campaign.

    Attributes
    ----------
    campaign, start, days : the window whose purchases count
    n_treated, n_holdout, n_reached : shoppers by arm, and of the treated those who got an offer
    srm_p : p of the arms' sizes under the planned share (sample-ratio mismatch); None without it
    effects : for all users, plain and with CUPED, and by segment; none without a holdout
    arms : with CUPED, between every two arms, those held out among them; none of a single arm
    total : adjusted effect on each metric x shoppers treated, with its interval
    notes : sentences about what to be careful with
    """

    campaign: str
    start: datetime
    days: float
    n_treated: int
    n_holdout: int
    n_reached: int
    srm_p: float | None
    effects: tuple[Effect, ...]
    arms: tuple[Effect, ...]
    total: dict[str, tuple[float, float, float]]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return asdict(self) | {"start": self.start.isoformat()}


@checked
def outcomes(
    data: RetailData,
    user_ids: Any,
    start: datetime,
    days: Days,
    *,
    before_days: float | None = None,
    margin: Any = None,
) -> pl.DataFrame:
    """What each shopper bought in [start, start + days), and spent before.

    Parameters
    ----------
    data : receipts that reach from before the start to the end of the window
    user_ids : shoppers, those without receipts included; ids of any type are compared as text
    before_days : length of the window before the start that gives `spend_before`; as long by default
    margin : frame of `item_id` and `margin`, money for one unit

    Returns
    -------
    Frame with `user_id` (text), `bought` (0 or 1), `purchases` (receipt lines), `spend` (where receipts
    have money), `margin` (with margins given) and `spend_before` (0 without money).

    Raises
    ------
    DataError
        If the receipts do not reach to the end of the window.
    """
    start = as_instant(start, who="start")
    end, before = window_around(start, days, days if before_days is None else before_days)
    receipts_reach(data, start, end)
    lines = data.log.select("user", "item", "time", "quantity", "value").filter(
        (pl.col("time") >= before) & (pl.col("time") < end)
    )
    unit = unit_margins(data, margin)
    inside = pl.col("time") >= start
    sums = [
        inside.sum().cast(pl.Float64).alias("purchases"),
        pl.col("value").filter(inside).sum().cast(pl.Float64).alias("spend"),
        pl.col("value").filter(~inside).sum().cast(pl.Float64).alias("spend_before"),
    ]
    if unit is not None:
        earned = pl.Series("earned", unit[lines["item"].to_numpy()] * lines["quantity"].to_numpy())
        lines = lines.with_columns(earned)
        sums.append(pl.col("earned").filter(inside).sum().alias("margin"))
    sums_of = lines.group_by("user").agg(sums)
    text = data.users["user_id"].cast(pl.String)
    sums_of = sums_of.with_columns(user_id=text.gather(sums_of["user"])).drop("user")
    out = pl.DataFrame({"user_id": id_series(user_ids, who="user_ids").cast(pl.String)})
    out = out.join(sums_of, on="user_id", how="left", maintain_order="left").fill_null(0.0)
    has = {"spend": has_money(data), "margin": unit is not None}
    columns = ["purchases", *(name for name in has if has[name]), "spend_before"]
    return out.select("user_id", (pl.col("purchases") > 0).cast(pl.Float64).alias("bought"), *columns)


def receipts_reach(data: RetailData, start: datetime, end: datetime) -> None:
    """Refuse receipts that do not begin before the first window and end with the last one or later.

    Raises
    ------
    DataError
        If they don't.
    """
    if data.log.is_empty() or data.log["time"].min() > start:  # type: ignore[operator]
        raise DataError(
            f"experiment: the window begins at {start:%Y-%m-%d %H:%M}, before the first receipt. Bring "
            f"receipts from before the campaign on."
        )
    if data.end < end:
        raise DataError(
            f"experiment: the window ends at {end:%Y-%m-%d %H:%M}, but the receipts end at "
            f"{data.end:%Y-%m-%d %H:%M}. Wait until it is over and bring later receipts, or give fewer "
            f"days."
        )


def window_around(start: datetime, days: float, before_days: float) -> tuple[datetime, datetime]:
    """End of the window of `days` from `start` on, and begin of the one before it.

    Raises
    ------
    SettingError
        If `days` is not above 0, or no calendar reaches so far.
    """
    try:
        if not days > 0:
            raise ValueError
        return start + timedelta(days=days), start - timedelta(days=before_days)
    except (TypeError, ValueError, OverflowError) as error:
        raise SettingError(
            f"experiment: days must be above 0 and lie within the calendar, not {days!r} around "
            f"{start:%Y-%m-%d}. Correct it."
        ) from error


@checked
def experiment_result(
    ledger: Ledger,
    campaign: str,
    data: RetailData,
    *,
    days: Days,
    margin: Any = None,
    segment: str | None = None,
    planned_holdout: float | None = None,
    level: Level = 0.95,
) -> ExperimentReport:
    """What a campaign changed, from the ledger and later receipts.

    Parameters
    ----------
    ledger, campaign : who was assigned to what
    days : length of the window, from the campaign's first row on
    margin : frame of `item_id` and `margin`, for the effect on margin
    segment : column of the shoppers' attributes (`data.users`)
    planned_holdout : share that was planned, for the check of the arms' sizes

    Raises
    ------
    DataError, SettingError
        If the campaign is not in the ledger, an arm is empty, a shopper stands in both arms (not by ids
        that became one: these are left out), receipts end too early, or a setting is out of range.
    """
    if planned_holdout is not None and not 0 < planned_holdout < 1:
        raise SettingError(
            f"experiment: the planned holdout must lie between 0 and 1, not {planned_holdout}. Correct "
            f"it."
        )
    rows = ledger.read([campaign])
    if rows.is_empty():
        there = ", ".join(ledger.scan().select("campaign").unique().collect()["campaign"].sort()[:5])
        raise DataError(
            f"experiment: campaign '{campaign}' does not stand in ledger {ledger.folder}; there are "
            f"{there or 'no campaigns'}. Correct its name."
        )
    start: Any = rows["time"].min()
    holdout = pl.col("holdout")
    shoppers = rows.group_by("user_id").agg(
        holdout.any(),
        both=holdout.n_unique() > 1,
        reached=(pl.col("rank") > 0).any(),
        arm=pl.when(holdout.any()).then(pl.lit(HOLDOUT)).otherwise(pl.col("arm").first()),
        moved=pl.col("arm").n_unique() > 1,
    )
    changed = ledger.changed_ids
    became = pl.Series([changed.last("user", old) for old in changed.users], dtype=pl.String)
    shoppers = shoppers.sort("user_id").with_columns(merged=pl.col("user_id").is_in(became.implode()))
    if n := (twice := shoppers.filter(pl.col("both") & ~pl.col("merged"))).height:
        raise DataError(
            f"experiment: {n:,} shoppers of campaign '{campaign}' are held out and treated, such as "
            f"{twice['user_id'][0]}; each must be in one arm. Repair the ledger."
        )
    shoppers, n_both = shoppers.filter(~pl.col("both")), int(shoppers["both"].sum())
    who = f"the shoppers of campaign '{campaign}'"
    known = data.users["user_id"]
    alike = ids_meet(shoppers["user_id"], known, who=who, whose="the receipts", share=0)
    found = outcomes(data, shoppers["user_id"], start, days, margin=margin)
    table = shoppers.join(found, on="user_id", how="left", maintain_order="left")
    if segment is not None:
        table = table.with_columns(segment=users_segment(data, segment, table["user_id"]))
    metrics = [m for m in METRICS if m in table.columns]
    of = None if segment is None else "segment"
    arms = effects_between(table.filter(~pl.col("moved")), metrics=metrics, level=level)
    effects = []
    if not arms or table["holdout"].any():
        effects = effects_of(table, metrics=metrics, segment=of, level=level)
    n_treated, n_holdout = int((~table["holdout"]).sum()), int(table["holdout"].sum())
    srm_p: float | None = None
    srm: list[str] = []
    if planned_holdout is not None:
        srm_p = shares_p([n_treated, n_holdout], [1 - planned_holdout, planned_holdout])
        if srm_p < _SRM_ALARM:
            srm.append(
                f"The arms' sizes do not fit the planned holdout of {planned_holdout:.1%} (p "
                f"{srm_p:.2g}): shoppers were lost or added after the draw, so the effects can't be "
                f"trusted until it is known why."
            )
    notes = _notes(ledger, campaign, data, table, start, days, srm)
    notes += _notes_on_rows(rows, start, days) + ([alike] if alike else [])
    if arms and (n := int(table["moved"].sum())):
        notes.append(f"{n:,} shoppers stood in several arms; no comparison of two arms counts them.")
    if any(e.low is None for e in (*effects, *arms)):
        notes.append(
            "Where all shoppers are alike, as where none bought, no interval can be given: how rare "
            "others are is not known."
        )
    if n_both:
        notes.append(
            f"{n_both:,} shoppers stood in both arms before their ids became one; they are left out."
        )
    if segment is not None and (n := table["segment"].null_count()):
        notes.append(f"{n:,} shoppers have no {segment}; no segment counts them.")
    total = {
        e.metric: (n_treated * e.difference, n_treated * e.low, n_treated * e.high)
        for e in effects
        if e.adjusted and e.segment == "all" and e.low is not None and e.high is not None
    }
    sizes = (n_treated, n_holdout, int(shoppers["reached"].sum()))
    return ExperimentReport(
        campaign, start, days, *sizes, srm_p, tuple(effects), tuple(arms), total, tuple(notes)
    )


def _notes(
    ledger: Ledger,
    campaign: str,
    data: RetailData,
    shoppers: pl.DataFrame,
    start: datetime,
    days: float,
    srm: Sequence[str],
) -> list[str]:
    notes = []
    known = shoppers["user_id"].is_in(data.users["user_id"].cast(pl.String).implode())
    if n := int((~known).sum()):
        treated = int((~known & ~shoppers["holdout"]).sum())
        notes.append(
            f"{n:,} of {shoppers.height:,} shoppers ({treated:,} treated, {n - treated:,} held out) "
            f"are not among those of the receipts, such as {shoppers['user_id'].filter(~known)[0]}; "
            f"they count as having bought nothing."
        )
    first: Any = data.log["time"].min()
    if first > start - timedelta(days=days):
        notes.append(
            f"Receipts begin on {first:%Y-%m-%d}, less than {days:g} days before the "
            f"campaign: what earlier spend explains is taken out only in part."
        )
    if not has_money(data):
        notes.append(
            "The receipts have no money (value or price): spend is not reported, and no earlier spend "
            "is taken out."
        )
    notes += srm
    others = ledger.read(since=start, until=start + timedelta(days=days)).filter(
        (pl.col("campaign") != campaign) & (pl.col("rank") > 0)
    )
    if not others.is_empty():
        touched = shoppers.join(others.select("user_id").unique(), on="user_id", how="semi")
        names = ", ".join(others["campaign"].unique().sort()[:3])
        held = int(touched["holdout"].sum())
        notes.append(
            f"Other campaigns ({names}) reached {touched.height - held:,} treated and {held:,} "
            f"held-out shoppers in the same window: the effects are what this campaign added to them."
        )
    return notes


def _notes_on_rows(rows: pl.DataFrame, start: datetime, days: float) -> list[str]:
    """What a service's log has and a campaign of one day has not: arms, users who come later."""
    notes = []
    arms = (
        rows.filter(~pl.col("holdout")).group_by("arm").agg(n=pl.col("user_id").n_unique()).sort("arm")
    )
    if arms.height > 1:
        each = ", ".join(f"{arm or 'of no name'} {n:,}" for arm, n in arms.iter_rows())
        notes.append(
            f"Treated are {arms.height} arms together ({each} shoppers); every two of them are "
            f"compared, too."
        )
    first = rows.group_by("user_id").agg(pl.col("time").min())["time"]
    latest: Any = first.max()
    if n := int((first >= start + timedelta(days=1)).sum()):
        notes.append(
            f"{n:,} shoppers came in later than the first day, up to {latest:%Y-%m-%d}; the "
            f"window of {days:g} days is the same for all, so what they bought before is in it, and "
            f"effects are rather too small."
        )
    return notes


def users_segment(data: RetailData, segment: str, users: pl.Series) -> pl.Series:
    """An attribute of some users, by their ids as text; as text, null for who is not there.

    Raises
    ------
    DataError
        If there is no such attribute.
    """
    if segment not in data.users.columns:
        raise DataError(
            f"experiment: shoppers have no column '{segment}'; they have {data.users.columns}. "
            f"Name one of these."
        )
    known = data.users.select(pl.col("user_id").cast(pl.String), of=pl.col(segment).cast(pl.String))
    return users.to_frame("user_id").join(known, on="user_id", how="left", maintain_order="left")["of"]


def unit_margins(data: RetailData, margin: Any) -> Floats | None:
    """(n_items,) margin of one unit, from `item_id` and `margin`; None without them.

    Raises
    ------
    DataError
        If a sold item has no margin that is a number of money, or an item has several.
    """
    if margin is None:
        return None
    frame = to_polars(margin, who="margin")
    check_columns(frame, ["item_id", "margin"], who="margin")
    table = pl.DataFrame(
        {
            "item_id": typed_ids(frame["item_id"]).cast(pl.String),
            "margin": parse_number(frame["margin"], who="margin"),
        }
    )
    table = data.changed_ids.folded(table, "item_id").unique(maintain_order=True)
    if (twice := table["item_id"].is_duplicated()).any():
        raise DataError(
            f"margin: item {table['item_id'].filter(twice)[0]} has several margins; keep one of them."
        )
    mine = data.items.select(pl.col("item_id").cast(pl.String)).join(
        table, on="item_id", how="left", maintain_order="left"
    )["margin"]
    sold = np.unique(data.log["item"].to_numpy())
    bad = ~mine.gather(sold).is_between(-_MOST_MARGIN, _MOST_MARGIN).fill_null(False)
    if bad.any():
        item = data.items["item_id"].gather(sold).filter(bad)[0]
        raise DataError(
            f"margin: {int(bad.sum()):,} sold items have no margin, such as {item}; give one for each."
        )
    return mine.fill_null(0.0).to_numpy()


def cuped(values: Floats, before: Floats, is_treated: Bools) -> Floats:
    """Values less what earlier values explain, with the same mean; one coefficient for both arms.

    The coefficient is the covariance over the variance, each arm's own summed up with weights of its
    size, so that an effect of the campaign is not taken for a relation.

    Examples
    --------
    >>> before = np.array([1.0, 2.0, 3.0, 4.0])
    >>> cuped(2 * before, before, np.array([True, True, False, False])).tolist()
    [5.0, 5.0, 5.0, 5.0]
    """
    common = spread = 0.0
    for arm in (is_treated, ~is_treated):
        x, y = before[arm], values[arm]
        common += float(((x - x.mean()) * (y - y.mean())).sum())
        spread += float(((x - x.mean()) ** 2).sum())
    slope = common / spread if spread else 0.0
    return values - slope * (before - before.mean())


@checked
def effects_of(
    table: pl.DataFrame,
    *,
    metrics: Sequence[str] = METRICS,
    segment: str | None = None,
    level: Level = 0.95,
) -> list[Effect]:
    """Effects on each metric: of all users plain and with CUPED, then each segment with CUPED.

    Parameters
    ----------
    table : one row a shopper: `holdout` (bool), the metrics, `spend_before`, and the segment's column

    Raises
    ------
    DataError
        If an arm has fewer than two shoppers.
    SettingError
        If the level does not lie between 0 and 1.
    """
    _require_columns(
        table, ["holdout", "spend_before", *metrics, *([] if segment is None else [segment])]
    )
    is_treated = ~table["holdout"].to_numpy()
    sizes = int(is_treated.sum()), int((~is_treated).sum())
    if min(sizes) < 2:
        raise DataError(
            f"experiment: both arms need at least 2 shoppers, got {sizes[0]:,} treated and "
            f"{sizes[1]:,} held out. Without a holdout nobody knows what would have been "
            f"bought anyway; set one."
        )
    before = table["spend_before"].to_numpy()
    effects: list[Effect] = []
    for metric in metrics:
        values = table[metric].to_numpy()
        adjusted = cuped(values, before, is_treated)
        effects.append(_effect(metric, "all", False, values, is_treated, level))
        effects.append(_effect(metric, "all", True, adjusted, is_treated, level))
        if segment is not None:
            effects += _by_segment(metric, adjusted, is_treated, table[segment], level)
    return effects


@checked
def effects_between(
    table: pl.DataFrame, *, metrics: Sequence[str] = METRICS, level: Level = 0.95
) -> list[Effect]:
    """Effects on each metric, with CUPED, between every two arms, p corrected for the number of pairs.

    None of fewer than two arms of two shoppers each, the holdout not counted.

    Parameters
    ----------
    table : one row a shopper: `arm`, the metrics, `spend_before`
    """
    _require_columns(table, ["arm", "spend_before", *metrics])
    sizes = table.group_by("arm").len().filter(pl.col("len") >= 2)
    names = sorted(sizes["arm"], key=lambda name: (name != HOLDOUT, name))
    if len(set(names) - {HOLDOUT}) < 2:
        return []
    effects: list[Effect] = []
    for metric in metrics:
        pairs = []
        for versus, arm in combinations(names, 2):
            two = table.filter(pl.col("arm").is_in([arm, versus]))
            is_first = (two["arm"] == arm).to_numpy()
            values = cuped(two[metric].to_numpy(), two["spend_before"].to_numpy(), is_first)
            found = _effect(metric, "all", True, values, is_first, level)
            pairs.append(replace(found, arm=arm, versus=versus))
        effects += _corrected(pairs)
    return effects


def _require_columns(table: pl.DataFrame, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in table.columns]:
        raise DataError(f"experiment: the table lacks column '{missing[0]}'; it has {table.columns}.")


def _effect(
    metric: str, segment: str, adjusted: bool, values: Floats, is_treated: Bools, level: float
) -> Effect:
    treated, holdout = values[is_treated], values[~is_treated]
    change, *edges, p = difference_of_means(treated, holdout, level)
    low, high = (None if math.isnan(edge) else edge for edge in edges)
    base = float(holdout.mean())
    arms = (float(treated.mean()), base, len(treated), len(holdout))
    relative = change / base if base else None
    return Effect(metric, segment, adjusted, *arms, change, low, high, relative, p, p)


def _corrected(effects: Sequence[Effect]) -> list[Effect]:
    """Effects whose p holds for all of them at once."""
    corrected = holm([e.p for e in effects])
    return [replace(e, p_corrected=p) for e, p in zip(effects, corrected, strict=True)]


def _by_segment(
    metric: str, values: Floats, is_treated: Bools, names: pl.Series, level: float
) -> list[Effect]:
    """Each segment with two shoppers in both arms, p corrected over these segments."""
    effects = []
    for name in names.drop_nulls().unique().sort():
        inside = (names == name).fill_null(False).to_numpy()
        if min((inside & is_treated).sum(), (inside & ~is_treated).sum()) >= 2:
            effects.append(_effect(metric, str(name), True, values[inside], is_treated[inside], level))
    return _corrected(effects)


@dataclass(frozen=True)
class Design:
    """How an experiment compares a control (the holdout) with all other users.

    Attributes
    ----------
    control_share : share of shoppers held out
    power : chance to find an effect of the planned size
    level : of the intervals; 1 - level is the chance of a false alarm
    correlation : of the outcome with the same thing earlier; CUPED leaves 1 - correlation**2 of the
        variance (Deng et al., WSDM 2013)
    """

    control_share: float = 0.1
    power: float = 0.8
    level: Level = 0.95
    correlation: float = 0.0

    def __post_init__(self) -> None:
        check_settings(self, "experiment")
        for name, least in (("control_share", 0), ("power", 0), ("level", 0), ("correlation", -1)):
            if not least < (value := getattr(self, name)) < 1:
                raise SettingError(
                    f"experiment: {name} must lie between {least} and 1, not {value}. Correct it."
                )


@checked
def required_shoppers(sd: float, effect: float, design: Design | None = None) -> int:
    """Shoppers in both arms together, so that a difference of means of `effect` is found.

    Parameters
    ----------
    sd : standard deviation of the outcome between shoppers
    effect : difference of means in the outcome's unit

    Raises
    ------
    SettingError
        If `sd` is negative or `effect` is 0.

    Examples
    --------
    >>> required_shoppers(1.0, 0.1, Design(control_share=0.5))
    3140
    """
    design = design or Design()
    if not effect or sd < 0:
        raise SettingError(
            f"experiment: the effect must not be 0 and sd must be 0 or more, not {effect} and {sd}. "
            f"Name the smallest effect that would matter."
        )
    ratio = _steps(design) * _spread(sd, design) / abs(effect)
    if ratio > 1e9:
        raise SettingError(
            f"experiment: an effect of {effect:g} beside a spread of {sd:g} takes more than 10^18 "
            f"shoppers. Name a larger effect."
        )
    return max(4, math.ceil(ratio**2))


@checked
def detectable_effect(n: int, sd: float, design: Design | None = None) -> float:
    """Smallest difference of means that `n` shoppers in both arms together find with the power asked.

    Examples
    --------
    >>> round(detectable_effect(3140, 1.0, Design(control_share=0.5)), 3)
    0.1
    """
    design = design or Design()
    return _steps(design) * _spread(sd, design) / math.sqrt(_at_least_four(n))


@checked
def power_of(n: int, sd: float, effect: float, design: Design | None = None) -> float:
    """Chance that `n` shoppers in both arms together show a difference of means of `effect`.

    Examples
    --------
    >>> round(power_of(3140, 1.0, 0.1, Design(control_share=0.5)), 2)
    0.8
    """
    from scipy.stats import norm

    design = design or Design()
    spread = _spread(sd, design)
    steps = math.inf if not spread else abs(effect) * math.sqrt(_at_least_four(n)) / spread
    edge = norm.ppf((1 + design.level) / 2)
    return float(norm.cdf(steps - edge) + norm.cdf(-steps - edge))


def _steps(design: Design) -> float:
    """Standard errors between no effect and the planned one."""
    from scipy.stats import norm

    return float(norm.ppf((1 + design.level) / 2) + norm.ppf(design.power))


def _spread(sd: float, design: Design) -> float:
    """Standard error of the difference x sqrt(shoppers)."""
    share = design.control_share
    return sd * math.sqrt((1 - design.correlation**2) * (1 / share + 1 / (1 - share)))


def _at_least_four(n: int) -> int:
    if n < 4:
        raise SettingError(
            f"experiment: two arms need at least 2 shoppers each, got {n} in all. Bring more shoppers."
        )
    return n
