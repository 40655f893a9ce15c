"""What a running service consists of, apart from HTTP."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily

from retailrec.compute.shards import n_threads, one_blas_thread
from retailrec.data.changed_ids import ChangedIds
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.jobs.watch import alarms_of, history_of
from retailrec.recommender.rules import Rules
from retailrec.serving.database import StoreUnavailable
from retailrec.serving.engine import Engine, OfferRequest, Reply
from retailrec.serving.experiment import (
    Aside,
    Assignment,
    Experiment,
    ExposureLog,
    Row,
    Unwritten,
    aside_of,
    pool_rows,
    rows_of,
)
from retailrec.serving.forgetting import NOT_SEARCHED, Place, Watch, what_is_left
from retailrec.serving.keys import Keyring, RateLimit
from retailrec.serving.messages import Problem, answer_json
from retailrec.serving.models import Follower, Models, require_models
from retailrec.serving.served_model import ServedModel
from retailrec.serving.store import Store

_GOES_ON = "A change goes on: sent again, it is answered when it is made."
_BUCKETS = (0.002, 0.005, 0.01, 0.015, 0.025, 0.035, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Measures:
    """Counters of one service; names of routes and never of shoppers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "retailrec", "registry": self.registry}
        by = ["route", "method", "status"]
        self.requests = Counter("requests", "requests by route, method and status", by, **own)
        took = "seconds a request took, by route"
        self.seconds = Histogram("request_seconds", took, ["route"], buckets=_BUCKETS, **own)
        self.answers = Counter("answers", "answers by level and model", ["level", "model"], **own)
        skipped = "shadow answers not computed, since too many waited"
        self.shadow_skipped = Counter("shadow_skipped", skipped, **own)
        self._lock, self.levels = Lock(), Tally[str]()
        self.latencies: deque[float] = deque(maxlen=2000)  # seconds, of the last answers

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a value that is asked for when the measures are read."""
        Gauge(f"retailrec_{name}", meaning, registry=self.registry).set_function(value)

    def answered(self, answer: Reply, held_out: bool = False) -> None:
        """Count an answer; who is held out of a campaign got no list, and none that fell short."""
        self.answers.labels("holdout" if held_out else answer.level, answer.model).inc()
        if not held_out:
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


class WeekFigures:
    """What `retailrec watch` shows of the week whose model is followed; nothing where none is."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The figures of the published week by measure, and which of them alarm."""
        value = GaugeMetricFamily(
            "retailrec_week",
            "figures of the published week, as retailrec watch has them",
            labels=["measure"],
        )
        alarm = GaugeMetricFamily(
            "retailrec_week_alarm",
            "1 where a figure of the published week left the usual",
            labels=["measure"],
        )
        try:
            rows = history_of(self._models.week)
        except DataError as error:
            _LOG.warning("%s", error)
            rows = []
        raised = {one.measure for one in alarms_of(rows, len(rows) - 1)} if rows else set()
        for name, figure in rows[-1]["values"].items() if rows else ():
            if figure is not None:
                value.add_metric([name], figure)
                alarm.add_metric([name], float(name in raised))
        yield from (value, alarm)


T = TypeVar("T")
_LOG = logging.getLogger("retailrec.serving")


@dataclass(frozen=True)
class ServiceSettings:
    """How a service behaves."""

    rate: float = 200.0  # requests a second for each key, or address without one; 0: no limit
    timeout: float = 10.0  # seconds after which a request is given up
    body_bytes: int = 4_000_000  # largest body
    threads: int = 0  # requests computed at a time; 0: all cores
    waiting: int = 200  # requests that may wait for a thread; further ones are refused at once
    cache_lines: int = 2_000_000  # receipt lines of hot shoppers in memory
    # names under which browsers may call the service; empty: any
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    pages: bool = True  # serve the pages for people
    keys: bool | None = True  # is an API key asked for? None: unless none was ever made for the store
    most_unwritten: int = 50_000  # rows of what was shown that may wait while the service is ready
    aside: Path | None = None  # folder for rows that the store does not take; None: see `aside_of`
    # keep of explored pools what was shown alone: fit for caps, not for judging other lists
    shown_only: bool = False


