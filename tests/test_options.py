"""What commands share: the same arguments and options, and modules of one's own that come first."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retailrec.cli.app import app
from retailrec.cli.options import DatasetOptions
from retailrec.errors import SettingError

LOADING = ("run", "match", "backtest", "check-leaks", "tune")


def parameters(command: str) -> list[str]:
    names = {
        c.name or c.callback.__name__.replace("_", "-"): c.callback
        for c in app.registered_commands
        if c.callback is not None
    }
    return list(inspect.signature(names[command]).parameters)


@pytest.mark.parametrize("command", LOADING)
def test_commands_that_load_a_data_set_take_the_same(command: str) -> None:
    shared = list(inspect.signature(DatasetOptions).parameters)
    taken = parameters(command)
    assert taken[:2] == ["dataset", "path"]
    assert set(shared) < set(taken)


WITH_PARTS_OF_ONES_OWN = (
    "run x y",
    "match x y",
    "backtest x y",
    "check-leaks x y",
    "tune x y --study s",
    "evaluate --recommendations r --truth t",
    "recommend --model m --history h --out o.csv",
    "allocate p c",
    "experiment plan r --effect 0.1",
    "experiment result l r --campaign c",
    "serve --model m",
)


@pytest.mark.parametrize("command", WITH_PARTS_OF_ONES_OWN)
def test_whatever_meets_parts_of_ones_own_imports_a_module_first(command: str) -> None:
    told = CliRunner().invoke(app, [*command.split(), "--import", "absent_module_of_nobody"])
    assert isinstance(told.exception, SettingError)
    assert "--import absent_module_of_nobody" in str(told.exception)


@pytest.mark.parametrize("name", ["k", "horizon_days", "seed", "threads"])
def test_a_default_that_help_tells_is_that_of_the_settings(name: str) -> None:
    from retailrec.jobs.settings import Settings

    (run,) = [
        c.callback for c in app.registered_commands if c.callback and c.callback.__name__ == "run"
    ]
    told = inspect.signature(run).parameters[name].annotation.__metadata__[0].help
    assert told.endswith(f"[{getattr(Settings(), name):g}]")


def test_an_option_of_several_commands_is_written_once() -> None:
    """Two options of one name and one help text are one `Annotated` of cli/options.py."""
    import typer

    told: dict[tuple[str, str], int] = {}
    of_a_dataset = inspect.signature(DatasetOptions).parameters  # written once in `DatasetOptions`
    apps = [app, *(group.typer_instance for group in app.registered_groups)]
    for command in (c for each in apps if each for c in each.registered_commands):
        assert command.callback is not None
        for parameter in inspect.signature(command.callback, eval_str=True).parameters.values():
            info = next(iter(getattr(parameter.annotation, "__metadata__", ())), None)
            if (
                command.callback.__name__.replace("_", "-") in LOADING
                and parameter.name in of_a_dataset
            ):
                continue
            if isinstance(info, typer.models.OptionInfo) and info.help:
                key = (parameter.name, info.help)
                assert told.setdefault(key, id(info)) == id(info), key


def test_a_module_of_ones_own_comes_before_the_settings_that_name_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_for_options.py").write_text(
        "from dataclasses import dataclass\n"
        "from retailrec.candidates import OwnPurchases\n"
        '@dataclass\nclass MineForOptions(OwnPurchases, type="mine_for_options"):\n    pass\n'
    )
    (tmp_path / "config.toml").write_text('[[sources]]\ntype = "mine_for_options"\n')
    wanted = ["match", "online-retail", "absent.csv", "--config", "config.toml"]
    without = CliRunner().invoke(app, wanted)
    assert isinstance(without.exception, SettingError)
    assert "no source 'mine_for_options'" in str(without.exception)
    found = CliRunner().invoke(app, [*wanted, "--import", "mine_for_options"])
    assert "absent.csv" in str(found.exception)  # the settings were understood; the data comes next
    from retailrec.components import forget

    forget(sys.modules.pop("mine_for_options").MineForOptions)


@pytest.mark.parametrize("text", ["raise ValueError('broken')", "import absent_module_of_nobody"])
def test_a_module_that_can_not_be_imported_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken_for_options.py").write_text(text + "\n")
    told = CliRunner().invoke(
        app, ["match", "online-retail", "x.csv", "--import", "broken_for_options"]
    )
    assert isinstance(told.exception, SettingError)
    assert "--import broken_for_options" in str(told.exception)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("run table r.parquet --engine spark --rejects r.csv", "--rejects is not there with --engine"),
        ("run table r.parquet --engine flink", "--engine must be local or spark"),
        ("run table r.parquet --master local", "belong to --engine spark"),
        ("run table r.parquet --engine spark --encoding cp1252", "--encoding is not there"),
        ("check-leaks table r.parquet --engine spark", "use --engine local"),
        (
            "recommend --model m --history h --out o --engine spark --safe-csv",
            "--safe-csv is not there",
        ),
    ],
)
def test_what_an_engine_does_not_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=sentence):
        CliRunner().invoke(app, command.split(), catch_exceptions=False)
    assert not list(tmp_path.iterdir())
