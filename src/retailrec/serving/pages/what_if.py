"""A shopper's receipts and lists as the page shows them, and what another line would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from retailrec.report import drawings
from retailrec.serving.engine import Reply
from retailrec.serving.receipts import AMOUNTS, Receipt, moment
from retailrec.serving.served_model import ServedModel

Values = dict[str, Any]


def what_if(
    receipts: Sequence[Receipt], query: Mapping[str, str], now: int, model: ServedModel
) -> tuple[list[Receipt], list[str]]:
    """The receipts with a line added now and an item never bought, and both in words."""
    found, changed = list(receipts), []
    drop, add = query.get("drop", "").strip(), query.get("add", "").strip()
    if drop:
        found = [_without(receipt, drop) for receipt in found]
        changed.append(f"never bought {model.label(drop)}")
    if add:
        try:
            quantity = min(max(float(query.get("quantity") or 1), 0.001), 1000.0)
        except ValueError:
            quantity = 1.0
        code = model.code_of.get(add)
        price = float("nan") if code is None else float(model.model.prices_[code])
        line = np.array([(quantity, price * quantity, float("nan"))], AMOUNTS)
        found.append(Receipt("", "what if", now, (add,), line))
        unknown = " (an item that the model does not know)" if code is None else ""
        changed.append(f"also bought {quantity:g} of {model.label(add)}{unknown}")
    return found, changed


def _without(receipt: Receipt, item: str) -> Receipt:
    if item not in receipt.items:
        return receipt
    keep = [place for place, name in enumerate(receipt.items) if name != item]
    return Receipt(
        receipt.shopper,
        receipt.number,
        receipt.time,
        tuple(receipt.items[i] for i in keep),
        receipt.amounts[keep],
    )


def side(title: str, answer: Reply, usual: Reply) -> Values:
    """A list, how each item moved against the usual one, and its score as a share of the best."""
    before = {offer.item: offer.rank for offer in usual.offers}
    scores = [offer.score for offer in answer.offers]
    low, high = min([0.0, *scores]), max(scores, default=1.0)
    offers = [
        offer._asdict()
        | {
            "move": before[offer.item] - offer.rank if offer.item in before else "new",
            "share": (offer.score - low) / ((high - low) or 1.0),
        }
        for offer in answer.offers
    ]
    return {"title": title, "answer": answer, "offers": offers}


def receipt(given: Receipt, model: ServedModel) -> Values:
    """A receipt as the page shows it."""
    lines = []
    for item, amount in zip(given.items, given.amounts, strict=True):
        text = (
            f"{amount['quantity']:g} for {amount['value']:.2f}"
            if amount["value"] == amount["value"]
            else f"{amount['quantity']:g}"
        )
        lines.append({"item": item, "name": model.label(item), "text": text})
    value = float(np.nansum(given.amounts["value"]))
    return {"time": f"{moment(given.time):%Y-%m-%d %H:%M}", "lines": lines, "value": value}


def timeline(receipts: Sequence[Receipt]) -> Markup | str:
    """The newest receipts by time; nothing where there is none."""
    if not receipts:
        return ""
    some = receipts[-150:]
    first, last = some[0].time, some[-1].time
    span = max(last - first, 1)
    return drawings.timeline(
        [
            (
                (r.time - first) / span,
                float(len(r.items)),
                f"{moment(r.time):%Y-%m-%d %H:%M}, {len(r.items)} lines",
            )
            for r in some
        ]
    )
