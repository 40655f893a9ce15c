"""Arms of an experiment: who gets which model, by a salted hash, the same every time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retailrec.data.toml_files import read_toml
from retailrec.errors import SettingError


class Assignment(NamedTuple):
    """What a shopper gets.

    Attributes
    ----------
    arm : its name; empty without an experiment
    model, purpose : which model and saved rules answer; None: those that would without
    propensity : the chance, known beforehand, of standing in this arm and not in the holdout
    holdout : is the shopper shown nothing, on purpose?
    """

    arm: str = ""
    model: str | None = None
    purpose: str | None = None
    propensity: float = 1.0
    holdout: bool = False


class Arm(BaseModel):
    """One arm: its share of the shoppers, and what is different in it."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(gt=0, le=1)
    model: str | None = None
    purpose: str | None = None


@dataclass(frozen=True)
class Experiment:
    """Who gets what.

    Parameters
    ----------
    campaign : name under which exposures are logged
    salt : another one draws anew
    holdout : share of the shoppers who are shown nothing
    arms : name -> arm; shares add up to 1. Without any, all get the active model
    shadow : models that answer for the log only

    Examples
    --------
    >>> test = Experiment(salt="may", arms={"a": Arm(share=0.5), "b": Arm(share=0.5)})
    >>> [test.assign(shopper).arm for shopper in ("ann", "bob", "cid", "dora")]
    ['b', 'b', 'a', 'b']
    """

    campaign: str = "offers"
    salt: str = ""
    holdout: float = 0.0
    arms: dict[str, Arm] = field(default_factory=dict)
    shadow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        total = sum(arm.share for arm in self.arms.values())
        if self.arms and abs(total - 1) > 1e-9:
            raise SettingError(f"experiment: the arms' shares add up to {total:g}; expected 1.")
        if not 0 <= self.holdout < 1:
            raise SettingError(f"experiment: holdout is {self.holdout:g}; expected 0 to below 1.")

    def assign(self, shopper: str) -> Assignment:
        """The shopper's arm; it depends on the salt and the shopper alone."""
        if self.holdout and _uniform(self.salt, "holdout", shopper) < self.holdout:
            return Assignment(holdout=True, propensity=self.holdout)
        if not self.arms:
            return Assignment(propensity=1 - self.holdout)
        place, so_far = _uniform(self.salt, "arm", shopper), 0.0
        name = list(self.arms)[-1]  # where rounding leaves a gap below 1
        for candidate, arm in self.arms.items():
            so_far += arm.share
            if place < so_far:
                name = candidate
                break
        chosen = self.arms[name]
        return Assignment(name, chosen.model, chosen.purpose, chosen.share * (1 - self.holdout))


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    campaign: str = "offers"
    salt: str
    holdout: float = 0.0
    arms: dict[str, Arm] = {}
    shadow: list[str] = []


def read_experiment(path: Path) -> Experiment:
    """The experiment of a TOML file.

    Raises
    ------
    SettingError
        If it can't be read, or a setting makes no sense.
    """
    given = read_toml(path, who="experiment")
    try:
        found = _File(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(place) for place in first["loc"])
        raise SettingError(f"experiment {path}: {where}: {first['msg'].lower()}.") from error
    return Experiment(
        found.campaign, found.salt, found.holdout, dict(sorted(found.arms.items())), tuple(found.shadow)
    )


def _uniform(*parts: str) -> float:
    """A number from 0 to below 1 that stands for these texts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
