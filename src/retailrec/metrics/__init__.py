"""Metrics: one function each over the hits and what else it asks for by name."""

from __future__ import annotations

from retailrec.metrics import beyond_accuracy, money, ranking  # noqa: F401  (they register)
from retailrec.metrics.base import METRICS, Metric, metric, parse_metric

__all__ = ["METRICS", "Metric", "metric", "parse_metric"]
