"""The command line: parse, call one library function, print. Heavy imports stay inside commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from retailrec.errors import RetailRecError, SettingError

if TYPE_CHECKING:
    from retailrec.cleaning import LoadReport

app = typer.Typer(
    help="Two-stage recommender for retail purchases: from receipts to personal offers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out, _err = Console(), Console(stderr=True)

ColumnsOption = Annotated[
    str, typer.Option(help="For 'table': standard=yours,... such as user_id=client,time=date")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


def main() -> None:
    """Entry point: user errors become one sentence and exit status 2."""
    try:
        app(standalone_mode=True)
    except RetailRecError as error:
        _err.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        _err.print("interrupted; nothing half-written was left behind.")
        sys.exit(130)


@app.command()
def run(
    dataset: Annotated[str, typer.Argument(help="See: retailrec datasets")],
    path: Annotated[Path, typer.Argument(help="File or folder of the data set.")],
    horizon_days: Annotated[float | None, typer.Option(help="Length of the window. [28]")] = None,
    k: Annotated[int | None, typer.Option(help="Recommendations a shopper. [5]")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    columns: ColumnsOption = "",
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    threads: Annotated[int | None, typer.Option(help="0: all cores. [0]")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Write rejected lines here.")] = None,
    rules: Annotated[Path | None, typer.Option(help="TOML file with business rules.")] = None,
    folds: Annotated[int, typer.Option(min=1, help="Horizons to judge, the last one counted.")] = 1,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    quiet: QuietOption = False,
) -> None:
    """Load, hold out the last horizon, fit, evaluate, refit on everything, write results."""
    from retailrec.config import read_settings
    from retailrec.datasets.truth import read_truth

    settings = read_settings(config, horizon_days=horizon_days, k=k, seed=seed, threads=threads)
    with _progress(quiet) as progress:
        data, seconds = _load(dataset, path, columns, progress)
    _print_load_report(data.report, quiet, rejects)
    _run(
        data, settings, out, dataset, quiet, seconds, read_truth(path / "truth"),
        rules=rules, folds=folds, page=report,
    )  # fmt: skip


@app.command()
def match(
    dataset: Annotated[str, typer.Argument(help="See: retailrec datasets")],
    path: Annotated[Path, typer.Argument(help="File or folder of the data set.")],
    horizon_days: Annotated[float | None, typer.Option(help="Length of the window. [28]")] = None,
    out: Annotated[Path, typer.Option(help="Folder for matching.json and figures.")] = Path("out"),
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    columns: ColumnsOption = "",
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    quiet: QuietOption = False,
) -> None:
    """Judge every source and the pool by recall@k on the last horizon, and choose k."""
    from retailrec.config import read_settings
    from retailrec.pipeline import match as match_job

    settings = read_settings(config, horizon_days=horizon_days, seed=seed)
    with _progress(quiet) as progress:
        data, _ = _load(dataset, path, columns, progress)
        report = match_job(data, settings, out, dataset=dataset, progress=progress)
    if not quiet:
        _print_matching(report, out)


@app.command()
def evaluate(
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
    out: Annotated[Path | None, typer.Option(help="Write all figures here, as JSON.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Judge anybody's recommendations by what was bought, with intervals."""
    import json

    from retailrec.pipeline import evaluate_files
    from retailrec.tables import write_text

    files: dict[str, Path] = {}
    for text in recommendations:
        name, equals, file = text.rpartition("=")
        name = name if equals else Path(file).stem
        if name in files:
            raise SettingError(f"two files are called '{name}'; write NAME=FILE.")
        files[name] = Path(file)
    wanted = [m.strip() for m in metrics.split(",") if m.strip()]
    with _progress(quiet) as progress:
        progress("evaluate")
        found = evaluate_files(files, truth, wanted, history=history, items=items)
        if out is not None:
            write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", out)
    if not quiet:
        _print_evaluation(found)


