"""Commands of offers: allocate them, plan an experiment, tell what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retailrec.cli import console
from retailrec.cli.console import OUT, escape
from retailrec.cli.options import (
    ChangedOption,
    FiguresOption,
    ImportOption,
    OutcomeOptions,
    OverwriteOption,
    QuietOption,
    ResultsOption,
    SeedOption,
    ThreadsOption,
    of_outcomes,
)

if TYPE_CHECKING:
    from retailrec.offers.allocation import AllocationReport
    from retailrec.offers.counterfactual import CounterfactualReport, Estimate
    from retailrec.offers.experiments import Effect, ExperimentReport

_MOST_WORDS = 12  # constraints shown on the console

experiment = typer.Typer(no_args_is_help=True, help="Plan an experiment, or tell what came of one.")
uplift = typer.Typer(no_args_is_help=True, help="Learn what offers change.")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(allocate)
    app.add_typer(experiment, name="experiment")
    app.add_typer(uplift, name="uplift")


def allocate(
    pairs: Annotated[Path, typer.Argument(help="user_id, item_id, and value, score or probability.")],
    campaign: Annotated[Path, typer.Argument(help="TOML file; see docs/offers.md")],
    out: ResultsOption = Path("out/campaign"),
    items: Annotated[Path | None, typer.Option(help="item_id, supplier, category, stocks.")] = None,
    users: Annotated[Path | None, typer.Option(help="user_id and segments.")] = None,
    ledger: Annotated[Path | None, typer.Option(help="Folder of past offers, for caps.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the offers to the ledger.")] = False,
    overwrite: OverwriteOption = False,
    time: Annotated[str | None, typer.Option(help="When it is sent. [now]")] = None,
    model: Annotated[str, typer.Option(help="What gave the scores, for the ledger.")] = "",
    ids_changed: ChangedOption = None,
    threads: ThreadsOption = 0,
    modules: ImportOption = None,
    quiet: QuietOption = False,
) -> None:
    """Choose who gets which offer, under stock and budget, from scores of any model."""
    from retailrec.data.changed_ids import ChangedIds
    from retailrec.jobs.campaigns import RESULTS, allocate_files
    from retailrec.work import check_folder

    inputs = (pairs, campaign, items, users, ledger, ids_changed)
    check_folder(out, RESULTS, inputs=inputs, overwrite=overwrite)
    with console.progress(quiet) as progress:
        allocation = allocate_files(
            pairs,
            campaign,
            out,
            items=items,
            users=users,
            ledger=ledger,
            record=record,
            time=time,
            model=model,
            changed_ids=None if ids_changed is None else ChangedIds.read(ids_changed),
            threads=threads,
            progress=progress,
        )
    console.print_notes(allocation.report.notes)
    if not quiet:
        _print_allocation(allocation.report, out)


@experiment.command()
@of_outcomes
def plan(
    read: OutcomeOptions,
    receipts: Annotated[Path, typer.Argument(help="Receipts until now: file or folder.")],
    effect: Annotated[float, typer.Option(help="Smallest relative change that would matter.")],
    metric: Annotated[str, typer.Option(help="bought, purchases, spend or margin")] = "spend",
    holdout: Annotated[float, typer.Option(help="Share of shoppers held out.")] = 0.1,
    power: Annotated[float, typer.Option(help="Chance to find the effect.")] = 0.8,
) -> None:
    """How many shoppers an experiment needs, by what they bought lately."""
    from retailrec.data.files import read_table
    from retailrec.jobs.campaigns import plan_experiment
    from retailrec.offers.experiments import Design

    design = Design(control_share=holdout, power=power)
    data = read.data(receipts)
    margin = None if read.margin is None else read_table(read.margin)
    needed = plan_experiment(
        data, days=read.days, effect=effect, metric=metric, design=design, margin=margin
    )
    OUT.say(
        f"{metric} of {needed.n_shoppers:,} shoppers in {read.days:g} days: mean {needed.mean:,.3f}, "
        f"standard deviation {needed.sd:,.3f}, correlation with spend before {needed.correlation:.2f}"
    )
    OUT.say(
        f"to find a change of {effect:.1%} ({needed.effect:,.3f}) with power {100 * power:g}% and "
        f"{100 * holdout:g}% held out: {needed.needed:,} shoppers, {needed.needed_adjusted:,} when "
        f"earlier spend is taken out (CUPED)"
    )
    OUT.say(
        f"with the {needed.n_shoppers:,} that are there: power {needed.power:.0%} "
        f"({needed.power_adjusted:.0%} with CUPED); the smallest change that they find with power "
        f"{100 * power:g}% is "
        f"{needed.detectable / needed.mean:.1%} ({needed.detectable_adjusted / needed.mean:.1%})"
    )


@experiment.command()
@of_outcomes
def result(
    read: OutcomeOptions,
    ledger: Annotated[
        Path, typer.Argument(help="Folder of the ledger, or exposures.parquet of a service.")
    ],
    receipts: Annotated[Path, typer.Argument(help="Receipts, before and after: file or folder.")],
    campaign: Annotated[str, typer.Option(help="Its name in the ledger.")],
    segment: Annotated[str | None, typer.Option(help="Column of the shoppers' attributes.")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Share that was planned, to check the arms' sizes.")
    ] = None,
    out: FiguresOption = None,
    page: Annotated[
        Path | None, typer.Option(help="Folder that allocate wrote; its page is filled.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """What a campaign changed in purchases, spend and margin, with intervals."""
    from retailrec.jobs.campaigns import PAGE, SUMMARY, result_of_files
    from retailrec.work import check_file, require_apart

    summary = None if page is None else page / SUMMARY  # what the page is drawn from
    check_file(out, inputs=(ledger, receipts, summary, *read.inputs), overwrite=overwrite)
    if page is not None:
        require_apart(out, page / PAGE)
        check_file(page / PAGE, overwrite=overwrite)
    data = read.data(receipts)
    outcome = result_of_files(
        ledger,
        campaign,
        data,
        days=read.days,
        margin=read.margin,
        segment=segment,
        planned_holdout=holdout,
        out=out,
        page=page,
        changed_ids=read.reading().changed_ids,
    )
    _print_result(outcome)


@experiment.command()
@of_outcomes
def counterfactual(
    read: OutcomeOptions,
    ledger: Annotated[Path, typer.Option(help="Folder of a ledger with explored pools.")],
    receipts: Annotated[Path, typer.Option(help="Receipts, before and after: file or folder.")],
    policy: Annotated[
        Path, typer.Option(help="New lists: a file of user_id, item_id, or the folder of a model.")
    ],
    logged: Annotated[
        str | None, typer.Option(help="The policy that drew the log, where there are several.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="TOML file with business rules, for a model's lists.")
    ] = None,
    segment: Annotated[str | None, typer.Option(help="Column of the users' attributes.")] = None,
    out: FiguresOption = None,
    report: Annotated[Path | None, typer.Option(help="Page for people, .html.")] = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """What new lists would have sold, from a log that explored; or why it can't be told."""
    from retailrec.jobs.campaigns import counterfactual_of_files
    from retailrec.work import check_file, require_apart

    require_apart(out, report)
    for file in (out, report):
        check_file(file, inputs=(ledger, receipts, policy, rules, *read.inputs), overwrite=overwrite)
    data = read.data(receipts)
    with console.progress(quiet) as progress:
        found = counterfactual_of_files(
            ledger,
            data,
            policy,
            days=read.days,
            logged=logged,
            rules=rules,
            margin=read.margin,
            segment=segment,
            out=out,
            page=report,
            changed_ids=read.reading().changed_ids,
            progress=progress,
        )
    _print_counterfactual(found)


