"""The saved models that a service may use, and which one answers: swapped in one step."""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import polars as pl
from cachetools import LRUCache

from retailrec.errors import ArtifactError, RetailRecError, SettingError
from retailrec.recommender.among import Among
from retailrec.recommender.batch import artifact_key
from retailrec.recommender.request import Request
from retailrec.schema import ITEM_ID
from retailrec.serving.engine import Engine, OfferRequest
from retailrec.serving.served_model import ServedModel
from retailrec.serving.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OTHERS = 2  # models that stay in memory beside the active one and those of an experiment
_LOG = logging.getLogger("retailrec.serving")


class UnknownModel(RetailRecError):
    """The configured folder has no model of this name."""


class SwapInProgress(RetailRecError):
    """Another activation is under way."""


class Models:
    """The models of one configured folder; the active one is read once by each request.

    Parameters
    ----------
    folder : a saved model, or a folder of saved models; or the folder of `retailrec week`, whose
        published model answers (`follow`)
    store : remembers which model was active
    named : models of an experiment, which are asked for all the time
    """

    def __init__(self, folder: Path, store: Store, engine: Engine, named: Sequence[str] = ()) -> None:
        self.folder, self.follows = _published(Path(folder))
        self._store, self._engine = store, engine
        self._swap, self._lock, self._loading = Lock(), Lock(), Lock()
        self.named = tuple(dict.fromkeys(named))
        self._others: LRUCache[str, ServedModel] = LRUCache(len(self.named) + _OTHERS)
        self._active: ServedModel | None = None
        self.stopping = False  # does the service end, so that no model is warmed up any more?
        self._before: list[
            tuple[str, str]
        ] = []  # names and digests that answered here, the active last
        self.unread: tuple[str, ...] = ()  # what of the folder could not be looked at last, and why

    def folders(self) -> dict[str, Path]:
        """Name -> folder of each model that is there now; where it may not be looked is `unread`."""
        unread: list[str] = []

        def holds(place: Path) -> bool:
            return _is_there(place / "manifest.json", unread)

        found: dict[str, Path] = {}
        if self.follows:
            model = self.folder.resolve()  # read once: the link may be switched meanwhile
            found = {model.parent.name: model} if holds(model) else {}
        elif holds(self.folder):
            found = {self.folder.resolve().name: self.folder}
        elif not unread:
            for path in filter(lambda path: _NAME.fullmatch(path.name), _entries(self.folder, unread)):
                n = len(unread)
                if holds(path):
                    found[path.name] = path
                elif len(unread) == n and holds(path / "model"):  # what a run wrote
                    found[path.name] = path / "model"
        self.unread = tuple(unread)
        return found

    @property
    def week(self) -> Path | None:
        """Folder of the published week that is followed; None where none is."""
        return self.folder.parent.resolve() if self.follows else None

    def require_any(self) -> dict[str, Path]:
        """As `folders`, of which there is at least one.

        Raises
        ------
        SettingError
            If there is none.
        """
        there = self.folders()
        if not there:
            raise SettingError(
                f"--model {self.folder} holds no saved model{self._unread()}. Name a folder that "
                f"'retailrec run' or save() wrote, or a folder of such folders."
            )
        return there

    @property
    def active(self) -> ServedModel:
        """The model that answers.

        Raises
        ------
        UnknownModel
            Before `start`.
        """
        if self._active is None:
            raise UnknownModel("no model is active yet; the service is starting.")
        return self._active

    def start(self) -> ServedModel:
        """Load the model that was active last, or the last by name, and let it answer.

        Raises
        ------
        SettingError
            If the folder holds no model.
        """
        there = self.require_any()
        for why in self.unread:
            _LOG.warning("%s", why)
        recorded = self._store.activations()
        last = [(name, digest) for name, digest, _ in recorded if name in there]
        name = last[-1][0] if last else list(there)[-1]
        for one in last:
            self._went_to(*one)
        model = self._load(name)
        # one that answered last is none that is activated: a full disk stops no start
        known = bool(recorded) and recorded[-1][:2] == (model.name, model.digest)
        self._let_answer(model, known)
        return model

    def get(self, name: str) -> ServedModel:
        """A model by name, loaded if need be.

        Raises
        ------
        UnknownModel
            If there is none.
        """
        found = self._here(name)
        if found is None:
            with self._loading:  # once, however many ask
                found = self._here(name)
                if found is None:
                    found = self._load(name)
                    with self._lock:
                        self._others[name] = found
        return found

    def _here(self, name: str) -> ServedModel | None:
        active = self._active
        if active is not None and active.name == name:
            return active
        with self._lock:
            for one in self.named:
                self._others.get(one)  # so that others go before them
            return self._others.get(name)

    def activate(self, name: str) -> ServedModel:
        """Load a model anew, warm it up, and let it answer; requests under way keep theirs.

        Raises
        ------
        UnknownModel
            If the folder has none of this name.
        SwapInProgress
            If another one is being activated, or the service is stopping.
        ArtifactError
            If it can't be read; the active model stays.
        """
        return self._activate(name)

    def _activate(self, name: str, digest: str | None = None) -> ServedModel:
        """As `activate`; with a digest, no other model that has come to that name."""
        if not self._swap.acquire(blocking=False):
            raise SwapInProgress("another model is being activated; try again when it is done.")
        try:
            model = self._load(name)
            if digest is not None and digest != model.digest:
                raise UnknownModel(
                    f"model {name!a} that answered before ({digest[:12]}) was replaced by another "
                    f"({model.digest[:12]}), which did not. Put it back, or activate one by its name."
                )
            self.warm_up(model)
            if self.stopping:
                raise SwapInProgress("the service is stopping; activate the model when it is back.")
            self._let_answer(model)
            return model
        finally:
            self._swap.release()

    def follow(self) -> bool:
        """Let the model of the published week answer if another one does; True if it came to that.

        Raises
        ------
        UnknownModel, SwapInProgress, ArtifactError
            As `activate`; the model before goes on answering.
        """
        return self.behind and bool(self.activate(next(iter(self.require_any()))))

    @property
    def behind(self) -> bool:
        """Is another week published than the one whose model answers?"""
        return self.follows and self._active is not None and self._active.name not in self.folders()

    def rollback(self) -> ServedModel:
        """Activate the model that answered before the active one did, here and not in another process.

        A model that was rolled back, or left for an earlier one, is not gone to again.

        Raises
        ------
        UnknownModel
            If there was none, or it is gone, or another one has its name now.
        """
        if len(self._before) < 2:
            raise UnknownModel("no other model was active before; activate one by its name.")
        return self._activate(*self._before[-2])

    def warm_up(self, model: ServedModel, most: int = 20) -> int:
        """Replay requests, so that nothing that happens once is part of an answer; their number."""
        some = Among(items=pl.Series(ITEM_ID, model.ids[:10]).cast(pl.String))
        rules: dict[str, Any] = {"min_new": 1}
        if model.category:
            rules |= {"max_per_category": 3, "variety": 0.1}
        # of every kind, since its kernels are compiled when it is first asked for: seconds each
        asked = [
            OfferRequest(),
            OfferRequest.of(reasons=True),
            OfferRequest(rules=rules),
            OfferRequest(Request(among=some), rules=rules),
            OfferRequest(Request(among=some, slots=dict.fromkeys(model.purposes, 1))),
            OfferRequest.of(explore=0.2, pool=20),
            *(OfferRequest.of(purpose=purpose) for purpose in model.purposes),
        ]
        shoppers = [*self._engine.store.some_shoppers(most), "an unknown shopper"]
        for shopper in shoppers:
            for one in asked:
                if self.stopping:
                    return 0
                self._engine.offers(model, shopper, one)
        return len(shoppers)

    def listed(self) -> list[dict[str, Any]]:
        """Every model that is there, and whether it answers."""
        active = self._active
        found = []
        for name, path in self.folders().items():
            try:
                digest = artifact_key(path)
            except OSError as error:
                _LOG.warning("model %s can't be read: %s", name, error)
                continue
            loaded = active.digest if active is not None and active.name == name else None
            answers = loaded is not None
            changed = answers and loaded != digest
            found.append({"id": name, "digest": digest, "active": answers, "changed": changed})
        return found

    def _let_answer(self, model: ServedModel, known: bool = False) -> None:
        if not known:
            self._store.record_activation(model.name, model.digest)
        old, self._active = self._active, model  # one step: a request has the old one or the new one
        with self._lock:
            self._others.pop(model.name, None)
            if old is not None and old.name != model.name and old.name in self.named:
                self._others[old.name] = old
        self._went_to(model.name, model.digest)
        self._engine.cache.clear()

    def _went_to(self, name: str, digest: str) -> None:
        """Note that a model answers; going back to one takes those after it off the list."""
        if (name, digest) in self._before:
            del self._before[self._before.index((name, digest)) + 1 :]
        else:
            self._before.append((name, digest))

    def _unread(self) -> str:
        return f" ({'; '.join(self.unread)})" if self.unread else ""

    def _load(self, name: str) -> ServedModel:
        there = self.folders()
        if name not in there:
            raise UnknownModel(
                f"there is no model {name[:100]!a}; expected one of {', '.join(there) or 'none'}"
                f"{self._unread()}."
            )
        try:
            return ServedModel.load(there[name], name)
        except OSError as error:
            raise ArtifactError(f"model {name} can't be read: {error}.") from error


