"""Commands that judge: sources, lists of anybody, horizons, leaks, settings, the course's method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retailrec.cli import console
from retailrec.cli.console import OUT
from retailrec.cli.options import (
    FiguresOption,
    ImportOption,
    KeptOption,
    OverwriteOption,
    PageOption,
    QuietOption,
    ReadOptions,
    Wanted,
    kept_reading,
    names_in,
    of_a_dataset,
    of_receipts,
    on_spark,
)
from retailrec.errors import SettingError
from retailrec.work import check_file, check_folder, write_result


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (match, evaluate, backtest, check, check_leaks, tune):
        app.command()(command)


@of_a_dataset
def match(
    wanted: Wanted,
    out: Annotated[Path, typer.Option(help="Folder for matching.json and figures.")] = Path("out"),
    overwrite: OverwriteOption = False,
) -> None:
    """Judge every source and the pool by recall@k on the last horizon, and choose k."""
    from retailrec.jobs.evaluate import MATCHING
    from retailrec.jobs.evaluate import match as match_job

    check_folder(out, MATCHING, inputs=wanted.inputs, overwrite=overwrite)
    settings = wanted.settings()
    with console.progress(wanted.quiet) as progress:
        data, _ = wanted.load(progress)
        report = match_job(data, settings, out, dataset=wanted.dataset, progress=progress)
    if not wanted.quiet:
        console.print_matching(report, out)


@of_receipts
def evaluate(
    read: ReadOptions,
    recommendations: Annotated[
        list[str], typer.Option(help="FILE or NAME=FILE with user_id, item_id, rank; any number.")
    ],
    truth: Annotated[Path, typer.Option(help="What was bought: user_id, item_id, value, price.")],
    history: Annotated[
        Path | None, typer.Option(help="Earlier receipts, to part repeats from new items.")
    ] = None,
    items: Annotated[Path | None, typer.Option(help="Catalogue: item_id, category_1, ...")] = None,
    metrics: Annotated[
        str, typer.Option(help="With commas between.")
    ] = "precision@5,recall@10,ndcg@10",
    out: FiguresOption = None,
    overwrite: OverwriteOption = False,
    model: KeptOption = None,
    modules: ImportOption = None,
    quiet: QuietOption = False,
) -> None:
    """Judge anybody's recommendations by what was bought, with intervals."""
    from retailrec.jobs.evaluate import evaluate_files

    files: dict[str, Path] = {}
    for text in recommendations:
        name, equals, file = text.rpartition("=")
        if not equals or Path(text).exists():  # a folder may be called day=2024-01-31
            name, file = Path(text).stem, text
        if name in files:
            raise SettingError(f"two files are called '{name}'; write NAME=FILE.")
        files[name] = Path(file)
    inputs = (*files.values(), truth, history, items, read.ids_changed)
    check_file(out, inputs=inputs, overwrite=overwrite)
    with console.progress(quiet) as progress:
        progress("evaluate")
        judged = evaluate_files(
            files,
            truth,
            names_in(metrics),
            history=history,
            items=items,
            reading=read.reading(),
            kept=kept_reading(model),
        )
        if out is not None:
            write_result(judged, out)
    if not quiet:
        console.print_evaluation(judged)


