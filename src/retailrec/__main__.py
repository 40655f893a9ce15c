"""`python -m retailrec`."""

from __future__ import annotations

from retailrec.cli.app import main

if __name__ == "__main__":
    main()
