"""Two models side by side: on how many shoppers they differ, and who was right."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from retailrec.report import drawings
from retailrec.serving.engine import Engine, OfferRequest, UserRecord
from retailrec.serving.pages.facts import Facts
from retailrec.serving.receipts import microseconds
from retailrec.serving.served_model import ServedModel
from retailrec.serving.service import Service

Values = dict[str, Any]
K = 10


def given_of(
    engine: Engine, model: ServedModel, shoppers: Sequence[str]
) -> tuple[list[UserRecord], datetime | None]:
    """Stored shoppers as a model is asked about them, and where receipts end."""
    given, ends = [], None
    for shopper in shoppers:
        known = engine.store.shopper(shopper)
        given.append(
            UserRecord(shopper, engine.events(model, shopper, known), known.attributes, known.denied)
        )
        ends = known.ends
    return given, ends


class Comparison:
    """Comparisons of two models over a sample of shoppers, made aside and kept."""

    def __init__(self, service: Service, facts: Facts) -> None:
        self.service, self.facts = service, facts
        self._compared: dict[tuple[str, ...], Values | None] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Let go of all comparisons."""
        with self._lock:
            self._compared.clear()

    def page(self, query: Mapping[str, str]) -> Values:
        """Where do two models differ most?"""
        models = list(self.service.models.folders())
        active = self.service.models.active.name
        left = query.get("left") or active
        right = query.get("right") or next((m for m in models if m != left), left)
        pair = [self.service.models.get(left), self.service.models.get(right)]
        key = (pair[0].digest, pair[1].digest)
        facts = self.facts.now()
        with self._lock:
            start = facts is not None and key not in self._compared
            if start:
                if len(self._compared) > 20:
                    self._compared.clear()
                self._compared[key] = None
        if start:
            threading.Thread(target=self._compare, args=(key, pair), daemon=True).start()
        found = self._compared.get(key)
        return {
            "models": models,
            "left": left,
            "right": right,
            "found": found,
            "self_url": "/compare?" + urlencode({"left": left, "right": right}),
            "histogram": drawings.bars(found["histogram"], "shoppers") if found else "",
        }

    def _compare(self, key: tuple[str, ...], pair: list[ServedModel]) -> None:
        facts = self.facts.now()
        if facts is None:
            return
        since = max(model.end for model in pair)
        lists = []
        for model in pair:
            given, ends = given_of(self.service.engine, model, facts.sample)
            late = bool(ends and ends > since)
            asked = OfferRequest.of(k=K, at=since if late else None)
            answers = self.service.engine.answer(model, given, asked, ends, self.service.engine.lists())
            lists.append([{str(o.item) for o in a.offers} for a in answers])
        shared = [len(a & b) for a, b in zip(*lists, strict=True)]
        judged = []
        us = microseconds(since)
        for place, shopper in enumerate(facts.sample if late else []):
            bought = {i for r in self.service.store.history(shopper) if r.time >= us for i in r.items}
            if bought:
                judged.append((shopper, len(lists[0][place] & bought), len(lists[1][place] & bought)))
        judged.sort(key=lambda row: (-row[1] - row[2], row[0]))
        order = sorted(range(len(shared)), key=lambda i: (shared[i], facts.sample[i]))
        found = {
            "n": len(shared),
            "shared": sum(shared) / max(len(shared), 1),
            "same": sum(n == K for n in shared),
            "since": f"{since:%Y-%m-%d}",
            "most": [(facts.sample[i], shared[i]) for i in order[:10]],
            "judged": judged if len(judged) <= 10 else judged[:5] + judged[-5:],
            "histogram": [(str(n), float(shared.count(n))) for n in range(K + 1)],
        }
        with self._lock:
            if self.service.store.forgotten(facts.sample):  # meanwhile
                self._compared.pop(key, None)
            elif key in self._compared:
                self._compared[key] = found
