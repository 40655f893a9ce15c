"""One saved model as the service uses it: its items as a dictionary, histories without frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, repeat
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from cachetools import LRUCache, cachedmethod
from numpy.typing import NDArray
from scipy import sparse

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.history import History
from retailrec.data.parsing import MISSING, bare_id, zero_forms
from retailrec.datasets.base import Reading
from retailrec.errors import ArtifactError, SettingError
from retailrec.recommender.answerer import Answerer
from retailrec.recommender.batch import artifact_key
from retailrec.recommender.dismissals import finest_categories
from retailrec.recommender.purposes import PURPOSES, Purpose
from retailrec.recommender.request import Request
from retailrec.recommender.rules import PLAIN_RULES, BoundRules, Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import CATEGORIES, ITEM_ID, USER_ID
from retailrec.serving.receipts import AMOUNTS


class CodedEvents(NamedTuple):
    """A shopper's lines in a model's item codes, (n_lines,) each, in order of time."""

    time: NDArray[np.int64]  # microseconds since 1970
    receipt: NDArray[np.int32]  # number of the line's receipt among the shopper's, from 0
    item: NDArray[np.int32]  # -1 where the model does not know the item
    amounts: NDArray[np.void]  # of `receipts.AMOUNTS`


@dataclass
class ServedModel:
    """A fitted recommender, its catalogue as a dictionary, and what is asked of both.

    Parameters
    ----------
    name : what the service calls it
    digest : stands for everything that was saved
    model : the recommender
    """

    name: str
    digest: str
    model: TwoStageRecommender
    code_of: dict[str, int] = field(init=False, repr=False)
    changed_ids: ChangedIds = field(init=False, repr=False)
    ids: list[Any] = field(init=False, repr=False)
    labels: list[str] = field(init=False, repr=False)
    user_columns: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        items = self.model.items_
        self.ids = items[ITEM_ID].to_list()
        self.code_of = {str(item): code for code, item in enumerate(self.ids)}
        self.changed_ids = Reading.of(self.model.reading).changed_ids or ChangedIds()
        for old in self.changed_ids.items:  # rows that were stored under it, and who still asks by it
            if (code := self.code_of.get(self.changed_ids.last("item", old))) is not None:
                self.code_of.setdefault(old, code)
        self.labels = self.model.catalogue.labels
        attributes = self.model.features_.layout_.filter(pl.col("scope") == "user attribute")["column"]
        wanted = [name.removeprefix("user_attribute_") for name in attributes]
        sources = [*self.model.sources_, *self.model.discover_sources_]
        wanted += [s.attribute for s in sources if hasattr(s, "attribute")]
        self.user_columns = list(dict.fromkeys(wanted))
        self._bound: LRUCache[str, BoundRules] = LRUCache(64)
        self._finest = finest_categories(items)
        self._answerers: dict[tuple[Purpose, ...], Answerer] = {}
        self._lock = Lock()
        # each request is a thread's; a library that brings its own threads would fight with the others
        rankers = (self.model.ranker_, self.model.preranker_, self.model.discover_ranker_)
        for part in (self.model, *rankers, *sources):
            if hasattr(part, "threads"):
                part.threads = 1  # type: ignore[union-attr]

    @classmethod
    def load(cls, folder: Path, name: str = "") -> ServedModel:
        """The model that stands in a folder.

        Raises
        ------
        ArtifactError
            If it can't be read, or another one is put in its place meanwhile.
        """
        name, folder = name or folder.name, folder.resolve()  # a link may be switched meanwhile
        digest = artifact_key(folder) if (folder / "manifest.json").is_file() else ""
        found = cls(name, digest, TwoStageRecommender.load(folder))
        if digest and artifact_key(folder) != digest:
            raise ArtifactError(f"model {name} was replaced while it was read. Load it again.")
        return found

    @property
    def end(self) -> datetime:
        """What the model knows ends here."""
        return self.model.end_

    def present(self, ends: datetime | None) -> datetime:
        """The instant that lists are of: the later end of the receipts and of what the model knows."""
        return max(ends or self.end, self.end)

    @property
    def n_items(self) -> int:
        """Number of item codes."""
        return len(self.ids)

    def codes(self, items: Iterable[str]) -> NDArray[np.int32]:
        """Code of each item, -1 where the model does not know it."""
        return np.fromiter(map(self.code_of.get, items, repeat(-1)), np.int32)

    def alike(self, items: Iterable[str]) -> list[tuple[str, str]]:
        """Of items that the model does not know, those that it knows but for leading zeros or '.0'."""
        strange = [item for item in sorted(set(items)) if item not in self.code_of]
        forms = ((item, form) for item in strange for form in zero_forms(item))
        return list({item: form for item, form in forms if form in self.code_of}.items())

    def mask(self, items: Iterable[str]) -> NDArray[np.bool_]:
        """(n_items,) is the item one of these?"""
        found = np.zeros(self.n_items, np.bool_)
        code = self.codes(items)
        found[code[code >= 0]] = True
        return found

    def history(
        self,
        shoppers: Sequence[str],
        events: Sequence[CodedEvents],
        attributes: Sequence[Mapping[str, Any]],
        end: datetime,
        before: int | None = None,
        also: Iterable[str] = (),
    ) -> History:
        """Histories as a load of the same receipts would give them, in this model's codes.

        `end` is the present, from which ages count; receipts at or after `before` (microseconds) are
        not known. `also` are attributes that rules read, beside those of the model.
        """
        parts = [_known(e, before) for e in events]
        rows = np.repeat(np.arange(len(parts)), [len(p.item) for p in parts])
        n_before = np.cumsum([0, *(int(e.receipt[-1]) + 1 if len(e.receipt) else 0 for e in events)])
        amounts = np.concatenate([np.zeros(0, AMOUNTS), *(p.amounts for p in parts)])
        item = np.concatenate([np.zeros(0, np.int32), *(p.item for p in parts)])
        receipt = [p.receipt + n_before[i] for i, p in enumerate(parts)]
        columns = {
            "item": item,
            "basket": np.concatenate([np.zeros(0, np.int32), *receipt]).astype(np.int32),
            "time": np.concatenate([np.zeros(0, np.int64), *(p.time for p in parts)]),
            "quantity": amounts["quantity"],
            "value": amounts["value"],
        }
        if not np.isnan(amounts["discount"]).all():
            columns["discount"] = amounts["discount"]
        people = [pl.Series(USER_ID, shoppers, pl.String)]
        for name in dict.fromkeys((*self.user_columns, *also)):
            values = [_plain(facts.get(name)) for facts in attributes]
            people.append(pl.Series(name, values, strict=False))
        users = pl.DataFrame(people)
        return History.from_log(columns, rows, users, end, self.n_items, self.model.catalogue_key)

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """What lists may be for: those of new items only if the model has learnt them."""
        learnt = self.model.discover_ranker_ is not None
        return tuple(purpose for purpose in PURPOSES if learnt or purpose != "discover")

    def answerer(self, request: Request) -> Answerer:
        """The fitted parts that answer such a request.

        Raises
        ------
        SettingError
            If it needs a ranker that the model has not learnt.
        """
        purposes = tuple(request.by_purpose)
        found = self._answerers.get(purposes)
        if found is None:
            found = self._answerers[purposes] = self.model.answerer(request)
        return found

    def label(self, item: str) -> str:
        """What an item is called; its id if the model does not know it."""
        code = self.code_of.get(item)
        return item if code is None else self.labels[code]

    def dismissed(self, item: str, category: bool) -> NDArray[np.int32]:
        """Codes of the items that a dismissal hides."""
        code = self.code_of.get(item, -1)
        own = np.array([code], np.int32)
        if not category or code < 0 or self._finest[code] < 0:
            return own
        return np.flatnonzero(self._finest == self._finest[code]).astype(np.int32)

    def similar(
        self, item: str, k: int, barred: NDArray[np.bool_] | None = None
    ) -> dict[str, list[tuple[int, float]]]:
        """Source -> (code, similarity) of the `k` items that go best with one that is known.

        Items that are `barred` (n_items,) are left out.
        """
        code, found = self.code_of[item], {}
        for source in self.model.sources_:
            similarity: Any = getattr(source, "similarity_", None)
            if not isinstance(similarity, sparse.csr_matrix):
                continue
            row = similarity[code]
            items, scores = row.indices, row.data
            order = np.lexsort((items, -scores))  # ties go to the lower item
            shown = (
                i for i in order if items[i] != code and not (barred is not None and barred[items[i]])
            )
            found[source.name] = [(int(items[i]), float(scores[i])) for i in islice(shown, k)]
        return found

    @property
    def category(self) -> str | None:
        """The broadest category that the catalogue has."""
        return next((c for c in CATEGORIES if c in self.model.items_.columns), None)

    @cachedmethod(
        lambda self: self._bound,
        lambda self, rules: json.dumps(rules, sort_keys=True),
        lambda self: self._lock,
    )
    def bound_rules(self, rules: Mapping[str, Any]) -> BoundRules:
        """Rules in item codes; binding goes through the catalogue, so the last ones are kept.

        Raises
        ------
        SettingError
            If a rule or its value makes no sense.
        """
        if unknown := sorted(set(rules) - {*PLAIN_RULES, "forbid"}):
            expected = ", ".join((*PLAIN_RULES, "forbid"))
            raise SettingError(f"rules: there is no rule '{unknown[0]}' here; expected {expected}.")
        of_today = Rules(**rules).renamed(self.changed_ids)
        return BoundRules(of_today, self.model.items_, self.model.prices_, self.end)


def _known(events: CodedEvents, before: int | None) -> CodedEvents:
    """Lines of items that the model knows, of receipts before an instant."""
    keep = events.item >= 0
    if before is not None:
        keep &= events.time < before
    if keep.all():
        return events
    return CodedEvents(events.time[keep], events.receipt[keep], events.item[keep], events.amounts[keep])


def _plain(value: Any) -> Any:
    """Numbers, and text as `attributes` leaves it; anything else is unknown."""
    if isinstance(value, str):
        value = bare_id(value)
        return None if value in MISSING else value
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
