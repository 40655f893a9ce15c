"""How much memory this process holds, and giving some of it back."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's numbers for its options
_OWN_PAGES = 32 << 20  # bytes from which an array gets pages of its own; fresh ones cost time
_POLARS = "background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0"


def peak_memory_mb() -> int:
    """Most memory that this process has held, in MB (10^6 bytes).

    Of Linux's two figures this is the one that starts again with a program; the other, `ru_maxrss`, may
    be that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 // 10**6
    except (OSError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak * (1024 if sys.platform != "darwin" else 1)) // 10**6


def return_freed_memory() -> None:
    """Freed memory goes back to the system within a second, instead of being kept for a next time.

    The C library of Linux raises the size from which an array has pages of its own to that of the
    largest it has seen freed, so large arrays come to lie between small ones and leave holes. Polars'
    allocator looks at the clock only when it is asked for more, so a job that turns to other libraries
    carries what its tables once needed; a thread of its own looks at it now.

    For programs, before Polars is loaded; what the user has set stands.
    """
    os.environ.setdefault("_RJEM_MALLOC_CONF", _POLARS)
    mallopt = _c_function("mallopt")
    if mallopt is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(_M_TRIM_THRESHOLD, 2 * _OWN_PAGES)
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)


def release_memory() -> None:
    """Give memory that was freed back to the system; the C library of Linux keeps it otherwise.

    For the ends of large steps: the next one may run inside a library with an allocator of its own.
    """
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


@cache
def _c_function(name: str) -> Any:
    """A function of glibc's; None where the C library has none."""
    import ctypes

    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # TypeError: no handle of the process on Windows
        return None
