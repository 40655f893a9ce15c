"""The report's sections on people: shoppers with their lists, and those who were sent coupons."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from retailrec.report import figures
from retailrec.report.html import Section, number, share, some, table
from retailrec.report.results import Example, Listed, SentFacts


def three(shoppers: Sequence[Example]) -> list[Example]:
    """Three of them: one who buys seldom, one in the middle, one who buys often."""
    n = len(shoppers)
    return [shoppers[i] for i in sorted({n // 4, n // 2, n * 3 // 4}) if i < n]


def examples(shoppers: Sequence[Example]) -> str:
    """A card a shopper: what they had, what each model lists, what they bought."""
    cards = []
    for s in shoppers:
        often = "".join(
            f"<li>{escape(o['item'])} <small>{o['times']}×, last {o['days_ago']} days ago</small></li>"
            for o in s["often"]
        )
        last = "".join(
            f"<li><small>{escape(r['date'])}</small> {escape(some(r['items'], 6))}</li>"
            for r in s["last_receipts"]
        )
        lists = "".join(
            f"<div><h4>{_model(name)}</h4><ol>{''.join(_item(i) for i in items)}</ol></div>"
            for name, items in sorted(s["lists"].items(), key=lambda each: each[0] != "two_stage")
        )
        cards.append(
            f"<article><h3>Shopper {escape(s['user'])} <small>{s['receipts']:,} receipts</small></h3>"
            f"<div class=past><div><h4>buys most</h4><ul>{often}</ul></div>"
            f"<div><h4>last receipts</h4><ul>{last}</ul></div></div>"
            f"<div class=lists>{lists}</div>"
            f"<p class=quiet>Bought in the window: {escape(some(s['bought'], 15))}</p></article>"
        )
    return "<p>Drawn from the least to the most active; ✓ was bought in the window.</p>" + "".join(
        cards
    )


def _item(item: Listed) -> str:
    mark = "<b class=hit>✓</b>" if item["bought"] else ""
    reason = f"<small>{escape(item['reason'])}</small>" if item.get("reason") else ""
    return f"<li>{escape(item['item'])} {mark}{reason}</li>"


def sent_coupons(sent: SentFacts | None) -> list[Section]:
    """The section on shoppers who were sent coupons, where that is known."""
    if not sent:
        return []
    rows = [
        [
            g["group"],
            f"{g['n_users']:,}",
            f"{g['receipts']:.1f}",
            number(g["precision"]),
            share(g["recommended"]),
            share(g["bought"]),
            share(g["redeemed"]),
        ]
        for g in sent["groups"]
    ]
    head = [
        "shoppers",
        "number",
        "receipts before",
        "precision of their lists",
        "recommended: campaign products",
        "bought: campaign products",
        "redeemed a coupon",
    ]
    text = (
        f"<p>{sent['campaigns']:,} campaigns with {sent['products']:,} products ran in the window. "
        f"<b>Descriptive:</b> {escape(sent['caution'])}</p>{table(head, rows)}"
    )
    return [Section("coupons", "Shoppers who were sent coupons", text)]


def _model(name: str) -> str:
    colour, _ = figures.model_style(name, [name])
    return f'<span class=model style="--c:{colour}">{escape(name)}</span>'
