"""The command line: parse, call one library function, print. Heavy imports stay inside commands."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from retailrec.cli import console, offers, serving, week
from retailrec.cli.console import (
    ERR,
    OUT,
    Interrupted,
    escape,
    interruptible,
    open_standard_streams,
)
from retailrec.cli.examples import COMMANDS, add_examples
from retailrec.cli.options import (
    LIST,
    BesideOption,
    DatasetOptions,
    EngineOption,
    FiguresOption,
    ImportOption,
    JsonOption,
    KeptOption,
    MasterOption,
    OverwriteOption,
    PageOption,
    QuietOption,
    ReadOptions,
    RequestCommand,
    ResultsOption,
    RulesOption,
    SeedOption,
    SlotsOption,
    SparkSettingsOption,
    asked_for,
    days_in,
    files_asked_for,
    kept_reading,
    local_only,
    names_in,
    of_a_dataset,
    of_receipts,
    on_spark,
    refuse_empty,
)
from retailrec.compute.memory import return_freed_memory
from retailrec.compute.shards import wait_asleep
from retailrec.errors import RetailRecError, SettingError
from retailrec.serving.passwords import hide_arguments, without_passwords
from retailrec.work import (
    check_file,
    check_folder,
    refuse_inputs,
    require_apart,
    require_ending,
    write_result,
)

_UsageError: Any = typer.BadParameter.__mro__[1]  # click's own, or that of the copy that typer has


class _Commands(TyperGroup):
    """The commands; what was mistyped is one sentence, without passwords."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of their groups."""
        order = [*COMMANDS]
        names: list[str] = super().list_commands(ctx)
        return sorted(names, key=lambda name: order.index(name) if name in order else len(order))

    def invoke(self, ctx: Any) -> Any:
        """Run the command of this line."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            if not (error.message or hasattr(error, "param")):  # no arguments: the help has been shown
                raise
            where = error.ctx.command_path if error.ctx else "retailrec"
            said = error.format_message().replace("Possible options:", "is it one of").rstrip(".")
            said += "" if said.endswith("?") else "."
            if " argument" in said and error.ctx:
                said += f" {_usage(error.ctx)}"
            raise SettingError(f"{without_passwords(said)} See: {where} --help") from error


def _usage(ctx: Any) -> str:
    """How a command that got too many or too few arguments is called."""
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    option = any("--dataset" in parameter.opts for parameter in ctx.command.params)
    named = "; the data set is an option, such as --dataset table" if option else ""
    return f"It is {ctx.command_path} {pieces}{named}."


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, cls=_Commands
)
offers.register(app)
serving.register(app)


def main() -> None:
    """Entry point: user errors become one sentence and exit status 2, signals one and 128 + number."""
    open_standard_streams()
    hide_arguments()
    wait_asleep()
    return_freed_memory()
    try:
        refuse_empty(sys.argv[1:])
        with interruptible():
            app(standalone_mode=True)
    except RetailRecError as error:
        ERR.say(f"[bold red]error:[/] {escape(without_passwords(str(error)))}")
        sys.exit(2)
    except PermissionError as error:
        if error.filename is None:
            raise
        where = escape(without_passwords(str(error.filename)))
        ERR.say(f"[bold red]error:[/] {where} can't be opened: no permission. Ask for the right to it.")
        sys.exit(2)
    except OSError as error:  # of files, each writer says which one
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        ERR.say(
            f"[bold red]error:[/] what this command prints could not be written ({error.strerror}), "
            f"and it stopped there. Files that it wrote before are whole."
        )
        sys.exit(2)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        ERR.say(
            f"[bold red]error:[/] there is not enough memory{escape(reason)}. Ask for less, such as "
            f"fewer factors, candidates or users at a time, or take a larger machine."
        )
        sys.exit(2)
    except Interrupted as stop:
        ERR.print(f"interrupted by {stop.name}; nothing half-written was left behind.")
        sys.exit(stop.status)


@app.command()
@of_a_dataset
def run(
    options: DatasetOptions,
    k: Annotated[int | None, typer.Option(help="Recommendations a shopper. [5]")] = None,
    slots: SlotsOption = None,
    out: ResultsOption = Path("out"),
    rejects: Annotated[Path | None, typer.Option(help="Write rejected lines here.")] = None,
    rules: RulesOption = None,
    folds: Annotated[int, typer.Option(min=1, help="Horizons to judge, the last one counted.")] = 1,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    beside: BesideOption = "",
    overwrite: OverwriteOption = False,
) -> None:
    """Load, hold out the last horizon, fit, evaluate, refit on everything, write results."""
    from retailrec.jobs.run import RESULTS
    from retailrec.recommender.batch import ListFormat
    from retailrec.simulator.truth import read_truth

    output = ListFormat(names_in(beside))
    inputs = (*options.inputs, rules)
    check_folder(out, RESULTS, inputs=inputs, overwrite=overwrite)
    check_file(rejects, inputs=inputs, overwrite=overwrite)
    for name in RESULTS:
        require_apart(rejects, out / name)
    if rejects is not None:
        require_ending(rejects)
    if on_spark(options.engine, options.master, options.spark_settings):
        local_only(rejects=rejects)  # workers keep a few of them, not all
    settings = options.settings(k=k, slots=slots)
    with console.progress(options.quiet) as progress:
        data, seconds = options.load(progress)
    console.print_load_report(data.report, options.quiet, rejects)
    truth = options.path and read_truth(options.path / "truth")
    more: dict[str, Any] = {
        "rules": rules,
        "folds": folds,
        "page": report,
        "load_seconds": seconds,
        "truth": truth,
        "output": output,
    }
    if options.dataset == "complete-journey":
        more["sent"] = _sent_coupons(options.path)
    name = options.path.stem if options.dataset == "table" and options.path else options.dataset
    _run(data, settings, out, name, options.quiet, **more)


@app.command()
@of_a_dataset
def match(
    options: DatasetOptions,
    out: Annotated[Path, typer.Option(help="Folder for matching.json and figures.")] = Path("out"),
    overwrite: OverwriteOption = False,
) -> None:
    """Judge every source and the pool by recall@k on the last horizon, and choose k."""
    from retailrec.jobs.evaluate import MATCHING
    from retailrec.jobs.evaluate import match as match_job

    check_folder(out, MATCHING, inputs=options.inputs, overwrite=overwrite)
    settings = options.settings()
    with console.progress(options.quiet) as progress:
        data, _ = options.load(progress)
        report = match_job(data, settings, out, dataset=options.dataset, progress=progress)
    if not options.quiet:
        console.print_matching(report, out)


@app.command()
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
    """Judge recommendations of any model by what was bought, with intervals."""
    from retailrec.jobs.evaluate import evaluate_files

    files: dict[str, Path] = {}
    for text in recommendations:
        name, equals, file = text.rpartition("=")
        if not equals or Path(text).exists():  # a folder may be called day=2024-01-31
            name, file = Path(text).stem, text
        if not file.strip():  # else the current folder
            raise SettingError(f"--recommendations {text!r} names no file; is a variable unset?")
        if name in files:
            raise SettingError(f"two files are called '{name}'; write NAME=FILE.")
        files[name] = Path(file)
    inputs = (*files.values(), truth, history, items, model, *read.inputs)
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


@app.command()
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
    closed: Annotated[
        str, typer.Option(help="Days on which the shop is closed: 2024-12-25,2024-12-26.")
    ] = "",
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
    require_apart(out, rows, page)
    for file in (out, rows, page):
        check_file(file, inputs=[receipts, against, model, *read.inputs], overwrite=overwrite)
    names = names_in(only)
    with console.progress(quiet) as progress:
        checked = check_files(
            receipts,
            against,
            dataset=dataset,
            reading=read.reading(),
            kept=kept_reading(model),
            names=names,
            closed=days_in(closed),
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


@app.command()
@of_a_dataset
def backtest(
    options: DatasetOptions,
    folds: Annotated[int, typer.Option(min=1, help="Last horizons to judge.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for figures and judged lists.")] = Path("out"),
    store: Annotated[
        Path | None, typer.Option(help="Folder of finished folds; a rerun reads them.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Judge popular, own_purchases and two_stage on several horizons, by segment."""
    from retailrec.jobs.evaluate import BACKTEST, backtest_job

    check_folder(out, BACKTEST, inputs=options.inputs, overwrite=overwrite)
    if store is not None:
        check_folder(store, (), inputs=options.inputs)
    settings = options.settings()
    with console.progress(options.quiet) as progress:
        data, _ = options.load(progress)
        rows = backtest_job(data, settings, out, folds=folds, store=store, progress=progress)
    if not options.quiet:
        console.print_backtest(rows, folds)
        OUT.print(f"results in {out}")


