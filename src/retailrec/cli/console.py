"""What the command line shows: tables, counts of what was read, progress; signals that end it."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retailrec.compute.progress import Progress, silent
from retailrec.errors import visible

if TYPE_CHECKING:
    from retailrec.checks import Check
    from retailrec.data.cleaning import LoadReport
    from retailrec.evaluation.inspection import LeakReport
    from retailrec.evaluation.results import Difference, Interval, MatchingReport, RunResult
    from retailrec.jobs.check import Checked
    from retailrec.recommender.batch import Batch

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not known on Windows


class Interrupted(BaseException):
    """Someone ended the command; no `except Exception` on the way up holds it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        self.name = signal.Signals(number).name


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first signal within; a second one ends the process at once.

    A signal that the caller lets pass, as `nohup` does with SIGHUP, stays so.
    """
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    ours = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}

    def stop(number: int, _: Any) -> None:
        for known in ours:
            signal.signal(known, signal.SIG_DFL)
        raise Interrupted(number)

    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, before in ours.items():
            signal.signal(number, before)


def open_standard_streams() -> None:
    """Let nothing stand where the caller has closed a standard stream, as some schedulers do.

    Else the first files that are opened would take their places, and what a library says would be
    written into them. What the locale's encoding does not have, as ISO-8859-1 no sign for a tick, is
    printed as its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 (stays open)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Terminal(Console):
    """A console on which names and ids are seen and not obeyed."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As of any console; see `_written` for errors."""
        with self._written():
            super().print(*objects, **options)

    def write(self, text: str) -> None:
        """A text for programs, as it is."""
        with self._written():
            print(text, file=self.file, flush=True)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Where nothing can be written, as on a full disk.

        Of standard output `main` says so. Where standard error can't be, there is no other place to say
        it, so the command goes on, and its exit status says the rest.
        """
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())  # leaving writes once more
            if self.stderr:
                return
            if isinstance(error, BrokenPipeError):
                raise SystemExit(141) from error  # 128 + SIGPIPE, as any program whose reader is gone
            raise

    def on_broken_pipe(self) -> None:
        """The reader is gone: an error like any other of writing."""
        raise BrokenPipeError

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def say(self, sentence: str) -> None:
        """One line, however long, in one colour."""
        self.print(sentence, highlight=False, soft_wrap=True)


OUT, ERR = _Terminal(emoji=False), _Terminal(stderr=True, emoji=False)


def plain_table(*head: str, title: str | None = None) -> Table:
    """A table of figures: no lines around it, its title on the left."""
    from rich.box import SIMPLE

    return Table(*head, title=title, title_justify="left", box=SIMPLE, pad_edge=False)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A line on the screen that says what is going on and for how long."""
    if quiet or not ERR.is_terminal:
        yield silent
        return
    from rich import progress as bars

    with bars.Progress(
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TimeElapsedColumn(),
        console=ERR,
        transient=True,
    ) as bar:
        task = bar.add_task("start", total=None)

        def show(step: str, done: int = 0, total: int = 0, /) -> None:
            bar.update(
                task, description=in_words(step, done, total), completed=done, total=total or None
            )

        yield show


def print_checks(checks: Iterable[Check]) -> None:
    """What is checked, and how severe a finding is."""
    for one in checks:
        OUT.say(f"{one.severity:7}{one.name}: {escape(' '.join(one.meaning.split()))}")


def print_checked(checked: Checked, quiet: bool) -> None:
    """The findings, the most severe first; without any, one line."""
    from retailrec.checks import LEAST_PAST

    if not quiet:
        days = ""
        if checked.start is not None and checked.end is not None:
            days = f" of {checked.start:%Y-%m-%d} to {checked.end - timedelta(days=1):%Y-%m-%d}"
        OUT.print(f"{checked.n_lines:,} lines{days}, against {checked.n_past} past weeks")
    if checked.n_past < LEAST_PAST:
        print_notes([f"{checked.n_past} past weeks teach no thresholds; {LEAST_PAST} are needed."])
    styles = {"refuse": "bold red", "warn": "yellow", "note": "default"}
    for one in checked.findings:
        kind = f"[{styles[one.severity]}]{one.severity}[/]"
        OUT.say(f"{kind} {one.name}: {escape(one.message)}")
    if not checked.findings and not quiet:
        OUT.print("nothing found")


def in_words(step: str, done: int, total: int) -> str:
    """As in: recommend 30 of 1,200."""
    of = f" of {total:,}" if total else ""
    return f"{step} {done:,}{of}" if done else step


def print_load_report(report: LoadReport, quiet: bool, rejects: Path | None) -> None:
    if rejects is not None:
        from retailrec.work import write_result

        write_result(report.rejects, rejects)
    print_notes(report.notes)
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
    OUT.print(table)
    first, last = report.first, report.last
    OUT.print(
        f"{report.n_users:,} shoppers, {report.n_items:,} items, {report.n_baskets:,} receipts, "
        f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    )
    if report.split:
        OUT.print(
            f"note: {report.split:,} receipts have a number that an earlier receipt of the shopper "
            "had; they count on their own"
        )


