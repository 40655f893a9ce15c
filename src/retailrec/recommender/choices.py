"""What label windows choose: half-life, simple order behind the trees, number of trees, probabilities.

Each choice of a value keeps the usual one unless another is better by more than chance for the same
users, so that a small shop's noise moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator, OwnPurchases, Popularity, TifuKNN
from retailrec.candidates.own_purchases import USUAL_HALF_LIFE
from retailrec.compute.csr import pair_keys
from retailrec.compute.draws import lots
from retailrec.compute.topk import topk_rows
from retailrec.data.ids import id_keys
from retailrec.data.splits import Split
from retailrec.errors import DataError
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.rankers.base import Calibrator
from retailrec.schema import USER_ID


def learnt_ranker(
    frame: TrainingFrame, fresh: Callable[[], Ranker], early_stopping: bool
) -> tuple[Ranker, dict[str, Any]]:
    """A ranker fitted on all label windows, and facts of the fit.

    Parameters
    ----------
    fresh : gives a ranker that has learnt nothing
    early_stopping : the number of trees is learnt on the newest label window first; the facts are then
        ``learning_curve`` and ``trees``. With a single window there is nothing to learn it on.
    """
    newest, ranker = _newest(frame), fresh()
    if not early_stopping or newest.all():
        return ranker.fit(frame), {}
    ranker.fit(frame.rows(~newest), frame.rows(newest))
    facts: dict[str, Any] = {"learning_curve": ranker.learning_curve()}
    trees = ranker.n_trees
    if trees is not None:
        facts["trees"] = trees
        ranker = ranker.with_trees(max(trees, 1))
    return ranker.fit(frame), facts


def calibrated(frame: TrainingFrame, fresh: Callable[[], Ranker]) -> Calibrator:
    """Scores of the newest label window by a ranker of the others, and what they were worth.

    Raises
    ------
    DataError
        If there is one label window only.
    """
    newest = _newest(frame)
    if newest.all():
        raise DataError(
            "calibrate needs at least two label windows beside the pre-ranker's; bring more data "
            "or shorter horizons."
        )
    later = frame.rows(newest)
    score = fresh().fit(frame.rows(~newest)).predict(later.x)
    return Calibrator().fit(score, later.y, later.weights)


def _newest(frame: TrainingFrame) -> NDArray[np.bool_]:
    """(n_rows,) is the row of the newest label window?"""
    newest: NDArray[np.bool_] = frame.fold == frame.fold.max()
    return newest


HALF_LIVES = (USUAL_HALF_LIFE, 240.0, 60.0, 400.0, 30.0, None)  # days; None: never
TIMES = (0.5, 1.0, 2.0)  # the usual weight of a prior; few rows make a prior look better than it is
SURE = 2.0  # standard errors that another value has to be ahead by
MEAN = "mean"  # of a user's simple orders
_POPULAR = Popularity().name  # an order to choose where it alone is better than the usual one
K = 10
FEW_LISTS = 1_500  # up to which older windows are judged on as well
_USERS = 2_000  # of a label window that tell a half-life
_LEARNT, _JUDGED = 20_000, 100_000  # rows that trees learn from to tell a prior, and are judged on


class Chosen(NamedTuple):
    """A value, and how it did beside the usual one.

    Attributes
    ----------
    value : the one that is taken
    usual : the one that needs no evidence
    ndcg, usual_ndcg : mean NDCG@10 of both over the users of label windows; None: nothing was judged
    n_users : who were judged
    given : is it not chosen, but what settings say?
    """

    value: Any
    usual: Any
    ndcg: float | None = None
    usual_ndcg: float | None = None
    n_users: int = 0
    given: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """The same in plain values, and in words."""
        plain = {k: asdict(v) if isinstance(v, Prior) else v for k, v in self._asdict().items()}
        return plain | {"words": str(self)}

    def __str__(self) -> str:
        said = f"{_told(self.value)}, "
        if self.given:
            return said + "as the settings say"
        if self.ndcg is None:
            return said + "as usual: no label window can tell"
        if self.value == self.usual:
            return (
                said + f"as usual: nothing is surely better for {self.n_users:,} users of label windows"
            )
        return said + (
            f"since NDCG@10 for {self.n_users:,} users of label windows is {self.ndcg:.4f} and not "
            f"{self.usual_ndcg:.4f} as with {_told(self.usual)}"
        )


def _told(value: Any) -> str:
    if isinstance(value, Prior):
        order = (
            "the simple methods' mean order" if value.order == MEAN else f"the order of {value.order}"
        )
        return f"{order} at a weight of {value.weight:.2g}"
    return "no half-life" if value is None else f"a half-life of {value:g} days"


def choose(values: Mapping[Any, NDArray[np.float64]], usual: Any) -> Chosen:
    """The first value surely ahead of the usual one and not surely behind the best; else the usual.

    Parameters
    ----------
    values : value -> (n_users,) how well it did for each user; those that are rather taken come first

    Examples
    --------
    >>> some = np.array([0.2, 0.4, 0.1, 0.3])
    >>> choose({60: some + [0.1, 0.1, 0.09, 0.11], 120: some, 240: some + [0.4, 0, 0, 0]}, 120).value
    60
    """
    base = values[usual]
    ahead = {v: of for v, of in values.items() if of.mean() - base.mean() > SURE * _error(of - base)}
    taken = usual
    if ahead:
        best = max(ahead, key=lambda v: ahead[v].mean())
        behind = {v: ahead[best] - of for v, of in ahead.items()}
        taken = next(v for v, gap in behind.items() if gap.mean() <= _error(gap))
    return Chosen(taken, usual, float(values[taken].mean()), float(base.mean()), len(base))


def _error(differences: NDArray[np.float64]) -> float:
    """Standard error of a mean; there is none of a single value."""
    n = len(differences)
    return float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf


def choose_half_life(splits: Iterable[Split], seed: int) -> Chosen:
    """The half-life by which own purchases order best what label windows hold."""
    found: dict[float | None, list[NDArray[np.float64]]] = {days: [] for days in HALF_LIVES}
    for split in splits:
        if split.shorter:  # a part of the window before it
            continue
        past, target = split
        users = np.intersect1d(target["user"].unique().to_numpy(), past.active_users())
        keys = id_keys(past.users[USER_ID].gather(users))
        users = np.sort(users[np.argsort(lots(keys, seed, 98), kind="stable")[:_USERS]])
        history = past.history(codes=users)
        theirs = target.filter(pl.col("user").is_in(users.tolist())).select("user", "item").unique()
        bought = pair_keys(theirs["user"].to_numpy(), theirs["item"].to_numpy(), past.n_items)
        n_bought = np.bincount(np.searchsorted(users, theirs["user"].to_numpy()), minlength=len(users))
        ties = (0.5 / (1 + history.last_age())).astype(np.float32)  # newest first; below one receipt
        for days, of in found.items():
            score = history.counts(days) if days else history.counts() + ties
            items, _ = topk_rows(history.indptr, history.items, score, K)
            hits = np.isin(pair_keys(users[:, None], items, past.n_items), bought)
            of.append(ndcg(hits, n_bought))
    if not any(len(part) for part in found[HALF_LIVES[0]]):
        return Chosen(HALF_LIVES[0], HALF_LIVES[0])
    return choose({days: np.concatenate(of) for days, of in found.items()}, HALF_LIVES[0])


def ndcg(hits: NDArray[np.bool_], n_bought: NDArray[np.integer]) -> NDArray[np.float64]:
    """(n_users,) NDCG of lists, whose ideal holds min(k, bought) hits."""
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discount)[np.clip(n_bought, 1, hits.shape[1]) - 1]
    return np.asarray((hits * discount).sum(axis=1) / ideal)


@dataclass(frozen=True)
class Prior:
    """A simple order that is added to a ranker's scores.

    Attributes
    ----------
    order : name of a source, or `MEAN`
    weight : in standard deviations of the scores
    """

    order: str
    weight: float


def simple_orders(sources: Sequence[CandidateGenerator]) -> dict[str, list[str]]:
    """Orders that a person could go by -> the columns with their ranks.

    Those of a user's own past, whose mean comes first; and what is popular, for a shop in which tastes
    tell little.

    Examples
    --------
    >>> list(simple_orders([OwnPurchases(), Popularity(), TifuKNN()]))
    ['mean', 'own_purchases', 'tifu_knn', 'popular']
    """
    columns = {
        s.name: [f"source_{s.name}_rank"] for s in sources if isinstance(s, OwnPurchases | TifuKNN)
    }
    if len(columns) > 1:
        columns = {MEAN: [name for (name,) in columns.values()], **columns}
    if columns and _POPULAR in [source.name for source in sources]:
        columns[_POPULAR] = [f"source_{_POPULAR}_rank"]
    return columns


def usual_weight(n_lists: int) -> float:
    """How much of a simple order is added where nothing is known: the more, the less there is to learn.

    Parameters
    ----------
    n_lists : lists of label windows in which something was bought

    Examples
    --------
    >>> [usual_weight(n) for n in (50, 100, 400, 1_600, 10_000)]
    [0.4, 0.4, 0.2, 0.1, 0.05]
    """
    return min(max(round(4 / max(n_lists, 1) ** 0.5, 3), 0.05), 0.4)


def choose_prior(
    frame: TrainingFrame,
    windows: Sequence[Mapping[str, Any]],
    fresh: Callable[[], Ranker],
    columns: Mapping[str, Sequence[str]],
    order: str | None = None,
    weight: float | None = None,
) -> Chosen:
    """The prior that helps most a ranker of some label windows on another one.

    Parameters
    ----------
    windows : facts of the label windows, oldest first
    fresh : gives a ranker that has learnt nothing and has no prior
    columns : order -> columns with its ranks, see `simple_orders`
    order, weight : what is given, and so not chosen
    """
    n_lists = len(np.unique(frame.groups[frame.y > 0]))
    usual = Prior(order or next(iter(columns)), usual_weight(n_lists) if weight is None else weight)
    weights = [usual.weight * times for times in TIMES] if weight is None else [weight]
    priors = [Prior(name, w) for w in weights for name in ([order] if order else columns)]
    values: dict[Prior, list[NDArray[np.float64]]] = {prior: [] for prior in priors}
    ahead = 0.0  # of what is popular, without trees, of the usual order
    for learnt, judged in _apart(windows, n_lists) if len(priors) > 1 else []:
        learn, judge = _some(frame, learnt, _LEARNT), _some(frame, [judged], _JUDGED)
        if not len(learn.y) or not 0 < learn.y.mean() < 1 or not judge.y.any():
            continue
        ranker = fresh().fit(learn)
        spread = float(np.std(ranker.predict(learn.x)))
        score = ranker.predict(judge.x).astype(np.float64)
        ranked = RankedRows(judge)
        added = {name: _order_of(judge, of) for name, of in columns.items()}
        for prior, of in values.items():
            of.append(ranked.ndcg(score - prior.weight * spread * added[prior.order]))
        if _POPULAR in added:
            alone = (ranked.ndcg(-added[name]) for name in (_POPULAR, usual.order))
            ahead += float(np.subtract(*alone).sum())
    if not values[usual]:
        return Chosen(usual, usual, given=len(priors) == 1)
    some = {p: of for p, of in values.items() if order or p.order != _POPULAR or ahead > 0}
    return choose({prior: np.concatenate(of) for prior, of in some.items()}, usual)


def _apart(windows: Sequence[Mapping[str, Any]], n_lists: int) -> Iterator[tuple[list[int], int]]:
    """Label windows to learn from and one to judge on that shares no receipt with them.

    The newest of the whole horizon is judged on; where lists are few, each older one too.
    """
    whole = [i for i, window in enumerate(windows) if not window["shorter"]]
    for judged in reversed(whole):
        cutoff, until = (windows[judged][name] for name in ("cutoff", "until"))
        apart = [
            i
            for i, w in enumerate(windows)
            if i != judged and (w["cutoff"] == cutoff or w["until"] < cutoff or until < w["cutoff"])
        ]
        if apart:
            yield apart, judged
        if n_lists >= FEW_LISTS:
            return


def _some(frame: TrainingFrame, folds: Sequence[int], most: int) -> TrainingFrame:
    """Some `most` rows of label windows, of some users where there are more."""
    within = np.isin(frame.fold, folds)
    return frame.rows(within & (lots(frame.groups, 97) < most / max(within.sum(), 1)))


def _order_of(rows: TrainingFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """(n_rows,) what `SourcePrior` takes off, for a weight of one."""
    ranks = rows.x[:, [rows.names.index(name) for name in columns]].astype(np.float64)
    return np.asarray(np.log2(ranks + 1).mean(axis=1))


class RankedRows:
    """Training rows as lists: NDCG of all candidates, estimated from those that were drawn.

    A candidate that was not bought counts as often as its weight says, so a place in the list is one
    more than the weights above it.
    """

    def __init__(self, rows: TrainingFrame) -> None:
        bought = np.isin(rows.groups, rows.groups[rows.y > 0])
        self.groups, self.y = rows.groups[bought], rows.y[bought] > 0
        self.weights, self.kept = rows.weights[bought].astype(np.float64), bought
        first = np.diff(self.groups, prepend=-1) != 0
        self.starts, self.row = np.flatnonzero(first), np.cumsum(first) - 1
        self.n_bought = np.bincount(self.row, self.y).astype(np.int64)

    def ndcg(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n_lists,) NDCG@10 of the lists in which something was bought."""
        order = np.lexsort((-score[self.kept], self.groups))
        y, weights = self.y[order], self.weights[order]
        above = np.cumsum(weights) - weights
        place = 1 + above - above[self.starts][self.row]
        gain = np.where(y & (place <= K), 1 / np.log2(place + 1), 0.0)
        ideal = np.cumsum(1 / np.log2(np.arange(2, K + 2)))
        return np.asarray(np.bincount(self.row, gain) / ideal[np.minimum(self.n_bought, K) - 1])


def resolved(source: CandidateGenerator, half_life: float | None) -> CandidateGenerator:
    """The source with the half-life that was chosen, if it leaves that open."""
    if isinstance(source, OwnPurchases) and source.half_life == "auto":
        return replace(source, half_life=half_life)
    return source
