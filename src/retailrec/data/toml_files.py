"""Small files of settings (TOML), read as what comes from outside."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

from retailrec.errors import SettingError

_MOST_BYTES = 16_000_000  # of settings; a path may name something endless
_MOST_DEPTH = 20  # of tables in each other; whatever shows or copies them goes as deep


def read_toml(path: Path, *, who: str) -> dict[str, Any]:
    """The tables of a TOML file in UTF-8, with or without a byte order mark.

    Raises
    ------
    SettingError
        If it is no regular file, can't be opened, is far too large for settings, or no TOML.
    """
    shown = str(path) if len(str(path)) < 200 else f"{str(path)[:80]}..."
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device or pipe"
            raise SettingError(f"{who} {shown} can't be read: it is {kind}; name a TOML file.")
        if facts.st_size > _MOST_BYTES:
            raise SettingError(
                f"{who} {shown} can't be read: it has {facts.st_size:,} bytes, at most {_MOST_BYTES:,} "
                f"are expected of settings. Name a TOML file."
            )
        found = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        if _is_deep(found):
            raise SettingError(
                f"{who} {shown} can't be read: tables are nested deeper than {_MOST_DEPTH}, which no "
                f"settings are. Correct it."
            )
        return found
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(f"{who} {shown} is no valid TOML: {error}. Correct it.") from error
    except OSError as error:
        raise SettingError(
            f"{who} {shown} can't be read: {error.strerror or error}. Check the path."
        ) from error
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"{who} {shown!r} can't be read: {error}. Check the path.") from error


def _is_deep(table: Any) -> bool:
    """Is anything nested too deep? Looked at level by level, since going down would not come back."""
    level = [table]
    for _ in range(_MOST_DEPTH):
        parts = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
