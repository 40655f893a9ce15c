"""The weekly job: take in what is new, check, refit or not, recommend, publish in one step.

A week is a folder ``DATE-FINGERPRINT`` below the folder of weeks, made from inputs and settings alone;
``current`` is a link to the one that is published. Everything is written aside in ``.work`` and appears
by two renames, that of the folder and that of the link, so whoever reads ``current`` sees last week or
this one, and a call that was killed is finished by the next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

from retailrec.checks import Finding, Weeks, bulk, run_checks
from retailrec.compute.memory import peak_memory_mb
from retailrec.compute.progress import Progress, Timer, silent
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LINE
from retailrec.data.files import exports_of, read_table
from retailrec.data.parsing import as_instant
from retailrec.data.paths import CSV, EXCEL, NOT_DATA, PARQUET, data_files, without_bytes
from retailrec.datasets import open_dataset
from retailrec.datasets.base import Tables
from retailrec.datasets.table import TABLES, receipts_in, with_our_names
from retailrec.errors import ArtifactError, DataError
from retailrec.jobs.campaigns import allocate_files
from retailrec.jobs.check import Checked, check_lists, typed_lines
from retailrec.jobs.published import (
    CAMPAIGN,
    CARD,
    FORMAT,
    FORMAT_VERSION,
    HISTORY,
    LISTS,
    MANIFEST,
    MODEL,
    POOLS,
    REFUSED,
    WORK,
    WeekFolder,
)
from retailrec.jobs.watch import (
    Judged,
    Made,
    change_of,
    describe_lists,
    grown,
    history_of,
    judge_lists,
    measure_week,
)
from retailrec.jobs.week_settings import HOW_READ, Plan, require_checks
from retailrec.recommender.artifact import versions
from retailrec.recommender.batch import Exposures, artifact_key, recommend_to_file
from retailrec.recommender.exploration import policy_name
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report.week_page import render_model_card
from retailrec.work import Work, fingerprint, linked, make_folder, sha256, write_json, write_text

_ASIDE = "part-lists"  # where lists stand until they are published


# --- what is new -------------------------------------------------------------------------------------


class TakenIn(NamedTuple):
    """Receipts as they were read, before anything is cleaned.

    Attributes
    ----------
    tables : all that was read
    checked : what the checks found in the new lines
    end : first instant that is not known: what is dated later is far from all other lines, or is not
        to be looked at
    cut : is anything not looked at, since it came later than was asked for?
    """

    tables: Tables
    checked: Checked
    end: datetime
    cut: bool


def inputs_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """``sha256`` and ``bytes`` of every file that is read, by name.

    Raises
    ------
    DataError
        If a file is missing.
    """
    receipts = plan.settings.receipts
    assert receipts is not None
    data_files(receipts_in(receipts))  # says what is wrong with the path
    inner = _files(receipts) if receipts.is_dir() else [receipts]
    files = {f"receipts/{_inside(p, receipts)}": p for p in inner}
    found = {}
    for name, file in {**files, **plan.files}.items():
        if not file.is_file():
            raise DataError(f"{name}: there is no file {file}; correct the path in the settings.")
        found[name] = {"sha256": sha256(file), "bytes": file.stat().st_size}
    return found


def _nameless(inputs: Mapping[str, Mapping[str, Any]]) -> set[tuple[str, str]]:
    """What the files hold, whatever exports are called: names of tables and of parts mean something."""
    found = set()
    for name, facts in inputs.items():
        folder, _, file = name.rpartition("/")
        stem, _, ends = file.partition(".")
        called = not folder or stem.lower() in TABLES or stem.lower().startswith("part")
        found.add((f"{folder}/{stem if called else ''}.{ends}", facts["sha256"]))
    return found


def _files(folder: Path) -> list[Path]:
    """Data files of a folder and those below it, of no bytes too; hidden ones are none."""
    ends = (*CSV, *PARQUET, *EXCEL)
    return sorted(
        p
        for p in folder.rglob("*")
        if p.name.lower().endswith(ends)
        and p.is_file()
        and not any(part.startswith(NOT_DATA) for part in p.relative_to(folder).parts)
    )


def _inside(file: Path, receipts: Path) -> str:
    return file.name if file == receipts else file.relative_to(receipts).as_posix()


def take_in(
    plan: Plan,
    inputs: Mapping[str, Mapping[str, Any]],
    last: Mapping[str, Any] | None,
    as_of: datetime | None,
    progress: Progress = silent,
) -> TakenIn:
    """Read all receipts, and check those that are new since the week `last`.

    New are the lines of files which that week did not have; of one table, those after its end.

    Parameters
    ----------
    inputs : of `inputs_of`

    Raises
    ------
    DataError
        If the receipts can't be read.
    """
    settings, path = plan.settings, plan.settings.receipts
    assert path is not None
    progress(f"read {path}")
    items, users = (_described(plan, name) for name in ("items", "users"))
    tables = open_dataset(settings.dataset, path, replace(settings.reading(), catalogue=items))
    tables = replace(
        tables,
        transactions=list(tables.transactions),
        items=tables.items if items is None else items,
        users=tables.users if users is None else users,
    )
    progress("check")
    lines = typed_lines(tables)
    whole = lines.height
    if as_of is not None:
        lines = lines.filter(pl.col("time").is_null() | (pl.col("time") < as_of))
    files = _new_files(inputs, last)
    new, past = _new_lines(lines, tables, path, files, last)
    weeks = Weeks(new, past, settings.closed)
    findings = run_checks(weeks)
    empty = [_inside(file, path) for file in without_bytes(receipts_in(path))]
    if empty := [name for name in empty if f"receipts/{name}" in files]:
        said = f"{', '.join(empty[:3])} has no byte; the export failed. Export again."
        findings.insert(0, Finding("empty_files", "refuse", said))
    if gone := _removed_files(inputs, last):
        said = (
            f"{len(gone):,} files of the published week's receipts are not there any more "
            f"({', '.join(gone[:3])}), and what they alone held is not known now. If that was a "
            f"mistake, put them back."
        )
        findings.append(Finding("removed_files", "warn", said))
    end = max(weeks.end, _end_before(lines, last))
    end = end if as_of is None else min(as_of, end)
    if last is not None and end < datetime.fromisoformat(last["end"]):
        said = (
            f"the receipts end before {end:%Y-%m-%d}, and those of the published week {last['name']} "
            f"before {last['end'][:10]}. Is the newest export there?"
        )
        findings.insert(0, Finding("older_than_published", "refuse", said))
    checked = Checked.of(weeks, findings)
    return TakenIn(tables, checked, end, lines.height < whole)


def _described(plan: Plan, name: str) -> pl.DataFrame | None:
    """The settings' table of items or users; None where there is none."""
    file = plan.files.get(name)
    if file is None:
        return None
    columns = plan.settings.reading().columns
    return with_our_names(read_table(file, encoding=plan.settings.encoding), columns)


