"""A fitted object as a folder of checked, inert files: saved, loaded, its parts checked.

::

    model/
    ├── manifest.json          format, versions, settings, and the name and SHA-256 of every file
    └── data-<16 hex digits>/  *.npy, *.parquet, and the ranker's own format

Nothing in it is code, and loading can't run any: arrays are read without pickle, classes come from a
list that the caller gives, and file names must be plain. `manifest.json` is replaced in one step
after the new data folder is complete, so an interrupted save leaves the old artifact whole.

Older formats are brought to today's. Format 1 (0.1): fitted parts stood in the place of the settings,
and `k` was the number of candidates. Format 2 (0.2): settings stay as they were given; what was fitted
is state and its name ends in ``_``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import polars as pl
from scipy import sparse

from retailrec.candidates import CandidateGenerator
from retailrec.components import known_classes, parts_within
from retailrec.data import catalogue_key
from retailrec.errors import ArtifactError, RetailRecError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import Ranker
from retailrec.recommender.stage_one import StageOne
from retailrec.schema import ITEM_ID, RECOMMENDABLE
from retailrec.work import folder_aside, is_partial, replaced, require_here, sha256

FORMAT, FORMAT_VERSION = "retailrec-model", 2
_MANIFEST = "manifest.json"
_DAMAGED = "{} is damaged or no manifest of this package; restore it or save again."
_TRIES = 5  # loading begins again where another process saved in between
_DATA = re.compile(r"data-[0-9a-f]{16}")
_FILE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*(/[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*)*")
_LIBRARIES = ("numpy", "polars", "scipy", "implicit", "catboost", "lightgbm")


def save_artifact(model: Any, folder: str | Path, types: Mapping[str, type] | None = None) -> None:
    """Write a fitted dataclass and all it holds to `folder`, replacing a model that stands there.

    Raises
    ------
    ArtifactError
        If the folder holds something else, can't be written, or a class within is not in `types` (by
        default the registered components), so that the model could never be loaded. What stood in
        the folder stays then.
    """
    folder = Path(folder)
    try:
        if not may_be_saved_to(folder):
            raise ArtifactError(
                f"{folder} exists and is no saved model; it will not be overwritten. "
                f"Name another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with folder_aside(folder) as staging:
            described = _Writer(staging, known_classes() if types is None else types).describe(
                model, "model"
            )
            files = {
                p.relative_to(staging).as_posix(): {"sha256": sha256(p), "bytes": p.stat().st_size}
                for p in sorted(staging.rglob("*"))
                if p.is_file()
            }
            name = _data_name(files, described)
            if (folder / name).exists():
                shutil.rmtree(folder / name)
            os.replace(staging, folder / name)
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "versions": versions(),
            "data": name,
            "files": files,
            "model": described,
        }
        with replaced(folder / _MANIFEST, mode=0o666) as partial:
            partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    except PermissionError as error:
        raise ArtifactError(
            f"the model can't be written to {folder}: no permission. Name another folder."
        ) from error
    except (OSError, pl.exceptions.ComputeError) as error:  # as Polars calls a full disk
        raise ArtifactError(f"the model can't be written to {folder}: {error}.") from error
    for old in folder.glob("data-*"):
        if old.name != name and _DATA.fullmatch(old.name):
            shutil.rmtree(old, ignore_errors=True)


def load_artifact(folder: str | Path, types: Mapping[str, type], *, memory_map: bool = False) -> Any:
    """The object that `save_artifact` wrote, its classes looked up in `types`.

    With `memory_map` arrays stay in their files, so that processes on one machine share them.

    Raises
    ------
    ArtifactError
        If there is no model, it is of a newer format, a file is missing, added or altered, or the
        manifest makes no sense.
    """
    folder = model_folder(folder)
    for _ in range(_TRIES):
        manifest = _read_manifest(folder)
        try:
            return _loaded(folder, manifest, types, memory_map)
        except ArtifactError:
            if manifest == _read_manifest(folder):
                raise  # else another process saved meanwhile, and took the data away
    raise ArtifactError(f"{folder} is being saved again and again; load it when that is over.")


def may_be_saved_to(folder: Path) -> bool:
    """Is the folder new, empty, or a saved model, and no link to another place?

    Raises
    ------
    OSError
        If it can't be looked at.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    if not folder.exists() or all(is_partial(p) for p in folder.iterdir()):
        return True
    try:
        _read_manifest(folder)
    except ArtifactError:
        return False
    return True


def is_model(folder: Path) -> bool:
    """Was a model saved here, whichever version wrote it and whether or not it can be read?"""
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


