"""Drawings as SVG text, of finished numbers: for the report, the service's pages and notebooks.

Words and axes have the colour of the text around them, so a drawing fits a dark page and needs no style
sheet. Colours are Okabe and Ito's, told apart by readers who see few of them; a marker says the same
again. A method has one `Style` in all drawings of a page: `styles` gives it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"),
    *("#D55E00", "#8C8C00", "#7F7F7F", "#8F6FD1", "#A0522D"),
)
# corners of the markers around 0, 0; the first is a circle
_SHAPES: tuple[str, ...] = (
    "",
    "-.9,-.9 .9,-.9 .9,.9 -.9,.9",
    "0,-1.1 1.1,.9 -1.1,.9",
    "0,-1.2 1.2,0 0,1.2 -1.2,0",
    "0,1.1 1.1,-.9 -1.1,-.9",
    "-.4,-1.1 .4,-1.1 .4,-.4 1.1,-.4 1.1,.4 .4,.4 .4,1.1 -.4,1.1 -.4,.4 -1.1,.4 -1.1,-.4 -.4,-.4",
    "-1.1,0 .9,-1.1 .9,1.1",
    "1.1,0 -.9,-1.1 -.9,1.1",
    "-1.1,-1.1 1.1,-1.1 0,0 1.1,1.1 -1.1,1.1 0,0",
)
_BLUE, _WIDTH = _COLOURS[0], 560.0


class Svg(Markup):
    """An <svg> element as text; notebooks show it as the picture it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Svg of {len(self):,} characters>"

    def _repr_svg_(self) -> str:
        return str(self)


class Style(NamedTuple):
    """Colour and marker of a method."""

    colour: str
    shape: str


class Series(NamedTuple):
    """A line: its points (None: a gap), and how it is drawn."""

    points: Sequence[tuple[float, float | None]]
    style: Style = Style(_BLUE, "")
    dashed: bool = False
    marked: bool = False


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name; that of `two_stage`, and of the `pool` of all sources, is always the same.

    Examples
    --------
    >>> both = styles(["popular", "two_stage"])
    >>> both["two_stage"].colour, both["popular"].colour
    ('#0072B2', '#E69F00')
    """
    order = dict.fromkeys(["two_stage", *(name for name in names if name != "pool")])
    found = {
        name: Style(_COLOURS[n % len(_COLOURS)], _SHAPES[n % len(_SHAPES)])
        for n, name in enumerate(order)
    }
    return {**found, "pool": Style("currentColor", "")}


def swatch(style: Style) -> Markup:
    """The marker alone, to stand beside a name."""
    head = Markup('<svg class="mark" aria-hidden="true" viewBox="0 0 12 12">')
    return head + _mark(style, 6, 6, 4.8) + Markup("</svg>")


def readable(value: float) -> str:
    """A number in the digits that one reads.

    Examples
    --------
    >>> [readable(v) for v in (1234.5, 12.345, 0.12345, 3, 0.00012)]
    ['1,234', '12.35', '0.123', '3', '0.00012']
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:,.2f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.2g}"


def bars(
    values: Sequence[tuple[str, float]], unit: str, show: Callable[[float], str] = readable
) -> Svg:
    """Upright bars. A few have their names and numbers; of many the first, the last and the highest."""
    top = max((value for _, value in values), default=0.0) or 1.0
    few = len(values) <= 12
    step = _WIDTH / max(len(values), 1)
    parts = []
    for place, (label, value) in enumerate(values):
        high = 110 * value / top
        parts.append(
            _bar(place * step, 125 - high, max(step * (0.8 if few else 1) - 1.5, 1), high).format(
                f"{label}: {show(value)} {unit}"
            )
        )
        if few:
            middle = (place + 0.4) * step
            parts += [_text(middle, 121 - high, show(value), "middle")]
            parts += [_text(middle, 142, label, "middle")]
    if values and few:
        parts.append(_text(_WIDTH / 2, 162, unit, "middle"))
    elif values:
        parts += [_text(0, 142, values[0][0]), _text(_WIDTH, 142, values[-1][0], "end")]
        parts.append(_text(0, 10, f"{show(top)} {unit} at most"))
    says = f"{unit} from {values[0][0]} to {values[-1][0]}" if values else "no data"
    return _figure(parts, says, 168 if few else 150)


