"""`retailrec serve` and `retailrec store ...`: thin commands over the service and its store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from retailrec.cli import console
from retailrec.cli.console import ERR, OUT, Interrupted, escape
from retailrec.cli.options import (
    DatasetArgument,
    ImportOption,
    KeptOption,
    OverwriteOption,
    QuietOption,
    ReadOptions,
    StoreOption,
    kept_reading,
    of_receipts,
)
from retailrec.errors import DataError, SettingError
from retailrec.work import check_file

store_app = typer.Typer(no_args_is_help=True, help="The history store of the service.")
key_app = typer.Typer(no_args_is_help=True, help="API keys: made, listed, removed.")
store_app.add_typer(key_app, name="key")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(serve)
    app.add_typer(store_app, name="store")


def serve(
    model: Annotated[
        Path | None, typer.Option(help="A saved model, or a folder of saved models.")
    ] = None,
    store: StoreOption = "store.db",
    demo: Annotated[
        Path | None, typer.Option(help="Make a generated shop in this folder, and serve it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    host_name: Annotated[
        list[str] | None, typer.Option(help="Name under which the service is called; any number.")
    ] = None,
    experiment: Annotated[
        Path | None, typer.Option(help="TOML file: arms, holdout, shadow models.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second a key; 0: no limit.")] = 200.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 10.0,
    threads: Annotated[int, typer.Option(min=0, max=1024, help="Answers at a time; 0: all cores.")] = 0,
    pages: Annotated[bool, typer.Option(help="Serve pages for people.")] = True,
    aside: Annotated[
        Path | None, typer.Option(help="Folder for rows of what was shown that the store refuses.")
    ] = None,
    shown_only: Annotated[
        bool, typer.Option("--shown-only", help="Of explored pools keep only what was shown.")
    ] = False,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Ask nobody for a key; on loopback alone.")
    ] = False,
    log: Annotated[bool, typer.Option(help="Write a line for each request to stderr.")] = False,
    modules: ImportOption = None,
) -> None:
    """Answer over HTTP, from the receipts of a store and a saved model."""
    with _extra():
        import logging

        from retailrec.serving.experiment import Experiment, read_experiment
        from retailrec.serving.loading import prepare_demo
        from retailrec.serving.server import run_server
        from retailrec.serving.service import Service, ServiceSettings
        from retailrec.serving.store import open_store

    if demo is not None:
        with console.progress(quiet=False) as progress:
            model, file = prepare_demo(demo, progress)
        store = str(file)
    if model is None:
        raise SettingError("serve needs --model DIR, the folder of a saved model, or --demo DIR.")
    plan = Experiment() if experiment is None else read_experiment(experiment)
    with closing(open_store(store)) as opened:
        _say_who_reads(opened)
        loopback = host in _LOOPBACK
        keys = _who_is_let_in(opened, host, host_name or (), no_keys)
        names = _LOOPBACK if loopback else ()
        settings = ServiceSettings(
            rate=rate,
            timeout=timeout,
            threads=threads,
            pages=pages,
            hosts=(*names, *(host_name or ())),
            keys=keys,
            aside=aside,
            shown_only=shown_only,
        )
        logging.basicConfig(level=logging.INFO if log else logging.WARNING, format="%(message)s")
        service = Service(opened, model, settings, plan)

        def started(address: str) -> None:
            if opened.is_empty():
                ERR.print(
                    f"note: the store {escape(opened.name)} has no receipt, so nothing is known of any "
                    f"shopper; if that is not meant, check --store, or: retailrec store load",
                    highlight=False,
                )
            if not loopback:
                ERR.print(
                    f"[bold]{escape(host)} is reachable from other machines[/]; keys travel as plain "
                    f"text unless a proxy before it speaks HTTPS.",
                    highlight=False,
                )
            if not keys:
                said = "--no-keys" if keys is False else "no key is asked for"
                cure = " A key ends it: retailrec store key add NAME" if keys is None else ""
                ERR.print(
                    f"[bold]{said}[/]: whoever can start a program on this machine may read, write and "
                    f"forget.{cure}",
                    highlight=False,
                )
            with suppress(OSError):  # a log on a full disk does not keep a service from starting
                OUT.print(f"serving on {address} (Ctrl-C stops)", highlight=False)

        with suppress(Interrupted):  # the server has stopped, and hands the signal on
            run_server(service, host, port, started)
    if (left := service.unwritten) is not None:
        raise DataError(left.sentence(opened.name))


def _who_is_let_in(store: Any, host: str, names: Sequence[str], no_keys: bool) -> bool | None:
    """True: who has a key; False: everybody, by choice; None: everybody until a first key is made."""
    from retailrec.serving.keys import had_keys, list_keys

    loopback = host in _LOOPBACK
    if no_keys:
        if not loopback or names:
            by = f"--host-name {names[0]}" if loopback and names else f"--host {host}"
            raise SettingError(
                f"--no-keys is for loopback alone, and {by} is reachable from other machines. "
                f"Leave it out, and make a key: retailrec store key add NAME --store {store.name}"
            )
        return False
    if list_keys(store):
        return True
    if not loopback or names or had_keys(store):
        where = "" if loopback else f"--host {host} is reachable from other machines and "
        raise SettingError(
            f"{where}the store has no API key, so no caller could be let in. Make one first: "
            f"retailrec store key add NAME --store {store.name}"
        )
    return None


@store_app.command("init")
def init_store(store: StoreOption) -> None:
    """Make the store, or bring it up to date with this version."""
    with opened_store(store, init=True) as opened:
        OUT.print(f"store {escape(opened.name)} is ready", highlight=False)
        _say_who_reads(opened)


@store_app.command("load")
@of_receipts
def load_store(
    read: ReadOptions,
    dataset: DatasetArgument,
    path: Annotated[Path, typer.Argument(help="File or folder of the data set.")],
    store: StoreOption,
    users: Annotated[Path | None, typer.Option(help="Shoppers' attributes, by user_id.")] = None,
    model: KeptOption = None,
    quiet: QuietOption = False,
) -> None:
    """Load receipts into the store; what is there already counts once."""
    from dataclasses import replace

    from retailrec.data.files import read_table
    from retailrec.datasets import open_alike, open_dataset
    from retailrec.datasets.table import with_our_names

    with _extra():
        from retailrec.serving.loading import load_frames
        from retailrec.serving.store import Store
    with closing(Store(store)) as opened, console.progress(quiet) as progress:
        if opened.is_made():
            opened.init()  # of an older version
        elif opened.file is not None and not opened.file.exists():
            check_file(opened.file, inputs=[path])  # no right to write is said before anything is read
        progress(f"load {path}")
        reading = read.reading()
        kept = kept_reading(model)
        if kept and dataset in ("table", kept.get("dataset")):
            tables = open_alike(kept, path, reading)
        else:
            tables = open_dataset(dataset, path, reading)
        if users is not None:
            people = read_table(users, encoding=reading.encoding or kept.get("encoding"))
            people = with_our_names(people, reading.columns or kept.get("columns", {}))
            tables = replace(tables, users=people, user_columns=())
        stored = load_frames(opened, **vars(tables), progress=progress)
    report = tables.report
    console.print_load_report(report, quiet, None)
    if not quiet:
        part = f", {stored.completed:,} were there in part" if stored.completed else ""
        OUT.print(
            f"{stored.receipts:,} receipts with {stored.lines:,} lines; {stored.new:,} are new{part}"
        )
    if stored.forgotten or stored.undescribed:
        ERR.print(
            f"{stored.forgotten:,} receipts and {stored.undescribed:,} rows of attributes are of "
            f"shoppers who were forgotten, and were left out",
            highlight=False,
        )


_EXPORTED = tuple(
    f"{name}.parquet" for name in ("receipts", "shoppers", "exposures", "pools", "denied", "dismissals")
)


@store_app.command("export")
def export_store(
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    store: StoreOption,
    overwrite: OverwriteOption = False,
) -> None:
    """Write receipts, users, exposures, explored pools, denied and dismissed items to Parquet files."""
    with opened_store(store) as opened:
        from retailrec.serving.upkeep import (
            export,
            export_denials,
            export_dismissals,
            export_exposures,
            export_pools,
            export_shoppers,
        )
        from retailrec.work import check_folder, staged

        check_folder(out, _EXPORTED, inputs=[opened.file], overwrite=overwrite)
        with staged(out, _EXPORTED) as folder:
            receipts, shoppers, exposures, pooled, denied, dismissals = (folder / n for n in _EXPORTED)
            lines = export(opened, receipts)
            people = export_shoppers(opened, shoppers)
            shown = export_exposures(opened, exposures)
            pools = export_pools(opened, pooled)
            export_denials(opened).write_parquet(denied)
            export_dismissals(opened).write_parquet(dismissals)
    OUT.print(
        f"{lines:,} lines, {people:,} shoppers, {shown:,} exposures, {pools:,} rows of explored pools: "
        f"{out}"
    )


@store_app.command("recover")
def recover_exposures(
    file: Annotated[Path, typer.Argument(help="File that a service set rows aside in.")],
    store: StoreOption,
) -> None:
    """Write what a service showed and could not write; each row once, and then none is in the file."""
    with opened_store(store) as opened:
        from retailrec.serving.experiment import Aside

        if not file.is_file():
            raise SettingError(f"there is no file {file}; the service said where it set rows aside.")
        written, left_out, refused = Aside(file.parent).recover(opened, file)
    OUT.print(f"{written:,} rows are written, {left_out:,} of forgotten shoppers left out")
    if refused:
        raise DataError(
            f"{refused:,} rows were refused, and stay in {file}; those that a service left say why."
        )


@store_app.command("forget")
def forget_shopper(
    shopper: Annotated[str, typer.Argument(help="The shopper's id.")],
    store: StoreOption,
    aside: Annotated[
        Path | None, typer.Option(help="The --aside of the services on this store, if they have one.")
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(help="A list, export, ledger, report or folder to search as well; any number."),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Let the id be stored again; what was removed stays so.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Remove all that is known of a shopper, and keep it from coming in again by any way.

    A service that runs on the store forgets within two seconds. Status 3: something is left.
    """
    with opened_store(store) as opened:
        from retailrec.serving.experiment import Aside, aside_of
        from retailrec.serving.forgetting import (
            NOT_SEARCHED,
            forget_in_files,
            take_off_list,
            what_is_left,
        )
        from retailrec.serving.receipts import check_id

        shopper = check_id(shopper, "shopper")
        if undo:
            if also:
                raise SettingError("--undo brings nothing back into files; leave --also out.")
            if not take_off_list(opened, shopper):
                raise SettingError(f"shopper {shopper!a} is not on the list of forgotten ids.")
            OUT.print("the shopper's receipts are stored again from now on")
            return
        if missing := [path for path in also or () if not path.exists()]:
            raise DataError(f"--also {missing[0]}: there is no such file or folder. Check the path.")
        removed = opened.forget(shopper)
        files = Aside(aside or aside_of(opened))
        removed["exposures set aside"] = files.forget(lambda user: user == shopper)
        OUT.print(", ".join(f"{n:,} {table}" for table, n in removed.items()) + " removed")
        searched = forget_in_files(shopper, also or (), overwrite)
        opened.sweep(patience=opened.timeout)
        left, unfinished = what_is_left(opened), opened.unswept
    for one in searched:
        if one.removed:
            OUT.say(f"{one.removed:,} rows removed: {one.file}")
    if also:
        OUT.print(f"looked through {len(searched):,} files and models: {', '.join(map(str, also))}")
    left += [f"{one.file}: {one.left}" for one in searched if one.left]
    for what in left:
        ERR.say(f"left: {escape(what)}")
    for what in NOT_SEARCHED:
        ERR.say(f"not looked into: {escape(what)}")
    if unfinished or any(one.left for one in searched):
        raise typer.Exit(3)


