"""Nothing is replaced that we did not write; results are the old ones or the new ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from cli_support import refused, retailrec
from retailrec import work
from retailrec.candidates import Popularity
from retailrec.cli.app import app
from retailrec.cli.options import import_modules
from retailrec.errors import DataError
from retailrec.jobs.run import RESULTS
from retailrec.recommender.artifact import save_artifact
from retailrec.simulator.shop import small_data
from retailrec.work import (
    MARKER,
    check_file,
    check_folder,
    folder_aside,
    locked,
    make_folder,
    staged,
    whole_file,
    write_result,
)

NAMES = ("metrics.json", "model", "report.html")


def write(out: Path, text: str, names: tuple[str, ...] = ("metrics.json", "model")) -> None:
    with staged(out, NAMES) as folder:
        for name in names:
            if "." in name:
                (folder / name).write_text(text)
            else:
                (folder / name).mkdir()
                (folder / name / "part.txt").write_text(text)


def results(out: Path) -> dict[str, str]:
    files = (p for p in out.rglob("*") if p.is_file() and p.name != MARKER)
    return {p.relative_to(out).as_posix(): p.read_text() for p in files}


def test_results_replace_results_and_leave_other_entries(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old", NAMES)
    (out / "notes.txt").write_text("mine")
    (out / "demo").mkdir()
    (out / "demo" / "offers.csv").write_text("mine too")
    write(out, "new")
    assert results(out) == {
        "metrics.json": "new",
        "model/part.txt": "new",
        "notes.txt": "mine",
        "demo/offers.csv": "mine too",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (out / "notes.txt").unlink()
    shutil.rmtree(out / "demo")
    write(out, "new")
    digest = hashlib.sha256(b"new").hexdigest()
    assert json.loads((out / MARKER).read_text()) == {
        "metrics.json": [digest],
        "model/part.txt": [digest],
    }


def test_a_folder_in_which_something_else_lies_stays_the_same(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    (out / "shop.db").write_text("in use")
    before = out.stat().st_ino  # in another folder, the log that a store begins meanwhile is lost
    write(out, "new")
    assert out.stat().st_ino == before
    assert results(out) == {"metrics.json": "new", "model/part.txt": "new", "shop.db": "in use"}


@pytest.mark.parametrize("stranger", ["metrics.json", "model/weights.bin", "model/part.txt"])
def test_what_is_not_ours_is_refused_before_anything_is_done(tmp_path: Path, stranger: str) -> None:
    out = tmp_path / "out"
    (out / stranger).parent.mkdir(parents=True)
    (out / stranger).write_text("a year of work")
    with pytest.raises(DataError, match="was not written by retailrec"), staged(out, NAMES):
        pytest.fail("work was begun")
    assert results(out) == {stranger: "a year of work"}


def test_a_stranger_among_our_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out/model/receipts.txt").write_text("real ones")
    with pytest.raises(DataError, match=r"receipts\.txt was not written by retailrec"):
        write(tmp_path / "out", "new")
    assert results(tmp_path / "out")["model/receipts.txt"] == "real ones"


@pytest.mark.parametrize(
    ("command", "entry"),
    [
        (["run", "table", "none.csv"], "model/weights.bin"),
        (["match", "table", "none.csv"], "matching.json"),
        (["backtest", "table", "none.csv"], "backtest.json"),
        (["simulate", "--users", "20"], "transaction_data/january.csv"),
        (["demo"], "model/manifest.json"),
    ],
)
def test_commands_refuse_before_they_load(tmp_path: Path, command: list[str], entry: str) -> None:
    file = tmp_path / "out" / entry
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    found = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert isinstance(found.exception, DataError)
    assert "was not written by retailrec" in str(found.exception)
    assert file.read_text() == "{}"


def test_links_files_and_paths_that_can_not_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for place, word in (
        ("file", "is a file"),
        ("link", "is a link"),
        ("file/x", "is a file"),
        ("x" * 5_000, "too long"),
        ("a\0b", "can't be written"),
    ):
        with pytest.raises(DataError, match=word):
            check_folder(tmp_path / place, RESULTS)
        if place != "file":
            with pytest.raises(DataError):
                check_file(tmp_path / place)


def test_a_place_without_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DataError, match="no permission"):
        check_folder(tmp_path / "new" / "out", RESULTS)
    with pytest.raises(DataError, match="no permission"):
        check_file(tmp_path / "tuned.toml")


def test_a_failure_leaves_the_old_results_and_no_trace(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    for out in (tmp_path / "out", tmp_path / "new"):
        with pytest.raises(DataError, match="can't be written"):
            write(out, "half", ("metrics.json", "no/such.folder"))
    assert results(tmp_path / "out") == {"metrics.json": "old", "model/part.txt": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_without_an_exchange_of_folders_a_failure_brings_all_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out, "old")
    (out / "notes.txt").write_text("mine")
    before = results(out)
    monkeypatch.setattr(work, "_exchanged", lambda *_: False)
    replace, calls = os.replace, []

    def fail_at(number: int) -> None:
        calls.clear()

        def once(a: Path, b: Path) -> None:
            calls.append(a)
            if len(calls) == number:
                raise OSError("disk full")
            replace(a, b)

        monkeypatch.setattr(os, "replace", once)

    for number in range(1, 5):
        fail_at(number)
        with pytest.raises(DataError, match="disk full"):
            write(out, "new")
        assert results(out) == before
    fail_at(99)
    write(out, "new")
    assert results(out) == {"metrics.json": "new", "model/part.txt": "new", "notes.txt": "mine"}


KILLED = """
import os, signal, sys
from pathlib import Path
from test_targets import write
place, calls = sys.argv[1], 0
def watch(event, given):
    global calls
    if place in str(given) or event == "ctypes.dlsym":
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
for line in sys.stdin:
    number = int(line)
    if not (child := os.fork()):
        sys.addaudithook(watch)
        write(Path(place) / "out", "new")
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_killed_anywhere_the_results_are_the_old_ones_or_the_new(tmp_path: Path, alone: bool) -> None:
    out = tmp_path / "out"
    write(out, "old")
    if not alone:
        (out / "notes.txt").write_text("mine")
    old, new = results(out), results(out) | {"metrics.json": "new", "model/part.txt": "new"}
    between = [] if alone else [old | {"metrics.json": "new"}]
    seen = []
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(
        command, env=env, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1, 200):
            process.stdin.write(f"{number}\n")
            status, found = int(process.stdout.readline()), results(out)
            assert found in (old, new, *between), number
            seen.append((status, found != old))
            write(out, "old")
            assert [p.name for p in tmp_path.iterdir()] == ["out"]
            if not status:
                break
        process.stdin.close()
    assert set(seen) == {(9, False), (9, True), (0, True)}
    assert len(seen) > 30  # every call to the system that touches the place


