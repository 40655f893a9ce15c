"""Pages of the weekly job: what checks found, what was watched, a model's card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from retailrec.report import drawings
from retailrec.report.page import Table, templates

_LINES = 20  # that a page shows of a finding


def render_model_card(manifest: Mapping[str, Any]) -> str:
    """What a published week's manifest says for people, as Markdown: data, model, figures, limits."""
    judged = manifest["judged"]
    metric = None if judged is None else next(iter(judged["models"]["lists"]))
    text = templates().get_template("model_card.md").render({**manifest, "metric": metric})
    return re.sub(r"\n{3,}", "\n\n", text)


def render_check(
    checked: Mapping[str, Any], rows: Mapping[str, pl.DataFrame], checks: Mapping[str, str]
) -> str:
    """The page of checked receipts: each finding with its lines.

    Parameters
    ----------
    checked : as `Checked.as_dict` gives it
    rows : name of the check -> its lines, or what was counted
    checks : name -> meaning of each check that was made
    """
    findings, refused = checked["findings"], checked["refused"]
    found = (
        f"{len(findings)} of {len(checks)} checks found something" if findings else "nothing was found"
    )
    days = f" of {checked['start'][:10]} to before {checked['end'][:10]}" if checked["start"] else ""
    lead = f"{checked['n_lines']:,} lines{days}, against {checked['n_past']} past weeks: {found}. " + (
        "Do not publish from these receipts before that is mended." if refused else ""
    )
    view = {
        "title": "Receipts checked" + (": refused" if refused else ""),
        "lead": lead,
        "made_by": "retailrec",
        "sections": [*((one["name"], one["name"]) for one in findings), ("checks", "All checks")],
        "findings": [
            (one, checks.get(one["name"], ""), _some_rows(rows.get(one["name"]))) for one in findings
        ],
        "checks": Table(["check", "looks for"], [list(each) for each in checks.items()]),
    }
    return templates().get_template("check.html").render(view)


def _some_rows(frame: pl.DataFrame | None) -> tuple[Table, int] | None:
    """The first rows as a table, and how many there are."""
    if frame is None or frame.is_empty():
        return None
    rows = [["" if v is None else str(v) for v in row] for row in frame.head(_LINES).iter_rows()]
    return Table(frame.columns, rows), frame.height


def render_watch(found: Mapping[str, Any]) -> str:
    """The page of published weeks: alarms, the course of each measure, drift by column.

    Parameters
    ----------
    found : as `retailrec.jobs.watch.watched` gives it
    """
    weeks, measures = found["weeks"], found["measures"]
    names = [name for name in measures if any(w["values"][name] is not None for w in weeks)]
    n = len(found["alarms"])
    lead = f"{n} alarm{'s' * (n != 1)}." if n else "No alarm."
    if weeks and not any(limits is not None for limits in weeks[-1]["usual"].values()):
        lead += f" Thresholds are learnt from {found['least_past']} weeks, which are not there yet."
    ages = found["ages"]
    view = {
        "title": f"Week {found['week']}",
        "lead": lead,
        "made_by": "retailrec",
        "sections": [
            ("alarms", "Alarms"),
            ("course", "Week by week"),
            ("drift", "Drift by column"),
            ("table", "Figures"),
        ],
        "found": found,
        "glance": [
            ("–" if ages["data_days"] is None else f"{ages['data_days']:.0f} days", "age of the data"),
            (f"{ages['model_days']:.0f} days", "age of the model when lists were made"),
            *((as_shown(weeks[-1]["values"][m], measures[m]), m) for m in names if weeks),
        ],
        "course": [(name, measures[name], _course(weeks, name, measures[name])) for name in names],
        "drift": Table(
            ["column", "stability index", "moved the score by", "mean a week ago", "mean now"],
            [
                [
                    row["column"],
                    f"{row['index']:.3f}",
                    f"{row['effect']:+.3f}",
                    *("empty" if row[key] is None else f"{row[key]:,.4g}" for key in ("then", "now")),
                ]
                for row in found["drift"]
            ],
        ),
        "figures": Table(
            ["week before", *names, "alarms"],
            [
                [
                    w["end"][:10],
                    *(as_shown(w["values"][m], measures[m]) for m in names),
                    ", ".join(w["alarms"]),
                ]
                for w in reversed(weeks)
            ],
        ),
        "false_alarm": round(1 / found["false_alarm"]),
    }
    return templates().get_template("watch.html").render(view)


def as_shown(value: float | None, measure: Mapping[str, Any]) -> str:
    """A measure's value in words.

    Examples
    --------
    >>> as_shown(0.1234, {"percent": True}), as_shown(1.2345, {"percent": False}), as_shown(None, {})
    ('12.3%', '1.234', '–')
    """
    if value is None:
        return "–"
    return f"{value:.1%}" if measure["percent"] else f"{value:.3f}"


def _course(weeks: Sequence[Mapping[str, Any]], name: str, measure: Mapping[str, Any]) -> drawings.Svg:
    """A measure week by week, within what is usual."""
    scale = 100.0 if measure["percent"] else 1.0

    def points(values: Sequence[float | None]) -> list[tuple[float, float | None]]:
        return [(float(n), None if v is None else scale * v) for n, v in enumerate(values)]

    usual = [week["usual"][name] or (None, None) for week in weeks]
    style = drawings.Style("currentColor", "")
    series = {name: drawings.Series(points([week["values"][name] for week in weeks]), marked=True)}
    for label, side in (("usual at least", 0), ("usual at most", 1)):
        bound = points([limits[side] for limits in usual])
        if any(y is not None for _, y in bound):
            series[label] = drawings.Series(bound, style, dashed=True)
    labels = [week["end"][:10] for week in weeks]
    return drawings.lines(
        series, "week", f"{name} (%)" if measure["percent"] else name, zero=False, x_labels=labels
    )
