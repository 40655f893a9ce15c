"""Settings of a run: TOML <-> objects, checked by pydantic."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Self,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from retailrec.candidates import CandidateGenerator
from retailrec.components import Range, make_component, meant
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.columns import read_columns
from retailrec.data.paths import read_toml
from retailrec.data.prefilters import Prefilter, preset
from retailrec.data.splits import HorizonSplits
from retailrec.datasets.base import Reading
from retailrec.errors import SettingError
from retailrec.evaluation import DEFAULT_METRICS
from retailrec.features.assemble import FeatureSet
from retailrec.features.events import FEATURES as REGISTERED
from retailrec.metrics import parse_metric
from retailrec.rankers import LightGBMRanker, Ranker
from retailrec.recommender.explanations import in_days
from retailrec.recommender.purposes import PURPOSES, Discovery, Purpose
from retailrec.recommender.request import check_slots, parse_slots
from retailrec.recommender.stage_one import default_preranker, default_sources
from retailrec.recommender.two_stage import TwoStageRecommender


def plain_settings(name: str, owners: Mapping[type, Mapping[str, str]]) -> type[BaseModel]:
    """A class of settings with the defaults and bounds of dataclass fields.

    Parameters
    ----------
    owners : dataclass -> name of a setting -> the field that it sets

    Examples
    --------
    >>> from retailrec.data.splits import HorizonSplits
    >>> plain_settings("Labels", {HorizonSplits: {"label_windows": "n"}})().label_windows
    3
    """
    taken: dict[str, Any] = {}
    for owner, names in owners.items():
        hints = get_type_hints(owner, include_extras=True)
        known = {f.name: f for f in fields(owner)}
        for ours, theirs in names.items():
            field = known[theirs]
            default = field.default if field.default is not MISSING else ...
            if isinstance(default, tuple):
                default = list(default)
            taken[ours] = (_checked(hints[theirs]), default)
    return create_model(name, **taken)


def _checked(hint: Any) -> Any:
    """The annotation with its `Range` in pydantic's terms, and lists for sequences."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return Union[tuple(_checked(part) for part in arguments)]  # noqa: UP007
    if origin is Sequence:
        return list[_checked(arguments[0])]  # type: ignore[misc]
    if origin is not Annotated:
        return hint
    kind, *notes = arguments
    bounds = next((note for note in notes if isinstance(note, Range)), None)
    return kind if bounds is None else Annotated[kind, _field(kind, bounds)]


def _field(kind: type, bounds: Range) -> Any:
    given: dict[str, Any] = {"allow_inf_nan": False} if kind is float else {}
    if bounds.least > -math.inf:
        given["gt" if bounds.above else "ge"] = bounds.least
    if bounds.most < math.inf:
        given["le"] = bounds.most
    return Field(**given)


class Typed(BaseModel):
    """A source, prefilter or ranker: its type, and its parameters beside it."""

    model_config = ConfigDict(extra="allow")
    type: str


# Larger profiles are the same recipe, thinned; docs/boards.md says what each costs on real receipts.
_RECIPE: list[dict[str, Any]] = [
    {"type": "own_purchases", "ties": "popular", "fill": True, "proposes": False},
    {"type": "own_purchases", "weighting": "decay", "half_life": "auto"},
    {"type": "tifu_knn", "neighbours": 100, "alpha": 0.5},
    {"type": "popularity"},
    {"type": "item_item", "weighting": "tfidf", "half_life": 180, "neighbours": 30},
    {"type": "als", "factors": 32, "iterations": 5},
]
PROFILES: dict[str, dict[str, Any]] = {
    "small": {},
    "laptop": {
        "sources": _RECIPE,
        "n_candidates": [80, 30, 20, 30, 20],
        "label_windows": 2,
    },
    "large": {
        "sources": _RECIPE[:5],
        "n_candidates": [60, 20, 20, 20],
        "ranker": {"type": "lightgbm", "iterations": 80, "leaves": 15, "learning_rate": 0.12},
        "label_windows": 1,
        "negatives": 0.1,
        "refit": "once",
    },
}


# Constructor fields by the names that settings give them. What the recommender has is taken as it is,
# but for its parts, each of which is described by settings of its own.
PARTS = ("sources", "ranker", "prefilters", "label_splits", "features", "preranker", "discover")
MODEL = {f.name: f.name for f in fields(TwoStageRecommender) if f.init and f.name not in PARTS}
LABELS = {
    "horizon_days": "horizon_days",
    "label_windows": "n",
    "label_stride_days": "stride_days",
    "least_history": "least_history",
    "half_window": "half_window",
}
FEATURES = {"drop_features": "drop"}
DISCOVERY = {name: name for name in ("after_days", "n_candidates")}

