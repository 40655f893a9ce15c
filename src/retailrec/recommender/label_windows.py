"""Training rows: candidates of label windows with labels, negative sampling and sample weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.pool import Pool
from retailrec.compute.csr import pair_keys
from retailrec.compute.draws import lots
from retailrec.compute.memory import release_memory
from retailrec.compute.progress import Progress
from retailrec.compute.shards import SHARD, TRAIN_SHARD, map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.history import History
from retailrec.data.ids import id_keys
from retailrec.data.prefilters import Prefilter
from retailrec.data.splits import Split
from retailrec.errors import DataError, SettingError
from retailrec.rankers import TrainingFrame
from retailrec.recommender.purposes import Purpose, purchases_for
from retailrec.recommender.stage_one import Labels, StageOne, candidate_frame
from retailrec.schema import ITEM_ID, USER_ID

_MOST_USERS = 4000  # a light model has learnt what it can from these


@dataclass(frozen=True)
class Sampling:
    """Which candidates of a label window are trained on; `TwoStageRecommender` describes each."""

    negatives: float
    idle_users: float
    max_users: int
    seed: int

    def __post_init__(self) -> None:
        for share in (self.negatives, self.idle_users):
            if not 0 < share <= 1:
                raise SettingError(
                    f"negatives and idle_users must be shares above 0, at most 1, not {share}."
                )


class Window(NamedTuple):
    """Training rows of one label window.

    Attributes
    ----------
    key : tells windows of the same data apart
    frames : the rows, a frame a shard of users
    facts : ``cutoff``, ``until`` (the last receipt), ``shorter``, ``users``, pairs ``bought`` and
        ``bought_and_proposed``, ``rows``, and what prefilters hide: see `hidden_purchases`
    """

    key: Any
    frames: list[TrainingFrame]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Windows:
    """Training rows of all label windows.

    Attributes
    ----------
    rows : below each other, label windows numbered from the oldest
    places : key of a window -> where its rows are, and its facts
    """

    rows: TrainingFrame
    places: dict[Any, tuple[slice, dict[str, Any]]]

    @classmethod
    def of(cls, windows: list[Window]) -> Windows:
        """From one window after the other; their frames are used up."""
        places, at = {}, 0
        for window in windows:
            n = sum(len(f.y) for f in window.frames)
            places[window.key] = slice(at, at + n), window.facts
            at += n
        frames = [frame for window in windows for frame in window.frames]
        for window in windows:
            window.frames.clear()
        return cls(concatenate(frames), places)

    def only(self, keys: Collection[Any]) -> Windows:
        """A copy of these windows alone, of those that are here."""
        kept = [self.window(key, at) for at, key in enumerate(k for k in self.places if k in keys)]
        return Windows.of(kept) if kept else Windows(self.rows.rows(np.zeros(0, np.intp)), {})

    def window(self, key: Any, number: int) -> Window:
        """A copy of one of the windows, as fold `number`: it outlives the others."""
        place, facts = self.places[key]
        x, y, groups, weights, fold, names = self.rows
        fold = np.full_like(fold[place], number)
        groups = groups[place] - groups[place][:1]
        return Window(
            key,
            [TrainingFrame(np.asfortranarray(x[place]), y[place], groups, weights[place], fold, names)],
            facts,
        )


class WindowSteps(NamedTuple):
    """What is done at a label window.

    Attributes
    ----------
    prefilters : set on what is known before it
    fit_stage_one : fits sources and features on that
    fit_preranker : learns to cut the pool from the window; False if nothing was bought there
    rows : purpose -> its training rows, by key, split and fold
    probable : purposes whose rankers give probabilities, beside others whose rankers give an order
    """

    prefilters: Sequence[Prefilter]
    fit_stage_one: Callable[[RetailData], None]
    fit_preranker: Callable[[Split], bool]
    rows: Mapping[Purpose, Callable[[Any, Split, int], Window]]
    probable: Collection[Purpose] = ()

    def learnt_from(self, split: Split) -> list[Purpose]:
        """Purposes that are learnt from a window."""
        return [p for p in self.rows if not (split.shorter if p in self.probable else split.older)]

    def of(self, key: Any, split: Split, number: Mapping[Purpose, int]) -> dict[Purpose, Window]:
        """Training rows of a window, for each purpose that is learnt from it."""
        return {p: self.rows[p](key, split, number[p]) for p in self.learnt_from(split)}


def label_windows(
    splits: Iterator[Split],
    steps: WindowSteps,
    earlier: dict[Purpose, Windows],
    *,
    refit: bool,
    preranker: bool,
    progress: Progress,
) -> dict[Purpose, list[Window]]:
    """Training rows of every label window, oldest first, for each purpose.

    Parameters
    ----------
    earlier : purpose -> windows that an earlier fit has computed; they are taken over, and let go of
        before newer ones are computed
    refit : stage one is fitted before every window, not only before the oldest that is computed
    preranker : is one still to be learnt? The oldest window in which something was bought then trains
        it and gives no rows, unless no window comes after it

    Raises
    ------
    DataError
        If label windows have no rows: no user with history bought within one what was proposed.
    """
    windows: list[dict[Purpose, Window]] = []
    alone: tuple[Any, Split] | None = None  # trained the pre-ranker, and none came after it
    number, ready = Counter[Purpose](), False  # of windows before, for each purpose
    for nth, split in enumerate(splits, start=1):
        progress("label windows", nth)
        key = window_key(split)
        wanted = steps.learnt_from(split)
        if all(p in earlier and key in earlier[p].places for p in wanted):
            windows.append({p: earlier[p].window(key, number[p]) for p in wanted})
        else:
            if windows:  # newer ones than those taken over
                earlier.clear()
            split = split.filtered(steps.prefilters)
            if refit or not ready or split.crossed:  # knows the next one's target
                steps.fit_stage_one(split.past)
                ready = True
            if preranker:
                preranker = not steps.fit_preranker(split)
                alone = key, split
            else:
                windows.append(steps.of(key, split, number))
                alone = None
        number.update(wanted)
        del split  # its receipts go before those of the next window are cut out
        release_memory()
    if not windows and alone is not None:
        number.subtract(steps.learnt_from(alone[1]))
        windows.append(steps.of(*alone, number))
    found = {p: [window[p] for window in windows if p in window] for p in steps.rows}
    for purpose, rows in found.items():
        if not any(len(frame.y) for window in rows for frame in window.frames):
            anything = "anything new to them" if purpose == "discover" else "anything"
            raise DataError(
                f"no user with receipts before a label window bought {anything} within it that was "
                f"proposed, so there is nothing to learn from; bring more data or ask for a longer "
                f"horizon."
            )
    return found


def window_key(split: Split) -> tuple[datetime, int, int, int]:
    """Tells splits of the same data apart; parts of the users by who is asked."""
    past, target = split
    return past.end, past.log.height, target.height, int(target["user"].sum())


def window_rows(
    key: Any, split: Split, stage: StageOne, sampling: Sampling, number: int, threads: int
) -> Window:
    """Training rows of one label window, the fold `number`.

    Only purchases of the stage's purpose count as such: a user who bought nothing new is idle to
    a ranker of new items.
    """
    past = split.past
    target = purchases_for(stage.purpose, past, split.target, stage.after_days)
    seed = sampling.seed, number
    users = past.active_users()
    if split.crossed:
        users = np.intersect1d(users, split.target["user"].to_numpy())
    bought_any = np.isin(users, target["user"].unique().to_numpy())
    key_of_item, key_of_user = draw_keys(past, users)
    chosen = bought_any | (lots(key_of_user, *seed, 0) < sampling.idle_users)
    if chosen.sum() > sampling.max_users:
        chosen &= lots(key_of_user, *seed, 1) < sampling.max_users / chosen.sum()
    users, bought_any, key_of_user = users[chosen], bought_any[chosen], key_of_user[chosen]
    history, labels = past.history(codes=users), Labels(target, past.n_items)

    def shard(rows: slice) -> TrainingFrame:
        drawn: list[NDArray[Any]] = []

        def keep(pool: Pool) -> NDArray[np.bool_]:
            label = labels.of(pool, users[rows])
            pair = key_of_user[rows][pool.user_of_pair] + key_of_item[pool.items]
            mask = label | (lots(pair, *seed, 2) < sampling.negatives)
            share = np.where(bought_any[rows], 1, sampling.idle_users)[pool.user_of_pair]
            weight = np.where(label, 1, 1 / (share * sampling.negatives))
            drawn.extend([label[mask], weight[mask]])
            return mask

        frame = candidate_frame(history.take(rows), stage, keep)
        y, weights = (d.astype(np.float32) for d in drawn)
        fold = np.full(len(y), number, np.int16)
        return TrainingFrame(frame.x, y, frame.pool.user_of_pair, weights, fold, frame.names)

    frames = list(map_shards(shard, len(users), size=TRAIN_SHARD, threads=n_threads(threads)))
    facts = {
        "cutoff": past.end.isoformat(),
        "until": str(split.target["time"].max()).replace(" ", "T"),
        "shorter": split.shorter,
        "users": len(users),
        "bought": labels.n_bought(users),
        "bought_and_proposed": int(sum(f.y.sum() for f in frames)),
        "rows": sum(len(f.y) for f in frames),
        **hidden_purchases(past, users, history, target),
    }
    return Window(key, frames, facts)


def hidden_purchases(
    past: RetailData, users: NDArray[np.integer], history: History, target: pl.DataFrame
) -> dict[str, int]:
    """What users bought in a window, and how much of it prefilters hide from them; empty if nothing.

    Returns
    -------
    pairs ``repeats`` and ``repeats_hidden``: of items that the user had bought before; ``firsts`` and
    ``firsts_hidden``: of other items that had been sold
    """
    if past.discoverable.all():
        return {}
    bought = target.filter(pl.col("user").is_in(pl.Series(users).cast(pl.Int32).implode()))
    bought = bought.select("user", "item").unique()
    items = bought["item"].to_numpy()
    known = pair_keys(users[history.user_of_pair], history.items, past.n_items)
    repeat = np.isin(pair_keys(bought["user"].to_numpy(), items, past.n_items), known)
    sold = np.bincount(past.log["item"].to_numpy(), minlength=past.n_items)[items] > 0
    first = ~repeat & sold
    return {
        "repeats": int(repeat.sum()),
        "repeats_hidden": int((repeat & ~past.recommendable[items]).sum()),
        "firsts": int(first.sum()),
        "firsts_hidden": int((first & ~past.discoverable[items]).sum()),
    }


def draw_keys(
    data: RetailData, users: NDArray[np.integer]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(n_items,) and, of some users, (n_users,) what their lots hang on: ids, not places.

    So users and items that come in beside change no draw of the others. Keys of users lie apart, so
    that a sum of both is a pair's.
    """
    item, user = id_keys(data.items[ITEM_ID]), id_keys(data.users[USER_ID].gather(users))
    return item, (lots(user) * 2.0**53).astype(np.uint64) << np.uint64(11)


