"""The command of the weekly job, and those that look at published weeks or take one back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retailrec.cli import console
from retailrec.cli.console import OUT, escape
from retailrec.cli.options import (
    FiguresOption,
    ImportOption,
    JsonOption,
    OverwriteOption,
    PageOption,
    QuietOption,
    names_in,
)
from retailrec.cli.serving import opened_store
from retailrec.errors import DataError

if TYPE_CHECKING:
    from retailrec.compute.progress import Progress
    from retailrec.jobs.week import Outcome
    from retailrec.jobs.week_settings import Plan

week = typer.Typer(invoke_without_command=True)
WeekOption = Annotated[Path | None, typer.Option("--config", help="TOML file; week.toml by default.")]
_STATUS = {"published": 0, "would publish": 0, "nothing new": 3, "refused": 4}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(week, name="week")
    app.command()(watch)


@week.callback()
def publish(
    context: typer.Context,
    config: WeekOption = None,
    as_of: Annotated[
        str | None, typer.Option(help="Look at receipts before this time only, such as 2024-02-05.")
    ] = None,
    refit: Annotated[bool, typer.Option("--refit", help="Refit the model in any case.")] = False,
    accept: Annotated[
        str, typer.Option(help="Checks whose refusals are accepted, with commas between.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
    modules: ImportOption = None,
    quiet: QuietOption = False,
) -> None:
    """Take in what is new, check it, recommend, and publish in one step.

    Exit status 0: published; 3: nothing new; 4: a check refused; 2: an error.
    """
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    from retailrec.jobs.week import publish_week
    from retailrec.jobs.week_settings import read_week

    plan = read_week(config or Path("week.toml"))
    with console.progress(quiet) as progress, _with_receipts(plan, progress) as plan:
        outcome = publish_week(
            plan,
            as_of=as_of,
            refit=refit,
            accept=names_in(accept),
            dry_run=dry_run,
            progress=progress,
        )
    _print_outcome(outcome, quiet)
    raise typer.Exit(_STATUS[outcome.status])


@week.command()
def status(context: typer.Context, config: WeekOption = None) -> None:
    """List the published weeks, what their lists were worth, and what was refused last."""
    from retailrec.jobs.published import WeekFolder
    from retailrec.jobs.week_settings import read_folder

    weeks = WeekFolder(read_folder(config or context.obj or Path("week.toml")))
    current, withdrawn, judged = weeks.current, weeks.withdrawn, weeks.judgements()
    rows = [weeks.manifest(name) for name in weeks.names()]
    for row in rows:
        name, lists = row["name"], row["lists"]
        worth = judged[name]["models"]["lists"] if name in judged else {}
        figure = worth.get(f"precision@{lists['k']}")
        mark = "*" if name == current else " "
        said = "" if figure is None else f", precision@{lists['k']} {figure:.4f}"
        gone = ", taken back" if name in withdrawn else ""
        fit = (
            "refitted" if row["model"]["refitted"] else f"model of {row['model']['fitted_until'][:10]}"
        )
        OUT.say(f"{mark} {name}  {lists['users']:,} lists, {fit}{said}{gone}")
    if not rows:
        OUT.print("nothing is published yet", highlight=False)
    if weeks.unfinished:
        OUT.print("unfinished: a call was stopped or refused; the next one goes on", highlight=False)
    if (refused := weeks.refused) is not None:
        for one in refused["findings"]:
            OUT.say(f"refused {refused['at']}: {one['name']}: {escape(one['message'])}")


@week.command()
def rollback(
    context: typer.Context,
    config: WeekOption = None,
    to: Annotated[str | None, typer.Option(help="Name of a week; the one before by default.")] = None,
) -> None:
    """Publish the week before again; what is taken back is not published again from the same inputs."""
    from retailrec.jobs.published import rollback as take_back
    from retailrec.jobs.week_settings import read_folder

    before, now = take_back(read_folder(config or context.obj or Path("week.toml")), to)
    OUT.say(f"{now} is published in the place of {before}")


@week.command()
def diff(
    context: typer.Context,
    a: Annotated[str | None, typer.Argument(help="A week; by default the one before B.")] = None,
    b: Annotated[str | None, typer.Argument(help="A week; by default the published one.")] = None,
    config: WeekOption = None,
    user: Annotated[str | None, typer.Option(help="Both lists of this user, side by side.")] = None,
    out: FiguresOption = None,
) -> None:
    """Show what differs between two weeks: inputs, data, settings, model, lists, figures by segment."""
    from retailrec.data.changed_ids import ChangedIds
    from retailrec.jobs.published import WeekFolder, diff_weeks, lists_of_user
    from retailrec.jobs.week_settings import read_week
    from retailrec.work import check_file, write_result

    config = config or context.obj or Path("week.toml")
    check_file(out, inputs=[config])
    settings = read_week(config).settings
    weeks = WeekFolder(settings.folder, settings.reading().changed_ids or ChangedIds())
    b = b or weeks.current
    a = a or (None if b is None else weeks.manifest(b)["previous"])
    if a is None or b is None:
        raise DataError(f"{weeks.folder} has no two weeks to compare; name them: week diff A B.")
    found = diff_weeks(weeks, a, b)
    if out is not None:
        write_result(found, out)
    _print_diff(found)
    if user is not None:
        for rank, pair in enumerate(lists_of_user(weeks, a, b, user), 1):
            OUT.print(f"  {rank}  {pair[0]!s:>20}  {pair[1]!s:>20}", highlight=False, markup=False)


def _print_diff(found: dict[str, Any]) -> None:
    """What differs, a line each; figures as a table."""

    def say(line: str) -> None:
        OUT.say(escape(line))

    say(f"{found['a']} -> {found['b']}")
    for what, names in found["inputs"].items():
        if names:
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            say(f"inputs {what}: {', '.join(names[:5])}{more}")
    for part in ("data", "settings", "versions", "model", "counts"):
        for name, (before, after) in found[part].items():
            of = "lists" if part == "counts" else part
            say(f"{of}.{name}: {_short(before)} -> {_short(after)}")
    lists = found["lists"]
    parts = [
        f"{lists[k]:.1%} {k.replace('_', ' ')}" for k in ("from_receipts", "from_refit") if k in lists
    ]
    say(
        f"{lists['share']:.1%} of the items in {lists['users']:,} users' lists are others"
        + (f": {', '.join(parts)}" if parts else "")
    )
    for row in found["items"][:5]:
        say(f"  item {row['item_id']}: in {row['a']:,} -> {row['b']:,} lists")
    if found["figures"]:
        from rich.table import Table

        metric = found["figures"][0]["metric"]
        table = Table("segment", "group", metric, "", "change", "users")
        for row in found["figures"]:
            if row["metric"] == metric and None not in (row["a"], row["b"]):
                table.add_row(
                    row["segment"],
                    escape(row["group"]),
                    f"{row['a']:.4f}",
                    f"{row['b']:.4f}",
                    f"{row['b'] - row['a']:+.4f}",
                    f"{row['n_a']:,}, {row['n_b']:,}",
                )
        OUT.print(table)
    for note in found["notes"]:
        say(note)


def watch(
    config: WeekOption = None,
    page: PageOption = None,
    as_json: JsonOption = False,
    fail: Annotated[
        bool, typer.Option("--fail", help="Exit status 4 where there is an alarm.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Show the figures of published weeks, and what left the usual in the newest.

    Precision and recall of the pool by what was bought since, shares of new items and fallbacks,
    coverage, drift, ages, each held against the shop's own past weeks.
    """
    import json
    from datetime import datetime

    from retailrec.jobs.published import WeekFolder
    from retailrec.jobs.watch import watched
    from retailrec.jobs.week_settings import read_folder
    from retailrec.report.week_page import render_watch
    from retailrec.work import check_file, write_result

    config = config or Path("week.toml")
    weeks = WeekFolder(read_folder(config))
    check_file(page, inputs=[config, *weeks.folder.glob("*/*")], overwrite=overwrite)
    found = watched(weeks, datetime.now())
    if page is not None:
        write_result(render_watch(found), page)
    if as_json:
        OUT.write(json.dumps(found, indent=2, allow_nan=False))
    else:
        _print_watched(found)
    if fail and found["alarms"]:
        raise typer.Exit(4)