if TYPE_CHECKING:

    class _Plain(BaseModel):
        """What code reads by name; the settings are those of the dataclasses, whatever they are."""

        horizon_days: float
        label_windows: int
        n_candidates: int | list[int] | None
        pool_size: int
        seed: int
        threads: int
        calibrate: bool
        drop_features: list[str]

    class _PlainDiscovery(BaseModel):
        after_days: float | None = None
        n_candidates: int | list[int] = 0

else:
    _Plain = plain_settings(
        "_Plain", {TwoStageRecommender: MODEL, HorizonSplits: LABELS, FeatureSet: FEATURES}
    )
    _PlainDiscovery = plain_settings("_PlainDiscovery", {Discovery: DISCOVERY})


class DiscoverySettings(_PlainDiscovery):
    """The table ``[discover]``: how lists of new items are learnt; see `Discovery`."""

    model_config = ConfigDict(extra="forbid")

    sources: list[Typed] | None = None
    ranker: Typed | None = None

    def make(self) -> Discovery:
        """What the recommender takes.

        Raises
        ------
        SettingError
            If a type or one of its parameters is not known.
        """
        return Discovery(
            after_days=self.after_days,
            n_candidates=self.n_candidates,
            sources=_sources(self.sources or []),
            ranker=None if self.ranker is None else _ranker(self.ranker),
        )