@store_app.command("forgotten")
def forgotten_ids(
    file: Annotated[Path, typer.Argument(help="JSON file with the list: hashes, no ids.")],
    store: StoreOption,
    apply: Annotated[
        bool, typer.Option("--apply", help="Take the list from the file, and remove whom it names.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the list of forgotten ids to a file; with --apply, let a restored store keep to it."""
    with opened_store(store) as opened:
        from retailrec.serving.upkeep import apply_list, write_list

        if not apply:
            check_file(file, inputs=[opened.file], overwrite=overwrite)
            OUT.print(f"{write_list(opened, file, overwrite):,} forgotten ids: {file}", highlight=False)
            return
        applied = apply_list(opened, file)
    _print_applied(applied)


def _print_applied(applied: Any) -> None:
    gone = ", ".join(f"{n:,} {table}" for table, n in applied.removed.items())
    OUT.print(f"{applied.new:,} ids are new on the list; {gone} removed")


@store_app.command("backup")
def backup_store(
    out: Annotated[Path, typer.Argument(help="A new file; its checksum is put beside it.")],
    store: StoreOption,
) -> None:
    """Write one instant of an SQLite store to a file, while services use it."""
    with _extra():
        from retailrec.serving.store import Store
        from retailrec.serving.upkeep import back_up
    with closing(Store(store)) as opened:
        receipts = back_up(opened, out)
    OUT.say(f"{receipts:,} receipts: {out}")


@store_app.command("restore")
def restore_store(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    store: StoreOption,
    forgotten: Annotated[
        Path | None, typer.Option(help="List of forgotten ids, so that none of them comes back.")
    ] = None,
) -> None:
    """Make an SQLite store from a backup, where none is yet."""
    with _extra():
        from retailrec.serving.store import Store
        from retailrec.serving.upkeep import restore
    with closing(Store(store)) as opened:
        applied = restore(file, opened, forgotten)
        OUT.print(f"{opened.counts()['receipts']:,} receipts: {opened.name}", highlight=False)
    if applied is not None:
        _print_applied(applied)
        return
    ERR.print(
        "note: who was forgotten since the backup is back; before a service starts: "
        f"retailrec store forgotten forgotten.json --apply --store {escape(opened.name)}",
        highlight=False,
    )


@store_app.command("compact")
def compact_store(
    store: StoreOption,
    before: Annotated[
        datetime | None, typer.Option(help="Remove receipts and exposures older than this.")
    ] = None,
) -> None:
    """Remove what is old, and give the room back."""
    with opened_store(store) as opened:
        from retailrec.serving.upkeep import compact

        removed = compact(opened, before)
        left = opened.counts()
    OUT.print(", ".join(f"{n:,} {table}" for table, n in removed.items()) + " removed" * bool(removed))
    OUT.print(f"{left['receipts']:,} receipts and {left['exposures']:,} exposures are left")


@key_app.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    store: StoreOption,
    scopes: Annotated[str, typer.Option(help="Of read, write, admin; with commas between.")] = "read",
) -> None:
    """Make a key and print it, once: the store keeps its hash only."""
    with opened_store(store, init=True) as opened:
        from retailrec.serving.keys import make_key

        key = make_key(opened, name, scopes)
    OUT.say(key)


@key_app.command("list")
def list_keys(store: StoreOption) -> None:
    """List keys by id, name and scopes."""
    with opened_store(store) as opened:
        from retailrec.serving.keys import list_keys as listed

        for key in listed(opened):
            OUT.print(f"{key.id}  {escape(key.name)}  {' '.join(sorted(key.scopes))}", highlight=False)


@key_app.command("remove")
def remove_key(
    key: Annotated[str, typer.Argument(help="Its id, as 'list' shows it.")], store: StoreOption
) -> None:
    """Let a key count no more, within two seconds."""
    with opened_store(store) as opened:
        from retailrec.serving.keys import remove_key as removed

        if not removed(opened, key):
            raise SettingError(f"there is no key {key!a}; see: retailrec store key list")
    OUT.print("removed")


@contextmanager
def _extra() -> Iterator[None]:
    """Say what to install when the extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingError(
            f"this command needs the package {error.name}; pip install 'retailrec[serve]'."
        ) from error


def _say_who_reads(opened: Any) -> None:
    """Say that others of this machine can read a store that was made by an older version."""
    file = opened.file
    if file is not None and file.stat().st_mode & 0o077:
        ERR.print(
            f"note: other users of this machine can open {escape(str(file))}; if that is not meant: "
            f"chmod 600 {escape(str(file))}*",
            highlight=False,
        )


@contextmanager
def opened_store(url: str, init: bool = False) -> Iterator[Any]:
    """The store, made if `init` says so, and closed afterwards."""
    with _extra():
        from retailrec.serving.store import Store, open_store
    with closing(Store(url)) as store:
        if not init and store.file is not None and not store.file.is_file():
            raise DataError(f"there is no store {store.name}. Check --store.")
    store = Store(url).init() if init else open_store(url)
    try:
        yield store
    finally:
        store.close()