def _print_watched(found: dict[str, Any]) -> None:
    """The alarms, and each measure of the last weeks beside what is usual."""
    from rich.table import Table

    from retailrec.report.week_page import as_shown

    weeks, measures = found["weeks"][-3:], found["measures"]
    table = Table("measure", "usual", *(week["end"][:10] for week in weeks))
    for column in table.columns:
        column.no_wrap = True
    for name, measure in measures.items():
        if any(week["values"][name] is not None for week in weeks):
            low, high = weeks[-1]["usual"][name] or (None, None)
            sides = [f"{sign} {as_shown(v, measure)}" for sign, v in (("≥", low), ("≤", high)) if v]
            shown = [
                (as_shown(week["values"][name], measure), name in week["alarms"]) for week in weeks
            ]
            cells = (f"[bold red]{text}[/]" if alarm else text for text, alarm in shown)
            table.add_row(name, ", ".join(sides), *cells)
    OUT.print(table)
    ages = found["ages"]
    OUT.print(
        f"{found['week']}: data {ages['data_days']:.0f} days old, its model {ages['model_days']:.0f}",
        highlight=False,
    )
    for alarm in found["alarms"]:
        OUT.say(f"[bold red]alarm[/] {escape(alarm['message'])} Look first at {escape(alarm['look'])}.")
    for one in found["findings"]:
        OUT.say(f"{one['severity']} {one['name']}: {escape(one['message'])}")
    if not any(limits for week in weeks[-1:] for limits in week["usual"].values()):
        console.print_notes([f"thresholds are learnt from {found['least_past']} weeks and more."])
    elif not found["alarms"]:
        OUT.print("no alarm")


