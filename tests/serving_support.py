"""What the tests of the service share: a small model, and a PostgreSQL server of their own."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retailrec.candidates import ItemItem, OwnPurchases, Popularity
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.two_stage import TwoStageRecommender


def small_model(**more: object) -> TwoStageRecommender:
    """Three sources, a few trees: everything an answer goes through, fitted in a second."""
    return TwoStageRecommender(
        sources=[OwnPurchases("due"), Popularity(), ItemItem("tfidf", neighbours=10)],
        ranker=LightGBMRanker(iterations=8, min_rows=5),
        label_splits=HorizonSplits(28, 1),
        n_candidates=20,
        preranker=None,
        refit="once",
        threads=1,
        **more,  # type: ignore[arg-type]
    )


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server on loopback with a folder of its own; never run as root."""

    def __init__(self) -> None:
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [
            os.path.dirname(shutil.which("postgres") or "")
        ]
        self.programs = programs[-1]
        if not self.programs or not Path(self.programs, "initdb").exists():
            pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="retailrec-postgres-"))
        self.as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            try:
                shutil.chown(self.folder, "postgres", "postgres")
            except LookupError:
                pytest.skip("there is no user postgres to run the server as")
            self.as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                f"{self.programs}/initdb",
                "-D",
                self.folder / "data",
                "-U",
                "test",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self.as_user,  # type: ignore[call-overload]
        )
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://test@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                f"{self.programs}/postgres",
                "-D",
                self.folder / "data",
                "-p",
                str(self.port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                f"unix_socket_directories={self.folder}",
                "-c",
                "fsync=off",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **self.as_user,  # type: ignore[call-overload]
        )
        for _ in range(200):
            ready = subprocess.run(
                [f"{self.programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            )
            if ready.returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError("PostgreSQL did not start")

    def stop(self) -> None:
        """Immediately, as a crash would: connections are cut."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database."""
        name = f"test_{time.monotonic_ns()}"
        base = [f"{self.programs}/psql", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test"]
        subprocess.run([*base, "-d", "postgres", "-c", f"CREATE DATABASE {name}"], check=True)
        yield self.url.removesuffix("postgres") + name
        subprocess.run(
            [*base, "-d", "postgres", "-c", f"DROP DATABASE {name} WITH (FORCE)"], check=True
        )
