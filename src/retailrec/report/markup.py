"""Pieces of HTML that several sections of the report use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any


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


def folded(name: str, html: str) -> str:
    return f"<details><summary>{escape(name)}</summary>{html}</details>"


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