def test_a_file_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with whole_file(tmp_path / "backup.db") as partial:
        partial.write_text("all receipts")
        assert not synced
    assert synced == [(tmp_path / "backup.db").stat().st_ino]


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; from retailrec.work import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DataError, match="another process is writing"):
            write(tmp_path / "out", "mixed")
        process.kill()
    write(tmp_path / "out", "whole")  # the lock died with its process
    with locked(tmp_path / "out"), pytest.raises(DataError, match="another process"):
        write(tmp_path / "out", "mixed")


def test_a_file_replaces_what_we_wrote_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "lists.csv"
    write_result("first", file)
    write_result("second", file)
    assert file.read_text() == "second"
    file.write_text("second, and a remark of mine")
    for attempt in (lambda: check_file(file), lambda: write_result("third", file)):
        with pytest.raises(DataError, match=r"lists\.csv was not written by retailrec, or was changed"):
            attempt()
    assert file.read_text() == "second, and a remark of mine"
    check_file(file, overwrite=True)
    write_result("third", file)
    assert file.read_text() == "third"
    (tmp_path / "made-by-mktemp").touch()
    write_result("of an empty file nothing is lost", tmp_path / "made-by-mktemp")


def test_a_file_moved_with_its_list_is_ours_and_one_without_is_not(tmp_path: Path) -> None:
    write_result("first", tmp_path / "a" / "lists.csv")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write_result("second", tmp_path / "b" / "lists.csv")
    shutil.copy(tmp_path / "a" / "lists.csv", tmp_path)
    with pytest.raises(DataError, match="was not written by retailrec"):
        write_result("second", tmp_path / "lists.csv")
    (tmp_path / "a" / MARKER).write_text('{"lists.csv": ["cut')
    with pytest.raises(DataError, match="was not written by retailrec"):
        write_result("second", tmp_path / "a" / "lists.csv")


