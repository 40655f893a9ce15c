"""Break the package on purpose, one place at a time, and see whether the tests notice.

    python tools/mutants.py [WING ...] [--only TEXT] [--limit SECONDS] [--fresh] [--sure]
                                    [--list]

Each mutation of `mutations.py` is found by the name of its function in whatever file defines it and
made in a copy of the repository; the tests of its wing run there until the first failure. What was
tried is kept in out/mutants.jsonl, so a run that was stopped goes on where it was; a mutation is tried
again when the function's source has changed, one that survived also when the wing's tests have.

Exit status 1 if fewer than 92% are killed, 2 if a mutation no longer fits the source or the tests
fail without one.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

# read when libraries are imported: one thread each, since a mutant's tests are small
os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import numba
import pytest
from mutation_places import Place, definitions, place_of
from mutation_tests import files_of
from mutations import EQUIVALENT, MUTATIONS, Mutation

# imported once here, so that each mutant's process, a fork of this one, need not: half of its time
for library in (
    "polars",
    "duckdb",
    "pydantic",
    "scipy.sparse",
    "sklearn.metrics",
    "lightgbm",
    "catboost",
    "implicit.nearest_neighbours",
    "narwhals",
    "typer",
):
    import_module(library)

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "out" / "mutants.jsonl"
WANTED = 0.92
_PATIENCE = 20  # so many times as long as it may compute, a mutant may wait


class Workshop:
    """A copy of the repository in which things are broken and mended again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("src", "tests", "docs", "tools"):
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name,
                    folder / name,
                    ignore=shutil.ignore_patterns("*.pyc"),  # compiled kernels come along
                )
        for file in ROOT.glob("*"):
            if file.is_file():
                shutil.copy2(file, folder / file.name)

    def run(self, tests: list[str], limit: float, cache: Path | None = None) -> tuple[str, str]:
        """``passed``, ``failed`` or ``timeout``, and the first failure.

        Compiled kernels of a broken file must not stay for the next run: `cache` keeps them apart.
        """
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if not child:
                status = 70
                try:
                    # of its own, so that a machine that is busy with other things kills no mutant
                    resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
                    status = self._tests(tests, output.fileno(), cache)
                except BaseException:
                    traceback.print_exc()  # into `output`, whose last line is shown
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            status = waited(child, _PATIENCE * limit)
            if status in (None, -signal.SIGXCPU):
                return "timeout", f"more than {limit:.0f} s"
            output.seek(0)
            lines = output.read().splitlines()
        if status == 0:
            return "passed", ""
        failures = [x for x in lines if x.startswith(("FAILED", "ERROR"))] or lines[-1:]
        return "failed", failures[0][:160] if failures else f"exit status {status}"

    def _tests(self, tests: list[str], output: int, cache: Path | None) -> int:
        """Run pytest in this process, which ends with it."""
        os.setsid()
        os.nice(10)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(self.folder)
        source = str(self.folder / "src")
        os.environ.update(PYTHONPATH=source, PYTHONDONTWRITEBYTECODE="1")
        sys.path[:0] = [source]
        sys.dont_write_bytecode = True
        if cache is not None:
            numba.config.CACHE_DIR = str(cache)
        options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=line"]
        return int(pytest.main([*options, *tests]))

    def broken(self, mutation: Mutation, tests: list[str], limit: float) -> tuple[str, str]:
        """What the tests say of one mutation; the file is as it was afterwards, to the second."""
        place = place_of(mutation, definitions(self.folder / "src" / "retailrec"))
        text, times = place.file.read_text(), place.file.stat()
        body = text[place.start : place.stop].replace(mutation[1], mutation[2])
        place.file.write_text(text[: place.start] + body + text[place.stop :])
        kernels = "njit" in text
        cache = Path(tempfile.mkdtemp(dir=self.folder)) if kernels else None
        limit *= 2 if kernels else 1
        try:  # collecting the other tests takes longer than the nearest ones run
            state = self.run(tests[:1], limit, cache)
            return state if state[0] != "passed" else self.run(tests[1:], limit, cache)
        finally:
            place.file.write_text(text)
            os.utime(place.file, ns=(times.st_atime_ns, times.st_mtime_ns))
            if cache is not None:
                shutil.rmtree(cache)


def waited(child: int, limit: float) -> int | None:
    """Exit status of a child process; None if it had to be stopped, with all it started."""
    stop = time.monotonic() + limit
    while time.monotonic() < stop:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def key_of(mutation: Mutation, known: dict[str, list[Place]]) -> str:
    """Changes when the mutation or what the function does; its comments and layout do not count."""
    place = place_of(mutation, known)
    text = place.file.read_text()[place.start : place.stop]
    function = ast.unparse(ast.parse(f"if True:\n{text}" if text[0].isspace() else text))
    return hashlib.sha256(repr((mutation, function)).encode()).hexdigest()[:16]