@app.command()
def backtest(
    dataset: Annotated[str, typer.Argument(help="See: retailrec datasets")],
    path: Annotated[Path, typer.Argument(help="File or folder of the data set.")],
    folds: Annotated[int, typer.Option(min=1, help="Last horizons to judge.")] = 3,
    horizon_days: Annotated[float | None, typer.Option(help="Length of the window. [28]")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("out"),
    store: Annotated[
        Path | None, typer.Option(help="Folder of finished folds; a rerun reads them.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    columns: ColumnsOption = "",
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    quiet: QuietOption = False,
) -> None:
    """Judge popular, own_purchases and two_stage on several horizons, by segment."""
    from retailrec.config import read_settings
    from retailrec.pipeline import backtest_job

    settings = read_settings(config, horizon_days=horizon_days, seed=seed)
    with _progress(quiet) as progress:
        data, _ = _load(dataset, path, columns, progress)
        rows = backtest_job(data, settings, out, folds=folds, store=store, progress=progress)
    if not quiet:
        _print_backtest(rows, folds)
        _out.print(f"results in {out}")


@app.command()
def check_leaks(
    dataset: Annotated[str, typer.Argument(help="See: retailrec datasets")],
    path: Annotated[Path, typer.Argument(help="File or folder of the data set.")],
    horizon_days: Annotated[float | None, typer.Option(help="Length of the window. [28]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    columns: ColumnsOption = "",
    max_users: Annotated[int, typer.Option(help="Shoppers that are compared.")] = 2000,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    quiet: QuietOption = False,
) -> None:
    """Change what comes after the cutoff; exit with 1 if a column of the training rows moves."""
    from retailrec.config import read_settings
    from retailrec.leaks import check_leaks as check

    settings = read_settings(config, horizon_days=horizon_days, seed=seed)
    with _progress(quiet) as progress:
        data, _ = _load(dataset, path, columns, progress)
        settings = settings.for_size(data.n_users)
        report = check(
            data, lambda _: settings.model(), max_users=max_users, seed=settings.seed, progress=progress
        )
    for leak in report.leaks:
        _out.print(
            f"[bold red]leak[/] {_escape(leak.column)}: moved in {leak.rows:.1%} of the rows, by up to "
            f"{leak.most:g}, when the future was {leak.change}"
        )
    if report.leaks:
        raise typer.Exit(1)
    if not quiet:
        labels = ", ".join(f"{share:.1%} {change}" for change, share in report.labels_moved.items())
        _out.print(
            f"no leak: none of {report.columns} columns moved in {report.rows:,} rows when the future "
            f"was changed (labels that moved: {labels})"
        )


@app.command()
def tune(
    dataset: Annotated[str, typer.Argument(help="See: retailrec datasets")],
    path: Annotated[Path, typer.Argument(help="File or folder of the data set.")],
    study: Annotated[Path, typer.Option(help="File of trials; a rerun goes on with it.")],
    out: Annotated[Path, typer.Option(help="Best settings, for --config.")] = Path("tuned.toml"),
    trials: Annotated[int, typer.Option(min=1, help="Trials to add.")] = 30,
    folds: Annotated[int, typer.Option(min=1, help="Horizons before the last one.")] = 2,
    metric: Annotated[str, typer.Option(help="To be raised.")] = "precision@5",
    horizon_days: Annotated[float | None, typer.Option(help="Length of the window. [28]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    columns: ColumnsOption = "",
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    quiet: QuietOption = False,
) -> None:
    """Search pool size, feature families and ranker settings on windows before the last horizon."""
    from retailrec.config import read_settings
    from retailrec.metrics import parse_metric
    from retailrec.tables import write_text
    from retailrec.tuning import tune as tune_job

    settings = read_settings(config, horizon_days=horizon_days, seed=seed)
    parse_metric(metric)
    with _progress(quiet) as progress:
        data, _ = _load(dataset, path, columns, progress)
        settings = settings.for_size(data.n_users)
        found = tune_job(
            data, settings, study, trials=trials, n_folds=folds, metric=metric, progress=progress
        )
        write_text(found["toml"], out)
    if not quiet:
        _out.print(
            f"{metric} {found['best']:.4f} after {found['trials']} trials on {folds} earlier windows; "
            f"the default gave {found['default']:.4f}. Settings: {out}"
        )


@app.command()
def bench_walkthrough(
    path: Annotated[
        Path, typer.Argument(help="Folder of Complete Journey's files, or generated ones.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the rows here, as JSON.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    quiet: QuietOption = False,
) -> None:
    """The course notebook's steps, leaks included, beside ours, on its own split."""
    import json

    from retailrec.config import read_settings
    from retailrec.tables import write_text
    from retailrec.walkthrough import PUBLISHED, compare_with_walkthrough

    settings = read_settings(config)
    with _progress(quiet) as progress:
        data, _ = _load("complete-journey", path, "", progress)
        rows = compare_with_walkthrough(data, settings, progress)
        if out is not None:
            write_text(json.dumps({"published": PUBLISHED, "rows": rows}, indent=2) + "\n", out)
    if not quiet:
        _print_walkthrough(rows, PUBLISHED["best elsewhere"])


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    preset: Annotated[str, typer.Option(help="small, complete-journey or x5")] = "small",
    users: Annotated[int | None, typer.Option(help="Households.")] = None,
    weeks: Annotated[int | None, typer.Option(help="Length.")] = None,
    seed: Annotated[int | None, typer.Option(help="[0]")] = None,
    truth_days: Annotated[int, typer.Option(help="Last days whose right answers are written.")] = 28,
    quiet: QuietOption = False,
) -> None:
    """Generate a supermarket in the Complete Journey's columns, right answers included."""
    from retailrec.datasets.simulate import preset as preset_shop
    from retailrec.pipeline import staged

    shop = preset_shop(preset, users=users, weeks=weeks, seed=seed)
    with _progress(quiet) as progress, staged(out) as folder:
        progress(f"generate {shop.users:,} households, {shop.weeks} weeks")
        lines = shop.write(folder, truth_days=truth_days)
    if not quiet:
        _out.print(f"{lines:,} lines of {shop.users:,} households, {shop.items:,} products: {out}")
        _out.print(f"Next: retailrec run complete-journey {out}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the generated shop and of the models.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """The same job as `run`, on a generated supermarket whose right answers are known."""
    from retailrec.config import read_settings
    from retailrec.datasets.simulate import data_of, preset

    settings = read_settings(None, seed=seed)
    shop = preset("small", seed=seed)
    days = int(settings.horizon_days)
    with _progress(quiet) as progress:
        progress("generate receipts")
        data = data_of(shop)
        progress("play the last weeks many times to know the right answers")
        truth = shop.truth(shop.days - days, days)
    _print_load_report(data.report, quiet, None)
    _run(data, settings, out, "demo", quiet, 0.0, truth)


@app.command()
def recommend(
    model: Annotated[Path, typer.Option(help="Folder of a saved model.")],
    history: Annotated[Path, typer.Option(help="Receipts known now; columns as for 'table'.")],
    out: Annotated[Path, typer.Option(help="Result, .parquet or .csv.")],
    users: Annotated[
        Path | None, typer.Option(help="Shoppers to answer for (user_id, attributes).")
    ] = None,
    k: Annotated[int, typer.Option(help="Recommendations a shopper.")] = 10,
    rules: Annotated[Path | None, typer.Option(help="TOML file with business rules.")] = None,
    reasons: Annotated[bool, typer.Option("--reasons", help="Say why, in words.")] = False,
    columns: ColumnsOption = "",
    quiet: QuietOption = False,
) -> None:
    """Recommend from fresh histories with a saved model, without refitting."""
    from retailrec.pipeline import recommend_from_files

    if k < 1:
        raise SettingError(f"k must be at least 1, not {k}.")
    with _progress(quiet) as progress:
        found = recommend_from_files(
            model, history, users, k, _parse_columns(columns), out, rules=rules, reasons=reasons,
            progress=progress,
        )  # fmt: skip
    _print_load_report(found.load_report, quiet, None)
    if quiet:
        return
    if found.unknown:
        _out.print(f"{found.unknown:,} events of items that the model does not know were left out")
    batch = found.batch
    for rule, did in batch.effects.items():
        _out.print(
            f"rule {rule}: removed {did['removed']:,} candidates, changed the lists of "
            f"{did['bound']:,} shoppers, gave way for {did['gave_way']:,}"
        )
    if batch.n_taken_over:
        _out.print(f"went on after {batch.n_taken_over:,} blocks that an earlier call had finished")
    _out.print(f"{batch.n_users:,} shoppers, {batch.n_rows:,} recommendations: {out}")


@app.command()
def datasets() -> None:
    """List the formats that can be loaded."""
    from retailrec.datasets import DATASETS

    table = Table("name", "from", "licence", "files", "columns", title="Data sets")
    for d in DATASETS.values():
        table.add_row(d.name, d.source, d.licence, d.files, _escape(d.columns))
    _out.print(table)


@app.command()
def features() -> None:
    """Print the dictionary of features."""
    from retailrec.features import FEATURES

    table = Table("name", "scope", "type", "unit", "family", "meaning", title="Features")
    for f in FEATURES.values():
        table.add_row(f.name, f.scope, "float32", f.unit, f.family, f.meaning)
    _out.print(table)


@app.callback()
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from retailrec import __version__

        _out.print(__version__)
        raise typer.Exit


def _run(
    data: Any, settings: Any, out: Path, dataset: str, quiet: bool, seconds: float, truth: Any,
    **more: Any,
) -> None:  # fmt: skip
    from retailrec.pipeline import run as run_job

    with _progress(quiet) as progress:
        result = run_job(
            data, settings, out, dataset=dataset, progress=progress, load_seconds=seconds, truth=truth,
            **more,
        )  # fmt: skip
    if not quiet:
        _print_result(result, out)


def _load(dataset: str, path: Path, columns: str, progress: Callable[[str], None]) -> Any:
    from time import perf_counter

    from retailrec.datasets import load_dataset

    progress(f"load {path}")
    started = perf_counter()
    return load_dataset(dataset, path, _parse_columns(columns)), perf_counter() - started


def _parse_columns(text: str) -> dict[str, str]:
    """`a=b,c=d` as a dictionary."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for name, equals, theirs in pairs:
        if not (name.strip() and equals and theirs.strip()):
            raise SettingError(
                f"--columns is {text!r}; expected standard=yours pairs with commas between, "
                f"such as user_id=client,item_id=sku,time=date."
            )
    return {name.strip(): theirs.strip() for name, _, theirs in pairs}


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line on the screen that says what is going on and for how long."""
    if quiet or not _err.is_terminal:
        yield lambda step: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
        console=_err, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("start", total=None)

        def show(step: str) -> None:
            counted = re.search(r"([\d,]+) of ([\d,]+)", step)  # as in: recommend 30 of 1,200 shoppers
            done, total = 0, None
            if counted:
                done, total = (int(n.replace(",", "")) for n in counted.groups())
            bar.update(task, description=step, completed=done, total=total)

        yield show


def _print_load_report(report: LoadReport, quiet: bool, rejects: Path | None) -> None:
    if rejects is not None:
        from retailrec.tables import write_frame

        write_frame(report.rejects, rejects)
    if quiet:
        return
    table = Table("lines", "", title=f"Loaded {report.source}", title_justify="left")
    table.columns[0].justify = "right"
    table.add_row(f"{report.read:,}", "read")
    for reason, n in report.rejected.items():
        table.add_row(f"{n:,}", f"rejected: {reason}", style="yellow")
    if report.merged:
        table.add_row(f"{report.merged:,}", "merged: item twice on a receipt")
    table.add_row(f"{report.kept:,}", "kept", style="bold")
    _out.print(table)
    first, last = report.first, report.last
    _out.print(
        f"{report.n_users:,} shoppers, {report.n_items:,} items, {report.n_baskets:,} receipts, "
        f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    )
    for note in report.notes:
        _out.print(f"note: {note}")


def _print_result(result: dict[str, Any], out: Path) -> None:
    from rich.box import SIMPLE

    evaluation = result["evaluation"]
    metrics = list(next(iter(result["models"].values())))
    table = Table(
        "model", *metrics, title_justify="left", box=SIMPLE, pad_edge=False,
        collapse_padding=True,
        title=f"{evaluation['n_users']:,} shoppers, {evaluation['horizon_days']:g} days from "
        f"{evaluation['cutoff'][:10]} ({evaluation['n_cold_users']:,} cold shoppers not counted)",
    )  # fmt: skip
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for name, values in result["models"].items():
        cells = ["-" if values[m] is None else f"{values[m]:.4f}" for m in metrics]
        table.add_row(name, *cells, style="bold green" if name == "two_stage" else "")
    _out.print(table)
    for row in result["differences"]:
        if (row["model"], row["versus"]) == ("two_stage", "own_purchases") and row["metric"] == metrics[
            0
        ]:
            _print_difference(row)
    for metric, best in (result["attainable"] or {}).items():
        _out.print(
            f"two_stage reaches {best['reached']['two_stage']:.0%} of what is attainable: with every "
            f"household's true probabilities, {metric} is {best['low']:.3f} to {best['high']:.3f}"
        )
    _out.print(
        f"{result['seconds']['total']:.0f} s, {result['peak_memory_mb']:,} MB at most; results in {out}"
    )


def _print_evaluation(found: dict[str, Any]) -> None:
    from rich.box import SIMPLE

    table = Table(
        "metric", "model", "mean", "95% interval", title_justify="left", box=SIMPLE, pad_edge=False,
        title=f"{found['n_users']:,} shoppers",
    )  # fmt: skip
    sure = {(row["model"], row["metric"]): row for row in found["intervals"]}
    for metric in next(iter(found["models"].values())):
        for name, values in found["models"].items():
            row = sure.get((name, metric))
            interval = "" if row is None or row["low"] is None else _interval(row)
            mean = "-" if values[metric] is None else f"{values[metric]:.4f}"
            table.add_row(metric, _escape(name), mean, interval)
    _out.print(table)
    for row in found["differences"]:
        _print_difference(row)
    if found["n_cold_users"]:
        _out.print(f"{found['n_cold_users']:,} shoppers without history are not judged")
    for name, n in found["not_judged"].items():
        if n:
            _out.print(f"{_escape(name)}: {n:,} shoppers with recommendations are not judged")


def _print_walkthrough(rows: list[dict[str, Any]], best: float) -> None:
    from rich.box import SIMPLE

    table = Table(
        "precision@5", "published", "here, its mean", "here, all judged", box=SIMPLE, pad_edge=False
    )
    table.columns[0].no_wrap = True
    for row in rows:
        cells = [row["published"], row["their_mean"], row["precision@5"]]
        bold = "bold green" if row["step"].startswith("ours: two stages") else ""
        table.add_row(row["step"], *("" if c is None else f"{c:.4f}" for c in cells), style=bold)
    _out.print(table)
    theirs = rows[0]["their_n_users"]
    _out.print(
        f"published: on the Complete Journey, best elsewhere {best:.4f}; its mean: over the {theirs:,} "
        f"shoppers with candidates; all judged: {rows[0]['n_users']:,} with history who bought",
        soft_wrap=True,
    )


def _print_difference(row: dict[str, Any]) -> None:
    if row["difference"] is not None:
        _out.print(
            f"{_escape(row['model'])} less {_escape(row['versus'])}, {row['metric']}: "
            f"{row['difference']:+.4f} ({_interval(row, '+')}), p {_chance(row['p_corrected'])}",
            soft_wrap=True,
        )


def _interval(row: dict[str, Any], sign: str = "") -> str:
    return f"{row['low']:{sign}.4f} to {row['high']:{sign}.4f}"


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _print_backtest(rows: list[dict[str, Any]], folds: int) -> None:
    from rich.box import SIMPLE

    models = list(dict.fromkeys(row["model"] for row in rows))
    table = Table(
        "metric", *models, title_justify="left", box=SIMPLE, pad_edge=False,
        title=f"Mean ± spread over {folds} horizons",
    )  # fmt: skip
    for metric in dict.fromkeys(row["metric"] for row in rows):
        mine = {row["model"]: row for row in rows if row["metric"] == metric}
        cells = []
        for model in models:
            mean, spread = mine[model]["mean"], mine[model]["spread"]
            text = "-" if mean is None else f"{mean:.4f}"
            cells.append(text if spread is None else f"{text} ±{spread:.4f}")
        table.add_row(metric, *cells)
    _out.print(table)


def _print_matching(report: dict[str, Any], out: Path) -> None:
    from rich.box import SIMPLE

    recall = report["recall@k"]
    ks = [k for k in ("50", "200", "500", "2000") if k in recall["pool"]]
    table = Table(
        "recall@", *ks, "of new", "adds", "s", title_justify="left", box=SIMPLE,
        pad_edge=False, collapse_padding=True,
        title=f"Matching, {report['evaluation']['n_users']:,} shoppers from "
        f"{report['evaluation']['cutoff'][:10]}",
    )  # fmt: skip
    for column in table.columns:
        column.no_wrap, column.justify = True, "left" if column.header == "recall@" else "right"
    for name, values in recall.items():
        facts = report["sources"][name]
        adds, new = report["marginal"].get(name), facts["recall@200_of_new"]
        seconds = facts.get("candidates_seconds")
        table.add_row(
            name, *(f"{values[k]:.3f}" for k in ks),
            "-" if new is None else f"{new:.3f}", "" if adds is None else f"{adds:.4f}",
            "" if seconds is None else f"{facts['fit_seconds'] + seconds:.1f}",
            style="bold green" if name == "pool" else "",
        )  # fmt: skip
    _out.print(table)
    _out.print(
        "of new: recall@200 of what the shopper had not bought before; adds: what the union of all "
        "sources' 200 would lose without this one"
    )
    for group, facts in report["cold"].items():
        if facts.get("n_users"):
            found = facts["pool_recall@200"]
            _out.print(f"shoppers with {group}: {facts['n_users']:,}, pool recall@200 {found:.3f}")
    idle = [name for name, earns in report["advice"].items() if not earns]
    _out.print(
        f"k = {report['chosen_k']}: beyond it recall grows by less than "
        f"{report['least_gain_per_candidate']:g} a candidate. "
        + (f"Sources that add next to nothing here: {', '.join(idle)}." if idle else "")
    )
    _out.print(f"results in {out}")


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