class Made(NamedTuple):
    """A list, what will be logged when it is sent, and how shadow models are asked for theirs."""

    answer: Reply
    json: dict[str, Any]
    rows: list[Row]
    asked: OfferRequest | None  # None: they are not
    request: str
    campaign: str


@dataclass
class Service:
    """Store, models, log and threads of one process.

    Parameters
    ----------
    models_folder : a saved model, or a folder of saved models
    """

    store: Store
    models_folder: Path
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    experiment: Experiment = field(default_factory=Experiment)

    def __post_init__(self) -> None:
        self.engine = Engine(self.store, self.settings.cache_lines)
        arms = [arm.model for arm in self.experiment.arms.values() if arm.model is not None]
        named = (*arms, *self.experiment.shadow)
        self.models = Models(self.models_folder, self.store, self.engine, named)
        self.keyring = Keyring(self.store, self.settings.keys)
        self.rate = RateLimit(self.settings.rate)
        self.ready = False
        self.measures, cache = Measures(), self.engine.cache
        watch = self.measures.watch
        self.measures.registry.register(WeekFigures(self.models))
        watch("ready", "1 when requests are answered", lambda: self.ready)
        behind = "1 when another week is published than answers"
        watch("model_behind", behind, lambda: self.models.behind)
        watch("model_end_seconds", "when what the model knows ends, since 1970", self._model_end)
        watch("receipts_end_seconds", "midnight after the newest receipt, since 1970", self._ends)
        watch("cache_lines", "receipt lines of hot shoppers in memory", lambda: cache.lines)
        watch("cache_hits", "histories found in memory", lambda: cache.hits)
        watch("cache_misses", "histories read from the store", lambda: cache.misses)
        watch("exposures_written", "rows written", lambda: self.log.written)
        watch("exposures_waiting", "rows not written yet", lambda: self.log.waiting)
        watch("exposures_dropped", "rows lost for want of room", lambda: self.log.dropped)
        watch("exposures_set_aside", "rows that the store did not take", lambda: self.log.set_aside)
        watch("arms_unanswered", "arms whose users get errors", lambda: len(self._unanswered[1]))
        self._unanswered: tuple[tuple[int, str], list[str]] = (0, ""), []
        self.unwritten: Unwritten | None = None
        # what keeps ids of users in memory, by a name for people; the pages add theirs
        self.memory: dict[str, Place] = {"histories in memory": cache}
        self._busy, self._lock = 0, Lock()
        self._held, self._started = ExitStack(), False

    def start(self) -> None:
        """Load the model and the threads, unless that was done; `warm_up` comes after."""
        if self._started:
            return
        require_models(self.models, self.models.named)
        self.models.start()
        self._started = True  # from here on there is something to stop
        self._held.enter_context(one_blas_thread())  # each request has one thread, all through
        self.threads = ThreadPoolExecutor(n_threads(self.settings.threads), "answers")
        self.shadows = ThreadPoolExecutor(1, "shadow")
        aside = Aside(self.settings.aside or aside_of(self.store))
        for file in aside.files():
            _LOG.warning("exposures were set aside in %s; see: retailrec store recover", file)
        self.log = ExposureLog(self.store, aside)
        self.memory["exposures that wait"] = self.log
        self.memory["exposures set aside"] = aside
        self.watch = Watch(self.store, self.memory.values())
        self.experiment = self.experiment.settled(self.store)
        self.follower = Follower(self.models)

    def warm_up(self) -> None:
        """Replay requests, then be ready."""
        started = time.perf_counter()
        n = self.models.warm_up(self.models.active)
        for name in self.models.named:
            try:
                n += self.models.warm_up(self.models.get(name), 3)
            except (SettingError, DataError) as error:  # such as saved rules that it can't keep
                _LOG.warning("experiment: model %s can't answer now: %s", name, error)
        # what is here now stays: looking through it for garbage would stop all answers for 0.1 s
        gc.collect()
        gc.freeze()
        self.unanswered()
        self.ready = True
        _LOG.info("ready after %d requests replayed in %.1f s", n, time.perf_counter() - started)

    def unanswered(self) -> list[str]:
        """Which arms' users get an error for a list, and why; looked at when rules or models changed.

        Rules are saved over HTTP while the service runs, so an arm may come before its ruleset.

        Raises
        ------
        StoreUnavailable
            If the store does not answer.
        """
        version, found = self.store.shopper("").lists, []
        key = version, self.models.active.digest
        if self._unanswered[0] != key:
            for name, arm in self.experiment.arms.items():
                asked = OfferRequest().in_arm(arm.purpose, arm.ruleset, arm.explore)
                try:
                    model = self.models.active if arm.model is None else self.models.get(arm.model)
                    self.engine.offers(model, "", asked)
                except StoreUnavailable:
                    raise
                except RetailRecError as error:
                    found.append(f"experiment: users of arm {name!a} get no list: {error}")
                    _LOG.warning("%s", found[-1])
            self._unanswered = key, found
        return self._unanswered[1]

    def stop(self) -> Unwritten | None:
        """Finish what is under way and write what waits; `unwritten` says what could not be written."""
        self.ready = False
        self.threads.shutdown(wait=True)
        self.shadows.shutdown(wait=True)  # at most a hundred wait
        self.watch.stop()
        self.follower.stop()
        self.unwritten = self.log.stop()
        self.store.close()
        self._held.close()
        gc.unfreeze()
        return self.unwritten

    def abandon(self) -> Unwritten | None:
        """Set aside what waits to be written, without the store; what there is of it."""
        self.ready = False
        log = getattr(self, "log", None)  # the store may hang while the service starts
        return None if log is None else log.abandon()

    def _model_end(self) -> float:
        return self.models.active.end.timestamp() if self.ready else math.nan

    def _ends(self) -> float:
        """NaN while the store does not answer, which `/health/ready` tells, or has no receipt."""
        try:
            ends = self.store.shopper("").ends
        except StoreUnavailable:
            return math.nan
        return math.nan if ends is None else ends.timestamp()

    async def compute(self, function: Callable[..., T], *args: Any) -> T:
        """The function's value, computed in a thread within the time limit.

        Raises
        ------
        Problem
            503 if too many wait already, 504 after the time limit.
        """
        with self._lock:
            if self._busy >= self.settings.waiting + n_threads(self.settings.threads):
                why = "too many requests wait; try again in a second."
                raise Problem(503, why, {"Retry-After": "1"})
            self._busy += 1
        future = self.threads.submit(partial(function, *args))
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.timeout)
        except TimeoutError:
            seconds = f"{self.settings.timeout:g} seconds"
            raise Problem(
                504, f"no answer within {seconds}; ask for less, or later. {_GOES_ON}"
            ) from None

    async def answer(
        self, shopper: str, asked: OfferRequest, request: str, campaign: str = ""
    ) -> dict[str, Any]:
        """The answer for a stored shopper as JSON holds it, logged when it is about to be sent.

        Raises
        ------
        Problem
            As `compute`; a list that came too late counts as no answer, and not as shown.
        """
        made = await self.compute(self.offers, shopper, asked, request, campaign)
        self.measures.answered(made.answer, made.asked is None)
        self.log.add(made.rows)
        for name in self.experiment.shadow if made.asked is not None else ():
            if self.shadows._work_queue.qsize() < 100:  # else this one is not compared
                self.shadows.submit(self._log_shadow, name, made)
            else:
                self.measures.shadow_skipped.inc()
        return made.json

    def offers(self, shopper: str, asked: OfferRequest, request: str, campaign: str) -> Made:
        """The answer for a stored shopper, and what is to be logged of it."""
        active = self.models.active
        shopper = self.today(shopper, active)
        assignment, salt = self.experiment.assign(shopper), self.experiment.salt
        model = active if assignment.model is None else self.models.get(assignment.model)
        changed = assignment.purpose, assignment.ruleset, assignment.explore
        asked = asked.in_arm(*changed, salt or self.experiment.campaign)
        if assignment.holdout:
            end = model.present(self.store.shopper(shopper).ends)
            why = "the shopper is held out of the campaign and is shown nothing"
            answer = Reply(shopper, (), model.name, model.digest, end, "none", why, 0, 0, 0)
        else:
            answer = self.engine.offers(model, shopper, asked)
        campaign = campaign or self.experiment.campaign
        rows = rows_of(answer, campaign, assignment, request)
        rows += pool_rows(answer, assignment, request, self.settings.shown_only)
        compared = None if assignment.holdout else asked
        return Made(answer, answer_json(answer, assignment, request), rows, compared, request, campaign)

    def changed_ids(self, shoppers: Iterable[str], model: ServedModel | None = None) -> ChangedIds:
        """Ids that changed, by the model or else the active one; a chain stops at a forgotten id."""
        changed, users = (model or self.models.active).changed_ids, set(shoppers)
        if users.isdisjoint(changed.users):
            return ChangedIds({}, changed.items)
        chains = {one for user in users for one in changed.chain("user", user)}
        return changed.stopped_at(self.store.forgotten(chains))

    def today(self, shopper: str, model: ServedModel | None = None) -> str:
        """What a user is called today, whose id changed."""
        return self.changed_ids([shopper], model).last("user", shopper)

    def offer_again(self, shopper: str, item: str, take_back: Callable[[str, str], None]) -> None:
        """Take back what was said of an item to a user, under each id that the item had."""
        for name in sorted(self.models.active.changed_ids.names("item", item)):
            take_back(shopper, name)

    def set_available(self, items: Mapping[str, bool], store: str | None) -> None:
        """As of the store; an item that is put back is, under each id that it had."""
        names = self.models.active.changed_ids.names
        back = {name: True for item, on in items.items() if on for name in names("item", item)}
        self.store.set_available({**back, **items}, store)

    def for_user(self, work: Callable[..., T], shopper: str, *args: Any) -> T:
        """What `work` does for a user, by today's id."""
        return work(self.today(shopper), *args)

    async def swap(self, function: Callable[..., ServedModel], *args: Any) -> ServedModel:
        """Activate a model in a thread of its own, without the time limit of answers."""
        return await asyncio.get_running_loop().run_in_executor(None, partial(function, *args))

    def save_rules(self, ruleset: str, rules: dict[str, Any], seen: str | None = None) -> None:
        """Save a set of rules, if they can be applied and it holds what was `seen`.

        Raises
        ------
        RulesChanged
            If it holds something else by now.
        SettingError
            If they can't, or read an attribute that no shopper has.
        """
        self.models.active.bound_rules(rules)
        for name in Rules(**rules).attributes:
            if name not in self.models.active.user_columns and not self.store.has_attribute(name):
                raise SettingError(
                    f"rules: forbid reads the attribute {name!a}, which no shopper of the store has. "
                    f"Load shoppers with it first, or correct the name."
                )
        self.store.set_rules(ruleset, rules, seen)

    def forget(self, shopper: str) -> dict[str, Any]:
        """Forget a user here and in the store; what was removed where, and what is left to do."""
        removed = self.store.forget(shopper)
        for name, place in self.memory.items():
            removed[name] = place.forget(lambda user: user == shopper)
        left, not_searched = what_is_left(self.store), list(NOT_SEARCHED)
        others = self.models.active.changed_ids.names("user", shopper) - {shopper}
        if others := others - self.store.forgotten(others):
            not_searched.append(
                f"other ids of this person, by the model's table of changed ids; forget each of them, "
                f"too: {', '.join(sorted(others))}"
            )
        return {"removed": removed, "left": left, "not_searched": not_searched}

    def _log_shadow(self, name: str, made: Made) -> None:
        try:
            asked = made.asked or OfferRequest()
            plain = replace(asked, request=replace(asked.request, explore=0.0, fresh=0))
            answer = self.engine.offers(self.models.get(name), made.answer.shopper, plain)
            self.log.add(rows_of(answer, made.campaign, Assignment(arm=name), made.request, True))
        except RetailRecError as error:
            _LOG.warning("shadow model %s failed on request %s: %s", name, made.request, error)
        except Exception:
            _LOG.exception("shadow model %s failed on request %s", name, made.request)

    def _done(self, future: Any) -> None:
        with self._lock:
            self._busy -= 1
