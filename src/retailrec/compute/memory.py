"""How much memory this process holds, and giving some of it back."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any


def peak_memory_mb() -> int:
    """Most memory that this process has held, in MB (10^6 bytes).

    Of Linux's two figures this is the one that starts anew with a program; the other, `ru_maxrss`, may
    be that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 // 10**6
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak * (1024 if sys.platform != "darwin" else 1)) // 10**6


def release_memory() -> None:
    """Give memory that was freed back to the system; the C library of Linux keeps it otherwise.

    For the ends of large steps: the next one may run inside a library with an allocator of its own.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's function; None where the C library has none."""
    import ctypes

    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # TypeError: no handle of the process on Windows
        return None