def _loaded(folder: Path, manifest: dict[str, Any], types: Mapping[str, type], memory_map: bool) -> Any:
    data, number = folder / manifest["data"], manifest["format_version"]
    try:
        _check_files(data, manifest["files"])
        if number > 1 and manifest["data"] != _data_name(manifest["files"], manifest["model"]):
            raise ArtifactError(
                f"{folder / _MANIFEST} was altered: its settings are not those that were saved. "
                f"Copy the artifact again."
            )
        return _Reader(data, types, memory_map).build(upgraded(manifest["model"], number), "model")
    except RetailRecError:
        raise
    except PermissionError as error:
        raise ArtifactError(
            f"{error.filename or data} can't be read: no permission. Ask for the right to read it."
        ) from error
    except (Exception, pl.exceptions.PanicException) as error:
        # whatever a library says about a file that passed its checksum
        raise ArtifactError(
            f"{folder} can't be loaded: {type(error).__name__}: {error}. Save the model again."
        ) from error


def _data_name(files: Mapping[str, Any], described: Any) -> str:
    """The data folder's name: a digest of all files and of the description, settings included."""
    digest = hashlib.sha256(json.dumps([files, described], sort_keys=True).encode())
    return f"data-{digest.hexdigest()[:16]}"


def versions() -> dict[str, str]:
    """Versions of the package, Python and the libraries that matter for a result."""
    found = {"retailrec": _version("retailrec"), "python": platform.python_version()}
    return found | {name: _version(name) for name in _LIBRARIES}


_version = cache(version)  # a library's is read once in a process: it parses a file


class _Writer:
    """Describe an object as JSON, with its arrays and frames in files."""

    def __init__(self, folder: Path, types: Mapping[str, type]) -> None:
        self._folder, self._types = folder, types

    def describe(self, value: Any, key: str) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            kind = type(value)
            if self._types.get(kind.__name__) is not kind:
                raise ArtifactError(
                    f"{key} is a {kind.__module__}.{kind.__qualname__}, which could not be loaded "
                    f"again: it must be a dataclass that derives from a class of retailrec "
                    f"(CandidateGenerator, Ranker, Prefilter, LabelSplits). Nothing was saved."
                )
            settings = {
                f.name: self.describe(getattr(value, f.name), f"{key}.{f.name}")
                for f in dataclasses.fields(value)
                if f.init
            }
            out: dict[str, Any] = {"type": kind.__name__, "settings": settings}
            if not kind.__module__.startswith("retailrec."):
                out["module"] = kind.__module__  # never imported by loading: for the message only
            if key != "model" and hasattr(value, "save") and _is_fitted(value):
                (self._folder / key).mkdir()
                value.save(self._folder / key)
                return out | {"native": key}
            state = {k: v for k, v in vars(value).items() if k.endswith("_") and k[0] != "_"}
            return out | {"state": {k: self.describe(v, f"{key}.{k}") for k, v in state.items()}}
        if isinstance(value, list | tuple):
            return [self.describe(v, f"{key}.{i}") for i, v in enumerate(value)]
        if isinstance(value, np.ndarray):
            np.save(self._folder / f"{key}.npy", value, allow_pickle=False)
            return {"array": f"{key}.npy"}
        if isinstance(value, sparse.csr_matrix):
            names = ("data", "indices", "indptr")
            parts = [self.describe(getattr(value, n), f"{key}.{n}") for n in names]
            return {"csr": parts, "shape": [int(n) for n in value.shape]}
        if isinstance(value, pl.DataFrame):
            value.write_parquet(self._folder / f"{key}.parquet")
            return {"frame": f"{key}.parquet"}
        if isinstance(value, dict):
            return {"dict": {str(k): self.describe(v, f"{key}.{k}") for k, v in value.items()}}
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if hasattr(value, "isoformat"):
            return {"time": value.isoformat()}
        raise ArtifactError(f"{key} holds a {type(value).__name__}, which can't be saved.")


def _is_fitted(value: Any) -> bool:
    return any(k.endswith("_") and v is not None for k, v in vars(value).items())


