"""Features, correct as of the end of the data that they are given."""

from __future__ import annotations

from retailrec.features import columns  # noqa: F401  (they register)
from retailrec.features.events import FEATURES, Events, Feature, feature, features_of

__all__ = ["FEATURES", "Events", "Feature", "feature", "features_of"]
