"""Recommendations for everybody: whole or not there, the same after any interruption, bounded."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.compute.memory import _c_function, peak_memory_mb, release_memory
from retailrec.compute.shards import n_threads
from retailrec.data import RetailData
from retailrec.datasets import load_dataset
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.jobs.run import run
from retailrec.jobs.settings import Settings, read_settings
from retailrec.offers.ledger import Ledger
from retailrec.recommender import batch
from retailrec.recommender.answerer import Answerer
from retailrec.recommender.batch import (
    Batch,
    Exposures,
    artifact_key,
    blocks,
    recommend_from_files,
    recommend_to_file,
)
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import Shop, receipt_lines, small_data
from retailrec.work import MARKER

QUICK = Settings(
    horizon_days=14,
    ranker={"type": "lightgbm", "iterations": 5},
    label_windows=2,
    prerank=False,
    threads=1,
    sources=[{"type": "own_purchases"}, {"type": "popularity"}],
    n_candidates=30,
)
BLOCK = 2000  # lines: some twenty blocks


@pytest.fixture(scope="module")
def data() -> RetailData:
    return small_data(users=200, weeks=26)


@pytest.fixture(scope="module")
def model(data: RetailData) -> TwoStageRecommender:
    return QUICK.model().fit(data)


@pytest.fixture(scope="module")
def saved(
    data: RetailData, model: TwoStageRecommender, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    model.save(folder / "model")
    receipt_lines(data).write_parquet(folder / "receipts.parquet")
    return folder


def test_blocks_hold_all_shoppers_and_few_lines(data: RetailData) -> None:
    users = np.arange(data.n_users)
    lines = np.bincount(data.log["user"].to_numpy(), minlength=data.n_users)
    parts = list(blocks(data, users, BLOCK))
    assert len(parts) > 10
    np.testing.assert_array_equal(np.concatenate([users[part] for part in parts]), users)
    assert all(lines[p].sum() <= BLOCK or len(users[p]) == 1 for p in parts)


@pytest.mark.parametrize("name", ["offers.parquet", "offers.csv"])
def test_a_file_is_what_recommend_says(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path, name: str
) -> None:
    batch = recommend_to_file(model, data, tmp_path / name, 3, block_lines=BLOCK)
    read = pl.read_parquet if name.endswith("parquet") else pl.read_csv
    found = read(tmp_path / name)
    expected = model.recommend(data.history(), k=3)
    assert (
        found.select("user_id", "item_id", "rank").rows()
        == expected.select("user_id", "item_id", "rank").rows()
    )
    assert (batch.report.n_shoppers, batch.n_rows) == (data.n_users, expected.height)
    assert sorted(os.listdir(tmp_path)) == [MARKER, name]  # no parts, no partial files


def test_what_rules_did_is_added_up_over_blocks(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path
) -> None:
    rules = Rules(max_per_category=1)
    batch = recommend_to_file(model, data, tmp_path / "a.parquet", 5, rules=rules, block_lines=BLOCK)
    whole = model.answer(data.history(), k=5, rules=rules).report
    assert batch.report.rules == whole.rules
    assert batch.report.rules["max_per_category"]["bound"] > 0


def test_pools_of_explored_lists_are_a_second_file_that_goes_on_and_appears_with_the_first(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, pools = tmp_path / "lists.parquet", tmp_path / "pools.parquet"
    asked = {"k": 3, "explore": 0.3, "pool": 8, "salt": "may"}
    exposures = Exposures(pools, "weekly")
    original, written = Answerer.answer, []

    def stops(*arguments: Any) -> Any:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(1)
        return original(*arguments)

    def explored(**more: Any) -> Batch:
        more = {"exposures": exposures, "key": "this model", "block_lines": BLOCK} | asked | more
        return recommend_to_file(model, data, out, **more)

    monkeypatch.setattr(Answerer, "answer", stops)
    with pytest.raises(KeyboardInterrupt):
        explored()
    assert not out.exists()
    assert not pools.exists()
    monkeypatch.setattr(Answerer, "answer", original)
    done = explored()
    assert done.n_taken_over == 5
    answer = model.answer(data, **asked)
    expected = answer.exposures("weekly", data.end)
    assert pl.read_parquet(pools).equals(expected)
    assert pl.read_parquet(out).equals(answer.lists)
    assert (done.n_rows, done.n_exposures) == (answer.lists.height, expected.height)
    only = explored(exposures=exposures._replace(shown_only=True))
    assert only.n_exposures == answer.lists.height
    assert Ledger(pools).read_pool().equals(expected.filter("shown"))
    for bad, words in (
        ({"explore": 0.0}, "explores nothing"),
        ({"exposures": Exposures(out)}, "name two files"),
        ({"exposures": Exposures(tmp_path / "pools.csv")}, "must end in .parquet"),
    ):
        with pytest.raises(RetailRecError, match=words):
            explored(**bad)


def test_a_rerun_takes_over_finished_blocks_of_the_same_wish_only(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.parquet"
    written = []
    original = Answerer.answer

    def stops(*arguments: Any) -> Any:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(1)
        return original(*arguments)

    monkeypatch.setattr(Answerer, "answer", stops)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_file(model, data, out, 3, key="this model", block_lines=BLOCK)
    assert not out.exists()
    monkeypatch.setattr(Answerer, "answer", original)
    again = recommend_to_file(model, data, out, 3, key="this model", block_lines=BLOCK)
    assert again.n_taken_over == 5
    assert pl.read_parquet(out).equals(model.recommend(data.history(), k=3))
    written.clear()
    monkeypatch.setattr(Answerer, "answer", stops)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_file(model, data, out, 3, key="this model", block_lines=BLOCK)
    monkeypatch.setattr(Answerer, "answer", original)
    other = recommend_to_file(
        model, data, out, 3, key="this model", block_lines=BLOCK, rules=Rules(max_per_category=1)
    )
    assert other.n_taken_over == 0


SCRIPT = """
import sys
from pathlib import Path
from typing import Any
from retailrec.recommender.batch import artifact_key, recommend_to_file
from retailrec.data import RetailData
from retailrec.recommender.two_stage import TwoStageRecommender
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
model = TwoStageRecommender.load(folder / "model")
data, _ = model.coded(RetailData.from_frames(__import__("polars").read_parquet(folder / "receipts.parquet")))
def tell(step, done=0, total=0):
    print(step, done, flush=True)