def test_stopped_before_it_is_replaced_a_file_is_still_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lists.csv"
    write_result("first", file)

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", full)
        with pytest.raises(DataError, match="disk full"):
            write_result("second", file)
    assert file.read_text() == "first"
    write_result("third", file)
    assert file.read_text() == "third"
    assert sorted(p.name for p in tmp_path.iterdir()) == [MARKER, "lists.csv"]


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    """By whatever name it comes, and though it is ours, or may be overwritten."""
    data = tmp_path / "data"
    write_result("lines", data / "receipts.csv")
    os.link(data / "receipts.csv", tmp_path / "linked.csv")
    (tmp_path / "other").symlink_to(data)
    (data / "parts").mkdir()
    (data / "parts" / "mine.csv").write_text("more lines")
    for target, given in (
        (data / "receipts.csv", data / "receipts.csv"),
        (tmp_path / "linked.csv", data / "receipts.csv"),
        (data / "receipts.csv", tmp_path / "other" / "receipts.csv"),
        (data / ".." / "data" / "receipts.csv", data),
        (data / "new.csv", tmp_path / "other"),
        (data / "month=1" / "new.csv", data),
        (data / "parts" / "mine.csv", data),
    ):
        with pytest.raises(DataError, match="an input of the same command"):
            check_file(target, inputs=[None, given], overwrite=True)
    write_result("lists", data / "out" / "lists.csv")
    check_file(data / "out" / "lists.csv", inputs=[data])
    write(tmp_path / "out", "old")
    for given in (tmp_path / "out", tmp_path / "out/model", tmp_path / "out/model/part.txt"):
        with pytest.raises(DataError, match="an input of the same command"):
            check_folder(tmp_path / "out", NAMES, inputs=[given], overwrite=True)
    check_folder(tmp_path / "out", NAMES, inputs=[tmp_path / "out/absent", tmp_path])


def test_a_remark_within_a_saved_model_is_not_ours(tmp_path: Path) -> None:
    save_artifact(Popularity().fit(small_data(users=20)), tmp_path / "out" / "model")
    check_folder(tmp_path / "out", ["model"])
    (tmp_path / "out" / "model" / "why.txt").write_text("chosen for spring")
    with pytest.raises(DataError, match=r"why\.txt was not written by retailrec"):
        check_folder(tmp_path / "out", ["model"])


def test_new_files_are_their_owners_alone_and_modes_stay(tmp_path: Path) -> None:
    def mode(path: Path) -> str:
        return oct(path.stat().st_mode)[-3:]

    out, file = tmp_path / "new" / "out", tmp_path / "new" / "lists.csv"
    for text in ("old", "new"):
        write(out, text)
        write_result(text, file)
        for path in (tmp_path / "new", out, out / "model"):
            assert mode(path) == ("700" if text == "old" else "755"), path
        for path in (file, out / "metrics.json", out / "model" / "part.txt"):
            assert mode(path) == ("600" if text == "old" else "644"), path
        for marker in (tmp_path / "new").rglob(".retailrec"):
            assert mode(marker) == "600"
        for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")):
            if path.name != ".retailrec":
                path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("folder", [False, True])
def test_processes_of_other_containers_may_have_our_number(tmp_path: Path, *, folder: bool) -> None:
    # Two processes of one number write the same file of a shared disk, as the first processes of two
    # containers do; and what another machine writes is not taken for left behind.
    written = []
    for pid in (1, 1, 2**22 + 1):  # no process of this machine has the last one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda pid=pid: pid)
            opened = folder_aside(tmp_path) if folder else whole_file(tmp_path / "lists.csv")
            partial = opened.__enter__()
        (partial / "part" if folder else partial).write_text(f"by process {len(written)}")
        written.append((opened, partial))
    for number, (opened, partial) in enumerate(written):
        found = (partial / "part" if folder else partial).read_text()
        assert found == f"by process {number}"
        opened.__exit__(None, None, None)
        assert folder or (tmp_path / "lists.csv").read_text() == found
    assert sorted(os.listdir(tmp_path)) == ([] if folder else ["lists.csv"])


