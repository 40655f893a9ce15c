"""One saved model as the service uses it: the only file here that knows how a recommender is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import repeat
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from cachetools import LRUCache
from numpy.typing import NDArray
from scipy import sparse

from retailrec.candidates.pool import Pool
from retailrec.data.history import History
from retailrec.errors import SettingError
from retailrec.recommender.answering import Part, fill, single
from retailrec.recommender.batch import artifact_key
from retailrec.recommender.explanations import reasons_in_words
from retailrec.recommender.purposes import PURPOSES, Purpose
from retailrec.recommender.rows import CandidateFrame, candidate_frame
from retailrec.recommender.rules import BoundRules, Rules
from retailrec.recommender.slots import Composed, Slots
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import CATEGORIES, ITEM_ID, NAME, USER_ID
from retailrec.serving.receipts import AMOUNTS

_BOUND = 64  # combinations of rules that are kept ready
RULES = (
    "price_floor",
    "price_ceiling",
    "skip_bought_days",
    "unless_due",
    "max_per_category",
    "category",
    "min_new",
    "variety",
)


class CodedEvents(NamedTuple):
    """A shopper's lines in a model's item codes, in order of time.

    Attributes
    ----------
    time : (n_lines,) microseconds since 1970
    receipt : (n_lines,) number of the line's receipt among the shopper's, from 0
    item : (n_lines,) int32, -1 where the model does not know the item
    amounts : (n_lines,) of `receipts.AMOUNTS`
    """

    time: NDArray[np.int64]
    receipt: NDArray[np.int32]
    item: NDArray[np.int32]
    amounts: NDArray[np.void]


class Scored(NamedTuple):
    """The candidates of some histories, with the ranker's scores: `(n_pairs,)`; `part` scored them."""

    history: History
    frame: CandidateFrame
    score: NDArray[np.float32]
    part: Part


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
    ids: list[Any] = field(init=False, repr=False)
    labels: list[str] = field(init=False, repr=False)
    user_columns: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        items = self.model.items_
        self.ids = items[ITEM_ID].to_list()
        self.code_of = {str(item): code for code, item in enumerate(self.ids)}
        names = items[NAME if NAME in items.columns else ITEM_ID].cast(pl.String)
        self.labels = names.fill_null(items[ITEM_ID].cast(pl.String)).to_list()
        attributes = self.model.features_.layout_.filter(pl.col("scope") == "user attribute")["column"]
        wanted = [name.removeprefix("user_attribute_") for name in attributes]
        sources = [*self.model.sources_, *self.model.discover_sources_]
        wanted += [s.attribute for s in sources if hasattr(s, "attribute")]
        self.user_columns = list(dict.fromkeys(wanted))
        self._bound: LRUCache[tuple[Any, ...], BoundRules] = LRUCache(_BOUND)
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
            If it can't be read.
        """
        digest = artifact_key(folder) if (folder / "manifest.json").is_file() else ""
        return cls(name or folder.name, digest, TwoStageRecommender.load(folder))

    @property
    def end(self) -> datetime:
        """What the model knows ends here."""
        return self.model.end_

    @property
    def n_items(self) -> int:
        """Number of item codes."""
        return len(self.ids)

    def codes(self, items: Iterable[str]) -> NDArray[np.int32]:
        """Code of each item, -1 where the model does not know it."""
        return np.fromiter(map(self.code_of.get, items, repeat(-1)), np.int32)

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
    ) -> History:
        """Histories as a load of the same receipts would give them, in this model's codes.

        `end` is the present, from which ages count; receipts at or after `before` (microseconds) are
        not known.
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
        for name in self.user_columns:
            values = [_plain(facts.get(name)) for facts in attributes]
            people.append(pl.Series(name, values, strict=False))
        users = pl.DataFrame(people)
        return History.from_log(columns, rows, users, end, self.n_items, self.model.catalogue_key)

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """What lists may be for: those of new items only if the model has learnt them."""
        learnt = self.model.discover_ranker_ is not None
        return tuple(purpose for purpose in PURPOSES if learnt or purpose != "discover")

    def score(self, history: History, k: int, purpose: Purpose = "mixed") -> Scored:
        """Candidates of the histories, at least `k`, and their scores: the rows of a batch.

        Raises
        ------
        SettingError
            If the purpose needs a ranker that the model has not learnt.
        """
        part = self.model.part(purpose)
        stage = replace(part.stage, pool_size=max(part.stage.pool_size, k))
        frame = candidate_frame(history, stage)
        return Scored(history, frame, part.ranker.predict(frame.x), part)

    def choose(
        self,
        scored: Mapping[Purpose, Scored],
        slots: Slots,
        rules: Mapping[str, Any] | None = None,
        allowed: Callable[[Pool], NDArray[np.bool_] | None] = lambda pool: None,
    ) -> Composed:
        """The best candidates of each history for the slots, under the rules.

        `allowed` says of each candidate of a pool (n_pairs,) whether it may be offered.

        Raises
        ------
        SettingError
            If a rule or its value makes no sense.
        """
        k, usable = sum(slots.values()), {}
        bound = self._bound_rules(rules or {})
        for purpose, one in scored.items():
            pool, score, mask = one.frame.pool, one.score, allowed(one.frame.pool)
            if mask is not None and not mask.all():
                pool, score = pool.keep(mask), score[mask]
            if len(slots) == 1 and not rules:
                return single(pool.best(score, k), purpose)
            probable = one.part.ranker.gives_probability
            if len(slots) == 1:
                return single(bound.choose(one.history, pool.pairs, score, k, probable), purpose)
            usable[purpose] = bound.usable(one.history, pool.pairs, score, k, probable)
        return fill(slots, len(one.history), bound, usable)

    def reasons(self, scored: Mapping[Purpose, Scored], lists: Composed) -> NDArray[np.object_]:
        """(n_histories, k) why each item was chosen, in words; empty where there is none."""
        texts = np.full(lists.best.items.shape, "", object)
        for number, one in enumerate(scored.values()):
            history, frame, part = one.history, one.frame, one.part
            shopper, rank = np.nonzero(lists.purpose == number)
            if not len(shopper):
                continue  # nothing was chosen, and a ranker explains no empty table
            items = lists.best.items[shopper, rank]
            x = np.asfortranarray(frame.rows_of(shopper, items, history.n_items))
            why, sources = part.ranker.contributions(x), part.stage.sources
            texts[shopper, rank] = reasons_in_words(
                x, frame.names, why, shopper, items, history, sources, self.labels
            )
        return texts

    def probabilities(
        self, scored: Mapping[Purpose, Scored], lists: Composed
    ) -> NDArray[np.floating] | None:
        """(n_histories, k) probability of each chosen item; None unless all purposes are calibrated."""
        found = np.full(lists.best.items.shape, np.nan)
        for number, one in enumerate(scored.values()):
            if one.part.calibrator is None:
                return None
            mine = lists.purpose == number
            found[mine] = one.part.calibrator.predict(lists.best.scores[mine])
        return found

    def label(self, item: str) -> str:
        """What an item is called; its id if the model does not know it."""
        code = self.code_of.get(item)
        return item if code is None else self.labels[code]

    def similar(self, item: str, k: int) -> dict[str, list[tuple[int, float]]]:
        """Source -> (code, similarity) of the `k` items that go best with one that is known."""
        code, found = self.code_of[item], {}
        for source in self.model.sources_:
            similarity: Any = getattr(source, "similarity_", None)
            if not isinstance(similarity, sparse.csr_matrix):
                continue
            row = similarity[code]
            items, scores = row.indices, row.data
            order = np.lexsort((items, -scores))  # ties go to the lower item
            best = [i for i in order if items[i] != code][:k]
            found[source.name] = [(int(items[i]), float(scores[i])) for i in best]
        return found

    def check_rules(self, rules: Mapping[str, Any]) -> None:
        """Raise a SettingError if these rules can't be applied to this catalogue."""
        self._bound_rules(rules)

    @property
    def category(self) -> str | None:
        """The broadest category that the catalogue has."""
        return next((c for c in CATEGORIES if c in self.model.items_.columns), None)

    def _bound_rules(self, rules: Mapping[str, Any]) -> BoundRules:
        """Rules in item codes; binding goes through the catalogue, so the last ones are kept."""
        if unknown := sorted(set(rules) - set(RULES)):
            raise SettingError(
                f"rules: there is no rule '{unknown[0]}' here; expected {', '.join(RULES)}."
            )
        key = tuple(sorted(rules.items()))
        with self._lock:
            found = self._bound.get(key)
        if found is not None:
            return found
        bound = BoundRules(Rules(**rules), self.model.items_, self.model.prices_, self.end)
        with self._lock:
            self._bound[key] = bound
        return bound


def _known(events: CodedEvents, before: int | None) -> CodedEvents:
    """Lines of items that the model knows, of receipts before an instant."""
    keep = events.item >= 0
    if before is not None:
        keep &= events.time < before
    if keep.all():
        return events
    return CodedEvents(events.time[keep], events.receipt[keep], events.item[keep], events.amounts[keep])


def _plain(value: Any) -> Any:
    """Text and numbers as they are; anything else is unknown."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else None
