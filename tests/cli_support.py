"""The command line within the test's process, and what a refusal of it looks like."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import NamedTuple
from unittest.mock import patch

from retailrec.cli import main


class Run(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def retailrec(*arguments: object) -> Run:
    """The command within this process: as the script does it, at a thirtieth of the time."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    command = ["retailrec", *map(str, arguments)]
    with (
        patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
    return Run(status, out.getvalue(), err.getvalue())


def refused(run: Run, *words: str) -> None:
    """Exit status 2, one sentence; a traceback would have come out of `retailrec` already."""
    message = " ".join(run.stderr.split())
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in message, message
