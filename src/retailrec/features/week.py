"""Features of an item's sales week by week."""

from __future__ import annotations

import numpy as np

from retailrec.features.events import Weeks
from retailrec.features.registry import Floats, feature


@feature("item_week", unit="weeks", family="item")
def item_week_count(w: Weeks) -> Floats:
    """Weeks of the last twelve in which the item was sold."""
    return (w.receipts > 0).sum(axis=1).astype(np.float64)


@feature("item_week", unit="ratio", family="item")
def item_week_spread(w: Weeks) -> Floats:
    """Spread of the item's weekly receipts over their mean: high for what comes in waves."""
    mean = w.receipts.mean(axis=1)
    return np.divide(w.receipts.std(axis=1), mean, out=np.full(len(mean), np.nan), where=mean > 0)


@feature("item_week", unit="ratio", family="item")
def item_week_of_peak(w: Weeks) -> Floats:
    """Receipts of the newest week over those of the best of twelve weeks; 1 is a peak now."""
    peak = w.receipts.max(axis=1)
    return np.divide(w.receipts[:, 0], peak, out=np.full(len(peak), np.nan), where=peak > 0)


@feature("item_week", unit="receipts a week", family="item")
def item_week_slope(w: Weeks) -> Floats:
    """Slope of a line through the item's receipts of the last twelve weeks; above 0 is rising."""
    time = -np.arange(w.receipts.shape[1], dtype=np.float64)
    time -= time.mean()
    return w.receipts @ time / (time @ time)
