"""What the service counts about itself, for Prometheus and for the overview page."""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Callable
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retailrec.serving.engine import Reply

_BUCKETS = (0.002, 0.005, 0.01, 0.015, 0.025, 0.035, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Measures:
    """Counters of one service; names of routes and never of shoppers."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "retailrec_requests",
            "requests by route, method and status",
            ["route", "method", "status"],
            registry=own,
        )
        self.seconds = Histogram(
            "retailrec_request_seconds",
            "seconds a request took, by route",
            ["route"],
            registry=own,
            buckets=_BUCKETS,
        )
        self.answers = Counter(
            "retailrec_answers", "answers by level and model", ["level", "model"], registry=own
        )
        self.shadow_skipped = Counter(
            "retailrec_shadow_skipped",
            "shadow answers not computed, since too many waited",
            registry=own,
        )
        self._lock, self.levels = Lock(), Tally[str]()
        self.latencies: deque[float] = deque(maxlen=2000)  # seconds, of the last answers

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when somebody looks."""
        Gauge(f"retailrec_{name}", meaning, registry=self.registry).set_function(value)

    def answered(self, answer: Reply) -> None:
        """Count an answer."""
        self.answers.labels(answer.level, answer.model).inc()
        with self._lock:
            self.levels[answer.level] += 1

    def took(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(route, method, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if route.endswith("/offers") and status == 200:
            self.latencies.append(seconds)

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)
