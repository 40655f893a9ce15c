"""What a worker among others asks for: no more threads than its cores, a model whose arrays are shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retailrec.compute import shards
from retailrec.compute.shards import hold_to_cores, library_threads, n_threads
from retailrec.errors import SettingError
from retailrec.jobs.settings import Settings
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data


def test_a_worker_uses_no_more_threads_than_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_most", None)
    assert n_threads(7) == 7
    hold_to_cores(2)
    assert [n_threads(asked) for asked in (None, 0, 1, 7)] == [2, 2, 1, 2]
    assert library_threads(7) == 2
    with pytest.raises(SettingError, match="cores of a worker must be at least 1, not 0"):
        hold_to_cores(0)


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),  # of a container
        ("0::/", {"cpu.max": "max 100000"}, shards.MOST_THREADS),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, 1),
        (
            "3:cpuset:/\n1:cpu,cpuacct:/pod/x",  # x is of the machine, whose groups are not to be seen
            {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "1:cpu:/a",
            {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
            shards.MOST_THREADS,
        ),
        ("nonsense", {}, shards.MOST_THREADS),
    ],
)
def test_threads_are_as_many_as_a_container_s_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], cores: int
) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()} | {
        "proc/self/cgroup": groups
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert shards.quota(tmp_path) == cores
    monkeypatch.setattr(shards, "_most", None)
    monkeypatch.setattr(shards.os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.setattr(shards, "quota", lambda: cores)
    assert [n_threads(0), n_threads(70)] == [min(cores, 64), 70]


def test_blas_is_held_to_the_cores_too() -> None:
    code = (
        "from retailrec.compute.shards import hold_to_cores; hold_to_cores(1);"
        "from threadpoolctl import threadpool_info;"
        "print({lib['num_threads'] for lib in threadpool_info() if lib['user_api'] == 'blas'})"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "{1}"


def test_a_mapped_model_answers_alike_and_leaves_its_arrays_on_disk(tmp_path: Path) -> None:
    data = small_data(users=40, weeks=20)
    quick = Settings(
        horizon_days=14,
        ranker={"type": "lightgbm", "iterations": 3},
        label_windows=1,
        threads=1,
        sources=[{"type": "own_purchases"}, {"type": "item_item"}, {"type": "popularity"}],
        n_candidates=20,
    )
    quick.model().fit(data).save(tmp_path)
    loaded = TwoStageRecommender.load(tmp_path)
    mapped = TwoStageRecommender.load(tmp_path, memory_map=True)
    assert mapped.recommend(data, k=4).equals(loaded.recommend(data, k=4))
    table = mapped.features_.items_
    assert isinstance(table.base, np.memmap) or isinstance(table.base.base, np.memmap)  # type: ignore[union-attr]
    before = loaded.features_.items_.copy()
    table[:] = 0  # to memory alone
    np.testing.assert_array_equal(TwoStageRecommender.load(tmp_path).features_.items_, before)