recommend_to_file(model, data, out, 3, key=artifact_key(folder / "model"), block_lines=2000, progress=tell)
print("done", flush=True)
"""


def start(saved: Path, out: Path, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, saved, out]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload]


def finish(saved: Path, out: Path) -> None:
    """The same work, undisturbed, within this process."""
    model = TwoStageRecommender.load(saved / "model")
    data, _ = model.coded(RetailData.from_frames(pl.read_parquet(saved / "receipts.parquet")))
    recommend_to_file(model, data, out, 3, key=artifact_key(saved / "model"), block_lines=2000)


@pytest.mark.slow
def test_killed_at_several_moments_a_rerun_gives_the_same_answer(saved: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    finish(saved, whole)
    out = tmp_path / "offers.parquet"
    for blocks_done in (1, 4, 9):
        process = start(saved, out)
        assert process.stdout is not None
        for _ in range(blocks_done):
            assert process.stdout.readline().startswith("recommend ")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not out.exists()  # nothing that looks whole
    (tmp_path / f".partial-{'0' * 16}-offers.parquet").write_bytes(b"half")  # died while combining
    finish(saved, out)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir(tmp_path)) == [MARKER, "offers.parquet", "whole.parquet"]


RUN = """
import sys
from pathlib import Path
from typing import Any
from retailrec.jobs.settings import read_settings
from retailrec.datasets import load_dataset
from retailrec.jobs.run import run
shop, config, out = map(Path, sys.argv[1:])
def tell(*step):
    print(*step, flush=True)
run(load_dataset("complete-journey", shop), read_settings(config), out, progress=tell, page=False)
"""


@pytest.mark.slow
def test_run_killed_and_run_again_gives_the_same_answer(tmp_path: Path) -> None:
    """Killed while it fits, while it judges and while it writes recommendations."""
    Shop(users=80, items=400, weeks=20).write(tmp_path / "shop")
    config = tmp_path / "quick.toml"
    config.write_text(
        "prerank = false\nlabel_windows = 2\nn_candidates = 20\nhorizon_days = 14\n"
        "threads = 1\n"
        '[ranker]\ntype = "lightgbm"\niterations = 3\n[[sources]]\ntype = "own_purchases"\n'
        '[[sources]]\ntype = "popularity"\n'
    )
    command = [sys.executable, "-c", RUN, tmp_path / "shop", config]
    for state in ("fit on what lies before", "evaluate", "recommend"):
        process = subprocess.Popen([*command, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert any(line.startswith(state) for line in process.stdout), f"no step '{state}'"
        process.kill()
        assert process.wait() == -signal.SIGKILL  # it was still at work
        process.stdout.close()
        assert not (tmp_path / "out" / "metrics.json").exists()  # nothing that looks whole
    for out in ("out", "calm"):
        data = load_dataset("complete-journey", tmp_path / "shop")
        run(data, read_settings(config), tmp_path / out, page=False)
    first, calm = (pl.read_parquet(tmp_path / o / "recommendations.parquet") for o in ("out", "calm"))
    assert first.equals(calm)
    assert [n for n in os.listdir(tmp_path / "out") if n.startswith(".")] == [".retailrec"]
    models = [
        json.loads((tmp_path / o / "metrics.json").read_text())["models"] for o in ("out", "calm")
    ]
    assert models[0] == models[1]


def no_room() -> None:
    """Files may not grow: what a full disk feels like."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "offers.parquet"
    process = start(saved, out, stderr=subprocess.PIPE, preexec_fn=no_room)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert "DataError" in errors
    assert "can't be written" in errors
    assert not out.exists()
    finish(saved, out)