def print_result(result: RunResult, out: Path) -> None:
    from retailrec.recommender.explanations import in_days

    evaluation = result["evaluation"]
    metrics = list(next(iter(result["models"].values())))
    title = (
        f"{evaluation['n_users']:,} shoppers, {in_days(evaluation['horizon_days'])} from "
        f"{evaluation['cutoff'][:10]} ({evaluation['n_cold_users']:,} cold shoppers not counted)"
    )
    table = plain_table("model", *metrics, title=title)
    table.collapse_padding, table.columns[0].no_wrap = True, True
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for name, values in result["models"].items():
        cells = ["-" if values[m] is None else f"{values[m]:.4f}" for m in metrics]
        table.add_row(name, *cells, style="bold green" if name == "two_stage" else "")
    OUT.print(table)
    OUT.print(result["verdict"])
    for found in result["purposes"]:
        OUT.print(f"{found['purpose']}, {found['n_users']:,} shoppers: {found['verdict']}")
    OUT.print(f"recipe: {result['recipe']}")
    if result["hidden"]:
        OUT.print(result["hidden"])
    for metric, best in (result["attainable"] or {}).items():
        OUT.print(
            f"two_stage reaches {best['reached']['two_stage']:.0%} of what is attainable: with every "
            f"household's true probabilities, {metric} is {best['low']:.3f} to {best['high']:.3f}"
        )
    OUT.print(
        f"{result['seconds']['total']:.0f} s, {result['peak_memory_mb']:,} MB at most; results in {out}"
    )


