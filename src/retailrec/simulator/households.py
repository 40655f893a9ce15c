"""Kernels of the generated supermarket: one household at a time, from its own random numbers.

A household's receipts depend on the seed, the household's number and the shop, and on nothing else,
so shards and threads do not change them. The random numbers are SplitMix64 (Steele et al., OOPSLA
2014). `simulate_shard` writes receipts; `count_futures` plays one household's future many times from
its true state at a cutoff, which is what makes the right answers known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from retailrec.compute.csr import jit

N_NEEDS = 64  # most needs a household can have
# columns of a household's traits
GAP, SIZE, START, STOP, LOYALTY, IMPULSE, SENSITIVE, SEGMENT, HOUR, REGULAR = range(10)
# columns of the shop's sub-commodities
PERIOD, WEIGHT, AMPLITUDE, PHASE, PARTNER, PARTNER_P = range(6)
DAYS_A_NEED_LASTS = 1000  # on average, then another takes its place
HOLIDAYS = (46, 50, 51)  # weeks of the year in which people buy more of what they need
# switches
REPLENISH, BRANDS, TOGETHER, PROMOTED, SEASONAL, LAUNCHED, DRIFTING = range(7)


class World(NamedTuple):
    """The shop and its neighbourhood, as all households meet them."""

    subs: Any  # (n_subs, 6) facts of the sub-commodities: `PERIOD`, `WEIGHT`, ...
    segment_cum: Any  # (n_segments, n_subs) cumulative weights of sub-commodities by kind of household
    first: Any  # (n_subs + 1,) where each sub-commodity's shelf begins among the items
    cum: Any  # (n_items,) cumulative weights within each shelf
    sub_cum: Any  # (n_subs,) cumulative weights of sub-commodities
    life: Any  # (n_items, 2) first day on sale, first day no more
    price: Any  # (n_items,)
    weekday: Any  # (7,) how likely people shop on each day
    switches: Any  # (7,) bool: `REPLENISH`, `BRANDS`, ...
    scale: float  # size of receipts, 1 as in the Complete Journey
    brand: Any  # (n_items,)


@jit
def _next(rng: Any) -> Any:
    """Next 64 random bits."""
    rng[0] += np.uint64(0x9E3779B97F4A7C15)
    z = rng[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@jit
def _uniform(rng: Any) -> float:
    """In [0, 1)."""
    return float(_next(rng) >> np.uint64(11)) / 9007199254740992.0


@jit
def _normal(rng: Any) -> float:
    return np.sqrt(-2 * np.log(1 - _uniform(rng))) * np.cos(2 * np.pi * _uniform(rng))


@jit
def _seeded(seed: int, household: int, stream: int) -> Any:
    rng = np.empty(1, np.uint64)
    rng[0] = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(household)
    _next(rng)
    rng[0] ^= np.uint64(stream) * np.uint64(0x9E3779B97F4A7C15) + _next(rng)
    return rng


@jit
def _pick(cumulative: Any, start: int, stop: int, rng: Any) -> int:
    """A position in [start, stop) by cumulative weights that restart at `start`."""
    return min(
        start + np.searchsorted(cumulative[start:stop], _uniform(rng) * cumulative[stop - 1], "right"),
        stop - 1,
    )


@jit
def _draw_traits(rng: Any, days: int, n_segments: int, scale: float) -> Any:
    """Rhythm, budget and temper of a household."""
    t = np.zeros(10)
    kind = _uniform(rng)
    if kind < 0.35:  # weekly shopper
        t[GAP], t[SIZE], t[REGULAR] = 7 * np.exp(0.15 * _normal(rng)), 1.0, 0.8
    elif kind < 0.75:  # top-up shopper
        t[GAP], t[SIZE], t[REGULAR] = 3.5 * np.exp(0.4 * _normal(rng)), 0.45, 0.2
    else:  # now and then
        t[GAP], t[SIZE], t[REGULAR] = 18 * np.exp(0.6 * _normal(rng)), 0.8, 0.1
    t[GAP] = max(t[GAP], 1.2)
    t[SIZE] *= scale * np.exp(0.3 * _normal(rng))
    t[START] = days * 0.9 * _uniform(rng) if _uniform(rng) < 0.2 else t[GAP] * _uniform(rng)
    t[STOP] = t[START] + (days - t[START]) * _uniform(rng) if _uniform(rng) < 0.12 else days + 1e6
    t[LOYALTY] = 0.15 + 0.5 * _uniform(rng)
    t[IMPULSE] = 4.3 * t[SIZE] * np.exp(0.5 * _normal(rng))
    t[SENSITIVE] = _uniform(rng)
    t[SEGMENT] = int(_uniform(rng) * n_segments)
    t[HOUR] = 9 + 10 * _uniform(rng)
    return t


@jit
def _draw_need(i: int, day: float, what: Any, when: Any, rng: Any, traits: Any, world: Any) -> None:
    """Need `i`: a sub-commodity, two favourites (of one brand if the shelf allows) and a period."""
    cumulative = world.segment_cum[int(traits[SEGMENT])]
    sub = _pick(cumulative, 0, len(cumulative), rng)
    what[i, 0] = sub
    what[i, 1] = _pick(world.cum, world.first[sub], world.first[sub + 1], rng)
    for _ in range(12):
        what[i, 2] = _pick(world.cum, world.first[sub], world.first[sub + 1], rng)
        if world.brand[what[i, 2]] == world.brand[what[i, 1]]:
            break
    when[i, 0] = max(world.subs[sub, PERIOD] * np.exp(0.5 * _normal(rng)), 2.0)
    when[i, 1] = day - when[i, 0] * _uniform(rng)


@jit
def _draw_needs(rng: Any, traits: Any, world: Any) -> Any:
    """What each need is for (sub-commodity, favourites), and when (period, last purchase)."""
    n = min(N_NEEDS, 5 + int(22 * traits[SIZE] * (0.5 + _uniform(rng)) + 6 * _uniform(rng)))
    what = np.empty((n, 3), np.int32)  # sub-commodity, favourite item, second favourite
    when = np.empty((n, 2))  # period in days, day of the last purchase
    for i in range(n):
        _draw_need(i, traits[START], what, when, rng, traits, world)
    return what, when


@jit
def discount(item: int, week: int) -> float:
    """Price cut of an item in a week: none in nine of ten, else 10% to 40%."""
    h = np.uint64(item) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(week) * np.uint64(
        0xC2B2AE3D27D4EB4F
    )
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    u = float((h ^ (h >> np.uint64(32))) & np.uint64(0xFFFF)) / 65536.0
    return 0.0 if u > 0.1 else 0.1 + 3 * u


@jit
def _on_sale(item: int, day: float, world: Any) -> bool:
    return not world.switches[LAUNCHED] or (world.life[item, 0] <= day < world.life[item, 1])


@jit
def _any_item(sub: int, day: float, rng: Any, world: Any) -> int:
    """An item of the sub-commodity that is on sale, by popularity."""
    item = _pick(world.cum, world.first[sub], world.first[sub + 1], rng)
    for _ in range(4):
        if _on_sale(item, day, world):
            break
        item = _pick(world.cum, world.first[sub], world.first[sub + 1], rng)
    return item


@jit
def _next_visit(day: float, traits: Any, weekday: Any, rng: Any) -> float:
    """Day of the next visit: the household's gap, moved to a day that people like to shop on."""
    spread = (1 - traits[REGULAR]) * -np.log(1 - _uniform(rng))
    day = np.floor(day) + max(1.0, np.round(traits[GAP] * (traits[REGULAR] + spread)))
    for _ in range(3):
        if _uniform(rng) < weekday[int(day) % 7]:
            break
        day += 1
    return day