def across(values: Mapping[str, float], unit: str, colours: Mapping[str, Style] | None = None) -> Svg:
    """Bars from left to right, each with its name and number."""
    most = max(values.values(), default=0.0) or 1.0
    left = 8 + _widest(values)
    parts = []
    for place, (name, value) in enumerate(values.items()):
        y, wide = 24 * place, (_WIDTH - left - 60) * min(max(value / most, 0), 1)
        style = (colours or {}).get(name, Style(_BLUE, ""))
        parts.append(_text(left - 8, y + 15, _short(name), "end"))
        parts.append(_bar(left, y + 3, wide, 16, style.colour).format(f"{name}: {value:,}"))
        parts.append(_text(left + wide + 6, y + 15, readable(value)))
    parts.append(_text(left, 24 * len(values) + 14, unit))
    says = f"{unit}: " + ", ".join(f"{name} {readable(v)}" for name, v in values.items())
    return _figure(parts, says, 24 * len(values) + 20)


def lines(
    series: Mapping[str, Series],
    x_title: str,
    y_title: str,
    *,
    log: bool = False,
    zero: bool = True,
    at: tuple[float, str] | None = None,
    x_labels: Sequence[str] | None = None,
) -> Svg:
    """Lines over a common axis; where there are several, a legend names them.

    Parameters
    ----------
    log : x by its logarithm
    zero : y begins at 0
    at : a place on the x axis that is marked, and what to write there
    x_labels : names of x = 0, 1, 2..., of which the first and the last are written
    """
    known = [(x, y) for one in series.values() for x, y in one.points if y is not None]
    if not known:
        return _figure([_text(0, 30, "nothing is known")], "no data", 60)
    scale: Callable[[float], float] = math.log if log else float
    low_x, high_x = (scale(f(x for x, _ in known)) for f in (min, max))
    ys = [y for _, y in known]
    low, high = (0.0 if zero else min(ys)), max(ys)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    left, top, bottom = 14 + _widest(map(_tick, ticks)), 24.0, 214.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - low_x) / ((high_x - low_x) or 1.0)
        up = (y - low) / ((high - low) or 1.0)
        return left + (_WIDTH - left - 26) * across, bottom - (bottom - top) * up

    parts = [_text(0, 11, y_title)]
    for tick in ticks:
        _, y = place(known[0][0], tick)
        parts += [_line(left, y, _WIDTH, y, 0.15), _text(left - 6, y + 4, _tick(tick), "end")]
    if x_labels:
        parts += [_text(left, 232, x_labels[0]), _text(_WIDTH, 232, x_labels[-1], "end")]
    else:
        for tick in _apart(sorted({x for x, _ in known}), scale) if log else _ticks(low_x, high_x):
            x, _ = place(tick, low)
            parts += [_line(x, bottom, x, bottom + 4), _text(x, 232, _tick(tick), "middle")]
    parts.append(_text((left + _WIDTH) / 2, 250, x_title, "middle"))
    if at is not None:
        x, _ = place(at[0], low)
        late = x > 0.7 * _WIDTH
        parts.append(_line(x, top - 6, x, bottom, 0.6, dashed=True))
        parts.append(_text(x + (-4 if late else 4), top + 2, at[1], "end" if late else "start"))
    for one in series.values():
        for run in _runs(one.points):
            spots = [place(x, y) for x, y in run]
            dashes = Markup(' stroke-dasharray="5 4"') if one.dashed else ""
            parts.append(
                Markup('<polyline fill="none" stroke="{}" stroke-width="1.8"{} points="{}"/>').format(
                    one.style.colour, dashes, " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
                )
            )
            if one.marked or len(spots) == 1:
                parts += [_mark(one.style, x, y, 3.5) for x, y in spots]
    height = 256.0
    if len(series) > 1:
        key, high_key = _legend({name: one.style for name, one in series.items()}, 262)
        parts, height = [*parts, *key], height + high_key
    return _figure(parts, f"{y_title} by {x_title}: {', '.join(series)}", height)


