"""The same seed gives the same rows, so the same model, on another kind of processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retailrec.candidates.factors import grid, rounded
from retailrec.compute.csr import dot_pairs
from retailrec.compute.memory import return_freed_memory
from retailrec.compute.shards import wait_asleep

# what libraries choose by, set to what a processor without 512-bit registers has
_OLDER = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NUMBA_CPU_NAME": "haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL "
    "AVX512_SPR",
}
_ROWS = """
import hashlib
import numpy as np
from retailrec import TwoStageRecommender
from retailrec.simulator.shop import data_of, preset_shop

data = data_of(preset_shop("x5", users=300))
model = TwoStageRecommender(threads=1)
rows = model.training_frame(data)
for values in (rows.x, rows.y):
    print(hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest())
"""


def test_dot_products_of_rounded_factors_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(1, 96)), rng.normal(size=(50, 96))
    step = grid(items)
    users, items = rounded(users, step), rounded(items, step)
    order = rng.permutation(96)
    pairs = np.array([0, 50]), np.arange(50, dtype=np.int32)
    assert_array_equal(
        dot_pairs(users, items, *pairs), dot_pairs(users[:, order], items[:, order], *pairs)
    )
    assert_array_equal(
        dot_pairs(users, items, *pairs), (items.astype(float) @ users[0]).astype(np.float32)
    )


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the processors compared are of x86-64")
def test_rows_are_those_of_another_processor(tmp_path: Path) -> None:
    told = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _ROWS],
            env=os.environ | more,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for more in ({}, _OLDER | {"NUMBA_CACHE_DIR": str(tmp_path)})
    ]
    assert len(told[0]) > 64
    assert told[0] == told[1]


def test_a_command_asks_libraries_to_share_the_machine_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = ("GOMP_SPINCOUNT", "_RJEM_MALLOC_CONF", "OMP_WAIT_POLICY")
    for name in mine:
        monkeypatch.setenv(name, "")  # put back afterwards
        monkeypatch.delenv(name)
    for ask in (wait_asleep, return_freed_memory):
        ask()
    assert os.environ["GOMP_SPINCOUNT"] == "2000"
    assert "background_thread:true" in os.environ["_RJEM_MALLOC_CONF"]
    for name in mine:
        monkeypatch.setenv(name, "active")
    for ask in (wait_asleep, return_freed_memory):
        ask()
    assert {os.environ[name] for name in mine} == {"active"}
    monkeypatch.delenv("GOMP_SPINCOUNT")
    wait_asleep()
    assert "GOMP_SPINCOUNT" not in os.environ
