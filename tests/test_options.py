"""What commands share: the same arguments and options, and modules of one's own that come first."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retailrec.cli.app import app
from retailrec.cli.options import Wanted
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
    shared = list(inspect.signature(Wanted).parameters)
    taken = parameters(command)
    assert taken[:2] == ["dataset", "path"]
    assert set(shared) < set(taken)


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
