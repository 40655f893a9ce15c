"""Published weeks: a folder each, and a link to the current one, which is switched in one step."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retailrec.errors import DataError
from retailrec.work import Work, write_json

MANIFEST, LISTS, MODEL, CAMPAIGN, CURRENT, WORK, REFUSED = (
    "manifest.json",
    "recommendations.parquet",
    "model",
    "campaign",
    "current",
    ".work",
    "refused.json",
)
FORMAT, FORMAT_VERSION = "retailrec-week", 1
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}")
_WITHDRAWN = "withdrawn.json"


@dataclass(frozen=True)
class WeekFolder:
    """The folder of published weeks."""

    folder: Path

    @property
    def current(self) -> str | None:
        """Name of the published week.

        Raises
        ------
        DataError
            If ``current`` is no link to a week.
        """
        link = self.folder / CURRENT
        if not os.path.lexists(link):
            return None
        name = os.readlink(link) if link.is_symlink() else ""
        if not _NAME.fullmatch(name) or not (self.folder / name / MANIFEST).is_file():
            raise DataError(
                f"{link} is no link to a published week; move it away, and name the week with "
                f"'retailrec week rollback --to NAME'."
            )
        return name

    def names(self) -> list[str]:
        """Weeks that are there whole, in the order of publishing."""
        if not self.folder.is_dir():
            return []
        found = [p.parent.name for p in self.folder.glob(f"*/{MANIFEST}")]
        weeks = [name for name in found if _NAME.fullmatch(name)]
        return sorted((n for n in set(weeks)), key=lambda name: (self.manifest(name)["number"], name))

    def manifest(self, name: str) -> dict[str, Any]:
        """What a week's manifest says.

        Raises
        ------
        DataError
            If there is no such week, or its manifest can't be read.
        """
        file = self.folder / name / MANIFEST
        if not _NAME.fullmatch(name) or not file.is_file():
            known = (
                ", ".join(self.names()) if _NAME.fullmatch(name) else "names such as in 'week status'"
            )
            raise DataError(f"there is no week {name!r} in {self.folder}; expected {known or 'none'}.")
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            right = found["format"] == FORMAT and found["format_version"] <= FORMAT_VERSION
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{file} can't be read as a week's manifest ({error}); restore or remove the folder."
            ) from error
        if not right:
            raise DataError(
                f"{file} is of format {found['format']!r}, version {found['format_version']!r}; this "
                f"version of retailrec reads {FORMAT}, up to {FORMAT_VERSION}."
            )
        return found

    def switch(self, name: str, work: Work) -> None:
        """Let ``current`` be a week, in one step."""
        link = work.path("result-link")
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(name, link)
        os.replace(link, self.folder / CURRENT)

    @property
    def withdrawn(self) -> list[str]:
        """Weeks that were taken back; a rerun does not publish them again."""
        file = self.folder / _WITHDRAWN
        return list(json.loads(file.read_text())) if file.is_file() else []

    @property
    def refused(self) -> dict[str, Any] | None:
        """What the last call refused, and when; None where it published."""
        file = self.folder / REFUSED
        return dict(json.loads(file.read_text())) if file.is_file() else None

    @property
    def unfinished(self) -> bool:
        """Is there work that the next call goes on with?"""
        return (self.folder / WORK).is_dir()

    def withdraw(self, names: Sequence[str]) -> None:
        """Keep the list of weeks that were taken back."""
        aside = self.folder / WORK / "result-withdrawn.json"
        write_json(aside, sorted(names))
        os.replace(aside, self.folder / _WITHDRAWN)

    def prune(self, keep: int) -> list[str]:
        """Remove the oldest weeks beyond `keep`; not the current one, nor the one to go back to."""
        current = self.current
        held = {current, None if current is None else self.manifest(current)["previous"]}
        names = self.names()
        gone = [name for name in names[: max(len(names) - keep, 0)] if name not in held]
        for name in gone:
            (self.folder / name / MANIFEST).unlink()  # from here on it is no week
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return gone


def rollback(folder: Path, to: str | None = None) -> tuple[str, str]:
    """Publish the week before the current one, or the week `to`; names of the old and the new one.

    A week that was taken back is not published again by a rerun on the same inputs; going forward to it
    by name lets it count again.

    Raises
    ------
    DataError
        If there is no such week, or another process is at work.
    """
    weeks = WeekFolder(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; nothing was published there.")
    with Work.held(folder / WORK) as work:
        current = weeks.current
        if to is None:
            to = None if current is None else weeks.manifest(current)["previous"]
            if to is None:
                raise DataError(f"{folder} holds no week before {current or 'the first'}.")
        target = weeks.manifest(to)
        after = (
            {current}
            if current is not None and weeks.manifest(current)["number"] > target["number"]
            else set()
        )
        weeks.withdraw(sorted((set(weeks.withdrawn) | after) - {to, None}))
        weeks.switch(to, work)
        work.remove()
    return current or "none", to
