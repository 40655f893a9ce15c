"""A small generated supermarket, in the Complete Journey's own columns.

Households visit in a rhythm of their own, keep a list of staples that run out after a time of their
own, stick to a brand within a sub-commodity most of the time, and pick up popular things besides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from retailrec.cleaning import DAY_ONE  # noqa: F401
from retailrec.data import RetailData
from retailrec.errors import SettingError
from retailrec.datasets import complete_journey