@experiment.command()
def impressions(
    log: Annotated[Path, typer.Argument(help="One row an impression: CSV or Parquet.")],
    policy: Annotated[str, typer.Option(help="uniform, or the column of its chances.")] = "uniform",
    reward: Annotated[str, typer.Option(help="Column of what came of it.")] = "click",
    chance: Annotated[str, typer.Option(help="Column of the logged chances.")] = "propensity",
    item: Annotated[str, typer.Option(help="Column of the items.")] = "item_id",
    only: Annotated[str | None, typer.Option(help="COLUMN=VALUE: the rows that count.")] = None,
) -> None:
    """What another policy would have earned per impression; or why it can't be told."""
    from retailrec.jobs.campaigns import impressions_of_file

    found = impressions_of_file(log, policy, reward=reward, chance=chance, item=item, only=only)
    OUT.say(
        f"{policy}: {found.value:.4f} an impression, between {found.low:.4f} and {found.high:.4f} "
        f"(95%); "
        f"the log earned {found.logged:.4f}. Effective sample {found.effective:,.0f} of "
        f"{found.n:,}, mean "
        f"weight {found.mean_weight:.3f}"
    )
    for note in found.notes:
        OUT.say(f"note: {note}")


@uplift.command()
@of_outcomes
def fit(
    read: OutcomeOptions,
    ledger: Annotated[Path, typer.Argument(help="Folder of a ledger with explored pools.")],
    receipts: Annotated[Path, typer.Argument(help="Receipts, before and after: file or folder.")],
    pairs: Annotated[Path, typer.Argument(help="user_id, item_id: what could be offered next.")],
    out: ResultsOption = Path("out/uplift"),
    overwrite: OverwriteOption = False,
    seed: SeedOption = None,
    threads: ThreadsOption = 0,
    quiet: QuietOption = False,
) -> None:
    """Learn what an offer changes, and write it beside the pairs as uplift_margin, for allocate."""
    from retailrec.jobs.campaigns import UPLIFT_RESULTS, uplift_of_files
    from retailrec.work import check_folder

    inputs = (ledger, receipts, pairs, *read.inputs)
    check_folder(out, UPLIFT_RESULTS, inputs=inputs, overwrite=overwrite)
    data = read.data(receipts)
    with console.progress(quiet) as progress:
        report = uplift_of_files(
            ledger,
            data,
            pairs,
            out,
            days=read.days,
            margin=read.margin,
            threads=threads,
            seed=seed or 0,
            changed_ids=read.reading().changed_ids,
            progress=progress,
        )
    console.print_notes(report.notes)
    if quiet:
        return
    OUT.say(report.sentence())
    OUT.say(f"{report.n_users:,} users, {report.n_shown:,} of {report.n_rows:,} items shown")
    for one in report.learners:
        OUT.say(
            f"- {one.name}: Qini {one.qini:.4f}, between {one.qini_low:.4f} and {one.qini_high:.4f}; "
            f"AUUC {one.auuc:.4f}" + (" (chosen)" if one.name == report.chosen else "")
        )
    OUT.say(
        "tenths of the pairs, learnt and so: "
        + ", ".join(f"{d.predicted:+.2f} {d.effect:+.2f}" for d in report.deciles)
    )
    OUT.print(f"results in {out}")