def test_nothing_is_written_through_a_link_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("a year of work")
    monkeypatch.setattr("retailrec.work.secrets.token_hex", lambda size: "0" * 2 * size)
    (tmp_path / f".partial-{'0' * 16}-lists.csv").symlink_to(theirs)
    with pytest.raises(DataError, match="can't be written"):
        write_result("new", tmp_path / "lists.csv")
    assert theirs.read_text() == "a year of work"


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("recommend --model m --history {in} --out {out}", "lists.csv"),
        ("run table {in} --out o --rejects {out}", "rejects.csv"),
        ("evaluate --recommendations {in} --truth {in} --out {out}", "figures.json"),
        ("tune table {in} --study s --out {out}", "tuned.toml"),
        ("experiment result ledger {in} --campaign c --out {out}", "result.json"),
        ("experiment result ledger {in} --campaign c --page {folder}", "campaign.html"),
        ("allocate {in} c.toml --out {folder}", "offers.parquet"),
        ("store export {folder} --store {store}", "receipts.parquet"),
    ],
)
def test_commands_refuse_files_of_others_before_they_load(
    tmp_path: Path, command: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, store = tmp_path / "kept" / target, f"sqlite:///{tmp_path}/shop.db"
    out.parent.mkdir()
    out.write_text("a year of work")
    if "store" in command:
        retailrec("store", "init", "--store", store)
    words = {"in": "none.csv", "out": out, "folder": out.parent, "store": store}
    refused(retailrec(*command.format(**words).split()), f"{target} was not written by retailrec")
    assert out.read_text() == "a year of work"
    if "{in}" in command and "{out}" in command:
        words["in"] = out
        run = retailrec(*command.format(**words).split(), "--overwrite")
        refused(run, f"{target} is an input of the same command")
        assert out.read_text() == "a year of work"


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("recommend --model m --history r.csv --rules rules.toml --out {}", "deny.csv"),
        ("recommend --model m --history r.csv --rules rules.toml --out {}", "sold/open.csv"),
        (
            "recommend --model m --history r.csv --rules rules.toml --exposures {} --out o.csv",
            "spirits.csv",
        ),
        (
            "experiment counterfactual --ledger l --receipts r.csv --policy m --rules rules.toml --out {}",
            "deny.csv",
        ),
        ("run table r.csv --config run.toml --out o --rejects {}", "changed.csv"),
        ("tune table r.csv --config run.toml --study s --out {}", "columns.toml"),
        ("check r.csv --columns columns.toml --page {}", "columns.toml"),
        ("check r.csv --model m --out {}", "m/manifest.json"),
        ("evaluate --recommendations r.csv --truth r.csv --model m --out {}", "m/manifest.json"),
        (
            "evaluate --recommendations r.csv --truth r.csv --columns columns.toml --out {}",
            "columns.toml",
        ),
        ("experiment result l r.csv --campaign c --columns columns.toml --out {}", "columns.toml"),
        ("experiment result l r.csv --campaign c --ids-changed changed.csv --out {}", "changed.csv"),
        ("watch --config week.toml --page {}", "week.toml"),
        ("watch --config week.toml --page {}", "deny.csv"),
        ("recommend --model m --history r.csv --rules rules.toml --out {}", "wines/red.csv"),
        ("watch --config week.toml --page {}", "exports/monday.csv"),
        ("watch --config week.toml --page {}", "weeks/first/manifest.json"),
    ],
)
def test_what_settings_and_options_name_is_an_input(
    tmp_path: Path, command: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of rules, of changed ids and of columns, a model, and a week were replaced by --overwrite."""
    monkeypatch.chdir(tmp_path)
    files = {
        "rules.toml": 'deny = "deny.csv"\navailable = "sold/open.csv"\n[[forbid]]\nitems = "spirits.csv"\n'
        '[[forbid]]\nitems = "wines"\n',
        "run.toml": 'columns = "columns.toml"\nchanged_ids = "changed.csv"\n',
        "week.toml": 'receipts = "exports"\n[request]\nrules = "deny.csv"\n',
        "columns.toml": 'user_id = "client"\n',
    }
    tables = ("deny.csv", "sold/open.csv", "spirits.csv", "changed.csv", "m/manifest.json", "r.csv")
    folders = ("wines/red.csv", "exports/monday.csv", "weeks/first/manifest.json")
    for name in (*files, *tables, *folders):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(files.get(name, "user_id,item_id\n1,2\n"))
    linked = f"linked{Path(target).suffix}"
    os.link(target, linked)
    in_folder = target.startswith(("m/", "wines/", "exports/"))
    for name in (target, linked)[: 1 if in_folder else 2]:
        run = retailrec(*command.format(name).split(), "--overwrite")
        refused(run, "an input of the same command; name another place to write")


@pytest.mark.parametrize(
    "command",
    [
        "check r.csv --out new/../x.csv --rows x.csv",
        "check r.csv --rows x.csv --page here/x.csv",
        "run table r.csv --out o --rejects o/judged.parquet",
        "run table r.csv --out o --rejects o/model/rejects.csv",
        "recommend --model m --history r.csv --explore 0.3 --out here/x.csv --exposures x.csv",
        "experiment counterfactual --ledger l --receipts r.csv --policy m --out x.html --report x.html",
        "experiment result l r.csv --campaign c --out o/campaign.html --page o",
    ],
)
def test_two_results_are_not_one_file(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second took the place of the first, and nothing was said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.csv").write_text("user_id,item_id,time\n1,2,2024-01-01\n")
    (tmp_path / "here").symlink_to(tmp_path)
    refused(retailrec(*command.split()), "is named for two results")


def test_lists_without_a_file_are_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bought.csv").write_text("user_id,item_id,rank\n1,2,1\n")
    run = retailrec("evaluate", "--recommendations", "ours=", "--truth", "bought.csv")
    refused(run, "'ours=' names no file; is a variable unset?")


@pytest.mark.parametrize(
    "command",
    [
        ["run", "table", "receipts.csv", "--out", ""],
        ["run", "table", "", "--out", "out"],
        ["run", "table", "receipts.csv", "--columns", "", "--out", "out"],
        ["recommend", "--model", "m", "--history=", "--out", "lists.csv"],
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(retailrec(*command), "is empty; is a variable unset?")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["run", "table", "receipts.csv", "--out", "s3://bucket/out"],
        ["recommend", "--model", "m", "--history", "receipts.csv", "--out", "gs://bucket/lists.csv"],
        ["recommend", "--model", "s3://bucket/m", "--history", "receipts.csv", "--out", "lists.csv"],
        ["allocate", "receipts.csv", "campaign.toml", "--out", "s3://out"],
        ["store", "export", "https://host/out", "--store", "s.db"],
    ],
)
def test_an_address_is_no_folder_of_this_machine(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists were written into a folder `s3:`, with status 0."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "receipts.csv").write_text("user_id,item_id,time,value\na,x,2024-01-01,1\n")
    (tmp_path / "campaign.toml").write_text('name = "c"\nvalue = "value"\n')
    assert retailrec("store", "load", "table", "receipts.csv", "--store", "s.db").returncode == 0
    there = sorted(tmp_path.iterdir())
    refused(retailrec(*command), "is an address; only files of this machine are read and written")
    assert sorted(tmp_path.iterdir()) == there
    with pytest.raises(DataError, match=r"s3://bucket/m/part is an address"):
        make_folder(Path("s3://bucket/m/part"))
    (tmp_path / "s3:").mkdir()
    make_folder(Path("s3:/x"))


def test_results_are_written_where_the_current_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` lost its hour at the end; a store had a traceback."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    write(tmp_path / "out", "new")
    assert results(tmp_path / "out") == {"metrics.json": "new", "model/part.txt": "new"}
    refused(retailrec("store", "init", "--store", "shop.db"), "shop.db: there is no folder")
    assert import_modules(["json"]) == ["json"]


def test_a_full_disk_is_said_whatever_library_meets_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    full = pl.exceptions.ComputeError(
        "parquet: underlying IO error: No space left on device (os error 28)"
    )
    for error in (full, OSError(28, "No space left on device")):
        with pytest.raises(DataError, match="results can't be written to"), staged(out, NAMES):
            raise error
    with pytest.raises(pl.exceptions.ComputeError, match="of other lengths"), staged(out, NAMES):
        raise pl.exceptions.ComputeError("columns of other lengths")
    assert results(out) == {"metrics.json": "old", "model/part.txt": "old"}