class Settings(_Plain):
    """All settings of `retailrec run`; each has a default.

    Raises
    ------
    SettingError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> Settings(horizon_days=14, prefilters="walk-through").k
    5
    """

    model_config = ConfigDict(extra="forbid")

    profile: Literal["auto", "small", "laptop", "large"] = Field(
        "auto", description="what is not said otherwise, by the number of shoppers; see PROFILES"
    )
    k: int = Field(5, ge=1, description="recommendations a shopper")
    metrics: list[str] = Field(default_factory=lambda: list(DEFAULT_METRICS))
    prefilters: str | list[Typed] = "default"
    sources: list[Typed] | None = None
    ranker: Typed | None = None
    prerank: bool = Field(False, description="a light model cuts the pool to pool_size")
    discover: DiscoverySettings | None = Field(None, description="learn lists of new items too")
    slots: dict[str, int] | None = Field(
        None, description="recommendations of each purpose, such as replenish = 3, discover = 2"
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise _refused(error) from error

    def for_size(self, n_users: int) -> Settings:
        """These settings, with those of the profile where nothing else was said.

        ``auto`` is ``small`` up to 50,000 shoppers, ``laptop`` up to 150,000 and ``large`` beyond.

        Examples
        --------
        >>> sized = Settings(negatives=0.5).for_size(400_000)
        >>> sized.profile, sized.negatives, sized.refit
        ('large', 0.5, 'once')
        """
        name = _profile_of(n_users) if self.profile == "auto" else self.profile
        said = {name: getattr(self, name) for name in self.model_fields_set}
        chosen = dict(PROFILES[name])
        if self.calibrate and chosen.get("label_windows") == 1:
            chosen["label_windows"] = 2  # probabilities are learnt on the newest, scores on the other
        if "sources" in said:  # numbers of candidates are those of the profile's own sources
            chosen.pop("n_candidates", None)
        return Settings(**chosen | said | {"profile": name})

    def model(self) -> TwoStageRecommender:
        """The recommender that these settings describe, not fitted.

        Raises
        ------
        SettingError
            If a type or one of its parameters is not known.
        """
        return TwoStageRecommender(
            sources=self.make_sources(),
            ranker=self.make_ranker(),
            prefilters=self.make_prefilters(),
            label_splits=self.label_splits(),
            features=FeatureSet(drop=tuple(self.drop_features)),
            preranker=default_preranker() if self.prerank else None,
            discover=self.make_discovery(),
            **_given(self, MODEL),
        )

    def make_discovery(self) -> Discovery | None:
        """How lists of new items are learnt; None where neither `discover` nor `slots` asks for it."""
        if self.discover is not None:
            return self.discover.make()
        return DiscoverySettings().make() if (self.slots or {}).get("discover") else None

    @property
    def purposes(self) -> tuple[Purpose, ...]:
        """Purposes that are asked for."""
        wanted = {*(self.slots or {"mixed": self.k}), *(["discover"] if self.discover else [])}
        return tuple(purpose for purpose in PURPOSES if purpose in wanted)

    def label_splits(self) -> HorizonSplits:
        """Where the ranker's labels come from."""
        return HorizonSplits(**_given(self, LABELS))

    def make_sources(self) -> list[CandidateGenerator]:
        """The sources, or the default ones."""
        if self.sources is None:
            return default_sources()
        return _sources(self.sources)

    def make_ranker(self) -> Ranker:
        """The ranker: LightGBM (lambdarank) by default."""
        return LightGBMRanker() if self.ranker is None else _ranker(self.ranker)

    def make_prefilters(self) -> tuple[Prefilter, ...]:
        """The prefilters of the preset, or those listed."""
        if isinstance(self.prefilters, str):
            return preset(self.prefilters)
        return tuple(make_component(p.model_dump(), Prefilter, "prefilter") for p in self.prefilters)


class Facts(NamedTuple):
    """What a recipe is chosen by.

    Attributes
    ----------
    n_users : shoppers
    start, end : first receipt, and the first instant that is not known
    horizon_days : length of the window to predict
    """

    n_users: int
    start: datetime
    end: datetime
    horizon_days: float


class Recipe(NamedTuple):
    """A profile, and why in one sentence."""

    name: str
    reason: str


def facts_of(data: RetailData, horizon_days: float) -> Facts:
    """The facts of data."""
    return Facts(data.n_users, data.start, data.end, horizon_days)


def choose_recipe(facts: Facts, settings: Settings) -> Recipe:
    """The profile for such data, what it learns from, and why.

    The number of shoppers decides how far the recipe is thinned; how long the receipts reach back
    against the horizon decides how many label windows there are.

    Examples
    --------
    >>> year = Facts(2_500, datetime(2024, 1, 1), datetime(2024, 12, 1), 28)
    >>> why, learns = choose_recipe(year, Settings()).reason.split("; ")
    >>> why
    'small, since 2,500 shoppers leave time for every source'
    >>> learns.split(", ")[0]
    'it learns from 2 windows of 28 days and one of 14'
    >>> months = Facts(400_000, datetime(2000, 11, 1), datetime(2001, 2, 1), 28)
    >>> choose_recipe(months, Settings()).name
    'large'
    """
    sized = settings.for_size(facts.n_users)
    why = {
        "small": f"{facts.n_users:,} shoppers leave time for every source",
        "laptop": f"{facts.n_users:,} shoppers ask for fewer candidates each",
        "large": f"{facts.n_users:,} shoppers ask for the fewest candidates and trees",
    }
    because = f"since {why[sized.profile]}" if settings.profile == "auto" else "as the settings say"
    splits = sized.label_splits()
    splits = splits.whole() if sized.model().learns_whole else splits
    folds = splits.folds(facts.start, facts.end)
    lengths = [fold.end - fold.cutoff for fold in folds]
    shorter = [days for days in lengths if days < timedelta(days=facts.horizon_days)]
    found = len(folds) - len(shorter)
    learns = f"{found} window{'s' * (found != 1)} of {in_days(facts.horizon_days)}"
    learns += "".join(f" and one of {days.days}" for days in shorter)
    days = (facts.end - facts.start).days
    if len(folds) < sized.label_windows:
        before = (
            f"since older ones would come after less than {splits.least_history:.0%} of today's {days} "
            "days of receipts"
        )
    else:
        before = f"each after at least {splits.least_history:.0%} of today's {days} days of receipts"
    return Recipe(sized.profile, f"{sized.profile}, {because}; it learns from {learns}, {before}.")


def _profile_of(n_users: int) -> str:
    return "small" if n_users <= 50_000 else "laptop" if n_users <= 150_000 else "large"


def _given(settings: Settings, names: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of a constructor, from the settings that are called otherwise."""
    return {theirs: getattr(settings, ours) for ours, theirs in names.items()}


def _sources(wanted: Sequence[Typed]) -> list[CandidateGenerator]:
    return [make_component(s.model_dump(), CandidateGenerator, "source") for s in wanted]


def _ranker(wanted: Typed) -> Ranker:
    ranker: Ranker = make_component(wanted.model_dump(), Ranker, "ranker")
    return ranker


_RENAMED = {"candidates_per_source": "n_candidates"}


class ReadSettings(BaseModel):
    """How receipts are read, as settings of a run and ``week.toml`` say it.

    Attributes
    ----------
    columns : standard name -> the file's; or a TOML file of them
    encoding, time_format, where, not_products : see `Reading`
    changed_ids : the file of ``--ids-changed``
    """

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str] | Path = {}
    encoding: str | None = None
    time_format: str | None = None
    where: list[str] = []
    not_products: list[str] = []
    changed_ids: Path | None = None

    def beside(self, home: Path) -> Self:
        """The same; paths count from the folder `home`, and columns are read from their file.

        Raises
        ------
        SettingError
            If that file can't be used.
        """
        columns, changed = self.columns, self.changed_ids
        if isinstance(columns, Path):
            columns = read_columns(home / columns, "columns")
        changed = None if changed is None else home / changed
        return self.model_copy(update={"columns": columns, "changed_ids": changed})

    def reading(self) -> Reading:
        """What reads receipts so; of settings that `beside` gave.

        Raises
        ------
        DataError
            If the table of changed ids can't be used.
        """
        said = {name: getattr(self, name) for name in ReadSettings.model_fields}
        changed = self.changed_ids
        return Reading(**said | {"changed_ids": None if changed is None else ChangedIds.read(changed)})


def read_reading(path: Path) -> Reading:
    """How the TOML file of settings says that receipts are read.

    Raises
    ------
    SettingError, DataError
        If the file is missing or no TOML, or what it says or names can't be used.
    """
    given = read_toml(Path(path), who="config")
    try:
        found = ReadSettings(**{n: v for n, v in given.items() if n in ReadSettings.model_fields})
    except ValidationError as error:
        raise _refused(error) from error
    return found.beside(Path(path).parent).reading()


def read_settings(path: Path | None, **overrides: Any) -> Settings:
    """Settings from a TOML file, with what the command line says on top; None means not said.

    Raises
    ------
    SettingError
        If the file is missing, no TOML, or a setting is unknown or out of range.
    """
    given: dict[str, Any] = {}
    if path is not None:
        given = read_toml(Path(path), who="config")
        given = {n: value for n, value in given.items() if n not in ReadSettings.model_fields}
    for old, new in _RENAMED.items():
        if old in given:
            raise SettingError(f"setting '{old}' is called '{new}' now; rename it in {path}.")
    return settings_of(given | {k: v for k, v in overrides.items() if v is not None})


def settings_of(given: dict[str, Any]) -> Settings:
    """Settings from a table of a TOML file.

    Raises
    ------
    SettingError
        If a setting is unknown or out of range.
    """
    if isinstance(given.get("slots"), str):  # as the command line writes them
        given["slots"] = parse_slots(given["slots"])
    settings = Settings(**given)
    for metric in settings.metrics:
        parse_metric(metric)
    if settings.slots is not None:
        check_slots(settings.slots)
    features = {name for f in REGISTERED.values() for name in (f.name, f.family)} | {
        "attribute",
        "match",
    }
    for name in settings.drop_features:
        if name not in features:
            raise SettingError(
                f"drop_features: there is no feature or family '{name}'; {meant(name, features)}"
                f"one of your own is known once its module is imported: --import MODULE."
            )
    settings.for_size(1).model()  # whatever its parts refuse is said now, before data is loaded
    return settings


def _refused(error: ValidationError) -> SettingError:
    """The first of what is wrong, in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(p) for p in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        known = [*Settings.model_fields]
        near = meant(where, [*known, *(name for name in ReadSettings.model_fields if name != where)])
        return SettingError(
            f"there is no setting '{where}'; {near}expected some of {', '.join(known)}."
        )
    problem = first["msg"].lower().replace("input should be", "it must be")
    if first["type"] == "path_type":
        problem = "it must be a path, in quotation marks"
    if "valid dictionary" in problem:
        part = where.partition(".")[0] in ("ranker", "sources", "prefilters")
        problem = "it must be a table" + f', such as {{ type = "{first["input"]}" }}' * part
    return SettingError(f"setting '{where}' is {first.get('input')!r}; {problem}.")


def sources_toml(sources: list[CandidateGenerator]) -> str:
    """The sources as TOML that `--config` reads; only parameters that differ from the defaults."""
    parts = []
    for source in sources:
        plain = type(source)()
        lines = ["[[sources]]", f'type = "{source.type_name}"']
        for f in fields(source):
            value = getattr(source, f.name, None) if f.init else None
            if (
                f.init
                and value != getattr(plain, f.name)
                and isinstance(value, bool | int | float | str)
            ):
                lines.append(f"{f.name} = {json.dumps(value)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
