"""What long work calls to say how far it is, and how long its steps take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from retailrec.compute.memory import release_memory


class Progress(Protocol):
    """Called at each step of long work.

    Examples
    --------
    >>> def tell(step: str, done: int = 0, total: int = 0) -> None:
    ...     print(step, f"{done} of {total}" if total else "")
    >>> from retailrec.recommender.two_stage import TwoStageRecommender
    >>> from retailrec.candidates import Popularity
    >>> from retailrec.simulator.shop import small_data
    >>> model = TwoStageRecommender(sources=[Popularity()])
    >>> _ = model.fit_stage_one(small_data(users=20), tell)
    sources 1 of 1
    features
    """

    def __call__(self, step: str, done: int = 0, total: int = 0, /) -> None:
        """`step` has begun, or reached its part `done` of `total`; 0 where they are not known."""


def silent(step: str, done: int = 0, total: int = 0, /) -> None:
    """Say nothing."""


@dataclass
class Timer:
    """Seconds of each step of a job."""

    progress: Progress = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what runs inside, and give back the memory that it let go."""
        self.progress(name)
        started = perf_counter()
        yield
        release_memory()
        self.seconds[name] = round(perf_counter() - started, 3)