def _is_there(file: Path, unread: list[str]) -> bool:
    """Is it a file? Where that may not be looked at, it is not, and `unread` says why."""
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        unread.append(f"{file.parent} can't be read: {error.strerror or error}")
        return False


def _entries(folder: Path, unread: list[str]) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        unread.append(f"{folder} can't be read: {error.strerror or error}")
        return []


class Follower:
    """A thread that lets a service's model be that of the published week.

    Parameters
    ----------
    every : seconds between two looks at the link
    """

    def __init__(self, models: Models, every: float = 2.0) -> None:
        self._models, self._every = models, every
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="published week", daemon=True)
        if models.follows:
            self._thread.start()

    def stop(self) -> None:
        """End the thread, when a swap under way is done."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        said = ""
        while not self._stopping.wait(self._every):
            try:
                if self._models.follow():
                    _LOG.info("model %s answers", self._models.active.name)
                said = ""
            except (RetailRecError, OSError) as error:
                if str(error) != said:  # once, however long it lasts
                    _LOG.warning("the published model can't answer, the one before does: %s", error)
                said = str(error)


def _published(folder: Path) -> tuple[Path, bool]:
    """The model behind a link to the published week, and whether it is one."""
    for place in (folder / "current" / "model", folder / "model", folder):
        week = place.parent
        if place.name == "model" and week.is_symlink() and (week / "manifest.json").is_file():
            return place, True
    return folder, False


def require_models(models: Models, names: Sequence[str | None]) -> None:
    """Raise an UnknownModel unless all of these are there."""
    there = models.folders()
    for name in names:
        if name is not None and name not in there:
            raise UnknownModel(
                f"the experiment names model {name!a}, which is not there; expected one of "
                f"{', '.join(there)}."
            )