@jit
def _visit(day: float, traits: Any, what: Any, when: Any, rng: Any, world: Any, basket: Any) -> int:
    """Fill `basket` with the items of one visit (some may repeat) and return how many."""
    n = 0
    trip = 1.0 if _uniform(rng) < 0.6 else 0.4  # a full round, or a quick stop
    week = int(day) // 7
    for i in range(len(what)):
        if world.switches[DRIFTING] and _uniform(rng) < traits[GAP] / DAYS_A_NEED_LASTS:
            _draw_need(i, day, what, when, rng, traits, world)
        sub = what[i, 0]
        waited = (day - when[i, 1]) / when[i, 0]
        if not world.switches[REPLENISH]:
            waited = 1.0 + 0.4 * (min(traits[GAP] / when[i, 0], 1.0) - 1.0)
        if world.switches[SEASONAL]:
            waited *= 1 + world.subs[sub, AMPLITUDE] * np.sin(
                2 * np.pi * day / 364 - world.subs[sub, PHASE]
            )
            if week % 52 in HOLIDAYS:
                waited *= 1.2
        if world.switches[PROMOTED] and discount(what[i, 1], week) > 0:
            waited *= 1 + 0.5 * traits[SENSITIVE]
        if _uniform(rng) >= 0.9 * trip / (1 + np.exp(-7 * (waited - 1))):
            continue
        item = what[i, 1]
        if world.switches[BRANDS]:
            u = _uniform(rng)
            if u > traits[LOYALTY]:
                item = what[i, 2]
            if u > traits[LOYALTY] + 0.3 * (1 - traits[LOYALTY]):
                item = _any_item(sub, day, rng, world)
                if world.switches[DRIFTING] and _uniform(rng) < 0.12:  # it pleases and stays
                    what[i, 2] = what[i, 1]
                    what[i, 1] = item
        else:
            item = _any_item(sub, day, rng, world)
        if not _on_sale(item, day, world):
            item = _any_item(sub, day, rng, world)
            if day > world.life[what[i, 1], 1]:
                what[i, 1] = item  # the old favourite is gone for good
        when[i, 1] = day
        basket[n] = item
        n += 1
        partner = int(world.subs[sub, PARTNER])
        if world.switches[TOGETHER] and partner >= 0 and _uniform(rng) < world.subs[sub, PARTNER_P]:
            # the same household pairs the same things: a fixed item of the partner shelf
            shelf = world.first[partner + 1] - world.first[partner]
            basket[n] = world.first[partner] + (what[i, 1] * 7 + int(traits[SEGMENT])) % max(
                shelf // 8, 1
            )
            n += 1
    extra = traits[IMPULSE] * trip
    while extra > 0 and n < len(basket):
        if _uniform(rng) < min(extra, 1.0):
            sub = _pick(world.sub_cum, 0, len(world.sub_cum), rng)
            basket[n] = _any_item(sub, day, rng, world)
            n += 1
        extra -= 1.0
    return n


