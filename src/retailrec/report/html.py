"""Pieces of a page: its frame, tables, figures and numbers. No script, nothing fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any, NamedTuple


class Section(NamedTuple):
    """A part of a page: its anchor, its heading and its HTML."""

    key: str
    name: str
    html: str


def document(title: str, lead: str, sections: Sequence[Section], made_by: str) -> str:
    """One self-contained HTML file; `lead` is HTML, the other words are text."""
    style = files("retailrec.report").joinpath("page.css").read_text()
    links = "".join(f'<a href="#{s.key}">{escape(s.name.split(":")[0])}</a>' for s in sections)
    body = "".join(
        f'<section id="{s.key}"><h2>{escape(s.name)}</h2>{s.html}</section>' for s in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style>'
        f"</head><body><header><h1>{escape(title)}</h1>{lead}<nav>{links}</nav></header>"
        f"<main>{body}</main><footer>{escape(made_by)}</footer>"
        f"</body></html>\n"
    )


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Figures in large type, each with what it is."""
    cells = (f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in facts)
    return f"<div class=tiles>{''.join(cells)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, raw: bool = False) -> str:
    """An HTML table that scrolls where it does not fit; `raw` cells are HTML already."""
    show: Callable[[Any], str] = str if raw else (lambda cell: escape(str(cell)))
    body = [[_cell(show(c)) for c in row] for row in rows]
    lines = "".join(f"<tr>{''.join(row)}</tr>" for row in body)
    words = [cell.startswith("<td class") for cell in body[0]] if body else [False] * len(head)
    names = "".join(
        f"<th{' class=words' if w else ''}>{escape(h)}</th>" for h, w in zip(head, words, strict=True)
    )
    return (
        f"<div class=scroll><table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _cell(html: str) -> str:
    """Words stand on the left, numbers on the right."""
    words = html[:1].isalpha() or html.startswith("<span")
    return f"<td class=words>{html}</td>" if words else f"<td>{html}</td>"


def figure(svg: str, caption: str) -> str:
    """A drawing and what it shows."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def folded(name: str, html: str) -> str:
    """HTML that is shown when its name is clicked."""
    return f"<details><summary>{escape(name)}</summary>{html}</details>"


def number(value: float | None, digits: int = 4) -> str:
    """A number, or a dash where it is not known.

    Examples
    --------
    >>> number(1234.5, 1), number(None)
    ('1,234.5', '–')
    """
    return "–" if value is None else f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """A share in percent, or a dash."""
    return "–" if value is None else f"{value:.0%}"


def days(value: float | None) -> str:
    """So many days, or a dash."""
    return "–" if value is None else f"{value:.1f} days"


def some(items: Sequence[str], most: int) -> str:
    """The first items, and how many more there are."""
    shown = ", ".join(items[:most]) or "nothing"
    return shown + (f", and {len(items) - most} more" if len(items) > most else "")
