"""Passwords of databases are kept out of messages, logs and the list of processes."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

WORD = r"(?:passw(?:or)?d|passphrase|pwd)"
# in order: all between user: and the last @, or after the colon what is no port; the same where slashes
# were forgotten, and where the colon before them was; user/password@host; behind the host what is no
# port, and behind the database's name; user:password@host, alone or with /database; what stands behind
# a database's question mark; a line of ~/.pgpass; password= and password: as libpq, JSON and YAML have
_KINDS = tuple(
    re.compile(kind, re.IGNORECASE | re.DOTALL)
    for kind in (
        r"(?P<before>\w:///*[^\s/:@\[]*:)(?P<secret>.*(?=@)|(?!\d*(?:[/?)'\"\s]|$))[^\s)]+)",
        r"(?P<before>\bpostgres\w*(?:\+\w+)?:/?(?!/)(?:[^\s/:@]*:)?)(?P<secret>.*(?=@))",
        r"(?P<before>(?:/|\bpostgres\w*(?:\+\w+)?[^\w\s]?)/[^\s/:@\[]*:)(?P<secret>\S*(?=@))",
        r"(?P<before>\bpostgres\w*(?:\+\w+)?://+[^\s/:@?]*/)(?P<secret>[^\s?]*(?=@))",
        r"(?P<before>\bpostgres\w*(?:\+\w+)?://[^\s/?]*@(?:\[[^\s\]]*\]|[^\s/:@\[]*):)"
        r"(?P<secret>(?!\d{0,5}(?:[/?)'\"\s:]|$))[^\s/?)'\"]+)",
        r"(?P<before>\bpostgres\w*(?:\+\w+)?://[^\s/?]*/[^\s?:/;#,]+[:/;#,])(?P<secret>[^\s?)'\"]+)",
        r"(?P<before>(?<![\w/:.-])[\w.-]{2,}:)(?P<secret>[^\s/]*(?=@[^\s/@'\"]+(?:/\w|\)|$)))",
        r"(?P<before>\bpostgres\w*(?:\+\w+)?://[^\s?]*\?)(?P<secret>[^\s)'\"]+)",
        r"(?P<before>(?<!\S)\(?[\w.*-]+:(?:\d{4,5}|\*):[^\s:/]+:[^\s:/]+:)(?P<secret>[^\s)]+)",
        rf"(?P<before>{WORD}\s*(?:=|%3D)\s*)(?P<secret>'(?:\\.|[^'\\])*'?|[^\s&'\")]+)",
        rf"(?P<before>{WORD}[\"']?\s*:\s*)"
        r"(?P<secret>'[^'\n]*'?|\"(?:\\.|[^\"\\\n])*\"?|[^\s,})'\"][^\n,})'\"]*)",
    )
)


def without_passwords(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with stars for what looks like a password, and for these secrets in any notation.

    Examples
    --------
    >>> without_passwords("no postgresql://ann:a@b@host/shop?sslmode=require&password=tea")
    'no postgresql://ann:***@host/shop?***'
    """
    forms = {form for one in secrets if one for form in (one, quote(one, safe=""), quote_plus(one))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    for kind in _KINDS:
        text = kind.sub(lambda found: found["before"] + "***", text)
    return text


def hide_arguments() -> None:
    """Overwrite passwords among the arguments of this process, which the system shows to all.

    The arguments lie in the process's own memory, and Linux says where; elsewhere nothing is done.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: proc(5), 48 and 49
    except (OSError, ValueError, IndexError):
        return
    if not 0 < start < end:
        return
    shown = ctypes.string_at(start, end - start)
    hidden = b"\0".join(_starred(one) for one in shown.split(b"\0"))
    if hidden != shown:
        ctypes.memmove(start, hidden, len(shown))


def _starred(argument: bytes) -> bytes:
    """An argument of the same length, with stars for passwords."""
    text = argument.decode("latin-1")
    for kind in _KINDS:
        text = kind.sub(lambda found: found["before"] + "*" * len(found["secret"]), text)
    return text.encode("latin-1")