@jit
def simulate_shard(seed: int, first_household: int, n: int, days: int, world: Any) -> Any:
    """Receipt lines of households [first_household, first_household + n).

    Returns int32 (n_lines, 6): household, visit number, day, minute, item, quantity; and float32
    (n_lines, 2): value paid, discount; and float64 (n, 10) traits.
    """
    size, used = n * 200, 0
    whole = np.empty((size, 6), np.int32)
    money = np.empty((size, 2), np.float32)
    all_traits = np.empty((n, 10))
    basket = np.empty(3 * N_NEEDS, np.int32)
    for h in range(n):
        household = first_household + h
        rng = _seeded(seed, household, 0)
        traits = _draw_traits(rng, days, len(world.segment_cum), world.scale)
        all_traits[h] = traits
        what, when = _draw_needs(rng, traits, world)
        day, visit = np.floor(traits[START]), 0
        while day < days and day < traits[STOP]:
            lines = _visit(day, traits, what, when, rng, world, basket)
            items = np.unique(basket[:lines])
            minute = int(60 * min(max(traits[HOUR] + 2 * _normal(rng), 7.0), 22.0))
            while used + len(items) > size:
                size = 2 * size
                bigger, richer = np.empty((size, 6), np.int32), np.empty((size, 2), np.float32)
                bigger[:used], richer[:used] = whole[:used], money[:used]
                whole, money = bigger, richer
            for item in items:
                quantity = 1
                while quantity < 6 and _uniform(rng) < 0.18:
                    quantity += 1
                cut = discount(item, int(day) // 7) if world.switches[PROMOTED] else 0.0
                full = world.price[item] * quantity
                whole[used, 0], whole[used, 1], whole[used, 2] = household, visit, int(day)
                whole[used, 3], whole[used, 4], whole[used, 5] = minute, item, quantity
                money[used, 0], money[used, 1] = full * (1 - cut), -full * cut
                used += 1
            visit += 1
            day = _next_visit(day, traits, world.weekday, rng)
    return whole[:used].copy(), money[:used].copy(), all_traits


@jit
def count_futures(
    seed: int,
    household: int,
    days: int,
    cutoff: int,
    horizon: int,
    repetitions: int,
    world: Any,
    counts: Any,
) -> Any:
    """In how many of the repetitions the household buys each item in [cutoff, cutoff + horizon).

    The household lives through its one past, then through `repetitions` futures that start from the
    state it is in at the cutoff. `counts` (2, n_items) must be zero and is zero again afterwards:
    row 0 counts the first half of the repetitions, row 1 the second. Returns items (ascending), their
    counts (n, 2), and in how many repetitions the household bought anything.
    """
    rng = _seeded(seed, household, 0)
    traits = _draw_traits(rng, days, len(world.segment_cum), world.scale)
    what, when = _draw_needs(rng, traits, world)
    basket = np.empty(3 * N_NEEDS, np.int32)
    day, last = np.floor(traits[START]), -1.0
    while day < cutoff and day < traits[STOP]:
        last = day
        lines = _visit(day, traits, what, when, rng, world, basket)
        items = np.unique(basket[:lines])
        _normal(rng)  # the minute
        for _ in items:
            quantity = 1
            while quantity < 6 and _uniform(rng) < 0.18:
                quantity += 1
        day = _next_visit(day, traits, world.weekday, rng)
    seen = np.full(counts.shape[1], -1, np.int32)
    found, size, n_any = np.empty(counts.shape[1], np.int32), 0, 0
    for repetition in range(repetitions):
        half = 0 if repetition * 2 < repetitions else 1
        future = _seeded(seed, household, repetition + 1)
        later, again = what.copy(), when.copy()
        t = day
        if last >= 0:  # the day of the next visit is not part of what can be known
            t = last
            for _ in range(50):
                t = _next_visit(last, traits, world.weekday, future)
                if t >= cutoff:
                    break
            t = max(t, float(cutoff))
        bought = 0
        while t < cutoff + horizon and t < traits[STOP] and t < days:
            lines = _visit(t, traits, later, again, future, world, basket)
            bought += lines
            for item in basket[:lines]:
                if seen[item] != repetition:
                    seen[item] = repetition
                    if counts[0, item] + counts[1, item] == 0:
                        found[size] = item
                        size += 1
                    counts[half, item] += 1
            t = _next_visit(t, traits, world.weekday, future)
        n_any += bought > 0
    items = np.sort(found[:size])
    out = np.empty((size, 2), np.int32)
    for i in range(size):
        out[i, 0], out[i, 1] = counts[0, items[i]], counts[1, items[i]]
        counts[0, items[i]], counts[1, items[i]] = 0, 0
    return items, out, n_any
