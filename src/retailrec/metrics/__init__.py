"""Metrics: one function each over the hits and what else it asks for by name."""

from __future__ import annotations

from retailrec.metrics import ranking  # noqa: F401  (it registers)
from retailrec.metrics.base import METRICS, Metric, metric, parse_metric

__all__ = ["METRICS", "Metric", "metric", "parse_metric"]
