"""Seconds to `import retailrec` and to print the help, best of five.

make bench
"""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

from machine import print_result

BARS = {"import retailrec": 0.5, "retailrec --help": 0.7}


def best_of_five(*command: str) -> float:
    """Seconds of the quickest run."""
    found = []
    for _ in range(5):
        started = perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(perf_counter() - started)
    return min(found)


def main() -> None:
    seconds = {
        "import retailrec": best_of_five(sys.executable, "-c", "import retailrec"),
        "retailrec --help": best_of_five(sys.executable, "-m", "retailrec", "--help"),
    }
    print_result("startup", {"seconds": {k: round(v, 3) for k, v in seconds.items()}})
    if any(seconds[k] > bar for k, bar in BARS.items()):
        raise SystemExit(f"slower than {BARS}")


if __name__ == "__main__":
    main()