class _Reader:
    """Build an object from its description."""

    def __init__(self, folder: Path, types: Mapping[str, type], memory_map: bool) -> None:
        self._folder, self._types, self._memory_map = folder, types, memory_map

    def build(self, value: Any, key: str) -> Any:
        if isinstance(value, list):
            return [self.build(v, f"{key}.{i}") for i, v in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if "type" in value:
            return self._object(value, key)
        if "array" in value:
            return _array(self._file(value["array"]), self._memory_map)
        if "frame" in value:
            return pl.read_parquet(self._file(value["frame"]), glob=False)
        if "csr" in value:
            parts = [self.build(v, key) for v in value["csr"]]
            matrix = sparse.csr_matrix(tuple(parts), shape=tuple(value["shape"]))
            matrix.check_format(full_check=True)  # kernels take its bounds on trust
            return matrix
        if "time" in value:
            return datetime.fromisoformat(value["time"])
        return {k: self.build(v, f"{key}.{k}") for k, v in value["dict"].items()}

    def _object(self, value: dict[str, Any], key: str) -> Any:
        if value["type"] not in self._types:
            module = value.get("module")
            cure = f"Import {module} before loading" if module else "Update retailrec"
            raise ArtifactError(
                f"{key} is a '{value['type']}', which is not known here; "
                f"expected one of {', '.join(sorted(self._types))}. {cure}."
            )
        settings = {k: self.build(v, f"{key}.{k}") for k, v in value["settings"].items()}
        built = self._types[value["type"]](**settings)
        if "native" in value:
            self._file(value["native"])
            built.load(self._folder / value["native"])
        for name, state in value.get("state", {}).items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*_", name):
                raise ArtifactError(f"{key} has state '{name}', which is no fitted attribute.")
            object.__setattr__(built, name, self.build(state, f"{key}.{name}"))
        if value.get("state") and hasattr(built, "after_load"):
            built.after_load()
        return built

    def _file(self, name: str) -> Path:
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            raise ArtifactError(f"manifest names the file {name!r}, which is no plain name.")
        return self._folder / name


def model_folder(folder: str | Path) -> Path:
    """The folder of a saved model: the one named, or `model` in it, where `retailrec run` puts it."""
    folder = Path(folder)
    inner = folder / "model"
    return inner if not (folder / _MANIFEST).exists() and (inner / _MANIFEST).is_file() else folder


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    if not path.is_file():
        require_here(folder)
        what = "holds no saved model" if folder.is_dir() else "is no folder of a saved model"
        raise ArtifactError(
            f"{folder} {what} ({_MANIFEST} is missing). Name the folder that "
            f"'retailrec run' or save() wrote."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as error:
        raise ArtifactError(
            f"{path} can't be read: no permission. Ask for the right to read it."
        ) from error
    except (ValueError, RecursionError, OSError) as error:
        raise ArtifactError(_DAMAGED.format(path)) from error
    if not (
        isinstance(manifest, dict)
        and manifest.get("format") == FORMAT
        and type(manifest.get("format_version")) is int
        and manifest["format_version"] > 0
    ):
        raise ArtifactError(_DAMAGED.format(path))
    if manifest["format_version"] > FORMAT_VERSION:
        raise ArtifactError(
            f"{folder} was saved in format {manifest['format_version']}; this version reads up to "
            f"{FORMAT_VERSION}. Update retailrec."
        )
    if not (
        isinstance(manifest.get("data"), str)
        and _DATA.fullmatch(manifest["data"])
        and isinstance(manifest.get("files"), dict)
        and all(isinstance(facts, dict) for facts in manifest["files"].values())
        and isinstance(manifest.get("model"), dict)
    ):
        raise ArtifactError(_DAMAGED.format(path))
    return manifest


def _check_files(data: Path, files: Mapping[str, Any]) -> None:
    for name in files:
        if not _FILE.fullmatch(name):
            raise ArtifactError(f"manifest names the file {name!r}, which is no plain name.")
    if data.is_symlink():
        raise ArtifactError(f"{data} is a link; copy the artifact itself here.")
    present = {p.relative_to(data).as_posix() for p in data.rglob("*") if p.is_file()}
    if missing := sorted(set(files) - present):
        raise ArtifactError(f"{data} lacks {missing[0]}; the artifact is incomplete. Copy it again.")
    if extra := sorted(present - set(files)):
        raise ArtifactError(f"{data} holds {extra[0]}, which the manifest does not name; remove it.")
    for name, facts in files.items():
        path = data / name
        if not os.access(path, os.R_OK):
            raise ArtifactError(f"{path} can't be read: no permission. Ask for the right to read it.")
        if path.is_symlink() or sha256(path) != facts.get("sha256"):
            raise ArtifactError(f"{path} was altered or cut short; copy the artifact again.")


def _array(path: Path, memory_map: bool) -> Any:
    """The array of a file whose length is what its head promises, of plain numbers or text."""
    with open(path, "rb") as stream:
        form = np.lib.format
        first = form.read_magic(stream) == (1, 0)
        head = form.read_array_header_1_0 if first else form.read_array_header_2_0
        shape, _, kind = head(stream)
        promised = stream.tell() + math.prod(shape) * kind.itemsize
    if kind.kind not in "biufMmUS" or promised != path.stat().st_size:
        raise ArtifactError(
            f"{path} can't be loaded: expected an array of numbers or text of {promised:,} bytes, "
            f"found {kind} in {path.stat().st_size:,}. Save the model again."
        )
    if memory_map and 0 not in shape:  # of no bytes there is no map
        # c: written to memory, should somebody write; to kernels it is like any other array
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    return np.load(path, allow_pickle=False)


_ITEMS, _ANY, _NONE_OR_ITEMS = "items", "any", "none or items"
# what the package's sources learn: length of each axis, and NumPy's kind
_LEARNT = {
    "allowed_": ((_ITEMS,), "b"),
    "owners_only_": ((_ITEMS,), "b"),
    "gap_": ((_NONE_OR_ITEMS,), "f"),
    "popular_": ((_NONE_OR_ITEMS,), "f"),
    "share_": ((_ITEMS,), "f"),
    "shares_": ((_ANY, _ITEMS), "f"),
    "category_": ((_ITEMS,), "i"),
    "factors_": ((_ITEMS, _ANY), "f"),
    "vectors_": ((_ITEMS, _ANY), "f"),
    "similarity_": ((_ITEMS, _ITEMS), "f"),
    "reference_": ((_ANY, _ITEMS), "f"),
    "sets_": ((_ANY, _ITEMS), "f"),
}


def check_fitted(model: Any) -> None:
    """Hold the parts of a loaded recommender against its catalogue and against each other.

    Raises
    ------
    ArtifactError
        If an array has not one row or column an item, holds another kind of number or a code without
        an item, or the ranker learnt from other columns than the features make.
    """
    _check_catalogue(model)
    n = model.items_.height
    if len(model.sources_) != len(model.sources):
        _refuse(f"it has {len(model.sources_)} fitted sources of {len(model.sources)}")
    for source in (*model.sources_, *model.discover_sources_):
        if not isinstance(source, CandidateGenerator):
            _refuse(f"a {type(source).__name__} stands among its sources")
        for part in parts_within(source):
            if type(part).__module__.startswith("retailrec."):
                _check_source(part, n)
    _check_features(model.features_, n)
    for name, columns in _rankers(model).items():
        ranker = getattr(model, name)
        if not isinstance(ranker, Ranker):
            _refuse(f"{name} is a {type(ranker).__name__}")
        if ranker.n_columns not in (None, columns):
            _refuse(f"{name} learnt from {ranker.n_columns} columns and would get {columns}")
    if model.calibrator_ is not None:
        steps = model.calibrator_.steps_
        if steps.ndim != 2 or len(steps) != 2 or not steps.size or not np.isfinite(steps).all():
            _refuse("its probabilities have no steps")


def check_codings(model: Any) -> None:
    """Are sources and features coded by the catalogue that the model holds?

    Raises
    ------
    ArtifactError
        If one is not.
    """
    key = catalogue_key(model.items_[ITEM_ID])
    for part in (model.features_, *model.sources_, *model.discover_sources_):
        if part.catalogue_key_ != key:
            _refuse(f"its {type(part).__name__} is coded by another catalogue")


def _check_catalogue(model: Any) -> None:
    items, prices = model.items_, model.prices_
    if not isinstance(items, pl.DataFrame) or not {ITEM_ID, RECOMMENDABLE} <= set(items.columns):
        _refuse("it has no catalogue")
    ids = items[ITEM_ID]
    if ids.dtype not in (pl.Int64, pl.String) or ids.null_count() or not ids.is_unique().all():
        _refuse("its catalogue does not hold every id once")
    if items[RECOMMENDABLE].dtype != pl.Boolean or items[RECOMMENDABLE].null_count():
        _refuse("its catalogue does not say what may be recommended")
    if not _has_shape(prices, (items.height,)) or prices.dtype.kind != "f":
        _refuse("it has not one price an item")
    if not isinstance(getattr(model, "has_quantity_", False), bool):
        _refuse("it does not say whether its receipts had quantities")
    if not isinstance(model.end_, datetime):
        _refuse("it does not say when it was fitted")


def _check_source(source: Any, n_items: int) -> None:
    for name, (axes, kind) in _LEARNT.items():
        value = getattr(source, name, None)
        if value is None:
            continue
        who = f"{type(source).__name__}.{name}"
        numbers: Any = value.data if isinstance(value, sparse.csr_matrix) else value
        known = isinstance(numbers, np.ndarray) and numbers.dtype.kind == kind
        if not known or (kind != "b" and numbers.dtype.itemsize not in (4, 8)):
            _refuse(f"{who} holds other things than numbers of kind {kind!r}")
        allowed = {_ITEMS: (n_items,), _NONE_OR_ITEMS: (0, n_items)}
        fits = len(value.shape) == len(axes) and all(
            axis == _ANY or length in allowed[axis]
            for length, axis in zip(value.shape, axes, strict=True)
        )
        if not fits:
            _refuse(f"{who} has shape {value.shape} beside {n_items:,} items")
        if kind == "i" and len(value) and not -1 <= value.min() <= value.max() < n_items:
            _refuse(f"{who} holds codes from {value.min()} to {value.max()}")
    if hasattr(source, "factors_") and source.factors_.shape[1] != source.factors:
        _refuse(f"{type(source).__name__} has {source.factors_.shape[1]} factors of {source.factors}")
    segments = getattr(source, "segments_", None)
    if segments is not None:
        rows = segments["row"].to_list()
        if rows != list(range(1, len(source.shares_))):
            _refuse(f"{type(source).__name__}.segments_ names rows that are not there")


def _check_features(features: Any, n_items: int) -> None:
    if not isinstance(features, FeatureSet):
        _refuse(f"features_ is a {type(features).__name__}")
    categories, table = features.categories_, features.items_
    width = (n_items, len(features.item_names))
    if not _has_shape(table, width) or table.dtype != np.float32:
        _refuse(f"its item features have shape {np.shape(table)} and not {width}")
    if not _has_shape(categories, (n_items, len(features.levels_))) or categories.dtype.kind != "i":
        _refuse(f"its categories have shape {np.shape(categories)} beside {n_items:,} items")
    if categories.size and not -1 <= categories.min() <= categories.max() <= n_items:
        _refuse(f"its categories are from {categories.min()} to {categories.max()}")


def _rankers(model: Any) -> dict[str, int]:
    """The rankers that the model has, and how many columns each gets."""
    stage = StageOne(model.sources_, model.features_, model.taken, model.preranker_, model.pool_size)
    found = {"ranker_": len(stage.column_names)}
    if model.discover_ranker_ is not None:
        found["discover_ranker_"] = len(model.stage_for("discover").column_names)
    return found if model.preranker_ is None else found | {"preranker_": len(stage.preranker_names)}


def _has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and value.shape == shape


def _refuse(problem: str) -> NoReturn:
    raise ArtifactError(f"the model's parts do not fit each other: {problem}. Save the model again.")


_FITTED = ("sources", "ranker", "features")  # settings of format 1 that held what was fitted


def upgraded(described: Any, version: int) -> Any:
    """The description of a model as the newest format would have it."""
    return _from_1(described) if version == 1 and isinstance(described, dict) else described


def _from_1(described: dict[str, Any]) -> dict[str, Any]:
    settings, state = dict(described["settings"]), dict(described.get("state", {}))
    if described["type"] == "TwoStageRecommender":
        for name in _FITTED:
            state[f"{name}_"] = _each(settings[name], _part_from_1)
            settings[name] = _each(settings[name], _without_state)
        settings["n_candidates"] = settings.pop("k")
        return {"type": described["type"], "settings": settings, "state": state}
    return _part_from_1(described)


def _part_from_1(described: Any) -> Any:
    """A source or ranker whose own parts were fitted in place."""
    if not isinstance(described, dict) or described.get("type") != "ReciprocalRankFusion":
        return described
    settings, state = dict(described["settings"]), dict(described["state"])
    state["sources_"] = settings["sources"]
    settings["sources"] = _each(settings["sources"], _without_state)
    return described | {"settings": settings, "state": state}


def _without_state(described: Any) -> Any:
    if not isinstance(described, dict) or "type" not in described:
        return described
    settings = {name: _each(value, _without_state) for name, value in described["settings"].items()}
    return {"type": described["type"], "settings": settings}


def _each(value: Any, change: Any) -> Any:
    return [change(v) for v in value] if isinstance(value, list) else change(value)


def fill_in_format_1(model: Any) -> None:
    """What format 1 did not write down: the item coding, and when receipts began."""
    if not hasattr(model.features_, "catalogue_key_"):
        key = catalogue_key(model.items_[ITEM_ID])
        for part in (model.features_, *model.sources_):
            for within in parts_within(part):
                within.catalogue_key_ = key
    if not hasattr(model, "start_"):
        model.start_ = model.end_
