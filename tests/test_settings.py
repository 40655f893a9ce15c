"""Settings take their defaults and bounds from the parts that they describe."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from retailrec.data.splits import HorizonSplits
from retailrec.errors import SettingError
from retailrec.features.assemble import FeatureSet
from retailrec.jobs.settings import FEATURES, LABELS, MODEL, PARTS, Settings, read_settings
from retailrec.offers.campaign import read_campaign
from retailrec.recommender.rules import read_rules
from retailrec.recommender.two_stage import TwoStageRecommender

NAMED_OTHERWISE = {"label_splits": "horizon_days", "features": "drop_features", "preranker": "prerank"}


def settings_of(text: str, folder: Path) -> Settings:
    (folder / "config.toml").write_text(text)
    return read_settings(folder / "config.toml")


def test_the_default_settings_make_the_default_recommender() -> None:
    ours, plain = Settings().model(), TwoStageRecommender()
    for f in fields(TwoStageRecommender):
        if f.init:
            assert repr(getattr(ours, f.name)) == repr(getattr(plain, f.name)), f.name


def test_every_constructor_field_is_a_setting() -> None:
    for f in fields(TwoStageRecommender):
        if f.init:
            assert NAMED_OTHERWISE.get(f.name, f.name) in Settings.model_fields, f.name
    assert set(PARTS).isdisjoint(MODEL)
    assert set(LABELS.values()) == {f.name for f in fields(HorizonSplits)}
    assert set(FEATURES.values()) == {f.name for f in fields(FeatureSet) if f.init}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("early_stopping = true", "early_stopping", True),
        ("max_users = 7", "max_users", 7),
        ("n_candidates = [5, 6, 7, 8, 9, 10]", "n_candidates", [5, 6, 7, 8, 9, 10]),
        ('refit = "once"', "refit", "once"),
    ],
)
def test_a_setting_in_a_file_reaches_the_recommender(
    text: str, name: str, value: object, tmp_path: Path
) -> None:
    assert getattr(settings_of(text, tmp_path).model(), name) == value


def test_settings_of_parts_reach_them(tmp_path: Path) -> None:
    model = settings_of(
        'label_windows = 2\nleast_history = 0.3\ndrop_features = ["match"]', tmp_path
    ).model()
    assert model.label_splits == HorizonSplits(n=2, least_history=0.3)
    assert list(model.features.drop) == ["match"]


@pytest.mark.parametrize(
    "text",
    [
        "negatives = 0",
        "idle_users = 1.1",
        "max_users = 0",
        "threads = 2000",
        "label_windows = 0",
        "horizon_days = inf",
        "seed = -1",
        'refit = "never"',
        "early_stopping = 3",
        "unknown = 1",
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=text.split()[0]):
        settings_of(text, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is no valid TOML"),
        (b"k = " + b"[" * 100_000, "is no valid TOML"),
        (b"k = 1\n" * 3_000_000, "18,000,000 bytes"),
    ],
    ids=["no text", "too deep", "too large"],
)
def test_a_file_of_settings_that_is_none_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "s.toml").write_bytes(content)
    for read in (read_settings, read_rules, read_campaign):
        with pytest.raises(SettingError, match=message):
            read(tmp_path / "s.toml")


def test_a_path_of_settings_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path, message in (
        (tmp_path / "pipe.toml", "a device or pipe"),
        (Path("/dev/zero"), "a device or pipe"),
        (tmp_path, "a folder"),
        (tmp_path / ("x" * 5_000), "too long"),
        (tmp_path / "a\0b", "null (byte|character)"),
    ):
        with pytest.raises(SettingError, match=message) as found:
            read_settings(path)
        assert len(str(found.value)) < 400


def test_a_mark_that_notepad_writes_is_no_part_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbfk = 7\n")
    assert read_settings(tmp_path / "s.toml").k == 7
