"""Settings of lists of new items: what counts as new, who proposes it, who orders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from retailrec.candidates import CandidateGenerator
from retailrec.components import Natural, NotNegative, check_parts, check_settings
from retailrec.errors import SettingError
from retailrec.rankers import Ranker

_WHO = "discovery"


@dataclass(frozen=True)
class Discovery:
    """How a model learns to recommend what is new to a shopper, for ``purpose="discover"``.

    The pool holds such items alone: each of the model's sources, and each of `sources`, is asked for
    its best new items. A ranker of its own learns from these rows, and only new purchases count.

    Parameters
    ----------
    after_days : an item counts as new again so many days after the shopper's last purchase; None: never
    n_candidates : new items asked of each of the model's sources and of `sources`, in this order: one
        number, or one a source
    sources : further sources, for this purpose only
    ranker : orders the candidates; None: few coarse trees with log loss (`discovery_ranker`)

    Examples
    --------
    >>> Discovery(after_days=180).n_candidates
    60
    """

    after_days: NotNegative | None = None
    n_candidates: Natural | Sequence[Natural] = 60
    sources: Sequence[CandidateGenerator] = field(default_factory=list)
    ranker: Ranker | None = None

    def __post_init__(self) -> None:
        check_settings(self, _WHO)
        check_parts(_WHO, "sources", self.sources, CandidateGenerator)
        check_parts(_WHO, "ranker", [self.ranker] if self.ranker else [], Ranker)
        if not self.n_candidates:
            raise SettingError("discovery: n_candidates is 0, so nothing would be proposed; raise it.")