def test_a_target_that_is_a_folder_is_a_clear_error(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path
) -> None:
    (tmp_path / "offers.parquet").mkdir()
    with pytest.raises(DataError, match="can't be written"):
        recommend_to_file(model, data, tmp_path / "offers.parquet", 3)
    with pytest.raises(DataError, match=r"must end in \.parquet, \.csv or \.xlsx"):
        recommend_to_file(model, data, tmp_path / "offers.txt", 3)


def test_one_enormous_shopper_does_not_blow_the_memory(model: TwoStageRecommender) -> None:
    """A shop that buys 100,000 lines, asked for beside ordinary shoppers."""
    items = model.items_["item_id"]
    rng = np.random.default_rng(0)
    n = 100_000
    bulk = pl.DataFrame(
        {
            "user_id": np.zeros(n, np.int64),
            "item_id": items.gather(rng.integers(0, len(items), n)),
            "time": [datetime(2001, 1, 1) + timedelta(minutes=5 * int(i)) for i in range(n)],
            "basket_id": np.arange(n) // 40,
        }
    )
    known, unplaced = model.coded(RetailData.from_frames(bulk))
    assert unplaced.n_unknown == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lists = model.recommend_codes(known.history(codes=[0]), 10)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (lists.items >= 0).all()
    assert grown < 300  # MB: 100,000 events of 4 bytes in some 50 columns are 20


def test_threads_change_no_answer(data: RetailData) -> None:
    answers = []
    for threads in (1, 2, 3):
        settings = QUICK.model_copy(update={"threads": threads})
        answers.append(settings.model().fit(data).recommend(data.history(), k=5))
    assert answers[0].equals(answers[1])
    assert answers[0].equals(answers[2])


def test_a_library_within_a_shard_keeps_to_one_thread() -> None:
    from threadpoolctl import threadpool_info

    from retailrec.compute.shards import library_threads, map_shards, one_blas_thread

    assert library_threads(2) == 2
    assert list(map_shards(lambda rows: library_threads(2), 8, size=2, threads=2)) == [1] * 4
    assert list(map_shards(lambda rows: library_threads(2), 2, size=2, threads=2)) == [2]

    def blas() -> list[int]:
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    outside = blas()

    def held(rows: slice) -> list[int]:
        with one_blas_thread():
            time.sleep(0.01 * (rows.start % 3))  # shards leave in another order than they came
            return blas()

    for inside in map_shards(held, 24, size=1, threads=4):
        assert set(inside) == {1}
    assert blas() == outside


def test_an_artifact_has_a_key_of_its_own(saved: Path, tmp_path: Path, data: RetailData) -> None:
    other = QUICK.model_copy(update={"seed": 1, "negatives": 0.5}).model().fit(data)
    other.save(tmp_path / "model")
    assert artifact_key(saved / "model") != artifact_key(tmp_path / "model")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it there")
def test_peak_memory_is_that_of_the_process_itself() -> None:
    held = np.ones(60_000_000)  # 480 MB in the process that starts the other
    code = "from retailrec.compute.memory import peak_memory_mb; print(peak_memory_mb())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 < int(run.stdout) < 300
    assert peak_memory_mb() > held.nbytes / 10**6


def test_freed_memory_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if _c_function("malloc_trim") is None or not Path("/proc/self/statm").exists():
        pytest.skip("only glibc keeps it, and only Linux tells")
    held = [bytes(60_000) for _ in range(5000)]  # 300 MB in pieces that come from the heap
    last = bytes(60_000)  # above them, so the heap can't shrink by itself
    before = resident()
    held.clear()
    release_memory()
    assert before - resident() > 200 * 10**6
    assert last[0] == 0


