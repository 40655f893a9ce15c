"""Arms of an experiment: who gets which model, by the draw that batch campaigns use too."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from retailrec.data.toml_files import read_toml
from retailrec.errors import SettingError
from retailrec.offers.arms import HOLDOUT, arm_of
from retailrec.serving import schema
from retailrec.serving.store import Store

_LOG = logging.getLogger("retailrec.serving")
Formula = Literal[1, 2]


class Assignment(NamedTuple):
    """What a user gets.

    Attributes
    ----------
    arm : its name; empty without an experiment
    model, purpose, ruleset : which model, kind of list and saved rules; None: those that would without
    propensity : the chance, known before the draw, of this arm (or of the holdout)
    holdout : is the user shown nothing, on purpose?
    """

    arm: str = ""
    model: str | None = None
    purpose: str | None = None
    propensity: float = 1.0
    holdout: bool = False
    ruleset: str | None = None


class Arm(BaseModel):
    """One arm: its share of the users who are not held out, and what is different in it."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(gt=0, le=1)
    model: str | None = None
    purpose: str | None = None
    ruleset: str | None = None


@dataclass(frozen=True)
class Experiment:
    """Who gets what.

    Parameters
    ----------
    campaign : name under which exposures are logged
    salt : another one draws anew; without one the campaign's name is the salt
    holdout : share of the users who are shown nothing
    arms : name -> arm; shares add up to 1. Without any, all get the active model
    shadow : models that answer for the log only
    formula : of the draw. 2: `retailrec.offers.arms.arm_of`, as batch campaigns draw. 1: that of
        version 0.2's service, for an experiment that began under it. None: see `settled`

    Examples
    --------
    >>> test = Experiment(salt="may", arms={"a": Arm(share=0.5), "b": Arm(share=0.5)})
    >>> [test.assign(user).arm for user in ("1", "2", "3", "4")]
    ['b', 'a', 'a', 'b']
    """

    campaign: str = "offers"
    salt: str = ""
    holdout: float = 0.0
    arms: dict[str, Arm] = field(default_factory=dict)
    shadow: tuple[str, ...] = ()
    formula: Formula | None = None

    def __post_init__(self) -> None:
        total = sum(arm.share for arm in self.arms.values())
        if self.arms and abs(total - 1) > 1e-9:
            raise SettingError(f"experiment: the arms' shares add up to {total:g}; expected 1.")
        if not 0 <= self.holdout < 1:
            raise SettingError(f"experiment: holdout is {self.holdout:g}; expected 0 to below 1.")
        if HOLDOUT in self.arms:
            raise SettingError(
                f"experiment: no arm may be called '{HOLDOUT}'; say holdout = SHARE, or rename the arm."
            )

    def assign(self, user: str) -> Assignment:
        """The user's arm; it depends on the salt, the shares and the id alone."""
        if not self.arms and not self.holdout:
            return Assignment()
        kept = 1 - self.holdout
        if self.formula == 1:
            name = self._arm_of_version_0_2(user)
        else:
            shares = {name: arm.share * kept for name, arm in self.arms.items()} or {"": kept}
            if self.holdout:
                shares[HOLDOUT] = self.holdout
            name = arm_of(user, shares, salt=self.salt or self.campaign)
        if name == HOLDOUT:
            return Assignment(holdout=True, propensity=self.holdout)
        if not name:
            return Assignment(propensity=kept)
        chosen = self.arms[name]
        share = chosen.share * kept
        return Assignment(name, chosen.model, chosen.purpose, share, ruleset=chosen.ruleset)

    def settled(self, store: Store) -> Experiment:
        """The experiment with its formula: its own, or 1 if it began under version 0.2, or 2."""
        if self.formula is not None:
            return self
        began = schema.experiments
        statement = select(began.c.formula).where(began.c.campaign == self.campaign)
        with store.reader() as connection:
            formula = connection.execute(statement).scalar()
        if formula == 1 and (self.arms or self.holdout):
            _LOG.warning(
                "campaign %s began under version 0.2, so arms are drawn as then (formula = 1); batch "
                "campaigns draw others. Name a new campaign, or set formula = 2, to draw anew",
                ascii(self.campaign),
            )
        return replace(self, formula=1 if formula == 1 else 2)

    def _arm_of_version_0_2(self, user: str) -> str:
        def uniform(kind: str) -> float:
            digest = hashlib.sha256("\0".join((self.salt, kind, user)).encode()).digest()
            return int.from_bytes(digest[:8], "big") / 2**64

        if self.holdout and uniform("holdout") < self.holdout:
            return HOLDOUT
        place, so_far, name = uniform("arm"), 0.0, ""
        for name, arm in self.arms.items():  # noqa: B007 the last one where rounding leaves a gap
            so_far += arm.share
            if place < so_far:
                break
        return name


def _word(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("expected printable characters")
    return text


_Word = Annotated[str, AfterValidator(_word)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    campaign: _Word = "offers"
    salt: str
    holdout: float = 0.0
    arms: dict[_Word, Arm] = {}
    shadow: list[str] = []
    formula: Formula | None = None


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
        found.campaign,
        found.salt,
        found.holdout,
        dict(sorted(found.arms.items())),
        tuple(found.shadow),
        found.formula,
    )
