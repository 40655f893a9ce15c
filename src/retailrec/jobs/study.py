"""The file of a study: one line a finished trial, each with its checksum, held while it is in use."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from retailrec.data.locks import hold_file
from retailrec.errors import DataError, SettingError

_STUDY = "retailrec-study"


class StudyFile:
    """Trials of one search.

    A process that is killed while it writes leaves a cut last line, which counts for nothing; so does a
    line whose checksum is not that of its content. Both are computed again.

    Attributes
    ----------
    trials : what the whole lines say, in order
    """

    def __init__(self, stream: BinaryIO, path: Path, of: str) -> None:
        self._stream = stream
        stream.seek(0)
        lines = stream.read().split(b"\n")
        contents = [_content(line) for line in lines]
        head, first = contents[0], _line({"study": _STUDY, "of": of})
        begun = len(lines) == 1 and first.startswith(lines[0])  # new, or killed in the first line
        if not begun and (head is None or head.get("study") != _STUDY):
            raise SettingError(
                f"{path} is no study of this version of retailrec; name another file to start anew."
            )
        if head is not None and head.get("of") != of:
            raise SettingError(
                f"the study {path} is of other data, folds or settings; name another file to start "
                "anew."
            )
        if begun:
            stream.truncate(0)
            self._append(first)
        elif lines[-1]:
            self._append(b"\n")
        self.trials = [trial for trial in contents[1:] if trial is not None]

    def add(self, trial: dict[str, Any]) -> None:
        """Write a finished trial; it is on the disk when this returns."""
        self._append(_line(trial))
        self.trials.append(trial)

    def _append(self, data: bytes) -> None:
        self._stream.seek(0, os.SEEK_END)
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())


@contextmanager
def opened_study(path: Path, of: str) -> Iterator[StudyFile]:
    """The study of a file, made if it is not there and held meanwhile; `of` stands for what is tried.

    Raises
    ------
    SettingError
        If the file is something else, or a study of other data or settings.
    DataError
        If it can't be written to, or another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream: BinaryIO = open(path, "a+b")  # noqa: SIM115 closed below
    except OSError as error:
        raise DataError(f"the study {path} can't be written: {error.strerror or error}.") from error
    with stream:
        hold_file(stream.fileno(), path)
        try:
            yield StudyFile(stream, path, of)
        except OSError as error:
            raise DataError(f"the study {path} can't be written: {error.strerror or error}.") from error


def _line(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f'{{"sha256": "{digest}", "content": {text}}}\n'.encode()


def _content(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if its checksum is another."""
    try:
        found = json.loads(line)
        text = json.dumps(found["content"], sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest() == found["sha256"]:
            content: dict[str, Any] = found["content"]
            return content if isinstance(content, dict) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None
