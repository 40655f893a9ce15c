"""Small SVG figures, drawn as text in under a millisecond; colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 560, 150


def bars(values: Sequence[tuple[str, float]], unit: str) -> Markup:
    """Upright bars, the first and the last labelled; the title says what each one is."""
    top = max((value for _, value in values), default=0.0) or 1.0
    step = _WIDTH / max(len(values), 1)
    parts = []
    for place, (label, value) in enumerate(values):
        high = round(110 * value / top, 1)
        parts.append(
            Markup(
                '<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
            ).format(
                round(place * step, 1),
                round(125 - high, 1),
                round(max(step - 1.5, 1), 1),
                high,
                f"{label}: {value:,.6g} {unit}",
            )
        )
    if values:
        parts.append(_text(0, 145, values[0][0]))
        parts.append(_text(_WIDTH, 145, values[-1][0], "end"))
        parts.append(_text(0, 11, f"{top:,.6g} {unit} at most"))
    return _figure(parts, f"{unit} from {values[0][0]} to {values[-1][0]}" if values else "no data")


def line(values: Sequence[tuple[str, float | None]], unit: str) -> Markup:
    """One line; gaps where nothing is known."""
    known = [value for _, value in values if value is not None]
    if not known:
        return _figure([_text(0, 75, "nothing is known")], "no data")
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    step = _WIDTH / max(len(values) - 1, 1)
    runs: list[list[str]] = [[]]
    for place, (_, value) in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{place * step:.1f},{122 - 95 * (value - low) / span:.1f}")
    parts = [
        Markup('<polyline class="line" points="{}"/>').format(" ".join(points))
        if len(points) > 1
        else Markup('<circle class="dot" cx="{}" cy="{}" r="3"/>').format(*points[0].split(","))
        for points in runs
        if points
    ]
    parts += [_text(0, 11, f"{low:,.2f} to {high:,.2f} {unit}"), _text(0, 145, values[0][0])]
    parts.append(_text(_WIDTH, 145, values[-1][0], "end"))
    return _figure(parts, f"{unit}, from {low:,.2f} to {high:,.2f}")


def across(values: Mapping[str, float], unit: str, top: float | None = None) -> Markup:
    """Bars from left to right, each with its name and number."""
    most = top or max(values.values(), default=0.0) or 1.0
    parts = []
    for place, (name, value) in enumerate(values.items()):
        y, wide = 26 * place, max(300 * min(value / most, 1), 0)
        parts.append(_text(170, y + 16, name if len(name) < 26 else name[:25] + "…", "end"))
        parts.append(
            Markup('<rect class="bar" x="178" y="{}" width="{}" height="17"/>').format(
                y + 3, round(wide, 1)
            )
        )
        parts.append(_text(184 + wide, y + 16, f"{value:,.3g}"))
    return _figure(
        parts, f"{unit}: " + ", ".join(f"{n} {v:,.3g}" for n, v in values.items()), 26 * len(values)
    )


def heat(names: Sequence[str], values: Mapping[str, Mapping[str, float]]) -> Markup:
    """A square of shares, darker for more."""
    size, left = 46, 170
    parts = []
    for row, name in enumerate(names):
        parts.append(_text(left - 8, size * row + 30, name[:25], "end"))
        parts.append(
            _text(left + size * row + size / 2, size * len(names) + 16, str(row + 1), "middle")
        )
        for column, other in enumerate(names):
            share = values.get(name, {}).get(other, 0.0)
            parts.append(
                Markup(
                    '<rect class="bar" fill-opacity="{}" x="{}" y="{}" width="{}" height="{}"><title>{}'
                    "</title></rect>"
                ).format(
                    round(0.1 + 0.75 * share, 2),
                    left + size * column,
                    size * row,
                    size - 2,
                    size - 2,
                    f"{share:.0%} of what {name} proposes, {other} proposes too",
                )
            )
            parts.append(
                _text(
                    left + size * column + size / 2 - 1,
                    size * row + 28,
                    f"{100 * share:.0f}",
                    "middle",
                    "cell",
                )
            )
    return _figure(parts, "overlap of sources, in percent", size * len(names) + 24)


def timeline(receipts: Sequence[tuple[float, float, str]]) -> Markup:
    """Receipts as dots: place from 0 to 1, size (lines), and what to say of each."""
    most = max((size for _, size, _ in receipts), default=1.0)
    parts = [Markup('<line class="axis" x1="0" y1="40" x2="560" y2="40"/>')]
    for place, size, says in receipts:
        parts.append(
            Markup('<circle class="dot" cx="{}" cy="40" r="{}"><title>{}</title></circle>').format(
                round(8 + 544 * place, 1), round(3 + 11 * (size / most) ** 0.5, 1), says
            )
        )
    if receipts:
        parts += [_text(0, 78, receipts[0][2][:10]), _text(_WIDTH, 78, receipts[-1][2][:10], "end")]
    return _figure(parts, f"{len(receipts)} receipts on a time line", 84)


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "label") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, round(x, 1), round(y, 1), anchor, text
    )


def _figure(parts: Sequence[Markup], says: str, height: float = _HEIGHT) -> Markup:
    head = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}">').format(
        escape(says), _WIDTH, max(round(height), 20)
    )
    return head + Markup("").join(parts) + Markup("</svg>")
