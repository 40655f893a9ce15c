"""An artifact is inert, checked, and whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import GENERATORS, Popularity
from retailrec.data import RetailData
from retailrec.errors import ArtifactError
from retailrec.recommender import artifact
from retailrec.recommender.artifact import load_artifact, save_artifact

TYPES = {g.__name__: g for g in GENERATORS.values()}


@pytest.fixture
def saved(data: RetailData, tmp_path: Path) -> Path:
    save_artifact(Popularity().fit(data), tmp_path / "model")
    return tmp_path / "model"


def data_folder(folder: Path) -> Path:
    return next(folder.glob("data-*"))


def test_there_is_no_pickle(saved: Path) -> None:
    for file in data_folder(saved).iterdir():
        assert file.suffix in (".npy", ".parquet", ".cbm", ".txt")
    text = "".join(p.read_text() for p in (Path(artifact.__file__).parents[0]).rglob("*.py"))
    assert "import pickle" not in text
    assert "allow_pickle=True" not in text
    assert "joblib" not in text


def test_an_altered_file_is_refused(saved: Path) -> None:
    file = data_folder(saved) / "model.share_.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load_artifact(saved, TYPES)


def test_a_truncated_a_missing_and_an_added_file_are_refused(saved: Path) -> None:
    file = data_folder(saved) / "model.share_.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load_artifact(saved, TYPES)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"lacks model\.share_\.npy"):
        load_artifact(saved, TYPES)
    file.write_bytes(whole)
    (data_folder(saved) / "extra.npy").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="does not name"):
        load_artifact(saved, TYPES)


def edit(saved: Path, **changes: object) -> None:
    path = saved / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_newer_and_a_foreign_format_are_refused(saved: Path) -> None:
    edit(saved, format_version=99)
    with pytest.raises(ArtifactError, match="Update retailrec"):
        load_artifact(saved, TYPES)
    edit(saved, format="something else")
    with pytest.raises(ArtifactError, match="damaged or no manifest"):
        load_artifact(saved, TYPES)
    (saved / "manifest.json").write_bytes(b"\x00\xff")
    with pytest.raises(ArtifactError, match="damaged or no manifest"):
        load_artifact(saved, TYPES)
    with pytest.raises(ArtifactError, match="holds no saved model"):
        load_artifact(saved.parent, TYPES)


@pytest.mark.parametrize("name", ["../../secret.npy", "/etc/passwd", "a/../../b.npy"])
def test_a_file_outside_can_not_be_named(saved: Path, name: str) -> None:
    edit(saved, files={name: {"sha256": "0"}})
    with pytest.raises(ArtifactError, match="no plain name"):
        load_artifact(saved, TYPES)
    edit(saved, data=f"../{name}")
    with pytest.raises(ArtifactError, match="damaged or no manifest"):
        load_artifact(saved, TYPES)


def test_an_array_of_objects_is_not_unpickled(saved: Path) -> None:
    """Even with a right checksum, a pickled array is refused."""
    file = data_folder(saved) / "model.share_.npy"
    np.save(file, np.array([{"a": 1}], object), allow_pickle=True)
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"][file.name]["sha256"] = artifact._sha256(file)
    edit(saved, files=manifest["files"])
    with pytest.raises(ArtifactError, match="can't be loaded"):
        load_artifact(saved, TYPES)


def test_unknown_types_and_states_are_refused(saved: Path) -> None:
    model = json.loads((saved / "manifest.json").read_text())["model"]
    edit(saved, model=model | {"type": "os.system"})
    with pytest.raises(ArtifactError, match="not known here"):
        load_artifact(saved, TYPES)
    edit(saved, model=model | {"state": {"__class__": 1}})
    with pytest.raises(ArtifactError, match="no fitted attribute"):
        load_artifact(saved, TYPES)


def test_an_interrupted_save_leaves_the_old_model_whole(
    saved: Path, data: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_artifact(saved, TYPES).share_

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    for broken in ("numpy.save", "json.dumps"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, fail)
            with pytest.raises(ArtifactError, match="disk full"):
                save_artifact(Popularity(days=3).fit(data), saved)
        np.testing.assert_array_equal(load_artifact(saved, TYPES).share_, before)
        assert not list(saved.glob(".partial-*"))
    save_artifact(Popularity(days=3).fit(data), saved)
    assert load_artifact(saved, TYPES).days == 3
    assert len(list(saved.glob("data-*"))) == 1


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, data: RetailData) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="will not be overwritten"):
        save_artifact(Popularity().fit(data), tmp_path)


def test_frames_and_times_come_back(tmp_path: Path) -> None:
    from dataclasses import dataclass
    from datetime import datetime

    @dataclass
    class Thing:
        n: int = 1

    thing = Thing()
    thing.frame_, thing.when_ = pl.DataFrame({"a": ["x", None]}), datetime(2024, 1, 2, 3)  # type: ignore[attr-defined]
    save_artifact(thing, tmp_path / "t", {"Thing": Thing})
    back = load_artifact(tmp_path / "t", {"Thing": Thing})
    assert back.frame_.equals(thing.frame_)  # type: ignore[attr-defined]
    assert back.when_ == thing.when_  # type: ignore[attr-defined]
