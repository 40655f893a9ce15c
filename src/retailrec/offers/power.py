"""Sample size, power and detectable effect of an experiment, before it is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retailrec.errors import SettingError


@dataclass(frozen=True)
class Design:
    """How an experiment compares a control (the holdout) with everybody else.

    Attributes
    ----------
    control_share : share of shoppers held out
    power : chance to find an effect of the planned size
    level : of the intervals; 1 - level is the chance of a false alarm
    correlation : of the outcome with the same thing earlier; CUPED leaves 1 - correlation**2 of the
        variance (Deng et al., WSDM 2013)
    """

    control_share: float = 0.1
    power: float = 0.8
    level: float = 0.95
    correlation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("control_share", "power", "level"):
            if not 0 < getattr(self, name) < 1:
                raise SettingError(
                    f"experiment: {name} must lie between 0 and 1, not {getattr(self, name)}. "
                    "Correct it."
                )
        if not -1 < self.correlation < 1:
            raise SettingError(
                f"experiment: correlation must lie between -1 and 1, not {self.correlation}. "
                "Correct it."
            )


def required_shoppers(sd: float, effect: float, design: Design | None = None) -> int:
    """Shoppers in both arms together, so that a difference of means of `effect` is found.

    Parameters
    ----------
    sd : standard deviation of the outcome between shoppers
    effect : difference of means in the outcome's unit

    Raises
    ------
    SettingError
        If `sd` is negative or `effect` is 0.

    Examples
    --------
    >>> required_shoppers(1.0, 0.1, Design(control_share=0.5))
    3140
    """
    design = design or Design()
    if not effect or not math.isfinite(effect) or not sd >= 0:
        raise SettingError(
            f"experiment: the effect must not be 0 and sd must be 0 or more, not {effect} and {sd}. "
            f"Name the smallest effect that would matter."
        )
    n = (_steps(design) * _spread(sd, design) / effect) ** 2
    return max(4, math.ceil(n))


def detectable_effect(n: int, sd: float, design: Design | None = None) -> float:
    """Smallest difference of means that `n` shoppers in both arms together find with the power asked.

    Examples
    --------
    >>> round(detectable_effect(3140, 1.0, Design(control_share=0.5)), 3)
    0.1
    """
    design = design or Design()
    return _steps(design) * _spread(sd, design) / math.sqrt(_at_least_four(n))


def power_of(n: int, sd: float, effect: float, design: Design | None = None) -> float:
    """Chance that `n` shoppers in both arms together show a difference of means of `effect`.

    Examples
    --------
    >>> round(power_of(3140, 1.0, 0.1, Design(control_share=0.5)), 2)
    0.8
    """
    from scipy.special import ndtr, ndtri

    design = design or Design()
    spread = _spread(sd, design)
    steps = math.inf if not spread else abs(effect) * math.sqrt(_at_least_four(n)) / spread
    edge = ndtri((1 + design.level) / 2)
    return float(ndtr(steps - edge) + ndtr(-steps - edge))


def _steps(design: Design) -> float:
    """Standard errors between no effect and the planned one."""
    from scipy.special import ndtri

    return float(ndtri((1 + design.level) / 2) + ndtri(design.power))


def _spread(sd: float, design: Design) -> float:
    """Standard error of the difference x sqrt(shoppers)."""
    share = design.control_share
    return sd * math.sqrt((1 - design.correlation**2) * (1 / share + 1 / (1 - share)))


def _at_least_four(n: int) -> int:
    if n < 4:
        raise SettingError(
            f"experiment: two arms need at least 2 shoppers each, got {n} in all. Bring more shoppers."
        )
    return n
