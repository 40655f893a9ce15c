"""A command that is ended says so, leaves nothing half-written, and its status tells by what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = """
import sys, time
from retailrec.cli import main
from retailrec.simulator.shop import Shop
def write(self, folder, truth_days):
    (folder / "product.parquet").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
Shop.write = write
main()
"""


def as_in_a_terminal() -> None:
    """Signals that whoever runs the tests ignores would be ignored by the command too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def ended_by(number: int, out: Path, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    command = [*prefix, sys.executable, "-c", SLOW, "simulate", "--out", str(out)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
        preexec_fn=as_in_a_terminal,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        try:
            return process.wait(5), process.stderr.read() if process.stderr else ""
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(), ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_gives_one_sentence_and_its_status(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    status, said = ended_by(number, tmp_path / "out")
    assert status == 128 + number
    assert said == f"interrupted by {name}; nothing half-written was left behind.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_output_that_can_not_be_written_is_said_and_has_a_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retailrec"]
    config = tmp_path / "none.toml"
    with open("/dev/full", "w") as full:
        for words in (["datasets"], ["datasets", "--json"], ["--version"]):
            found = subprocess.run([*command, *words], stdout=full, stderr=subprocess.PIPE, text=True)
            assert found.returncode == 2
            assert "what this command prints could not be written (No space" in found.stderr
            assert "Exception ignored" not in found.stderr
        for said in ({"stderr": full}, {"stderr": full, "stdout": full}):
            assert subprocess.run([*command, "run", "--config", config], **said).returncode == 2
        reader, writer = os.pipe()
        os.close(reader)
        found = subprocess.run([*command, "datasets"], stdout=writer, stderr=subprocess.PIPE, text=True)
        os.close(writer)
        assert (found.returncode, found.stderr) == (141, "")


def test_what_is_opened_takes_no_closed_standard_stream_of_its_caller(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom retailrec.cli.console import open_standard_streams\n"
        "open_standard_streams()\nprint('x', flush=True)\n"
        f"with open({str(tmp_path / 'opened')!r}, 'w') as file:\n    print(file.fileno(), file=file)"
    )
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, sys.executable, script]).returncode == 0
    assert int((tmp_path / "opened").read_text()) > 2