def _print_allocation(report: AllocationReport, out: Path) -> None:
    OUT.say(
        f"{report.n_offers:,} offers for {report.n_with_offers:,} of {report.n_shoppers:,} shoppers "
        f"({report.n_held_out:,} held out), of {report.n_pairs:,} pairs"
    )
    OUT.say(
        f"worth {report.value:,.2f}; nothing under the same limits is worth more than "
        f"{report.bound:,.2f} (gap {report.gap:.3%})"
    )
    shown = [c for c in report.constraints if c.price or c.kind == "budget" or c.missing]
    shown.sort(key=lambda c: (c.kind != "budget", -c.missing, -abs(c.price)))
    for constraint in shown[:_MOST_WORDS]:
        used = ""
        if constraint.kind == "budget":
            used = f" {constraint.reached:,.2f} of {constraint.at_most:,.2f} are spent."
        OUT.say(f"- {escape(constraint.words)}{used}")
    if len(shown) > _MOST_WORDS:
        OUT.print(f"- and {len(shown) - _MOST_WORDS:,} more limits that bind")
    OUT.print(f"{report.seconds:.1f} s, {report.steps} steps; results in {out}")


_HEAD = ("metric", "segment", "difference", "95% interval", "p")  # two means stand in the middle


def _cells(e: Effect | Estimate, one: float, other: float, difference: float) -> list[str]:
    """A row of two means and their difference."""
    means = [f"{one:,.3f}", f"{other:,.3f}", f"{difference:+,.3f}"]
    interval = "not known" if e.low is None else f"{e.low:+,.3f} to {e.high:+,.3f}"
    return [e.metric, escape(e.segment), *means, interval, console.chance(e.p_corrected)]


def _print_counterfactual(report: CounterfactualReport) -> None:
    table = console.plain_table(*_HEAD[:2], "logged", "new", *_HEAD[2:])
    values = {(e.metric, e.segment, e.what): e for e in report.estimates}
    for (metric, segment, what), e in values.items():
        if what == "difference":
            logged, new = (values[metric, segment, of].value for of in ("logged", "new"))
            table.add_row(*_cells(e, logged, new, e.value))
    OUT.print(table)
    OUT.say(report.sentence())
    s = report.support
    OUT.say(
        f"{report.n_users:,} users; {s.coverage:.1%} of the new lists within the pool, effective "
        f"sample "
        f"{s.effective:,.0f}, mean weights {s.mean_held:.3f} and {s.mean_other:.3f}, logged chances p "
        f"{s.chances_p:.3f}"
    )
    console.print_notes(report.notes)


def _print_result(outcome: ExperimentReport) -> None:
    title = (
        f"{outcome.n_treated:,} treated, {outcome.n_holdout:,} held out, {outcome.days:g} days "
        f"from {outcome.start:%Y-%m-%d}; earlier spend taken out"
    )
    table = console.plain_table(*_HEAD[:2], "treated", "held out", *_HEAD[2:], title=title)
    for e in outcome.effects:
        if e.adjusted:
            table.add_row(*_cells(e, e.treated, e.holdout, e.difference))
    if outcome.effects:
        OUT.print(table)
    if outcome.arms:
        title = "each arm less each other one; earlier spend taken out"
        table = console.plain_table(
            "metric", "arm", "versus", "mean", "of the other", *_HEAD[2:], title=title
        )
        for e in outcome.arms:
            metric, _, *cells = _cells(e, e.treated, e.holdout, e.difference)
            table.add_row(metric, *(escape(name or "of no name") for name in (e.arm, e.versus)), *cells)
        OUT.print(table)
    if outcome.srm_p is not None:
        OUT.print(f"arms' sizes against the plan: p {outcome.srm_p:.3f}")
    console.print_notes(outcome.notes)
