"""What several commands take, written once: which data, how it is read, which settings."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from retailrec.errors import RetailRecError, SettingError

if TYPE_CHECKING:
    from retailrec.compute.progress import Progress
    from retailrec.data import RetailData
    from retailrec.datasets.base import Reading
    from retailrec.jobs.settings import Settings
    from retailrec.recommender.request import Request


DATA, LIST, SPARK = "Data", "The list", "Spark"  # groups of options in a command's help


def import_modules(names: list[str] | None) -> list[str]:
    """Import modules of the caller's own, found on Python's path or in the current folder.

    Raises
    ------
    SettingError
        If one can't be imported.
    """
    for name in names or []:
        with suppress(FileNotFoundError):  # the current folder was removed
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
        try:
            import_module(name)
        except RetailRecError:
            raise
        except Exception as error:  # whatever the module itself does wrong
            raise SettingError(
                f"--import {name}: the module can't be imported ({type(error).__name__}: {error}). "
                f"Name a module on Python's path or in the current folder, without '.py'."
            ) from error
    return names or []


DatasetArgument = Annotated[str, typer.Argument(help="See: retailrec datasets")]
PathArgument = Annotated[
    Path | None,
    typer.Argument(
        help="File or folder of the data set; without it, the installed package (complete-journey)."
    ),
]
ConfigOption = Annotated[Path | None, typer.Option(help="TOML file with settings.")]
ColumnsOption = Annotated[
    str,
    typer.Option(
        help="For 'table': standard=yours,... such as user_id=client,time=date+clock; or a TOML file "
        "of such lines.",
        rich_help_panel=DATA,
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=VALUE",
        help="For 'table': lines that are purchases, such as event=transaction or card!=0; any number.",
        rich_help_panel=DATA,
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option(help="Of text files that are not UTF-8, such as cp1252.", rich_help_panel=DATA),
]
TimeFormatOption = Annotated[
    str | None,
    typer.Option(help="How times are written, such as '%d/%m/%Y %H:%M'.", rich_help_panel=DATA),
]
NotProductsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=TEXT",
        help="For 'table': items that are no products, such as category_1=FUEL or 'name=*deposit*'; "
        "any number.",
        rich_help_panel=DATA,
    ),
]
ChangedOption = Annotated[
    Path | None,
    typer.Option(
        "--ids-changed",
        help="Table of ids that changed: kind (user or item), old, new.",
        rich_help_panel=DATA,
    ),
]
KeptOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        help="Read as this model's receipts were: columns, encoding, and so on.",
        rich_help_panel=DATA,
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        help="Know only receipts before this instant, such as 2024-03-01.", rich_help_panel=DATA
    ),
]
BesideOption = Annotated[
    str,
    typer.Option(
        "--with",
        help="Columns beside each recommendation: name, brand, category, price, end; commas between.",
        rich_help_panel=LIST,
    ),
]
RulesOption = Annotated[
    Path | None, typer.Option(help="TOML file with business rules.", rich_help_panel=LIST)
]
SlotsOption = Annotated[
    str | None,
    typer.Option(
        help="One list of several purposes, such as replenish=3,discover=2; it says --k too.",
        rich_help_panel=LIST,
    ),
]
ResultsOption = Annotated[Path, typer.Option(help="Folder for the results.")]
FiguresOption = Annotated[Path | None, typer.Option(help="Write all figures here, as JSON.")]
SeedOption = Annotated[int | None, typer.Option(help="[0]")]
ThreadsOption = Annotated[int, typer.Option(min=0, max=1024, help="0: all cores.")]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="RETAILREC_STORE",
        help="SQLite file, or postgresql://user@host/database; a password belongs into PGPASSWORD, "
        "~/.pgpass or RETAILREC_STORE.",
    ),
]
DaysOption = Annotated[float, typer.Option(help="Length of the window.")]
MarginOption = Annotated[Path | None, typer.Option(help="item_id, margin (of one unit).")]
OverwriteOption = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files that retailrec did not write, too; inputs never."),
]
PageOption = Annotated[Path | None, typer.Option(help="Write a page here (.html).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print errors and notes only.")]
EngineOption = Annotated[
    str,
    typer.Option(
        help="local, or spark: workers of a cluster do the same work. [local]", rich_help_panel=SPARK
    ),
]
MasterOption = Annotated[
    str | None,
    typer.Option(
        help="For --engine spark: Spark's master URL, such as local[2].", rich_help_panel=SPARK
    ),
]
SparkSettingsOption = Annotated[
    Path | None,
    typer.Option(
        help='For --engine spark: TOML file, "spark.executor.memory" = "8g".', rich_help_panel=SPARK
    ),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import this module first: sources, features, rankers, metrics of your own.",
        callback=import_modules,
        is_eager=True,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a command reads receipts; the fields are its options."""

    columns: ColumnsOption = ""
    encoding: EncodingOption = None
    time_format: TimeFormatOption = None
    where: WhereOption = None
    not_products: NotProductsOption = None
    ids_changed: ChangedOption = None

    @property
    def inputs(self) -> tuple[Path | None, ...]:
        """Files and folders that are read, and so never written."""
        return self.ids_changed, Path(self.columns) if _is_file(self.columns) else None

    def reading(self) -> Reading:
        """How the receipts are read.

        Raises
        ------
        SettingError, DataError
            If the options, or the files that they name, can't be used.
        """
        from retailrec.data.changed_ids import ChangedIds
        from retailrec.datasets.base import Reading

        return Reading(
            parse_columns(self.columns),
            self.encoding,
            self.time_format,
            self.where or (),
            self.not_products or (),
            None if self.ids_changed is None else ChangedIds.read(self.ids_changed),
        )


