"""The command line."""

from __future__ import annotations

from retailrec.cli.app import main

__all__ = ["main"]
