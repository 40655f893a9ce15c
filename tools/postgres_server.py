"""A PostgreSQL server of one's own on loopback, for tests and benchmarks of the service."""

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


class NotInstalled(RuntimeError):
    """This machine has no PostgreSQL that can be started."""


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server on loopback with a folder of its own; never run as root.

    Raises
    ------
    NotInstalled
        If Debian's package postgresql is not there, nor `postgres` on the path.
    """

    def __init__(self) -> None:
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [
            os.path.dirname(shutil.which("postgres") or "")
        ]
        self.programs = programs[-1]
        if not self.programs or not Path(self.programs, "initdb").exists():
            raise NotInstalled("PostgreSQL is not installed (Debian's package postgresql)")
        self.as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            self.as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="retailrec-postgres-"))
        self.own(self.folder)
        self.process: subprocess.Popen[bytes] | None = None
        initdb = [f"{self.programs}/initdb", "-D", self.folder / "data", "-U", "test", "-A", "trust"]
        subprocess.run(
            [*initdb, "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **self.as_user,  # type: ignore[call-overload]
        )
        self.start()

    def own(self, folder: Path) -> None:
        """Give a folder to whom the server runs as."""
        if not self.as_user:
            return
        try:
            shutil.chown(folder, "postgres", "postgres")
        except LookupError as error:
            raise NotInstalled("there is no user postgres to run the server as") from error

    @property
    def url(self) -> str:
        """The database that is there from the start."""
        return f"postgresql://test@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
        }
        self.process = subprocess.Popen(
            [
                f"{self.programs}/postgres",
                *("-D", str(self.folder / "data"), "-p", str(self.port)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **self.as_user,  # type: ignore[call-overload]
        )
        for _ in range(400):
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
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, statement: str) -> None:
        """Run a statement in the database that is there from the start."""
        base = [f"{self.programs}/psql", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "test"]
        subprocess.run([*base, "-d", "postgres", "-c", statement], check=True)

    @contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """The URL of an empty database, made with options such as a tablespace."""
        name = f"test_{time.monotonic_ns()}"
        self.run(f"CREATE DATABASE {name} {options}")
        yield self.url.removesuffix("postgres") + name
        self.run(f"DROP DATABASE {name} WITH (FORCE)")