@dataclass(frozen=True, kw_only=True)
class OutcomeOptions(ReadOptions):
    """Receipts in which the effect of offers is looked for; the fields are a command's options."""

    days: DaysOption = 28
    margin: MarginOption = None
    dataset: Annotated[str, typer.Option(help="What the receipts are; see: retailrec datasets")] = (
        "table"
    )
    modules: ImportOption = None

    @property
    def inputs(self) -> tuple[Path | None, ...]:
        """As of `ReadOptions`, and margins."""
        return *super().inputs, self.margin

    def data(self, receipts: Path) -> RetailData:
        """The receipts of a file or folder."""
        from retailrec.datasets import open_dataset

        return open_dataset(self.dataset, receipts, self.reading()).data()


@dataclass(frozen=True)
class DatasetOptions(ReadOptions):
    """What a command that loads a data set takes; the fields are its options."""

    dataset: DatasetArgument
    path: PathArgument = None
    horizon_days: Annotated[float | None, typer.Option(help="Length of the window. [28]")] = None
    config: ConfigOption = None
    until: UntilOption = None
    seed: SeedOption = None
    threads: Annotated[int | None, typer.Option(help="0: all cores. [0]")] = None
    engine: EngineOption = "local"
    master: MasterOption = None
    spark_settings: SparkSettingsOption = None
    sample: Annotated[
        int,
        typer.Option(
            min=1, help="For --engine spark: shoppers that models learn from.", rich_help_panel=SPARK
        ),
    ] = 100_000
    modules: ImportOption = None
    quiet: QuietOption = False

    def settings(self, **more: Any) -> Settings:
        """The file of `--config` with what the command line says on top."""
        from retailrec.jobs.settings import read_settings

        return read_settings(
            self.config,
            horizon_days=self.horizon_days,
            seed=self.seed,
            threads=self.threads,
            **more,
        )

    def reading(self) -> Reading:
        """How the receipts are read: as the file of `--config` says, with the options on top.

        Raises
        ------
        SettingError, DataError
            If the options, or the files that they name, can't be used.
        """
        from retailrec.jobs.settings import read_reading

        said = super().reading()
        if self.config is None:
            return said
        return replace(read_reading(self.config), **{n: v for n, v in vars(said).items() if v})

    @property
    def inputs(self) -> tuple[Path | None, ...]:
        """As of `ReadOptions`, and the data set and settings."""
        return *super().inputs, self.path, self.config, self.spark_settings

    def load(self, progress: Progress) -> tuple[RetailData, float]:
        """The data, and how many seconds reading it took; on Spark those of a sample of users."""
        from time import perf_counter

        started = perf_counter()
        if on_spark(self.engine, self.master, self.spark_settings):
            from retailrec.spark.engine import load, start

            if self.dataset != "table" or self.path is None:
                raise SettingError(
                    f"--engine spark reads the data set 'table' from Parquet or a table of Spark's, "
                    f"not {self.dataset!r}; write receipts in standard columns and name their path."
                )
            reading = self.reading()
            local_only(encoding=reading.encoding, time_format=reading.time_format)
            found = start(self.path, self.master, self.spark_settings, self.modules, progress)
            sizes: dict[str, Any] = {"sample": self.sample, "until": self.until}
            data = load(*found, reading, **sizes, progress=progress)
        else:
            from retailrec.datasets import load_until, open_dataset

            progress(f"load {self.path or self.dataset}")
            data = load_until(open_dataset(self.dataset, self.path, self.reading()), self.until)
        return data, perf_counter() - started


