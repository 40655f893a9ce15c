"""Settings of a campaign: TOML <-> objects, checked by pydantic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from retailrec.components import checked
from retailrec.data.paths import read_toml
from retailrec.errors import SettingError

By = Literal["product", "supplier", "category", "everything"]
ValueOf = Literal[
    "value",
    "score",
    "probability",
    "probability_margin",
    "probability_margin_less_cost",
    "uplift_margin",
]
VALUE_COLUMNS: dict[str, tuple[str, ...]] = {
    "value": ("value",),
    "score": ("score",),
    "probability": ("probability",),
    "probability_margin": ("probability", "margin"),
    "probability_margin_less_cost": ("probability", "margin", "cost"),
    "uplift_margin": ("uplift_margin",),
}


def _ordered(low: int, high: int) -> None:
    if low > high:
        raise ValueError(f"at_least ({low}) is more than at_most ({high}); no answer can keep to both")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


_WHOLE = "constrained-int"  # pydantic's name for the branch of a bound that is a number
MOST_OFFERS = 1_000_000_000
Count = Annotated[int, Field(strict=True, ge=0, le=MOST_OFFERS)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MOST_OFFERS)]
# true is what a column of true and false holds, and no 1
Name = Annotated[str | int, BeforeValidator(lambda v: str(v).lower() if isinstance(v, bool) else v)]


class _Bound(_Part):
    by: By
    of: Name | None = None

    @model_validator(mode="after")
    def _check_of(self) -> Self:
        if self.by == "everything" and self.of is not None:
            raise ValueError("by = 'everything' takes no 'of'")
        return self


class Limit(_Bound):
    """At most and at least so many offers of a product, a supplier or a category, or of everything.

    Attributes
    ----------
    by : what is counted; ``supplier`` and ``category`` are columns of the items
    of : the one that is meant; without it the limit holds for each one separately
    at_most, at_least : a number, or the name of a column of the items such as ``stock`` (with
        ``by = "product"`` only); an empty cell sets no limit
    """

    at_most: Count | str | None = None
    at_least: Count | str | None = None

    @model_validator(mode="after")
    def _check(self) -> Limit:
        if self.at_most is None and self.at_least is None:
            raise ValueError("a limit needs at_most, at_least or both")
        for name in ("at_most", "at_least"):
            bound = getattr(self, name)
            if isinstance(bound, str) and self.by != "product":
                raise ValueError(f"{name} = '{bound}' names a column, which needs by = 'product'")
        if isinstance(self.at_most, int) and isinstance(self.at_least, int):
            _ordered(self.at_least, self.at_most)
        return self


class Budget(_Bound):
    """Expected cost, cost x redemption probability added up, at the most."""

    at_most: float = Field(strict=True, ge=1e-12, le=1e15, allow_inf_nan=False)
    by: By = "everything"


class Exclusion(_Part):
    """Products of which one shopper gets one at the most."""

    products: list[Name] = Field(min_length=2)


class Variety(_Part):
    """At most so many offers of one supplier or category for one shopper."""

    by: Literal["supplier", "category"]
    at_most: Positive


class Floor(_Part):
    """Every shopper of a segment gets at least so many offers."""

    column: str
    of: Name | None = None
    at_least: Positive = 1


class Cap(_Part):
    """At most so many offers a shopper (or a shopper and product) in days, past campaigns counted."""

    days: float = Field(strict=True, gt=0, le=36_500, allow_inf_nan=False)
    at_most: Positive
    per: Literal["shopper", "product"] = "shopper"


class PerShopper(_Part):
    """Offers a shopper gets."""

    at_most: Positive = 1
    at_least: Count = 0

    @model_validator(mode="after")
    def _check(self) -> PerShopper:
        _ordered(self.at_least, self.at_most)
        return self


class Campaign(_Part):
    """All settings of an allocation.

    Attributes
    ----------
    name : of the campaign; stands in the ledger
    value : what an offer is worth: a column (``value``, ``score``, ``probability``),
        ``probability_margin`` (probability x margin), ``probability_margin_less_cost``
        (probability x (margin - cost)) or ``uplift_margin`` (what an offer changes, as
        `retailrec uplift fit` learns it)
    offers : number of offers a shopper
    holdout : share of shoppers who get nothing, so that the effect can be told
    explore : chance that two shoppers with near ties swap an offer; 0: none do
    near_tie : how far apart, as a share of the value, two offers of a near tie may lie
    strata : column of the users; holdouts are drawn evenly within each of its values
    salt : of the draw of arms, as an experiment of the service has it: the same word, the same arms.
        Without one it is the name
    again : may shoppers who stand in the ledger for this campaign be offered again? They keep the arm
        that stands there

    Examples
    --------
    >>> Campaign(name="may", offers={"at_most": 3}, budget=[{"at_most": 500}]).budget[0].by
    'everything'
    """

    name: str = Field(min_length=1)
    value: ValueOf = "value"
    offers: PerShopper = PerShopper()
    holdout: float = Field(default=0.0, strict=True, ge=0, lt=1)
    explore: float = Field(default=0.0, strict=True, ge=0, le=0.5)
    near_tie: float = Field(default=0.05, strict=True, ge=0, lt=1)
    strata: str | None = None
    salt: str = ""
    again: bool = Field(default=False, strict=True)
    limit: list[Limit] = []
    budget: list[Budget] = []
    exclusion: list[Exclusion] = []
    variety: list[Variety] = []
    floor: list[Floor] = []
    cap: list[Cap] = []

    @model_validator(mode="after")
    def _check(self) -> Campaign:
        for floor in self.floor:
            _ordered(floor.at_least, self.offers.at_most)
        return self


def campaign_of(settings: dict[str, Any], *, who: str = "campaign") -> Campaign:
    """A campaign from a dictionary, with complaints in one sentence.

    Raises
    ------
    SettingError
        If a name is unknown, a value is out of range, or bounds contradict each other.
    """
    try:
        return Campaign.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"] if step != _WHOLE) or "settings"
        expected = ""
        if first["type"] == "extra_forbidden":
            expected = f"; expected one of {', '.join(_names_at(first['loc'][:-1]))}"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            raise SettingError(
                f"{who} lacks '{where}'; is it the file of a campaign? docs/offers.md has an example."
            ) from error
        raise SettingError(
            f"{who}: {where} is {_short(first['input'])}: {message}{expected}. Correct the campaign."
        ) from error


@checked
def read_campaign(path: Path) -> Campaign:
    """A campaign from a TOML file.

    Raises
    ------
    SettingError
        If the file is missing, is no TOML, or holds settings that make no sense.
    """
    settings = read_toml(path, who="campaign file")
    return campaign_of(settings, who=f"campaign file {path}")


def _names_at(place: tuple[Any, ...]) -> list[str]:
    """Settings that are known where an unknown one stood."""
    if not place:
        return list(Campaign.model_fields)
    kind: Any = Campaign.model_fields[str(place[0])].annotation
    return list((*get_args(kind), kind)[0].model_fields)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
