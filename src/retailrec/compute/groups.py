"""Sums, moments and extremes of groups, and numbers for groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from retailrec.compute.csr import jit


@jit
def count_buyers(user: Any, item: Any, n_items: int) -> Any:
    """(n_items,) float64 distinct users of each item; the lines of a user lie together."""
    out = np.zeros(n_items)
    last = np.full(n_items, -1, np.int64)
    for i in range(len(user)):
        if last[item[i]] != user[i]:
            last[item[i]] = user[i]
            out[item[i]] += 1
    return out


@jit
def group_sums(codes: Any, values: Any, n: int) -> Any:
    """(n,) float64 sum of the values of each group code; NaN counts as nothing."""
    out = np.zeros(n)
    for i in range(len(codes)):
        value = np.float64(values[i])
        if value == value:
            out[codes[i]] += value
    return out


@jit
def group_moments(codes: Any, values: Any, n: int) -> tuple[Any, Any, Any]:
    """(n,) float64 number, sum and sum of squares of each group's values; NaN counts as nothing."""
    number, total, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(len(codes)):
        value = np.float64(values[i])
        if value == value:
            number[codes[i]] += 1
            total[codes[i]] += value
            squares[codes[i]] += value * value
    return number, total, squares


@jit
def group_extremes(codes: Any, values: Any, n: int, sign: float) -> Any:
    """(n,) float64 largest (`sign` 1) or smallest (-1) value of each group code; NaN without any."""
    out = np.full(n, np.nan)
    for i in range(len(codes)):
        value, best = np.float64(values[i]), out[codes[i]]
        if value == value and not sign * value <= sign * best:
            out[codes[i]] = value
    return out


@jit
def run_sums(starts: Any, stop: int, values: Any) -> Any:
    """float64 sum of each run of values that begins at `starts`; NaN counts as nothing."""
    out = np.zeros(len(starts))
    for run in range(len(starts)):
        end = starts[run + 1] if run + 1 < len(starts) else stop
        total = 0.0
        for i in range(starts[run], end):
            value = np.float64(values[i])
            if value == value:
                total += value
        out[run] = total
    return out


@jit
def run_moments(starts: Any, stop: int, values: Any) -> tuple[Any, Any, Any]:
    """As `group_moments`, of each run of values that begins at `starts`."""
    number, total, squares = np.zeros(len(starts)), np.zeros(len(starts)), np.zeros(len(starts))
    for run in range(len(starts)):
        end = starts[run + 1] if run + 1 < len(starts) else stop
        n, s, q = 0.0, 0.0, 0.0
        for i in range(starts[run], end):
            value = np.float64(values[i])
            if value == value:
                n += 1
                s += value
                q += value * value
        number[run], total[run], squares[run] = n, s, q
    return number, total, squares


@jit
def run_extremes(starts: Any, stop: int, values: Any, sign: float) -> Any:
    """float64 largest (`sign` 1) or smallest (-1) value of each run; NaN without any."""
    out = np.full(len(starts), np.nan)
    for run in range(len(starts)):
        end = starts[run + 1] if run + 1 < len(starts) else stop
        for i in range(starts[run], end):
            value = np.float64(values[i])
            if value == value and not sign * value <= sign * out[run]:
                out[run] = value
    return out


@jit
def number_groups(
    event_indptr: Any, code_of_event: Any, pair_indptr: Any, code_of_pair: Any, n_codes: int
) -> tuple[Any, int, Any]:
    """Number the (row, code) groups of events, and find the group of each pair of the same rows.

    Codes run from -1 (no code; a group of its own for events, none for pairs) to `n_codes` - 1.
    Returns (n_events,) int64, the number of groups, and (n_pairs,) int64 with -1 where there is none.
    """
    of_event = np.empty(len(code_of_event), np.int64)
    of_pair = np.full(len(code_of_pair), -1, np.int64)
    group = np.full(n_codes + 1, -1, np.int64)
    n_groups = 0
    for row in range(len(event_indptr) - 1):
        for i in range(event_indptr[row], event_indptr[row + 1]):
            code = code_of_event[i]
            if group[code] < 0:
                group[code] = n_groups
                n_groups += 1
            of_event[i] = group[code]
        for i in range(pair_indptr[row], pair_indptr[row + 1]):
            if code_of_pair[i] >= 0:
                of_pair[i] = group[code_of_pair[i]]
        for i in range(event_indptr[row], event_indptr[row + 1]):
            group[code_of_event[i]] = -1
    return of_event, n_groups, of_pair