@of_receipts
def check(
    read: ReadOptions,
    receipts: Annotated[
        Path | None, typer.Argument(help="File or folder of this week's receipts.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="Earlier receipts. [the file's own, but for its last seven days]"),
    ] = None,
    dataset: Annotated[str, typer.Option(help="See: retailrec datasets")] = "table",
    model: KeptOption = None,
    only: Annotated[str, typer.Option(help="Names of checks, with commas between. [all]")] = "",
    show: Annotated[bool, typer.Option("--list", help="Print what is checked, and stop.")] = False,
    out: FiguresOption = None,
    rows: Annotated[
        Path | None, typer.Option(help="Write the lines concerned here (.csv or .parquet).")
    ] = None,
    page: PageOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check this week's receipts against past weeks; exit status 4: do not publish from them."""
    from retailrec.checks import CHECKS
    from retailrec.jobs.check import check_files
    from retailrec.report.week_page import render_check

    if show:
        console.print_checks(CHECKS.values())
        return
    if receipts is None:
        raise SettingError("check: name a file or folder of receipts, or ask for --list.")
    for file in (out, rows, page):
        check_file(file, inputs=[receipts, against, read.ids_changed], overwrite=overwrite)
    names = names_in(only)
    with console.progress(quiet) as progress:
        checked = check_files(
            receipts,
            against,
            dataset=dataset,
            reading=read.reading(),
            kept=kept_reading(model),
            names=names,
            progress=progress,
        )
    if out is not None:
        write_result(checked.as_dict(), out)
    if rows is not None:
        write_result(checked.rows(), rows)
    if page is not None:
        made = {name: CHECKS[name].meaning for name in names or CHECKS}
        found = {one.name: one.rows for one in checked.findings}
        write_result(render_check(checked.as_dict(), found, made), page)
    console.print_checked(checked, quiet)
    if checked.refused:
        raise typer.Exit(4)


@of_a_dataset
def backtest(
    wanted: Wanted,
    folds: Annotated[int, typer.Option(min=1, help="Last horizons to judge.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for figures and judged lists.")] = Path("out"),
    store: Annotated[
        Path | None, typer.Option(help="Folder of finished folds; a rerun reads them.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Judge popular, own_purchases and two_stage on several horizons, by segment."""
    from retailrec.jobs.evaluate import BACKTEST, backtest_job

    check_folder(out, BACKTEST, inputs=wanted.inputs, overwrite=overwrite)
    if store is not None:
        check_folder(store, (), inputs=wanted.inputs)
    settings = wanted.settings()
    with console.progress(wanted.quiet) as progress:
        data, _ = wanted.load(progress)
        rows = backtest_job(data, settings, out, folds=folds, store=store, progress=progress)
    if not wanted.quiet:
        console.print_backtest(rows, folds)
        OUT.print(f"results in {out}")


@of_a_dataset
def check_leaks(
    wanted: Wanted,
    max_users: Annotated[int, typer.Option(min=1, help="Shoppers that are compared.")] = 2000,
) -> None:
    """Change what comes after the cutoff; exit with 1 if a column of the training rows moves."""
    from retailrec.evaluation.inspection import check_leaks as check

    if on_spark(wanted.engine, wanted.master, wanted.spark_settings):
        raise SettingError("check-leaks changes receipts in memory; use --engine local on a sample.")
    settings = wanted.settings()
    with console.progress(wanted.quiet) as progress:
        data, _ = wanted.load(progress)
        settings = settings.for_size(data.n_users)
        report = check(
            data, lambda _: settings.model(), max_users=max_users, seed=settings.seed, progress=progress
        )
    console.print_leaks(report, wanted.quiet)
    if report.leaks:
        raise typer.Exit(1)


@of_a_dataset
def tune(
    wanted: Wanted,
    study: Annotated[Path, typer.Option(help="Folder of trials; a rerun goes on with it.")],
    out: Annotated[Path, typer.Option(help="Best settings, for --config.")] = Path("tuned.toml"),
    trials: Annotated[int, typer.Option(min=1, help="Trials to add.")] = 30,
    folds: Annotated[int, typer.Option(min=1, help="Horizons before the last one.")] = 2,
    metric: Annotated[str, typer.Option(help="To be raised.")] = "precision@5",
    overwrite: OverwriteOption = False,
) -> None:
    """Search pool size, feature families and ranker settings on windows before the last horizon."""
    from retailrec.jobs.tune import tune as tune_job
    from retailrec.metrics import parse_metric

    if out.suffix != ".toml":
        raise SettingError(f"--out {out} must end in .toml.")
    check_file(out, inputs=wanted.inputs, overwrite=overwrite)
    check_folder(study, (), inputs=wanted.inputs)
    settings = wanted.settings()
    parse_metric(metric)
    with console.progress(wanted.quiet) as progress:
        data, _ = wanted.load(progress)
        settings = settings.for_size(data.n_users)
        tuned = tune_job(
            data, settings, study, trials=trials, n_folds=folds, metric=metric, progress=progress
        )
        write_result(tuned["toml"], out)
    if not wanted.quiet:
        console.print_tuned(tuned, out)
