"""Settings of a run: TOML <-> objects, checked by pydantic."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retailrec.candidates import CandidateGenerator
from retailrec.components import make_component
from retailrec.data.prefilters import Prefilter, preset
from retailrec.data.splits import HorizonSplits
from retailrec.errors import SettingError
from retailrec.evaluation import DEFAULT_METRICS
from retailrec.features.assemble import FeatureSet
from retailrec.metrics import parse_metric
from retailrec.rankers import LightGBMRanker, Ranker
from retailrec.recommender.defaults import default_sources, light_ranker
from retailrec.recommender.two_stage import TwoStageRecommender


class Typed(BaseModel):
    """A source, prefilter or ranker: its type, and its parameters beside it."""

    model_config = ConfigDict(extra="allow")
    type: str


# What larger profiles change; docs/how-it-works.md says what each costs in quality.
PROFILES: dict[str, dict[str, Any]] = {
    "small": {},
    "laptop": {
        "sources": [
            {"type": "own_purchases", "weighting": "due"},
            {"type": "popularity"},
            {"type": "item_item", "weighting": "tfidf", "half_life": 180},
            {
                "type": "item_item", "weighting": "tfidf", "within": "receipt",
                "profile": "last_receipt",
            },
            {"type": "als", "factors": 64},
        ],
        "n_candidates": [80, 20, 60, 20, 40],
        "prerank": False,
        "label_windows": 2,
        "refit": "once",
    },
    "large": {
        "sources": [
            {"type": "own_purchases", "weighting": "due"},
            {"type": "popularity"},
            {"type": "item_item", "weighting": "tfidf", "half_life": 180, "neighbours": 30},
            {"type": "als", "factors": 32, "iterations": 6},
        ],
        "n_candidates": [60, 20, 40, 0],  # ALS scores what the others propose
        "ranker": {"type": "catboost", "iterations": 100, "learning_rate": 0.12},
        "prerank": False,
        "label_windows": 1,
        "negatives": 0.1,
        "refit": "once",
    },
}  # fmt: skip


class Settings(BaseModel):
    """All settings of `retailrec run`; each has a default.

    Examples
    --------
    >>> Settings(horizon_days=14, prefilters="walk-through").k
    5
    """

    model_config = ConfigDict(extra="forbid")

    profile: Literal["auto", "small", "laptop", "large"] = Field(
        "auto", description="what is not said otherwise, by the number of shoppers; see PROFILES"
    )
    horizon_days: float = Field(
        28, gt=0, le=36_525, allow_inf_nan=False, description="length of the window to predict"
    )
    k: int = Field(5, ge=1, description="recommendations a shopper")
    seed: int = Field(0, ge=0, lt=2**32)
    threads: int = Field(0, ge=0, le=1024, description="0: all cores")
    metrics: list[str] = list(DEFAULT_METRICS)
    prefilters: str | list[Typed] = "default"
    sources: list[Typed] | None = None
    ranker: Typed | None = None
    n_candidates: int | list[int] = 150
    prerank: bool = Field(True, description="a light model cuts the pool to pool_size")
    pool_size: int = Field(200, ge=1, description="pairs a shopper that go on to ranking")
    label_windows: int = Field(5, ge=1)
    label_stride_days: float | None = Field(None, gt=0, le=36_525, allow_inf_nan=False)
    negatives: float = Field(0.2, gt=0, le=1, allow_inf_nan=False)
    idle_users: float = Field(0.07, gt=0, le=1, allow_inf_nan=False)
    max_users: int = Field(20_000, ge=1)
    refit: Literal["each", "once"] = "each"
    drop_features: list[str] = []
    calibrate: bool = False

    def for_size(self, n_users: int) -> Settings:
        """These settings, with those of the profile where nothing else was said.

        ``auto`` is ``small`` up to 50,000 shoppers, ``laptop`` up to 150,000 and ``large`` beyond.

        Examples
        --------
        >>> sized = Settings(negatives=0.5).for_size(400_000)
        >>> sized.profile, sized.negatives, sized.refit
        ('large', 0.5, 'once')
        """
        name = self.profile
        if name == "auto":
            name = "small" if n_users <= 50_000 else "laptop" if n_users <= 150_000 else "large"
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
            label_splits=HorizonSplits(self.horizon_days, self.label_windows, self.label_stride_days),
            features=FeatureSet(tuple(self.drop_features)),
            n_candidates=self.n_candidates,
            preranker=light_ranker() if self.prerank else None,
            pool_size=self.pool_size,
            negatives=self.negatives,
            idle_users=self.idle_users,
            max_users=self.max_users,
            refit=self.refit,
            calibrate=self.calibrate,
            seed=self.seed,
            threads=self.threads,
        )

    def make_sources(self) -> list[CandidateGenerator]:
        """The sources, or the default ones."""
        if self.sources is None:
            return default_sources()
        return [make_component(s.model_dump(), CandidateGenerator, "source") for s in self.sources]

    def make_ranker(self) -> Ranker:
        """The ranker: LightGBM (lambdarank) by default."""
        if self.ranker is None:
            return LightGBMRanker()
        ranker: Ranker = make_component(self.ranker.model_dump(), Ranker, "ranker")
        return ranker

    def make_prefilters(self) -> tuple[Prefilter, ...]:
        """The prefilters of the preset, or those listed."""
        if isinstance(self.prefilters, str):
            return preset(self.prefilters)
        return tuple(make_component(p.model_dump(), Prefilter, "prefilter") for p in self.prefilters)


_RENAMED = {"candidates_per_source": "n_candidates"}


def read_settings(path: Path | None, **overrides: Any) -> Settings:
    """Settings from a TOML file, with what the command line says on top; None means not said.

    Raises
    ------
    SettingError
        If the file is missing, no TOML, or a setting is unknown or out of range.
    """
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(Path(path).read_text())
        except OSError as error:
            raise SettingError(f"config {path} can't be read: {error}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingError(f"config {path} is no valid TOML: {error}.") from error
    for old, new in _RENAMED.items():
        if old in given:
            raise SettingError(f"setting '{old}' is called '{new}' now; rename it in {path}.")
    given |= {k: v for k, v in overrides.items() if v is not None}
    try:
        settings = Settings(**given)
        for metric in settings.metrics:
            parse_metric(metric)
        settings.for_size(1).model()  # whatever its parts refuse is said now, before data is loaded
        return settings
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "settings"
        raise SettingError(
            f"setting '{where}' is {first.get('input')!r}: {first['msg'].lower()}. "
            f"Known settings: {', '.join(Settings.model_fields)}."
        ) from error


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
