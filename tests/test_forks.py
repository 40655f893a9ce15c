"""A worker made by fork says what is wrong instead of waiting for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

WORK = """
import os, signal
import pandas as pd
from retailrec.data import RetailData

def load():
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    lines = {"user_id": [1, 1, 2], "item_id": [1, 2, 2], "time": days, "receipt_id": [1, 2, 3]}
    frame = pd.DataFrame(lines | {"quantity": [1, 1, 1], "value": [2.0, 2.0, 2.0]})
    return RetailData.from_frames(frame).n_users

if not (child := os.fork()):
    signal.alarm(8)
    try:
        print(load(), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_a_worker_made_by_fork_is_refused_with_a_sentence() -> None:
    command = [sys.executable, "-c", WORK]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "SettingError: this process was made by fork" in told


HISTORY = """
import os, signal
import polars as pl
from retailrec.data import RetailData

data = RetailData.from_frames(pl.DataFrame({"user_id": [1], "item_id": [1], "time": ["2024-01-01"]}))
for ask in ("data.history(codes=[0])", "data.histories([1])", "data.asof('2024-01-01')"):
    eval(ask)
    if not (child := os.fork()):
        signal.alarm(8)
        try:
            eval(ask)
        except Exception as error:
            print(f"{ask}: {error}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_worker_made_by_fork_that_asks_for_histories_is_refused_too() -> None:
    command = [sys.executable, "-c", HISTORY]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert told.count("this process was made by fork") == 3