@app.command()
@of_a_dataset
def check_leaks(
    options: DatasetOptions,
    max_users: Annotated[int, typer.Option(min=1, help="Shoppers that are compared.")] = 2000,
) -> None:
    """Change what comes after the cutoff; exit with 1 if a column of the training rows moves."""
    from retailrec.evaluation.inspection import check_leaks as check

    if on_spark(options.engine, options.master, options.spark_settings):
        raise SettingError("check-leaks changes receipts in memory; use --engine local on a sample.")
    settings = options.settings()
    with console.progress(options.quiet) as progress:
        data, _ = options.load(progress)
        settings = settings.for_size(data.n_users)
        report = check(
            data, lambda _: settings.model(), max_users=max_users, seed=settings.seed, progress=progress
        )
    console.print_leaks(report, options.quiet)
    if report.leaks:
        raise typer.Exit(1)


@app.command()
@of_a_dataset
def tune(
    options: DatasetOptions,
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
    check_file(out, inputs=options.inputs, overwrite=overwrite)
    check_folder(study, (), inputs=options.inputs)
    settings = options.settings()
    parse_metric(metric)
    with console.progress(options.quiet) as progress:
        data, _ = options.load(progress)
        settings = settings.for_size(data.n_users)
        tuned = tune_job(
            data, settings, study, trials=trials, n_folds=folds, metric=metric, progress=progress
        )
        write_result(tuned["toml"], out)
    if not options.quiet:
        console.print_tuned(tuned, out)


week.register(app)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    preset: Annotated[str, typer.Option(help="small, complete-journey or x5")] = "small",
    users: Annotated[int | None, typer.Option(help="Households.")] = None,
    weeks: Annotated[int | None, typer.Option(help="Length.")] = None,
    seed: SeedOption = None,
    truth_days: Annotated[int, typer.Option(help="Last days whose right answers are written.")] = 28,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Generate a supermarket in the Complete Journey's columns, right answers included."""
    from retailrec.simulator.shop import FILES, preset_shop
    from retailrec.work import staged

    shop = preset_shop(preset, users=users, weeks=weeks, seed=seed)
    check_folder(out, FILES, overwrite=overwrite)
    with console.progress(quiet) as progress, staged(out, FILES) as folder:
        progress(f"generate {shop.users:,} households, {shop.weeks} weeks")
        lines = shop.write(folder, truth_days=truth_days)
    if not quiet:
        OUT.print(f"{lines:,} lines of {shop.users:,} households, {shop.items:,} products: {out}")
        OUT.print(f"Next: retailrec run complete-journey {out}")


@app.command()
def demo(
    out: ResultsOption = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the models, and of the generated shop.")] = 0,
    generated: Annotated[
        bool,
        typer.Option("--generated", help="A generated supermarket, whose right answers are known."),
    ] = False,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """The same job as `run`, on a year of real groceries; ends with one shopper's list."""
    from time import perf_counter

    from retailrec.datasets import load_dataset
    from retailrec.jobs.run import RESULTS
    from retailrec.jobs.settings import read_settings

    check_folder(out, RESULTS, overwrite=overwrite)
    settings = read_settings(None, seed=seed)
    truth, sent, dataset, seconds = None, None, "complete-journey", 0.0
    with console.progress(quiet) as progress:
        if generated:
            from retailrec.simulator.shop import data_of, preset_shop

            shop, days = preset_shop("small", seed=seed), int(settings.horizon_days)
            progress("generate receipts")
            data, dataset = data_of(shop), "demo"
            progress("play the last weeks many times to know the right answers")
            truth = shop.truth(shop.days - days, days)
        else:
            progress(f"load {dataset}")
            started = perf_counter()
            data = load_dataset(dataset)
            seconds, sent = perf_counter() - started, _sent_coupons(None)
    console.print_load_report(data.report, quiet, None)
    _run(data, settings, out, dataset, quiet, load_seconds=seconds, truth=truth, sent=sent)
    if not quiet:
        console.print_example(out)


@app.command(cls=RequestCommand)
@of_receipts
def recommend(
    read: ReadOptions,
    context: typer.Context,
    model: Annotated[Path, typer.Option(help="Folder of a saved model.")],
    history: Annotated[Path, typer.Option(help="Receipts known now; columns as for 'table'.")],
    out: Annotated[Path, typer.Option(help="Result, .parquet, .csv or .xlsx.")],
    users: Annotated[
        Path | None, typer.Option(help="Shoppers to answer for (user_id, attributes).")
    ] = None,
    exposures: Annotated[
        Path | None, typer.Option(help="With --explore: every item of the pools, .parquet.")
    ] = None,
    shown_only: Annotated[
        bool, typer.Option("--shown-only", help="Of the pools only what is listed.")
    ] = False,
    sent: Annotated[
        str | None, typer.Option(help="When lists are shown, for --exposures. [the receipts' end]")
    ] = None,
    beside: BesideOption = "",
    separator: Annotated[
        str | None,
        typer.Option(help="Of a .csv file. [, or ; with a decimal comma]", rich_help_panel=LIST),
    ] = None,
    decimal: Annotated[str, typer.Option(help=". or , in a .csv file.", rich_help_panel=LIST)] = ".",
    safe_csv: Annotated[
        bool, typer.Option("--safe-csv", help="No cell is a formula.", rich_help_panel=LIST)
    ] = False,
    overwrite: OverwriteOption = False,
    engine: EngineOption = "local",
    master: MasterOption = None,
    spark_settings: SparkSettingsOption = None,
    modules: ImportOption = None,
    quiet: QuietOption = False,
) -> None:
    """Recommend from fresh histories with a saved model, without refitting."""
    from retailrec.data.parsing import as_instant
    from retailrec.recommender.batch import Exposures, ListFormat

    request = asked_for(context)
    request.require_store_rule()
    shared: dict[str, Any] = {"users": users, "reading": read.reading()}
    if exposures is not None:
        time = None if sent is None else as_instant(sent, who="--sent")
        shared["exposures"] = Exposures(exposures, time=time, shown_only=shown_only)
    elif shown_only or sent is not None:
        raise SettingError("--shown-only and --sent speak of --exposures FILE; name the file.")
    inputs = (model, history, users, *files_asked_for(context), spark_settings, *read.inputs)
    spark = on_spark(engine, master, spark_settings)
    shared["output"] = ListFormat(names_in(beside), separator, decimal, safe_csv)
    if spark:
        local_only(
            encoding=read.encoding,
            time_format=read.time_format,
            safe_csv=safe_csv,
            overwrite=overwrite,
            separator=separator,
            decimal=decimal != ".",
        )
        refuse_inputs(out, inputs)
        if exposures is not None:
            refuse_inputs(exposures, inputs)
    else:
        check_file(out, inputs=inputs, overwrite=overwrite)
        check_file(exposures, inputs=inputs, overwrite=overwrite)
    with console.progress(quiet) as progress:
        if spark:
            from retailrec.spark import recommend as recommend_on_spark
            from retailrec.spark.engine import start

            session, receipts = start(history, master, spark_settings, modules, progress)
            shared |= {"session": session, "progress": progress}
            answers = recommend_on_spark(model, receipts, out, request, **shared)
        else:
            from retailrec.recommender.batch import recommend_from_files

            answers = recommend_from_files(model, history, out, request, **shared, progress=progress)
    console.print_load_report(answers.load_report, quiet, None)
    console.print_answers(answers.batch, out, quiet, exposures)


@app.command()
def datasets(as_json: JsonOption = False) -> None:
    """List the formats that can be loaded."""
    from retailrec.datasets import DATASETS

    names = ("name", "source", "licence", "files", "columns")
    console.print_rows([{n: getattr(d, n) for n in names} for d in DATASETS.values()], as_json)


@app.command()
def features(as_json: JsonOption = False, modules: ImportOption = None) -> None:
    """Print the dictionary of features."""
    from retailrec.features import FEATURES

    names = ("name", "scope", "unit", "family", "meaning")
    console.print_rows([{n: getattr(f, n) for n in names} for f in FEATURES.values()], as_json)


@app.command()
def examples(
    out: Annotated[Path, typer.Option(help="Folder for the files. [the current one]")] = Path(),
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the small shop that the examples of help and documentation use."""
    from retailrec.simulator.shop import EXAMPLE_FILES, write_examples

    for name in EXAMPLE_FILES:
        check_file(out / name, overwrite=overwrite)
    with console.progress(quiet) as progress:
        progress("generate a shop")
        write_examples(out)
    if not quiet:
        OUT.say(f"{', '.join(EXAMPLE_FILES)}: {out.absolute()}")
        OUT.print("Next: retailrec run table shop --out out/shop")


def _print_version(asked: bool) -> None:
    if asked:
        from retailrec import __version__

        OUT.print(__version__)
        raise typer.Exit


@app.callback()
def _any_command(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Two-stage recommender for retail purchases: from receipts to personal offers."""


add_examples(app)


def _sent_coupons(path: Path | None) -> Any:
    """What was sent to whom, where the files are there."""
    from retailrec.datasets import journey_offers
    from retailrec.report.summary import SentCoupons

    if not journey_offers.are_there(path):
        return None
    return SentCoupons(
        journey_offers.campaigns(path), journey_offers.coupons(path), journey_offers.redemptions(path)
    )


def _run(data: Any, settings: Any, out: Path, dataset: str, quiet: bool, **more: Any) -> None:
    from retailrec.jobs.run import run as run_job

    with console.progress(quiet) as progress:
        result = run_job(data, settings, out, dataset=dataset, progress=progress, **more)
    if not quiet:
        console.print_result(result, out)