def dots(
    rows: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]],
    unit: str,
    colours: Mapping[str, Style],
) -> Svg:
    """A line a row, on it each method's value, with its interval where that is known; 0 is in sight."""
    methods = list(dict.fromkeys(name for row in rows.values() for name in row))
    key, top = _legend({name: colours[name] for name in methods}, 4)
    values = [bound for row in rows.values() for v in row.values() for bound in v if bound is not None]
    ticks = _ticks(min(0.0, *values), max(0.0, *values)) if values else [0.0, 1.0]
    low_end, high = min(ticks[0], *values, 0.0), max(ticks[-1], *values, 1e-9)
    left = 12 + _widest(rows)
    step = max(22.0, 9.0 * len(methods))

    def place(value: float) -> float:
        return left + (_WIDTH - left - 26) * (value - low_end) / (high - low_end)

    bottom = top + 8 + step * len(rows)
    parts = list(key)
    for tick in ticks:
        x = place(tick)
        parts.append(_line(x, top, x, bottom, 0.15 if tick or low_end >= 0 else 0.6))
        parts.append(_text(x, bottom + 15, _tick(tick), "middle"))
    for number, (name, row) in enumerate(rows.items()):
        middle = top + 4 + step * (number + 0.5)
        parts.append(_text(left - 10, middle + 4, _short(name), "end"))
        parts.append(_line(left, middle, _WIDTH, middle, 0.15))
        for method, (mean, low, above) in row.items():
            y = middle + 7 * (methods.index(method) - (len(methods) - 1) / 2)
            if low is not None and above is not None:
                parts.append(_line(place(low), y, place(above), y, 1, colours[method].colour, 2))
            parts.append(_mark(colours[method], place(mean), y, 4.5, f"{method}: {readable(mean)}"))
    parts.append(_text((left + _WIDTH) / 2, bottom + 32, unit, "middle"))
    return _figure(parts, f"{unit} of {', '.join(methods)}", bottom + 38)