def _short(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = str(value) if not number else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def _with_receipts(plan: Plan, progress: Progress) -> Iterator[Plan]:
    """The plan itself, or where receipts are in a store, on files that are written out of it."""
    if plan.settings.store is None:
        yield plan
        return
    with opened_store(plan.settings.store) as store, TemporaryDirectory() as place:
        from retailrec.serving.upkeep import export, export_shoppers

        progress("read the store")
        receipts, users = Path(place) / "receipts.parquet", Path(place) / "users.parquet"
        if not export(store, receipts):
            raise DataError(f"store {store.name} holds no receipt yet; nothing can be published.")
        plan = plan.reading(receipts, users if export_shoppers(store, users) else None)
        yield plan.without(store.forgotten, Path(place))


def _print_outcome(outcome: Outcome, quiet: bool) -> None:
    """The outcome in a few lines."""
    checked, manifest = outcome.checked, outcome.manifest
    if checked is not None:
        console.print_checked(checked, quiet)
    for one in outcome.findings:
        OUT.say(f"[bold red]{one.severity}[/] {one.name}: {escape(one.message)}")
    console.print_notes(outcome.notes)
    if outcome.decision is not None and not quiet:
        what = "refit" if outcome.decision.refit else "no fit"
        OUT.say(f"{what}: {escape(outcome.decision.reason)}")
    if manifest is not None and outcome.status == "published" and not quiet:
        _print_week(manifest)
    if not quiet or outcome.status == "refused":
        OUT.say(f"{outcome.status}: {escape(outcome.reason)}")


def _print_week(manifest: Any) -> None:
    judged, lists, change = manifest["judged"], manifest["lists"], manifest["change"]
    if judged is not None:
        metric = f"precision@{lists['k']}"
        metric = (
            metric if metric in judged["models"]["lists"] else next(iter(judged["models"]["lists"]))
        )
        found = {name: means[metric] for name, means in judged["models"].items()}
        said = ", ".join(f"{name} {mean:.4f}" for name, mean in found.items() if mean is not None)
        OUT.say(f"last week's lists, by {judged['users']:,} users since: {metric} {said}")
    OUT.say(
        f"{lists['users']:,} lists, of {lists['items']:,} different items; {lists['short']:.1%} are "
        f"short, {lists['new']:.1%} of the items are new to their user"
    )
    if change is not None:
        OUT.say(
            f"{change['share']:.1%} of the items were not in last week's list: "
            f"{change['from_receipts']:.1%} from receipts, {change['from_refit']:.1%} from the fit"
        )