def _new_files(inputs: Mapping[str, Mapping[str, Any]], last: Mapping[str, Any] | None) -> list[str]:
    """Names of the files of receipts that a week did not have; one of another name is none."""
    had = {} if last is None else {name: facts["sha256"] for name, facts in last["inputs"].items()}
    gone = {had[name] for name in had.keys() - inputs.keys()}
    return [
        name
        for name, facts in inputs.items()
        if name.startswith("receipts/")
        and facts["sha256"] != had.get(name)
        and facts["sha256"] not in gone
    ]


def _removed_files(
    inputs: Mapping[str, Mapping[str, Any]], last: Mapping[str, Any] | None
) -> list[str]:
    """Files of receipts that a week had and that are there under no name."""
    there = {facts["sha256"] for facts in inputs.values()}
    had = {} if last is None else last["inputs"]
    return [
        name.partition("/")[2]
        for name, facts in had.items()
        if name.startswith("receipts/") and name not in inputs and facts["sha256"] not in there
    ]


def _new_lines(
    lines: pl.DataFrame,
    tables: Tables,
    path: Path,
    files: Sequence[str],
    last: Mapping[str, Any] | None,
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The lines that are new since a week, and the others; (all, None) where that is unknown.

    Those of `files` are, where the others are of other exports; else those after the week's end. Of
    files that come late or were corrected it is all lines of their days, for these are to be whole.
    """
    if last is None:
        return lines, None
    spans = tables.report.spans  # of the files that have lines
    exports = exports_of([span[:2] for span in spans])
    is_new = [f"receipts/{_inside(span.file, path)}" in files for span in spans]
    fresh, known = (
        {n for n, new in zip(exports, is_new, strict=True) if new is side} for side in (True, False)
    )
    if fresh and known and not fresh & known:
        of_span = np.searchsorted(np.cumsum([span.rows for span in spans]), lines[LINE], "right")
        among = pl.Series(np.array(is_new)[of_span])
        if among.any():  # else they come later than was asked for
            first, newest = bulk(lines.filter(among))
            if newest < datetime.fromisoformat(last["end"]).date():
                days = lines["time"].dt.date().is_between(first, newest)
                among = among | days.fill_null(False)
            return lines.filter(among), lines.filter(~among)
    if not fresh and tables.report.reading.get("dataset") == "table":
        receipts = data_files(receipts_in(path))
        if any(f"receipts/{_inside(file, path)}" in files for file in receipts):
            return lines.clear(), lines  # a header alone
    later = pl.col("time").is_null() | (pl.col("time") >= datetime.fromisoformat(last["end"]))
    new = lines.filter(later)
    return (lines, None) if new.is_empty() else (new, lines.filter(~later))


def _end_before(lines: pl.DataFrame, last: Mapping[str, Any] | None) -> datetime:
    """Midnight after the last line that lies before the end of a week: it is known still.

    What is new may be of days before: a store's export that comes late, or one that was corrected.
    """
    until = datetime.min if last is None else datetime.fromisoformat(last["end"])
    known = lines.filter(pl.col("time") < until)["time"].max()
    if not isinstance(known, datetime):
        return datetime.min
    return datetime(known.year, known.month, known.day) + timedelta(days=1)


# --- refit, or not ------------------------------------------------------------------------------------


class Decision(NamedTuple):
    """Is the model refitted, and why?"""

    refit: bool
    reason: str


def decide(
    plan: Plan,
    data: RetailData,
    last: Mapping[str, Any] | None,
    judged: Judged | None,
    *,
    refit: bool = False,
) -> Decision:
    """Whether to refit; the first rule that holds is the reason.

    Parameters
    ----------
    last : manifest of the published week
    judged : what its lists were worth since
    refit : fit in any case
    """
    rules = plan.settings.refit
    if last is None:
        return Decision(True, "no model is in place")
    if refit:
        return Decision(True, "it was asked for")
    was, now = last["settings"], plan.what_counts()
    if was["model"] != now["model"]:
        return Decision(True, "the settings of the model have changed")
    if any(was.get(name) != now.get(name) for name in HOW_READ):
        return Decision(True, "receipts are read in another way than those that the model knows")
    model, since = last["model"], datetime.fromisoformat(last["model"]["fitted_until"])
    age = (data.end - since) / timedelta(days=1)
    if age >= rules.age_days:
        return Decision(
            True, f"the model is {age:g} days old, and {rules.age_days:g} are allowed (refit.age_days)"
        )
    new = unknown_share(data, since, datetime.fromisoformat(last["end"]))
    if new > rules.new_items:
        return Decision(
            True,
            f"{new:.1%} of the new lines are of items without a sale when the model was fitted, and "
            f"{rules.new_items:.1%} are allowed (refit.new_items)",
        )
    ratio, first = None if judged is None else judged.ratio, model["first_ratio"]
    if ratio is not None and first is not None and ratio < (1 - rules.quality_drop) * first:
        return Decision(
            True,
            f"lists are worth {ratio:.2f} times own purchases, {first:.2f} in the model's first week; "
            f"a drop of {rules.quality_drop:.0%} is allowed (refit.quality_drop)",
        )
    return Decision(
        False,
        f"the model is {age:g} of {rules.age_days:g} days old, {new:.1%} of the new lines are of items "
        f"it has not seen sold, of {rules.new_items:.1%} that are allowed"
        + ("" if ratio is None else f", lists are worth {ratio:.2f} times own purchases"),
    )


def unknown_share(data: RetailData, fitted_until: datetime, since: datetime) -> float:
    """Share of the lines since a time that are of items without any line before `fitted_until`."""
    new = data.log.filter(pl.col("time") >= since)
    known = data.log.filter(pl.col("time") < fitted_until)["item"].unique()
    return 0.0 if new.is_empty() else 1 - float(new["item"].is_in(known.implode()).mean())  # type: ignore[arg-type]


# --- the week ----------------------------------------------------------------------------------------


Status = Literal["published", "nothing new", "refused", "would publish"]


@dataclass(frozen=True)
class Outcome:
    """What a call of the weekly job came to.

    Attributes
    ----------
    status : ``published``, ``nothing new``, ``refused``, or ``would publish`` of a dry run
    reason : in a sentence
    name : of the week; None where there is none
    manifest : of the week that was published
    checked : what the checks found in the receipts; None where nothing was read
    decision : whether the model is refitted
    findings : of the checks of lists
    notes : what a caller should know
    """

    status: Status
    reason: str
    name: str | None = None
    manifest: Mapping[str, Any] | None = None
    checked: Checked | None = None
    decision: Decision | None = None
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()


def publish_week(
    plan: Plan,
    *,
    as_of: str | None = None,
    refit: bool = False,
    accept: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Make this week's lists and publish them; the same inputs and settings are published once.

    Parameters
    ----------
    as_of : look at receipts before this time only
    refit : refit the model in any case
    accept : names of checks whose refusals are accepted, beside those of the settings
    dry_run : stop before the model, and write nothing

    Raises
    ------
    DataError, SettingError
        If an input can't be used, or another process is at work.
    """
    instant = None if as_of is None else as_instant(as_of, who="--as-of")
    weeks = WeekFolder(plan.settings.folder, plan.settings.reading().changed_ids or ChangedIds())
    require_checks(accept, "--accept")
    accepted = {*plan.settings.accept, *accept}
    progress("compare inputs")
    inputs = inputs_of(plan)
    last = None if weeks.current is None else weeks.manifest(weeks.current)
    call = _Call(plan, weeks, inputs, last, instant, refit, accepted, progress)
    if dry_run:
        return call.dry_run()
    with Work.held(weeks.folder / WORK, plan=[call.key, versions(), last and last["name"]]) as work:
        if weeks.current != (last and last["name"]):
            raise DataError("another process has just published or taken back a week; call again.")
        return call.run(work)


@dataclass
class _Call:
    """One call of the weekly job."""

    plan: Plan
    weeks: WeekFolder
    inputs: dict[str, dict[str, Any]]
    last: Mapping[str, Any] | None
    as_of: datetime | None
    refit: bool
    accepted: set[str]
    progress: Progress

    def __post_init__(self) -> None:
        self.timer = Timer(self.progress)
        self._name_inputs()

    def _name_inputs(self) -> None:
        self.inputs_key, self.key = self._keys(self.inputs)

    def _keys(self, inputs: Mapping[str, Any]) -> tuple[str, str]:
        """Fingerprint of inputs and settings, and that of this call, which may be a refit."""
        of_inputs = fingerprint([inputs, self.plan.what_counts(), str(self.as_of)])
        return of_inputs, fingerprint([of_inputs, "refit"]) if self.refit else of_inputs

    def dry_run(self) -> Outcome:
        """What a call would do; nothing is written."""
        if (known := self._known()) is not None and known.status == "nothing new":
            return known
        taken = self._take_in()
        if (known := self._known_undated(taken)) is not None and known.status == "nothing new":
            return known
        if refused := self._refusals(taken.checked.findings):
            return Outcome("refused", _refusal(refused), checked=taken.checked)
        data = self._load(taken)
        decision = decide(self.plan, data, self.last, self._judge(data), refit=self.refit)
        name = self._name(taken.end)
        why = f"{name} would be published"
        return Outcome("would publish", why, name, None, taken.checked, decision, (), data.report.notes)

    def run(self, work: Work) -> Outcome:
        """Go on with what an earlier call of the same plan has finished, and publish."""
        if (known := self._known()) is not None:
            return self._finish(known, work)
        with self.timer.step("take in and check"):
            taken = self._take_in()
        if (known := self._known_undated(taken)) is not None:
            return self._finish(known, work)
        checked, name = taken.checked, self._name(taken.end)
        if refused := self._refusals(checked.findings):
            return self._refused(refused, checked)
        with self.timer.step("load"):
            data = self._load(taken)
        del taken  # the fit needs the room
        if inputs_of(self.plan) != self.inputs:
            raise DataError("receipts or settings changed while they were read; call again.")
        with self.timer.step("judge last week"):
            judged = self._judge(data)
        decision = decide(self.plan, data, self.last, judged, refit=self.refit)
        model, recommender, decision = self._model(work, data, decision)
        with self.timer.step("recommend"):
            file, facts = self._recommend(work, data, recommender, artifact_key(model))
        lists = pl.read_parquet(file, glob=False)
        described = describe_lists(lists, data, self.plan.request.k)
        changed: dict[str, Any] | None = None
        old: TwoStageRecommender | None = recommender
        notes: list[str] = []
        if self.last is not None:
            same = self.last["settings"]["request"] == self.plan.request.fingerprint()
            if decision.refit:
                old, notes = self._last_model()
            with self.timer.step("compare with last week"):
                changed = change_of(
                    self.weeks.lists(self.last["name"]),
                    lists,
                    old.recommend if old is not None and decision.refit and same else None,
                    data,
                    self._request,
                )
        findings = check_lists(
            described, self.last and self.last["lists"], changed, self.plan.settings.lists
        )
        if refused := self._refusals(findings):
            return self._refused(refused, checked, findings)
        with self.timer.step("measure"):
            folder = None if self.last is None else self.weeks.folder / self.last["name"]
            made = Made(data, described, changed, judged, facts["fallback"])
            row = {"name": name, "end": data.end.isoformat()}
            row |= measure_week(made, self.last, self.weeks, old, self.plan.request)
            history = grown(history_of(folder), row)
        with self.timer.step("allocate"):
            campaign = self._allocate(work, file, name)
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": name,
            "number": 1
            + max((self.weeks.manifest(n)["number"] for n in self.weeks.names()), default=0),
            "previous": self.last and self.last["name"],
            "key": self.key,
            "inputs_key": self.inputs_key,
            "end": data.end.isoformat(),
            "as_of": self.as_of and self.as_of.isoformat(),
            "inputs": self.inputs,
            "settings": self.plan.what_counts(),
            "data": _facts(data),
            "checks": checked.as_dict() | {"accepted": sorted(self.accepted)},
            "model": self._facts_of_model(recommender, model, decision, judged),
            "lists": described | {"findings": [f.as_dict() for f in findings], "notes": facts["notes"]},
            "change": changed,
            "judged": None if judged is None else judged.as_dict(),
            "campaign": campaign,
            "versions": versions(),
            "run": {
                "published": datetime.now().isoformat(timespec="seconds"),
                "seconds": self.timer.seconds,
                "peak_memory_mb": peak_memory_mb(),
            },
        }
        self._assemble(work, name, manifest, file, model, history)
        self._put_in_place(name, work)
        work.remove()
        rejected = [f"{n:,} lines are left out: {why}" for why, n in data.report.rejected.items()]
        of_campaign = [] if campaign is None else [f"campaign: {note}" for note in campaign["notes"]]
        notes = [*rejected, *data.report.notes, *facts["notes"], *of_campaign, *notes]
        reason = f"{name} is published"
        return Outcome("published", reason, name, manifest, checked, decision, findings, notes)

    def _finish(self, known: Outcome, work: Work) -> Outcome:
        """Leave the week that is known in place, or put it there."""
        if known.status == "published":  # killed between the two renames
            assert known.name is not None
            self._put_in_place(known.name, work)
        (self.weeks.folder / REFUSED).unlink(missing_ok=True)
        work.remove()
        return known

    def _known_undated(self, taken: TakenIn) -> Outcome | None:
        """What is known of these inputs where `--as-of` leaves nothing out: a date to come is none."""
        if self.as_of is None or taken.cut:
            return None
        self.as_of = None
        self._name_inputs()
        return self._known()

    def _known(self) -> Outcome | None:
        """The outcome where these inputs were published before, or taken back."""
        name, current, nameless = None, self.last and self.last["name"], _nameless(self.inputs)
        for one in self.weeks.names():
            there = self.weeks.manifest(one)
            key = self.key
            if self.plan.settings.dataset == "table" and _nameless(there["inputs"]) == nameless:
                key = self._keys(there["inputs"])[1]  # as these exports were called then
            if key in (there["key"], there["inputs_key"]):
                name = one
        if name is None:
            return None
        manifest = self.weeks.manifest(name)
        again = f"; 'retailrec week rollback --to {name}' publishes it again"
        if name == current:
            reason = f"inputs and settings are those of {name}, which is published"
        elif name in self.weeks.withdrawn:
            reason = f"inputs and settings are those of {name}, which was taken back{again}"
        elif manifest["previous"] == current:
            return Outcome("published", f"{name} was complete and is published", name, manifest)
        else:
            reason = (
                f"inputs and settings are those of {name}, which was published before {current}{again}"
            )
        return Outcome("nothing new", reason, name, manifest)

    def _name(self, end: datetime) -> str:
        return f"{end:%Y-%m-%d}-{self.key[:8]}"

    def _take_in(self) -> TakenIn:
        """Receipts and findings; one more where weeks came regularly and this one is shorter.

        Days after it on which the shop is closed are its own.
        """
        taken = take_in(self.plan, self.inputs, self.last, self.as_of, self.progress)
        end, last = taken.end, self.last
        while end.date() in self.plan.settings.closed:
            end += timedelta(days=1)
        ends = [end]
        while last is not None and len(ends) < 4:
            ends.append(datetime.fromisoformat(last["end"]))
            before = last["previous"]
            last = self.weeks.manifest(before) if before in self.weeks.names() else None
        came, *gaps = [(end - before).days for end, before in pairwise(ends)] or [0]
        gaps = [days for days in gaps if days]  # 0: the same days, corrected
        if len(gaps) > 1 and 0 < came < min(gaps) and len(set(gaps)) == 1:
            said = (
                f"receipts end {came} days after those of the published week, and the last {len(gaps)} "
                f"times it was {gaps[0]}; is the newest export there, and whole?"
            )
            taken.checked.findings.insert(0, Finding("short_period", "refuse", said))
        return taken

    def _load(self, taken: TakenIn) -> RetailData:
        """The receipts, cleaned, up to the end."""
        tables = taken.tables
        data, end = replace(tables, transactions=iter(tables.transactions)).data(), taken.end
        if end >= data.end:
            return data
        if self.as_of is None:
            n = int((data.log["time"] >= end).sum())
            data.report.notes.append(f"{n:,} lines are dated after {end:%Y-%m-%d} and left out")
        return data.asof(end)

    def _refusals(self, findings: Sequence[Finding]) -> list[Finding]:
        return [f for f in findings if f.severity == "refuse" and f.name not in self.accepted]

    def _refused(
        self, refused: Sequence[Finding], checked: Checked, findings: Sequence[Finding] = ()
    ) -> Outcome:
        """Keep what was refused, for `status`; what is finished stays for the next call."""
        write_text(
            json.dumps(
                {
                    "findings": [found.as_dict() for found in refused],
                    "at": f"{datetime.now():%Y-%m-%dT%H:%M:%S}",
                },
                indent=2,
            ),
            self.weeks.folder / REFUSED,
        )
        reason = _refusal(refused)
        if findings:
            reason += f". The lists are in {self.weeks.folder / WORK / _ASIDE / LISTS}"
        return Outcome("refused", reason, checked=checked, findings=findings)

    def _judge(self, data: RetailData) -> Judged | None:
        """What the published lists were worth since; None where no user came back."""
        if self.last is None:
            return None
        lists, since = self.weeks.lists(self.last["name"]), datetime.fromisoformat(self.last["end"])
        return judge_lists(lists, data, since, self.last["lists"]["k"])

    def _last_model(self) -> tuple[TwoStageRecommender | None, list[str]]:
        """The model of the published week; None, and a note, where it can't be loaded."""
        assert self.last is not None
        try:
            return TwoStageRecommender.load(self.weeks.folder / self.last["name"] / MODEL), []
        except ArtifactError as error:
            return None, [f"the model in place can't be loaded: {error}"]

    def _model(
        self, work: Work, data: RetailData, decision: Decision
    ) -> tuple[Path, TwoStageRecommender, Decision]:
        """Folder and model that recommend: the one in place, or one that is fitted now; and why."""
        if not decision.refit:
            assert self.last is not None
            kept, notes = self._last_model()
            if kept is not None:
                return self.weeks.folder / self.last["name"] / MODEL, kept, decision
            decision = Decision(True, notes[0])
        folder = Path(work.path("part-model"))
        done = work.facts("part-fitted")
        if done is None or not folder.is_dir() or artifact_key(folder) != done["key"]:
            if folder.exists():
                shutil.rmtree(folder)
            with self.timer.step("fit"):
                self.plan.model.for_size(data.n_users).model().fit(data, self.progress).save(folder)
            work.finish("part-fitted", {"key": artifact_key(folder)})
        return folder, TwoStageRecommender.load(folder), decision

    def _recommend(
        self, work: Work, data: RetailData, model: TwoStageRecommender, key: str
    ) -> tuple[Path, dict[str, Any]]:
        """The file of lists, with the pools that they were drawn from beside it; and its notes."""
        file, request = Path(work.path(_ASIDE)) / LISTS, self._request
        pools = file.with_name(POOLS) if request.explore else None
        made = [file] if pools is None else [file, pools]
        done = work.facts("part-listed")
        if done is None or done["sums"] != [sha256(f) if f.is_file() else "" for f in made]:
            exposures = None if pools is None else Exposures(pools, policy_name(MODEL, key))
            batch = recommend_to_file(
                model, data, file, request, key=key, exposures=exposures, progress=self.progress
            )
            fallback = batch.report.n_unknown_shoppers / max(batch.report.n_shoppers, 1)
            done = {"notes": list(batch.report.notes), "fallback": fallback}
            done["sums"] = [sha256(f) for f in made]
            work.finish("part-listed", done)
        return file, done

    @property
    def _request(self) -> Request:
        """What is asked for each user; steady lists hold on to those of the published week."""
        asked = self.plan.request
        if not asked.steady or asked.previous is not None:
            return asked
        if self.last is None:
            return replace(asked, steady=0.0)
        return replace(asked, previous=self.weeks.lists(self.last["name"]))

    def _allocate(self, work: Work, lists: Path, name: str) -> dict[str, Any] | None:
        """Offers from the lists, where a campaign is configured; its counts."""
        campaign = self.plan.settings.campaign
        if campaign is None:
            return None
        allocate_files(
            lists,
            campaign.file,
            Path(work.path("part-offers")) / CAMPAIGN,
            items=campaign.items,
            users=campaign.users,
            ledger=campaign.ledger,
            time=name[:10],
            changed_ids=self.plan.settings.reading().changed_ids,
            progress=self.progress,
        )
        report = Path(work.path("part-offers")) / CAMPAIGN / "allocation.json"
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found

    def _facts_of_model(
        self, model: TwoStageRecommender, folder: Path, decision: Decision, judged: Judged | None
    ) -> dict[str, Any]:
        ratio = None if judged is None else judged.ratio
        kept = None if decision.refit or self.last is None else self.last["model"]["first_ratio"]
        return {
            "key": artifact_key(folder),
            "fitted_until": model.end_.isoformat(),
            "refitted": decision.refit,
            "reason": decision.reason,
            "first_ratio": None if decision.refit else (ratio if kept is None else kept),
            "label_windows": model.report_["windows"],
            "sources": [source.name for source in model.sources_],
            "ranker": type(model.ranker_).type_name,
            "columns": len(model.column_names),
        }

    def _assemble(
        self,
        work: Work,
        name: str,
        manifest: dict[str, Any],
        lists: Path,
        model: Path,
        history: dict[str, Any],
    ) -> None:
        """The whole week's folder, under its name in one step."""
        aside = Path(work.path("part-week"))
        if aside.exists():
            shutil.rmtree(aside)
        make_folder(aside)
        linked(lists, aside / LISTS)
        if lists.with_name(POOLS).is_file():
            linked(lists.with_name(POOLS), aside / POOLS)
        linked(model, aside / MODEL)
        if manifest["campaign"] is not None:
            linked(lists.parent.parent / "part-offers" / CAMPAIGN, aside / CAMPAIGN)
        write_text(render_model_card(manifest), aside / CARD)
        write_json(aside / HISTORY, history)
        files = sorted(p for p in aside.rglob("*") if p.is_file())
        sums = {p.relative_to(aside).as_posix(): sha256(p) for p in files}
        write_json(aside / MANIFEST, manifest | {"files": sums})
        os.replace(aside, self.weeks.folder / name)

    def _put_in_place(self, name: str, work: Work) -> None:
        """Let the week be the current one, and remove those that are too old."""
        self.weeks.switch(name, work)
        (self.weeks.folder / REFUSED).unlink(missing_ok=True)
        self.weeks.prune(self.plan.settings.keep, work)


def _refusal(refused: Sequence[Finding]) -> str:
    names = ", ".join(f.name for f in refused)
    return (
        f"refused by {names}; nothing is published. Mend the export, or say --accept {refused[0].name}"
    )


def _facts(data: RetailData) -> dict[str, Any]:
    """What there is to say of the receipts."""
    return {
        "users": data.n_users,
        "items": data.n_items,
        "receipts": int(data.log["basket"].n_unique()),
        "lines": data.log.height,
        "start": data.start.isoformat(),
        "end": data.end.isoformat(),
        "read": data.report.read,
        "rejected": dict(data.report.rejected),
        "notes": list(data.report.notes),
    }