def tests_key(wing: str) -> str:
    """Changes when the wing's tests do."""
    digest = hashlib.sha256()
    for name in files_of(wing):
        path = ROOT / name.split("::")[0]
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def earlier(tests: dict[str, str]) -> dict[str, dict[str, str]]:
    """Results of earlier runs by key, but of what survived only if the wing's tests are the same."""
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {
        row["key"]: row
        for row in rows
        if row["fate"] == "killed" or row["tests"] == tests.get(row["wing"])
    }


def main() -> int:
    """Try what is asked for, and print what lived."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("wings", nargs="*", choices=[[], *MUTATIONS], help="all by default")
    ask.add_argument("--only", default="", help="mutations whose place holds this text")
    ask.add_argument("--limit", type=float, default=300, help="seconds of computing a mutant")
    ask.add_argument("--fresh", action="store_true", help="forget earlier results")
    ask.add_argument(
        "--list", action="store_true", help="only check that each mutation fits the source"
    )
    ask.add_argument(
        "--sure", action="store_true", help="the tests are known to pass without mutations"
    )
    given = ask.parse_args()
    chosen = [
        (wing, mutation)
        for wing in given.wings or MUTATIONS
        for mutation in MUTATIONS[wing]
        if given.only in mutation[0]
    ]
    known, stale = definitions(ROOT / "src" / "retailrec"), []
    for wing, mutation in chosen:
        try:
            place_of(mutation, known)
        except LookupError as error:
            stale.append(f"{wing}: {error}")
    print("\n".join(stale) if stale else f"{len(chosen)} mutations fit the source")
    if stale or given.list:
        return 2 if stale else 0
    if given.fresh:
        RESULTS.unlink(missing_ok=True)
    return attempt(chosen, known, given.limit, given.sure)


def attempt(
    chosen: list[tuple[str, Mutation]], known: dict[str, list[Place]], limit: float, sure: bool
) -> int:
    """Run every mutant that has no result yet; the summary is of all of them."""
    RESULTS.parent.mkdir(exist_ok=True)
    # all keys before anything runs: somebody may edit files meanwhile
    keys = [key_of(mutation, known) for _, mutation in chosen]
    tests = {wing: tests_key(wing) for wing in MUTATIONS}
    results, done, ready = [], earlier(tests), set()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workshop: Workshop | None = None
        if not set(keys) <= set(done):
            workshop = Workshop(Path(folder))
        for number, ((wing, mutation), key) in enumerate(zip(chosen, keys, strict=True), start=1):
            if key not in done:
                assert workshop is not None
                if wing not in ready and not sure:
                    state, why = workshop.run(files_of(wing), 10 * limit)
                    if state != "passed":
                        print(f"the tests of {wing} fail without any mutation: {why}")
                        return 2
                    ready.add(wing)
                started = time.perf_counter()
                state, why = workshop.broken(mutation, files_of(wing, mutation[0]), limit)
                row = {
                    "key": key,
                    "tests": tests[wing],
                    "wing": wing,
                    "where": mutation[0],
                    "old": mutation[1],
                    "new": mutation[2],
                    "fate": "survived" if state == "passed" else "killed",
                    "by": why,
                    "seconds": f"{time.perf_counter() - started:.0f}",
                }
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                done[key] = row
            row = done[key]
            results.append((wing, mutation, row["fate"]))
            print(
                f"{number:4}/{len(chosen)} {row['fate']:8} {wing:12} {row['where']}: "
                f"{row['old']} -> {row['new']}  [{row['seconds']} s] {row['by']}",
                flush=True,
            )
    return summary(results)


def summary(results: list[tuple[str, Mutation, str]]) -> int:
    """Killed and survived by wing; equivalent ones stand apart."""
    print(f"\n{'wing':12} killed survived equivalent")
    counted = [r for r in results if r[1] not in EQUIVALENT]
    for wing in [*dict.fromkeys(w for w, _, _ in results), "all"]:
        mine = [r for r in counted if wing in (r[0], "all")]
        killed = sum(fate == "killed" for _, _, fate in mine)
        same = sum(r[1] in EQUIVALENT for r in results if wing in (r[0], "all"))
        print(f"{wing:12} {killed:6} {len(mine) - killed:8} {same:10}")
    for wing, (where, old, new), fate in counted:
        if fate == "survived":
            print(f"survived: {wing} {where}: {old} -> {new}")
    share = sum(fate == "killed" for _, _, fate in counted) / max(len(counted), 1)
    print(f"{share:.1%} of {len(counted)} killed; at least {WANTED:.0%} are wanted")
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