def preranker_rows(split: Split, stage: StageOne, sampling: Sampling) -> TrainingFrame | None:
    """What the pre-ranker learns from: the whole pools of those who bought in one label window.

    None after a window in which no user bought what was proposed.
    """
    past, target = split
    users = np.intersect1d(target["user"].unique().to_numpy(), past.active_users())
    key_of_item, key_of_user = draw_keys(past, users)
    if len(users) > _MOST_USERS:
        lot = lots(key_of_user, sampling.seed, 99)
        kept = np.sort(np.argsort(lot, kind="stable")[:_MOST_USERS])
        users, key_of_user = users[kept], key_of_user[kept]
    labels, frames = Labels(target, past.n_items), []
    for at in range(0, len(users), SHARD):
        rows = slice(at, at + SHARD)
        pool = stage.pool(past.history(codes=users[rows]))
        label = labels.of(pool, users[rows])
        pair = key_of_user[rows][pool.user_of_pair] + key_of_item[pool.items]
        mask = label | (lots(pair, sampling.seed, 99) < sampling.negatives)
        pool, y = pool.keep(mask), label[mask].astype(np.float32)
        frames.append(
            TrainingFrame(
                stage.preranker_columns(pool),
                y,
                pool.user_of_pair,
                np.ones(len(y), np.float32),
                np.zeros(len(y), np.int16),
                stage.preranker_names,
            )
        )
    return concatenate(frames) if any(f.y.any() for f in frames) else None


def concatenate(frames: list[TrainingFrame]) -> TrainingFrame:
    """Training rows of several shards and windows below each other, groups numbered on.

    `frames` is used up: each goes as soon as its rows are in place, so they are in memory once.
    """
    starts = np.cumsum([0, *(len(f.y) for f in frames)])
    names = frames[0].names
    x = np.empty((starts[-1], len(names)), np.float32, order="F")
    y, weights = np.empty(len(x), np.float32), np.empty(len(x), np.float32)
    groups, fold, first_group = np.empty(len(x), np.int64), np.empty(len(x), np.int16), 0
    for start, stop in pairwise(starts):
        frame, rows = frames.pop(0), slice(start, stop)
        x[rows], y[rows], weights[rows], fold[rows] = frame.x, frame.y, frame.weights, frame.fold
        groups[rows] = frame.groups + first_group
        first_group += int(frame.groups.max(initial=-1)) + 1
    return TrainingFrame(x, y, groups, weights, fold, names)