@pytest.mark.parametrize("safe", [False, True])
def test_a_safe_csv_holds_no_formula(tmp_path: Path, safe: bool) -> None:
    run = ["=1+1", "+7", "-7", "@SUM(A1)", "\t=1", "\n=1", "  =1", "\uff1d1", "\u00a0=1", "\r1"]
    cells = [*run, "bread = butter", "a-b", " tea"]
    pl.DataFrame({"item_id": cells, "score": [-1.0] * len(cells)}).write_parquet(
        tmp_path / "part.parquet"
    )
    report = json.dumps(asdict(batch.AnswerReport(0)))
    (tmp_path / "part.json").write_text(report)
    output = batch.ListFormat(safe_csv=safe)
    results = {tmp_path / "offers.csv": [tmp_path / "part.parquet"]}
    batch._combine(results, output, datetime(2024, 1, 1))
    found = pl.read_csv(tmp_path / "offers.csv")
    assert found["item_id"].to_list() == [("'" * safe + c if c in run else c) for c in cells]
    assert found["score"].to_list() == [-1.0] * len(cells)


def test_what_a_sheet_can_not_hold_is_said(tmp_path: Path) -> None:
    wide = pl.DataFrame({"item_id": ["x" * 32_768], "rank": [1]})
    with pytest.raises(DataError, match="can't hold row 1: a sheet has 1,048,576 rows"):
        batch._write_sheet(wide, tmp_path / "wide.xlsx")
    long = pl.DataFrame({"rank": pl.repeat(1, 1_048_576, eager=True)})
    with pytest.raises(DataError, match="can't hold row 1,048,576"):
        batch._write_sheet(long, tmp_path / "long.xlsx")


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_a_number_of_threads_that_no_machine_has_is_refused(threads: int) -> None:
    with pytest.raises(SettingError, match="at most 1024"):
        n_threads(threads)


def test_a_part_that_was_cut_or_altered_is_computed_again(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, parts = tmp_path / "a.parquet", tmp_path / ".a.parquet.parts"

    def stops(*_: object) -> int:
        raise KeyboardInterrupt

    combine = batch._combine
    monkeypatch.setattr(batch, "_combine", stops)
    with pytest.raises(KeyboardInterrupt):
        recommend_to_file(model, data, out, 3, key="this model", block_lines=BLOCK)
    monkeypatch.setattr(batch, "_combine", combine)
    files = sorted(parts.glob("part-*.parquet"))
    assert len(files) > 4
    files[0].write_bytes(files[0].read_bytes()[:-7])
    pl.read_parquet(files[1]).with_columns(score=pl.lit(1.0)).write_parquet(files[1])
    pl.read_parquet(files[2])[:-1].write_parquet(files[2])
    files[3].with_suffix(".json").write_text("{}")
    found = recommend_to_file(model, data, out, 3, key="this model", block_lines=BLOCK)
    assert found.n_taken_over == len(files) - 4
    assert pl.read_parquet(out).equals(model.recommend(data.history(), k=3))
    assert found.n_rows == pl.read_parquet(out).height


def test_a_strangers_file_among_the_parts_is_not_removed(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path
) -> None:
    mine = tmp_path / ".a.parquet.parts" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("a year of work")
    with pytest.raises(DataError, match=r"notes\.txt is none of our parts"):
        recommend_to_file(model, data, tmp_path / "a.parquet", 3, block_lines=BLOCK)
    assert mine.read_text() == "a year of work"


def test_users_that_a_list_has_in_another_notation_are_said(saved: Path, tmp_path: Path) -> None:
    lines = pl.read_parquet(saved / "receipts.parquet").with_columns(
        pl.format("u{}", "user_id").alias("user_id")
    )
    lines.write_parquet(tmp_path / "named.parquet")
    users = lines["user_id"].unique().sort().head(4)
    pl.DataFrame({"user_id": [*users.head(3), users[3].upper()]}).write_csv(tmp_path / "asked.csv")
    deny = pl.DataFrame({"user_id": [*users.head(3), users[3].upper()], "item_id": lines["item_id"][0]})
    found = recommend_from_files(
        saved / "model",
        tmp_path / "named.parquet",
        tmp_path / "lists.csv",
        Request(k=3, rules=Rules(deny=deny)),
        users=tmp_path / "asked.csv",
    )
    said = [note for note in found.load_report.notes if "1 of the 4 ids of" in note]
    assert len(said) == 2
    assert all(f"{users[3].upper()!r} there, {users[3]!r} here" in note for note in said)
