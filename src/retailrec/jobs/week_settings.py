"""Settings of the weekly job: TOML -> a plan, its paths found and everything in it checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retailrec.checks import CHECKS
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.files import read_table
from retailrec.data.parsing import typed_ids
from retailrec.data.paths import read_toml
from retailrec.datasets import DATASETS
from retailrec.errors import DataError, SettingError
from retailrec.jobs.check import LIST_CHECKS, ListBounds
from retailrec.jobs.settings import ReadSettings, Settings, settings_of
from retailrec.recommender.request import Request
from retailrec.schema import USER_ID
from retailrec.work import fingerprint

ALL_CHECKS = (
    *CHECKS,
    "empty_files",
    "removed_files",
    "older_than_published",
    "short_period",
    *LIST_CHECKS,
)


_TABLES = ("receipts", "items", "users")
# of what counts: how receipts are read, and items called; a model knows them so alone
HOW_READ = ("dataset", "columns", "time_format", "where", "not_products", "changed_items")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RefitRules(_Part):
    """When the model is refitted: the first rule that holds is the reason.

    Attributes
    ----------
    age_days : receipts end so many days after those that the model was fitted on; 0: every week
    new_items : share of the new receipt lines that are of items which the model does not know
    quality_drop : precision of last week's lists, as a multiple of that of own purchases on the same
        users, below that of the model's first week by more than this share
    """

    age_days: float = Field(default=28, ge=0)
    new_items: float = Field(default=0.05, ge=0, le=1)
    quality_drop: float = Field(default=0.2, ge=0, le=1)


class CampaignFiles(_Part):
    """Files of `retailrec allocate`; offers are allocated from the week's lists.

    Attributes
    ----------
    file : the campaign's settings
    items, users : their attributes
    ledger : folder of past offers, which caps count
    """

    file: Path
    items: Path | None = None
    users: Path | None = None
    ledger: Path | None = None


class WeekSettings(ReadSettings, _Part):
    """All that ``week.toml`` says; paths in it count from its own folder.

    Attributes
    ----------
    receipts : file or folder of exports; all receipts so far, to which new ones are added
    store : store of the service to read receipts from, instead of `receipts`
    items, users : tables of attributes, where `receipts` is no folder that holds them
    dataset : how receipts are read, with the fields of `ReadSettings`
    folder : where weeks are published
    keep : weeks that are kept, the published one and the one before it always
    accept : names of checks whose refusals are accepted
    closed : days on which the shop is closed, or opens for hours only; checks pass over them
    model : settings of the model, as for ``retailrec run --config``
    request : what is asked for each user, as for `retailrec recommend`: k, slots, rules, reasons, ...
    refit, lists : rules and bounds
    campaign : allocate offers from the lists
    """

    receipts: Path | None = None
    store: str | None = None
    items: Path | None = None
    users: Path | None = None
    dataset: str = "table"
    folder: Path = Path("weeks")
    keep: int = Field(default=8, ge=2)
    accept: list[str] = []
    closed: list[date] = []
    model: dict[str, Any] = {}
    request: dict[str, Any] = {}
    refit: RefitRules = RefitRules()
    lists: ListBounds = ListBounds()
    campaign: CampaignFiles | None = None


@dataclass(frozen=True)
class Plan:
    """Settings of a week, checked, with its paths found.

    Attributes
    ----------
    settings : as in the file
    model : of the model
    request : what is asked for each user
    files : name in the manifest -> further file that is read
    """

    settings: WeekSettings
    model: Settings
    request: Request
    files: dict[str, Path]

    def what_counts(self) -> dict[str, Any]:
        """The settings that decide what is published; thresholds and places do not."""
        counts = {"dataset", "columns", "encoding", "time_format", "refit"}
        said = self.settings.model_dump(mode="json", include=counts)
        later = ("where", "not_products")  # without them, what counts is as in version 0.2
        said |= {name: getattr(self.settings, name) for name in later if getattr(self.settings, name)}
        if (changed := self.settings.reading().changed_ids) and changed.items:
            said["changed_items"] = fingerprint(sorted(changed.items.items()))
        model = self.model.model_dump(mode="json", exclude_unset=True)
        return said | {"model": model, "request": self.request.fingerprint()}

    def reading(self, receipts: Path, users: Path | None = None) -> Plan:
        """The same plan on receipts (and users) that were written elsewhere, such as out of a store."""
        files = self.files if users is None else {"users": users} | self.files
        return replace(
            self, settings=self.settings.model_copy(update={"receipts": receipts}), files=files
        )

    def without(self, forgotten: Callable[[Collection[str]], Collection[str]], aside: Path) -> Plan:
        """The same plan without users whom a store has forgotten, wherever tables beside it name them.

        Who became a forgotten id, or was one, is left out with it. Tables that named one are written
        aside.

        Parameters
        ----------
        forgotten : those of some ids that are forgotten
        aside : folder for such tables

        Raises
        ------
        DataError
            If a table can't be read, or the eligible items are those of forgotten users alone.
        """
        changed = self.settings.reading().changed_ids or ChangedIds()

        def kept(frame: pl.DataFrame) -> pl.DataFrame:
            if USER_ID not in frame.columns:
                return frame
            ids = typed_ids(frame[USER_ID]).cast(pl.String)
            chains = {one: changed.chain("user", one) for one in ids.drop_nulls().unique()}
            gone = {*forgotten({name for chain in chains.values() for name in chain})}
            lost = [one for one, chain in chains.items() if gone.intersection(chain)]
            return frame.filter(~ids.is_in(lost).fill_null(False))

        plan, places = self, {"users": self.files.get("users")}
        if changed.users:  # else the store's own receipts are without them
            places["receipts"] = self.settings.receipts
        for name, file in places.items():
            table = None if file is None else read_table(file, encoding=self.settings.encoding)
            if table is not None and (rest := kept(table)).height < table.height:
                rest.write_parquet(left := aside / f"{name}-kept.parquet")
                if name == "users":
                    plan = replace(plan, files=plan.files | {name: left})
                else:
                    plan = plan.reading(left)
        among = self.request.among
        if among is not None and among.pairs is not None:
            if (pairs := kept(among.pairs)).is_empty():
                raise DataError("among: all shoppers of the lists are forgotten; take the lists out.")
            plan = replace(plan, request=replace(plan.request, among=replace(among, pairs=pairs)))
        return plan


def read_week(path: Path) -> Plan:
    """The plan in a TOML file.

    Raises
    ------
    SettingError
        If the file can't be read, or a setting is unknown or makes no sense.
    """
    given, home = read_toml(path, who="config"), path.parent
    for part in (None, "campaign", "request"):
        table = given if part is None else given.get(part)
        for name, value in table.items() if isinstance(table, dict) else ():
            if value in ("", [""]) and name != "salt":  # an empty path is the current folder
                where = name if part is None else f"{part}.{name}"
                raise SettingError(f"{path}: {where} is empty; name what is meant, or leave it out.")
    try:
        settings = WeekSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise SettingError(
            f"{path}: {where} is {first.get('input')!r}: {first['msg'].lower()}. Known settings: "
            f"{', '.join(WeekSettings.model_fields)}."
        ) from error
    if (settings.receipts is None) == (settings.store is None):
        raise SettingError(f"{path}: say either receipts = 'FOLDER or FILE' or store = 'STORE'.")
    if settings.store is not None and (settings.dataset != "table" or settings.columns):
        raise SettingError(f"{path}: dataset and columns say how files are read; a store needs none.")
    if settings.dataset not in DATASETS:
        raise SettingError(f"{path}: dataset must be one of {', '.join(DATASETS)}.")
    require_checks(settings.accept, f"{path}: accept")
    settings = settings.beside(home)
    here = {name: _beside(home, getattr(settings, name)) for name in _TABLES}
    files = {name: file for name, file in here.items() if name != "receipts" and file is not None}
    if settings.changed_ids is not None:
        files["changed_ids"] = settings.changed_ids
    asked, campaign = dict(settings.request), settings.campaign
    if "at" in asked:
        raise SettingError(f"{path}: request.at belongs to the command line here: --as-of DATE.")
    for one in fields(Request):  # paths count from the settings' own folder
        said = asked.get(one.name)
        if one.metadata["plain"] is Path and isinstance(said, str):
            asked[one.name] = files[one.name] = home / said
        elif one.metadata["plain"] == list[Path] and said is not None:
            asked[one.name] = [home / str(f) for f in (said if isinstance(said, list) else [said])]
            files |= {f"{one.name}-{n}": file for n, file in enumerate(asked[one.name])}
    if campaign is not None:
        campaign = campaign.model_copy(
            update={name: _beside(home, getattr(campaign, name)) for name in CampaignFiles.model_fields}
        )
        files |= {
            f"campaign-{name}": file
            for name in ("file", "items", "users")
            if (file := getattr(campaign, name)) is not None
        }
    request = Request.read(asked)
    model = dict(settings.model)
    if "discover" in request.by_purpose:
        model.setdefault("discover", {})
    store = settings.store
    if store is not None and "://" not in store:
        store = str(home / store)
    settings = settings.model_copy(
        update={**here, "folder": home / settings.folder, "campaign": campaign, "store": store}
    )
    receipts, place = settings.receipts, settings.folder.resolve()
    if receipts is not None and place.is_relative_to(receipts.resolve()):
        raise SettingError(
            f"{path}: folder {place} lies in receipts {receipts}, and lists would be read as receipts; "
            f"name another place."
        )
    try:
        return Plan(settings, settings_of(model), request, files)
    except SettingError as error:
        raise SettingError(f"{path}, [model]: {error}") from error


def read_folder(path: Path) -> Path:
    """Where a TOML file of settings has weeks published, whether or not the rest of it can be used.

    Raises
    ------
    SettingError
        If the file can't be read, or names no folder.
    """
    folder = read_toml(path, who="config").get("folder", WeekSettings.model_fields["folder"].default)
    if not folder or not isinstance(folder, str | Path):
        raise SettingError(f"{path}: folder must be the path of a folder, not {folder!r}.")
    return path.parent / folder


def require_checks(names: Sequence[str], who: str) -> None:
    """Raise a SettingError if one of these is no check."""
    if unknown := [name for name in names if name not in ALL_CHECKS]:
        raise SettingError(
            f"{who} names {unknown[0]!r}, which is no check; expected some of {', '.join(ALL_CHECKS)}."
        )


def _beside(home: Path, file: Path | None) -> Path | None:
    return None if file is None else home / file