def with_options(
    options: type[ReadOptions], arguments: int = 0
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, whose first parameter is such a dataclass, the fields of it as options.

    Of the fields that are no keywords the first `arguments` come before the command's own options.
    """
    shared = list(inspect.signature(options, eval_str=True).parameters.values())
    names = [p.name for p in shared]

    def given_to(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        def filled(**given: Any) -> None:
            read = options(**{name: given.pop(name) for name in names})
            command(read, **given)

        parameters = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in (*shared[:arguments], *own, *shared[arguments:])
        ]
        filled.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        filled.__annotations__ = {p.name: p.annotation for p in parameters}
        filled.__name__, filled.__doc__ = command.__name__, command.__doc__
        return filled

    return given_to


of_a_dataset = with_options(DatasetOptions, arguments=2)
of_receipts = with_options(ReadOptions)
of_outcomes = with_options(OutcomeOptions)


_REQUEST = "retailrec.request"


class RequestCommand(TyperCommand):
    """A command that takes the fields of a `Request` as options; `asked_for` gives them.

    The class that they come from is loaded when the command is asked for, not by every command.
    """

    def invoke(self, ctx: Any) -> Any:
        """The command's function, which sees its own options alone."""
        ctx.meta[_REQUEST] = {option.name: ctx.params.pop(option.name) for option in _request_options()}
        return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own options, and those of a request before ``--help``."""
        *own, help_ = super().get_params(ctx)
        return [*own, *_request_options(), help_]


@cache
def _request_options() -> list[Any]:
    from dataclasses import fields

    from typer.main import get_command

    from retailrec.recommender.request import Request

    def asked(**settings: Any) -> None: ...

    parameters = []
    for f in fields(Request):
        also = f.metadata["also"]
        flag = [f"--{f.name}"] if also or f.metadata["plain"] is bool else []
        flag += [also] if also else []
        option = typer.Option(*flag, help=f.metadata["help"], rich_help_panel=LIST)
        kind = f.metadata["plain"] if f.default is not None else f.metadata["plain"] | None
        parameters.append(
            inspect.Parameter(
                f.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=f.default,
                annotation=Annotated[kind, option],
            )
        )
    asked.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    asked.__annotations__ = {p.name: p.annotation for p in parameters}
    alone = typer.Typer(add_completion=False)
    alone.command()(asked)
    return [option for option in get_command(alone).params if option.name != "help"]


def asked_for(context: typer.Context) -> Request:
    """What a `RequestCommand` was asked for."""
    from retailrec.recommender.request import Request

    return Request.read(context.meta[_REQUEST])


def files_asked_for(context: typer.Context) -> list[Path]:
    """The files that a `RequestCommand`'s request names."""
    from dataclasses import fields

    from retailrec.recommender.request import Request

    given, found = context.meta[_REQUEST], []
    for f in fields(Request):
        if f.metadata["plain"] == Path and given[f.name] is not None:
            found.append(Path(given[f.name]))
        elif f.metadata["plain"] == list[Path]:
            found += map(Path, given[f.name] or ())
    return found


def on_spark(engine: str, master: str | None, settings: Path | None) -> bool:
    """Is Spark to do the work?

    Raises
    ------
    SettingError
        If there is no such engine, or Spark's options come with another one.
    """
    if engine not in ("local", "spark"):
        raise SettingError(f"--engine must be local or spark, not {engine!r}.")
    if engine == "local" and (master is not None or settings is not None):
        raise SettingError(
            "--master and --spark-settings belong to --engine spark; add it or leave them out."
        )
    return engine == "spark"


def local_only(**options: object) -> None:
    """Raise a SettingError if an option is given that Spark's engine does not have."""
    for name, value in options.items():
        if value:
            raise SettingError(
                f"--{name.replace('_', '-')} is not there with --engine spark, which reads typed "
                "columns of Parquet or a table and writes Parquet. Leave it out, or stay with the "
                "local engine."
            )


def kept_reading(model: Path | None) -> dict[str, Any]:
    """How the receipts were read that a saved model learnt from; nothing without a model."""
    if model is None:
        return {}
    from retailrec.recommender.two_stage import TwoStageRecommender

    return TwoStageRecommender.load(model).reading


def names_in(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def days_in(text: str) -> tuple[date, ...]:
    """Days with commas between.

    Examples
    --------
    >>> [day.isoformat() for day in days_in("2024-12-25, 2024-12-26")]
    ['2024-12-25', '2024-12-26']
    """
    try:
        return tuple(date.fromisoformat(name) for name in names_in(text))
    except ValueError as error:
        raise SettingError(f"days are written as 2024-12-25, with commas between: {error}.") from None


def refuse_empty(arguments: list[str]) -> None:
    """Raise a SettingError where an argument is empty: "" as a path is the current folder.

    Examples
    --------
    >>> refuse_empty(["run", "table", "receipts.csv", "--out", "."])
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name = before if before.startswith("--") and "=" not in before else "an argument"
        if argument.startswith("--") and argument.endswith("="):
            name, argument = argument[:-1], ""
        if not argument:
            raise SettingError(
                f"{name} is empty; is a variable unset? Leave it out, or write . for the current "
                f"folder."
            )


def _is_file(columns: str) -> bool:
    return columns.endswith(".toml") and "=" not in columns


def parse_columns(text: str) -> dict[str, str]:
    """`a=b,c=d` as a dictionary, or the pairs of a TOML file.

    A file may have them in a table ``[columns]`` of its own.

    Raises
    ------
    SettingError
        If it is not of that form.

    Examples
    --------
    >>> parse_columns("user_id=client, time=date")
    {'user_id': 'client', 'time': 'date'}
    """
    if _is_file(text):
        from retailrec.data.columns import read_columns

        return read_columns(Path(text), "--columns")
    parts = [part for part in text.split(",") if part.strip()] or [text] * bool(text.strip())
    pairs = [part.partition("=") for part in parts]
    for name, equals, theirs in pairs:
        if not (name.strip() and equals and theirs.strip()):
            raise SettingError(
                f"--columns is {text!r}; expected standard=yours pairs with commas between, "
                f"such as user_id=client,item_id=sku,time=date, or a file of them that ends in .toml."
            )
        if [other.strip() for other, *_ in pairs].count(name.strip()) > 1:
            raise SettingError(f"--columns names '{name.strip()}' twice; leave one of the two.")
    return {name.strip(): theirs.strip() for name, _, theirs in pairs}
