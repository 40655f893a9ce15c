"""Published weeks: a folder each, a link to the current one, switched in one step; what differs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data.changed_ids import ChangedIds
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.work import Work, write_json

MANIFEST, CARD, LISTS, POOLS, MODEL, CAMPAIGN, CURRENT, WORK, REFUSED, HISTORY = (
    "manifest.json",
    "model-card.md",
    "recommendations.parquet",
    "exposures.parquet",
    "model",
    "campaign",
    "current",
    ".work",
    "refused.json",
    "watch.json",
)
FORMAT, FORMAT_VERSION = "retailrec-week", 1
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}")
_WITHDRAWN = "withdrawn.json"
_KEPT = {  # what every manifest says, and the types it may have
    "name": (str,),
    "number": (int,),
    "previous": (str, type(None)),
    "key": (str,),
    "inputs_key": (str,),
    "end": (str,),
    "inputs": (dict,),
    "settings": (dict,),
    "data": (dict,),
    "model": (dict,),
    "lists": (dict,),
    "change": (dict, type(None)),
    "judged": (dict, type(None)),
    "versions": (dict,),
}


def is_published(file: Path) -> bool:
    """Is this a table of a published week, beside that week's manifest?"""
    if file.name not in (LISTS, POOLS):
        return False
    try:
        found = json.loads((file.parent / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT


@dataclass(frozen=True)
class WeekFolder:
    """The folder of published weeks.

    Attributes
    ----------
    changed_ids : ids that changed: lists that are read have the new ones, files stay as they are
    """

    folder: Path
    changed_ids: ChangedIds = field(default_factory=ChangedIds)

    @property
    def current(self) -> str | None:
        """Name of the published week.

        Raises
        ------
        DataError
            If ``current`` is no link to a week.
        """
        link = self.folder / CURRENT
        try:
            os.lstat(link)  # to one who may not look it is not missing
        except (FileNotFoundError, NotADirectoryError):
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
        return sorted(weeks, key=lambda name: (self.manifest(name)["number"], name))

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
            wrong = [key for key, kind in _KEPT.items() if right and type(found[key]) not in kind]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{file} can't be read as a week's manifest ({error!r}); restore or remove the folder."
            ) from error
        if wrong:
            raise DataError(
                f"{file} can't be read as a week's manifest ({wrong[0]} is {found[wrong[0]]!r}); "
                f"restore or remove the folder."
            )
        if not right:
            raise DataError(
                f"{file} is of format {found['format']!r}, version {found['format_version']!r}; this "
                f"version of retailrec reads {FORMAT}, up to {FORMAT_VERSION}."
            )
        return found

    def lists(self, name: str) -> pl.DataFrame:
        """The lists of a week.

        Raises
        ------
        DataError
            If they can't be read.
        """
        file = self.folder / name / LISTS
        try:
            found = pl.read_parquet(file, glob=False)  # a folder's name may hold brackets
            found = found.select(USER_ID, ITEM_ID, "rank", pl.exclude(USER_ID, ITEM_ID, "rank"))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(
                f"{file} can't be read as a week's lists ({str(error).splitlines()[0]}); restore it, "
                f"or remove the folder and say 'retailrec week rollback --to NAME' of a week before it."
            ) from error
        return self.changed_ids.of_lists(found)

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
        return list(self._kept(_WITHDRAWN, list) or [])

    @property
    def refused(self) -> dict[str, Any] | None:
        """What the last call refused, and when; None where it published."""
        return self._kept(REFUSED, dict)

    def _kept(self, name: str, kind: type) -> Any:
        """What a file beside the weeks says; None where there is none."""
        file = self.folder / name
        if not file.is_file():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if type(found) is kind:
                return found
            error: Exception = TypeError(f"it holds a {type(found).__name__}")
        except (OSError, ValueError, RecursionError) as failed:
            error = failed
        raise DataError(f"{file} can't be read ({error}); restore or remove it.") from error

    @property
    def unfinished(self) -> bool:
        """Is there work that the next call goes on with?"""
        return (self.folder / WORK).is_dir()

    def lineage(self, name: str | None) -> list[str]:
        """A week and those that it builds on, newest first, as far back as they are kept.

        Raises
        ------
        DataError
            If there is no such week.
        """
        found: list[str] = []
        kept = {*self.names()}
        while name is not None and (name in kept or not found):
            found.append(name)
            name = self.manifest(name)["previous"]
        return found

    def judgements(self) -> dict[str, dict[str, Any]]:
        """Week -> what its lists were worth, as a week that followed has it.

        Of a week that the published one builds on, what weeks say that were taken back does not count.
        """
        live, found = {*self.lineage(self.current)}, {}
        for manifest in map(self.manifest, self.names()):
            before = manifest["previous"]
            if manifest["judged"] and (before not in live or manifest["name"] in live):
                found[before] = manifest["judged"]
        return found

    def withdraw(self, names: Iterable[str]) -> None:
        """Keep the list of weeks that were taken back."""
        aside = self.folder / WORK / "result-withdrawn.json"
        write_json(aside, sorted(names))
        os.replace(aside, self.folder / _WITHDRAWN)

    def prune(self, keep: int, work: Work) -> list[str]:
        """Remove the oldest weeks beyond `keep`; not the current one, nor the one to go back to."""
        current = self.current
        held = {current, None if current is None else self.manifest(current)["previous"]}
        names = self.names()
        if os.path.lexists(work.path("part-gone")):
            shutil.rmtree(work.path("part-gone"))
        gone = [name for name in names[: max(len(names) - keep, 0)] if name not in held]
        for name in gone:
            os.replace(self.folder / name, work.path("part-gone"))  # from here on it is no week
            shutil.rmtree(work.path("part-gone"))
        return gone


def rollback(folder: Path, to: str | None = None) -> tuple[str, str]:
    """Publish the week before the current one, or the week `to`; names of the old and the new one.

    Taken back are the weeks that the current one builds on and the new one does not. A rerun on their
    inputs does not publish them again; going to one by name lets it count again, and those before it.

    Raises
    ------
    DataError
        If there is no such week, or another process is at work.
    """
    weeks = WeekFolder(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; nothing was published there.")
    begun = weeks.unfinished
    with Work.held(folder / WORK) as work:
        try:
            current, to = _back(weeks, to)
            weeks.withdraw({*weeks.withdrawn, *weeks.lineage(current)} - {*weeks.lineage(to)})
            weeks.switch(to, work)
        except DataError:
            if not begun:
                work.remove()
            raise
        work.remove()
    return current or "none", to


def _back(weeks: WeekFolder, to: str | None) -> tuple[str | None, str]:
    """The published week, and the one that is to be published in its place: the one before, or `to`."""
    link = weeks.folder / CURRENT
    if to is not None:
        dangling = link.is_symlink() and not link.exists()
        return None if dangling else weeks.current, to
    current = weeks.current
    before = None if current is None else weeks.manifest(current)["previous"]
    if before is None:
        raise DataError(f"{weeks.folder} holds no week before {current or 'the first'}.")
    if before not in (names := weeks.names()):
        raise DataError(
            f"the week before {current}, {before}, is kept no longer (`keep`); there are "
            f"{', '.join(names)}. Name one with --to."
        )
    return current, before


# --- two weeks side by side --------------------------------------------------------------------------


def diff_weeks(weeks: WeekFolder, a: str, b: str) -> dict[str, Any]:
    """What differs between two weeks: inputs, data, settings, versions, model, lists and figures.

    Returns
    -------
    dict with ``a``, ``b``; ``inputs`` (added, removed, changed names); ``data``, ``settings``,
    ``versions``, ``model``, ``counts`` (of lists) as name -> [of a, of b] where they differ; ``lists``
    (users with both, share of items that only b's lists have, its parts where b followed a); ``items``
    (in how many lists of a and b, the largest change first); ``figures`` (rows of `segment`, `group`,
    `metric`, `a`, `b`, `n_a`, `n_b`, of lists judged by the week after; none until then); ``notes``
    (sentences)

    Raises
    ------
    DataError
        If there is no such week.
    """
    one, two = weeks.manifest(a), weeks.manifest(b)
    left, right = weeks.lists(a), weeks.lists(b)
    if left[ITEM_ID].dtype != right[ITEM_ID].dtype or left[USER_ID].dtype != right[USER_ID].dtype:
        left, right = (f.with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.String)) for f in (left, right))
    pair = [USER_ID, ITEM_ID]
    both = right.join(left.select(USER_ID).unique(), on=USER_ID, how="semi")
    entered = both.join(left, on=pair, how="anti").height
    lists = {"users": both[USER_ID].n_unique(), "share": entered / max(both.height, 1)}
    if two["previous"] == a and two["change"] is not None:
        lists |= {name: two["change"][name] for name in ("from_receipts", "from_refit")}
    counts = [f.group_by(ITEM_ID).len(name) for f, name in ((left, "a"), (right, "b"))]
    items = counts[0].join(counts[1], on=ITEM_ID, how="full", coalesce=True).fill_null(0)
    items = items.with_columns(pl.col("a", "b").cast(pl.Int64)).with_columns(
        more=pl.col("b") - pl.col("a")
    )
    items = items.filter(pl.col("more") != 0).sort(
        pl.col("more").abs(), ITEM_ID, descending=[True, False]
    )
    old, new = one["inputs"], two["inputs"]
    judgements = weeks.judgements()
    judged = judgements.get(a), judgements.get(b)
    return {
        "a": a,
        "b": b,
        "inputs": {
            "added": sorted(set(new) - set(old)),
            "removed": sorted(set(old) - set(new)),
            "changed": sorted(n for n in set(old) & set(new) if old[n] != new[n]),
        },
        "data": _differing(one["data"], two["data"]),
        "settings": _differing(one["settings"], two["settings"]),
        "versions": _differing(one["versions"], two["versions"]),
        "model": _differing(one["model"], two["model"]),
        "counts": _differing(_numbers(one["lists"]), _numbers(two["lists"])),
        "lists": lists,
        "items": items.to_dicts(),
        "figures": _figures(*judged),
        "notes": _why(*judged, one["model"]["key"] == two["model"]["key"]),
    }