def print_example(out: Path) -> None:
    """One shopper of the report, with what they are recommended and why, and where the report lies."""
    import json

    shoppers = json.loads((out / "report.json").read_text(encoding="utf-8"))["examples"]
    shopper = shoppers[len(shoppers) // 2]
    OUT.print(
        f"\nShopper {escape(shopper['user'])}, {shopper['receipts']:,} receipts, was recommended "
        f"(✓: bought in the window)"
    )
    for rank, item in enumerate(shopper["lists"]["two_stage"], 1):
        mark = "✓" if item["bought"] else " "
        OUT.print(f" {mark} {rank}. {escape(item['item'])}", highlight=False)
        OUT.print(f"      {escape(item['reason'])}", style="dim", highlight=False)
    OUT.print(f"\nThe report, for a browser: {out / 'report.html'}")


def print_evaluation(judged: dict[str, Any]) -> None:
    title = f"{judged['n_users']:,} shoppers"
    table = plain_table("metric", "model", "mean", "95% interval", title=title)
    sure = {(row["model"], row["metric"]): row for row in judged["intervals"]}
    for metric in next(iter(judged["models"].values())):
        for name, values in judged["models"].items():
            row = sure.get((name, metric))
            interval = "" if row is None or row["low"] is None else _interval(row)
            mean = "-" if values[metric] is None else f"{values[metric]:.4f}"
            table.add_row(metric, escape(name), mean, interval)
    OUT.print(table)
    for row in judged["differences"]:
        if row["difference"] is not None:
            p = chance(row["p_corrected"])
            OUT.say(
                f"{escape(row['model'])} less {escape(row['versus'])}, {row['metric']}: "
                f"{row['difference']:+.4f} ({_interval(row, '+')}), p {p if p[0] == '<' else f'= {p}'}"
            )
    if judged["n_cold_users"]:
        OUT.print(f"{judged['n_cold_users']:,} shoppers without history are not judged")
    for name, n in judged["not_judged"].items():
        if n:
            OUT.print(f"{escape(name)}: {n:,} shoppers with recommendations are not judged")
    for what, n in judged["left_out"].items():
        OUT.print(f"{escape(what)}: {n:,} lines left out")
    for note in judged["notes"]:
        OUT.print(f"note: {escape(note)}")
    unknown = {m for values in judged["models"].values() for m, v in values.items() if v is None}
    if unknown:
        OUT.print(f"-: not known from what was given ({', '.join(sorted(unknown))})")


def _interval(row: Interval | Difference, sign: str = "") -> str:
    if row["low"] is None:
        return "too few shoppers for an interval"
    return f"{row['low']:{sign}.4f} to {row['high']:{sign}.4f}"


def chance(p: float) -> str:
    """A p as it is shown."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def print_backtest(rows: list[dict[str, Any]], folds: int) -> None:
    models = list(dict.fromkeys(row["model"] for row in rows))
    table = plain_table("metric", *models, title=f"Mean ± spread over {folds} horizons")
    for metric in dict.fromkeys(row["metric"] for row in rows):
        mine = {row["model"]: row for row in rows if row["metric"] == metric}
        cells = []
        for model in models:
            mean, spread = mine[model]["mean"], mine[model]["spread"]
            text = "-" if mean is None else f"{mean:.4f}"
            cells.append(text if spread is None else f"{text} ±{spread:.4f}")
        table.add_row(metric, *cells)
    OUT.print(table)


def print_matching(report: MatchingReport, out: Path) -> None:
    recall, judged = report["recall@k"], report["evaluation"]
    ks = [k for k in ("50", "200", "500", "2000") if k in recall["pool"]]
    title = f"Matching, {judged['n_users']:,} shoppers from {judged['cutoff'][:10]}"
    table = plain_table("recall@", *ks, "of new", "adds", "s", title=title)
    table.collapse_padding = True
    for column in table.columns:
        column.no_wrap, column.justify = True, "left" if column.header == "recall@" else "right"
    for name, values in recall.items():
        facts = report["sources"][name]
        adds, new = report["marginal"].get(name), facts["recall@200_of_new"]
        seconds = facts.get("candidates_seconds")
        table.add_row(
            name,
            *(f"{values[k]:.3f}" for k in ks),
            "-" if new is None else f"{new:.3f}",
            "" if adds is None else f"{adds:.4f}",
            "" if seconds is None else f"{facts['fit_seconds'] + seconds:.1f}",
            style="bold green" if name == "pool" else "",
        )
    OUT.print(table)
    OUT.print(
        "of new: recall@200 of what the shopper had not bought before; adds: what the union of all "
        "sources' 200 would lose without this one"
    )
    for group, cold in report["cold"].items():
        if cold.get("n_users"):
            OUT.print(
                f"shoppers with {group}: {cold['n_users']:,}, "
                f"pool recall@200 {cold['pool_recall@200']:.3f}"
            )
    idle = [name for name, earns in report["advice"].items() if not earns]
    OUT.print(
        f"k = {report['chosen_k']}: beyond it recall grows by less than "
        f"{report['least_gain_per_candidate']:g} a candidate. "
        + (f"Sources that add next to nothing here: {', '.join(idle)}." if idle else "")
    )
    OUT.print(f"results in {out}")


def print_leaks(report: LeakReport, quiet: bool) -> None:
    """Leaks, and what was not checked, are shown in any case."""
    print_notes(report.notes)
    for leak in report.leaks:
        OUT.print(
            f"[bold red]leak[/] {escape(leak.column)}: moved in {leak.rows:.1%} of the rows, by up to "
            f"{leak.most:g}, when the future was {leak.change}"
        )
    if not quiet and not report.leaks:
        labels = ", ".join(f"{share:.1%} {change}" for change, share in report.labels_moved.items())
        OUT.print(
            f"no leak: none of {report.columns} columns moved in {report.rows:,} rows when the future "
            f"was changed (labels that moved: {labels})"
        )


def print_tuned(tuned: dict[str, Any], out: Path) -> None:
    OUT.print(
        f"{tuned['metric']} {tuned['best']:.4f} after {tuned['trials']} trials on {tuned['folds']} "
        f"earlier windows; the default gave {tuned['default']:.4f}. Settings: {out}"
    )


def print_notes(notes: Iterable[str]) -> None:
    """What a caller would regret not to have read: to stderr, under --quiet too."""
    for note in notes:
        ERR.say(f"[bold yellow]note:[/] {escape(note)}")


def print_answers(batch: Batch, out: Path, quiet: bool = False, exposures: Path | None = None) -> None:
    answered = batch.report
    print_notes(answered.notes)
    if quiet:
        return
    if answered.n_unknown_events:
        OUT.print(
            f"{answered.n_unknown_events:,} events of items that the model does not know were left out"
        )
    for rule, did in answered.rules.items():
        OUT.print(
            f"rule {rule}: removed {did['removed']:,} candidates, changed the lists of "
            f"{did['bound']:,} shoppers, gave way for {did['gave_way']:,}"
        )
    if batch.n_taken_over:
        OUT.print(f"went on after {batch.n_taken_over:,} blocks that an earlier call had finished")
    OUT.print(f"{answered.n_shoppers:,} shoppers, {batch.n_rows:,} recommendations: {out}")
    if exposures is not None:
        files = exposures.glob("*.parquet") if exposures.is_dir() else [exposures]
        size = sum(file.stat().st_size for file in files if file.is_file())
        OUT.print(
            f"{batch.n_exposures:,} rows of explored pools"
            + (f", {size / 1e6:,.1f} MB" if size else "")
            + f": {exposures}"
        )


def print_rows(rows: list[dict[str, str]], as_json: bool) -> None:
    """A table on a terminal, its names whole; else a line a row, parted by tabs; or JSON."""
    if as_json:
        import json

        OUT.write(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not OUT.is_terminal:
        for row in rows:
            OUT.write("\t".join(" ".join(str(cell).split()) for cell in row.values()))
    else:
        table = Table(*rows[0])
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*(escape(str(cell)) for cell in row.values()))
        OUT.print(table)


def escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