def heat(names: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> Svg:
    """A square of shares, darker for more; columns are numbered as the rows are."""
    rows = [f"{number} {_short(name, 24)}" for number, name in enumerate(names, 1)]
    left = 10 + _widest(rows)
    size = min(46.0, (_WIDTH - left) / max(len(names), 1))
    parts = []
    for row, name in enumerate(names):
        parts.append(_text(left - 8, size * (row + 0.5) + 4, rows[row], "end"))
        parts.append(_text(left + size * (row + 0.5), size * len(names) + 14, str(row + 1), "middle"))
        for column, other in enumerate(names):
            share = values.get(name, {}).get(other, 0.0)
            says = f"{share:.0%} of what {name} proposes, {other} proposes too"
            x, y = left + size * column, size * row
            shade = round(0.08 + 0.72 * share, 2)
            parts.append(_bar(x, y, size - 2, size - 2, opacity=shade).format(says))
            parts.append(
                _text(x + size / 2 - 1, y + size / 2 + 4, f"{100 * share:.0f}", "middle", quiet=False)
            )
    return _figure(parts, "overlap in percent", size * len(names) + 20)


def timeline(receipts: Sequence[tuple[float, float, str]]) -> Svg:
    """Receipts as dots: place from 0 to 1, size (lines), and what to say of each."""
    most = max((size for _, size, _ in receipts), default=0.0) or 1.0  # of receipts without a line, too
    parts = [_line(0, 40, _WIDTH, 40, 0.3)]
    for place, size, says in receipts:
        parts.append(
            Markup(
                '<circle fill="{}" fill-opacity=".75" cx="{}" cy="40" r="{}"><title>{}</title></circle>'
            ).format(_BLUE, round(8 + 544 * place, 1), round(3 + 11 * (size / most) ** 0.5, 1), says)
        )
    if receipts:
        parts += [_text(0, 78, receipts[0][2][:10]), _text(_WIDTH, 78, receipts[-1][2][:10], "end")]
    return _figure(parts, f"{len(receipts)} receipts on a time line", 84)


# the same of the report's own numbers, each as `report.json` holds them


def draw_weeks(weeks: Sequence[Mapping[str, Any]]) -> Svg:
    """Receipts by week."""
    return bars([(w["start"], float(w["receipts"])) for w in weeks], "receipts a week")


def draw_histogram(bins: Sequence[Mapping[str, Any]], unit: str) -> Svg:
    """Share of cases in bins such as 2 to 3 items."""

    def label(low: int, high: int | None) -> str:
        if high is None:
            return f"{low}+"
        return str(low) if high - low == 1 else f"{low}–{high - 1}"

    return bars([(label(b["from"], b["to"]), b["share"]) for b in bins], unit, lambda v: f"{v:.0%}")


def draw_tail(points: Sequence[Mapping[str, float]]) -> Svg:
    """Share of lines that the most sold items hold."""
    tenth = next((p for p in points if p["items"] >= 0.1), points[-1])
    says = f"the most sold {tenth['items']:.0%} of items hold {tenth['lines']:.0%} of lines"
    curve = Series([(100 * p["items"], 100 * p["lines"]) for p in points])
    return lines(
        {"lines": curve},
        "items, most sold first (%)",
        "receipt lines (%)",
        at=(100 * tenth["items"], says),
    )


def draw_recall(matching: Mapping[str, Any], colours: Mapping[str, Style] | None = None) -> Svg:
    """Recall@k of every source and the pool, with the chosen k."""
    curves: Mapping[str, Mapping[str, float]] = matching["recall@k"]
    colours = colours or styles(curves)
    return lines(
        {
            name: Series([(int(k), v) for k, v in curve.items()], colours[name], marked=True)
            for name, curve in curves.items()
        },
        "candidates a shopper (k)",
        "recall@k: share of purchases found",
        log=True,
        at=(matching["chosen_k"], f"k = {matching['chosen_k']}"),
    )


def draw_marginal(marginal: Mapping[str, float], colours: Mapping[str, Style] | None = None) -> Svg:
    """Recall that is lost without each source."""
    points = {n: 100 * v for n, v in sorted(marginal.items(), key=lambda pair: -pair[1])}
    return across(points, "recall@200 that only this source brings (points)", colours)


def draw_learning(curve: Sequence[tuple[int, float]]) -> Svg:
    """NDCG@10 by how many of the ranker's first trees order the lists."""
    best = max(curve, key=lambda point: point[1])[0]
    return lines(
        {"two-stage": Series([(n, ndcg) for n, ndcg in curve], marked=True)},
        "trees",
        "NDCG@10 of the weeks that followed",
        zero=False,
        at=(best, f"best: {best} trees"),
    )


def draw_importances(rows: Sequence[Mapping[str, Any]], key: str) -> Svg:
    """What NDCG@10 loses when a column, or a family of columns, is shuffled."""
    values = {str(row[key]): 100 * row["permutation"] for row in rows}
    return across(values, "NDCG@10 lost when shuffled (points)")


def draw_reliability(bins: Sequence[Mapping[str, float]]) -> Svg:
    """Predicted against observed shares of purchases."""
    points = [(b["predicted"], b["observed"]) for b in bins]
    top = max((max(pair) for pair in points), default=1.0)
    as_said = Series([(0.0, 0.0), (top, top)], Style("currentColor", ""), dashed=True)
    return lines(
        {"observed": Series(points, marked=True), "as predicted": as_said},
        "predicted probability",
        "share bought",
    )


def draw_results(
    intervals: Sequence[Mapping[str, Any]], colours: Mapping[str, Style] | None = None
) -> Svg:
    """Mean and 95% interval of each model and metric, one line a metric."""
    rows: dict[str, dict[str, tuple[float, float | None, float | None]]] = {}
    for r in intervals:
        if r["mean"] is not None:
            rows.setdefault(r["metric"], {})[r["model"]] = (r["mean"], r["low"], r["high"])
    return dots(rows, "mean, and 95% interval", colours or styles(r["model"] for r in intervals))


def draw_segment(
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    segment: str,
    metric: str,
    colours: Mapping[str, Style] | None = None,
) -> Svg:
    """One metric of all models by the groups of a segment."""
    rows: dict[str, dict[str, tuple[float, float | None, float | None]]] = {}
    for model, means in tables.items():
        for r in means:
            if r["segment"] == segment:
                row = rows.setdefault(f"{r['group']} ({r['n_users']:,})", {})
                if r["mean"] is not None:
                    row[model] = (r["mean"], None, None)
    return dots(rows, metric, colours or styles(tables))


def _runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Points between gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _ticks(low: float, high: float) -> list[float]:
    """Some five round numbers that span the values."""
    span = (high - low) or abs(high) or 1.0
    raw = span / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    n = math.ceil(high / step - 1e-9) - first
    return [round((first + i) * step, 12) for i in range(n + 1)]


def _tick(value: float) -> str:
    return f"{value:,.6g}"


def _apart(values: Sequence[float], scale: Callable[[float], float]) -> list[float]:
    """Of sorted values those whose labels do not run into each other."""
    kept: list[float] = []
    for value in values:
        if not kept or scale(value) - scale(kept[-1]) > 0.47:
            kept.append(value)
    return kept


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _widest(texts: Iterable[str]) -> float:
    """Pixels of the longest text, by what letters take on average."""
    return max((sum(8.4 if c.isupper() else 6.6 for c in _short(text)) for text in texts), default=0.0)


def _legend(named: Mapping[str, Style], y: float) -> tuple[list[Markup], float]:
    """Marker and name of each, in as many lines as they need, and how high that is."""
    parts: list[Markup] = []
    x, line = 0.0, 0
    for name, style in named.items():
        wide = 30 + _widest([name])
        if x and x + wide > _WIDTH:
            x, line = 0.0, line + 1
        parts.append(_mark(style, x + 6, y + 8 + 20 * line, 4.5))
        parts.append(_text(x + 16, y + 12 + 20 * line, name))
        x += wide
    return parts, y + 20.0 * (line + 1) if y < 100 else 20.0 * (line + 1) + 6


def _bar(
    x: float, y: float, wide: float, high: float, colour: str = _BLUE, opacity: float = 1.0
) -> Markup:
    """A rectangle whose title is still to be filled in."""
    size = [round(max(v, 0), 1) for v in (x, y, wide, high)]
    return Markup(
        '<rect fill="{}" fill-opacity="{}" x="{}" y="{}" width="{}" height="{}">'
        "<title>{{}}</title></rect>"
    ).format(colour, opacity, *size)


def _line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    opacity: float = 0.6,
    colour: str = "currentColor",
    width: float = 1,
    dashed: bool = False,
) -> Markup:
    return Markup(
        '<line stroke="{}" stroke-opacity="{}" stroke-width="{}" x1="{}" y1="{}" x2="{}" y2="{}"{}/>'
    ).format(
        *(colour, opacity, width, *(round(v, 1) for v in (x1, y1, x2, y2))),
        Markup(' stroke-dasharray="2 3"') if dashed else "",
    )


def _mark(style: Style, x: float, y: float, size: float, says: str = "") -> Markup:
    title = Markup("<title>{}</title>").format(says) if says else ""
    if not style.shape:
        return Markup('<circle fill="{}" cx="{}" cy="{}" r="{}">{}</circle>').format(
            style.colour, round(x, 1), round(y, 1), size, title
        )
    corners = [[float(v) for v in corner.split(",")] for corner in style.shape.split()]
    points = " ".join(f"{x + size * a:.1f},{y + size * b:.1f}" for a, b in corners)
    return Markup('<polygon fill="{}" points="{}">{}</polygon>').format(style.colour, points, title)


def _text(x: float, y: float, text: str, anchor: str = "start", quiet: bool = True) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}"{}>{}</text>').format(
        round(x, 1), round(y, 1), anchor, Markup(' fill-opacity=".8"') if quiet else "", text
    )


def _figure(parts: Sequence[Markup], says: str, height: float) -> Svg:
    head = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" viewBox="0 0 {} {}" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="12" fill="currentColor">'
    ).format(says, round(_WIDTH), max(round(height), 20))
    return Svg(head + Markup("").join(parts) + Markup("</svg>"))