def lists_of_user(weeks: WeekFolder, a: str, b: str, user: str) -> list[tuple[Any, Any]]:
    """What two weeks list for a user, by rank; None where a list has ended.

    Raises
    ------
    DataError
        If neither week has a list for the user.
    """
    listed, user = [], weeks.changed_ids.last("user", user)
    for name in (a, b):
        mine = weeks.lists(name).filter(pl.col(USER_ID).cast(pl.String) == user)
        listed.append(mine.sort("rank")[ITEM_ID].to_list())
    if not any(listed):
        raise DataError(f"neither {a} nor {b} has a list for user {user!r}; check the id.")
    return list(zip_longest(*listed))


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _differing(a: Any, b: Any, path: str = "") -> dict[str, list[Any]]:
    """Name (tables within tables with dots) -> both values, where they differ.

    Examples
    --------
    >>> _differing({"k": 5, "model": {"seed": 0}}, {"k": 5, "model": {"seed": 1}})
    {'model.seed': [0, 1]}
    """
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return {} if a == b else {path: [a, b]}
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys([*a, *b]):
        found |= _differing(a.get(name), b.get(name), f"{path}.{name}".lstrip("."))
    return found


def _figures(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Figures of both weeks' lists by segment, where both were judged."""
    if a is None or b is None:
        return []
    keys = ("segment", "group", "metric")
    mine = {tuple(row[k] for k in keys): row for row in a["by_segment"]}
    rows = []
    for row in b["by_segment"]:
        other = mine.get(tuple(row[k] for k in keys))
        if other is not None:
            of_both = {"a": other["mean"], "b": row["mean"]}
            users = {"n_a": other["n_users"], "n_b": row["n_users"]}
            rows.append({k: row[k] for k in keys} | of_both | users)
    return rows


def _why(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, same_model: bool) -> list[str]:
    """Sentences on why quality moved."""
    if a is None or b is None:
        return ["lists are judged by the week that follows, so figures of both are not there yet."]
    metric, x = next(iter(a["models"]["lists"].items()))
    if metric not in b["models"]["lists"]:
        return ["lists of one week are longer than those of the other, so figures are not compared."]
    y = b["models"]["lists"][metric]
    own = [one["models"]["own_purchases"][metric] for one in (a, b)]
    if None in (x, y, *own):
        return []
    moved, theirs = y - x, own[1] - own[0]
    fit = "the same model" if same_model else "another model"
    return [
        f"{metric} moved by {moved:+.4f}, that of own purchases on the same users by {theirs:+.4f}: so "
        f"much is what users bought, and {moved - theirs:+.4f} the lists, made by {fit}."
    ]
