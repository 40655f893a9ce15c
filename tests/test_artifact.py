"""An artifact is inert, checked, and whole or not there."""

from __future__ import annotations

import json
import os
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
    """Change the manifest as a forger would, who gives the data folder the name that fits."""
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    if not changes.keys() & {"data"}:
        old, manifest["data"] = (
            manifest["data"],
            artifact._data_name(manifest["files"], manifest["model"]),
        )
        (saved / old).rename(saved / manifest["data"])
    path.write_text(json.dumps(manifest))


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
    with pytest.raises(ArtifactError, match="no folder of a saved model"):
        load_artifact(saved.parent / "none", TYPES)


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
    manifest["files"][file.name]["sha256"] = artifact.sha256(file)
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

    steps = ("numpy.save", OSError), ("json.dumps", OSError), ("numpy.save", pl.exceptions.ComputeError)
    for broken, error in steps:  # the last as Polars calls it

        def fail(*_: object, kind: type[Exception] = error, **__: object) -> None:
            raise kind("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(broken, fail)
            with pytest.raises(ArtifactError, match="disk full"):
                save_artifact(Popularity(days=3).fit(data), saved)
        np.testing.assert_array_equal(load_artifact(saved, TYPES).share_, before)
        assert not list(saved.glob(".partial-*"))
    save_artifact(Popularity(days=3).fit(data), saved)
    assert load_artifact(saved, TYPES).days == 3
    assert len(list(saved.glob("data-*"))) == 1


def test_an_altered_setting_is_refused(saved: Path) -> None:
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["model"]["settings"]["days"] = 3
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="was altered: its settings"):
        load_artifact(saved, TYPES)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "9" * 5_000, "[]", "null", '{"format": "retailrec-model"}']
    + [
        json.dumps({"format": "retailrec-model", "data": "data-" + "0" * 16, "model": {}} | more)
        for more in (
            {"format_version": 1e308, "files": {}},
            {"format_version": True, "files": {}},
            {"format_version": -1, "files": {}},
            {"format_version": 2, "files": {"a": 1}},
            {"format_version": 2, "files": {}, "data": 7},
            {"format_version": 2, "files": {}, "model": []},
        )
    ],
)
def test_a_manifest_of_wrong_types_is_damaged(saved: Path, text: str) -> None:
    (saved / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match="damaged or no manifest"):
        load_artifact(saved, TYPES)


def resign(saved: Path, file: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"][file.name]["sha256"] = artifact.sha256(file)
    edit(saved, files=manifest["files"])


def test_an_array_that_promises_more_than_it_holds_is_refused(saved: Path) -> None:
    file = data_folder(saved) / "model.share_.npy"
    with open(file, "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
    resign(saved, file)
    with pytest.raises(ArtifactError, match="expected an array of numbers"):
        load_artifact(saved, TYPES)


@pytest.mark.parametrize(
    ("part", "values"), [("indices", [0, 9]), ("indices", [0, -1]), ("indptr", [0, 2, 1, 2])]
)
def test_a_sparse_matrix_out_of_bounds_is_refused(tmp_path: Path, part: str, values: list[int]) -> None:
    from dataclasses import dataclass

    from scipy import sparse

    @dataclass
    class Thing:
        n: int = 1

    thing = Thing()
    thing.matrix_ = sparse.csr_matrix(np.array([[1, 0], [0, 2], [0, 0]], np.float32))  # type: ignore[attr-defined]
    save_artifact(thing, tmp_path / "t", {"Thing": Thing})
    file = data_folder(tmp_path / "t") / f"model.matrix_.{part}.npy"
    np.save(file, np.array(values, np.int32))
    resign(tmp_path / "t", file)
    with pytest.raises(ArtifactError, match="can't be loaded"):
        load_artifact(tmp_path / "t", {"Thing": Thing})


def test_the_files_of_a_model_follow_the_umask(data: RetailData, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_artifact(Popularity().fit(data), tmp_path / "model")
    finally:
        os.umask(before)
    assert data_folder(tmp_path / "model").stat().st_mode & 0o777 == 0o755


def test_what_a_killed_save_left_is_cleared_by_the_next(saved: Path, data: RetailData) -> None:
    left = saved / f".partial-{'0' * 16}"
    left.mkdir()
    (left / "model.share_.npy").write_bytes(b"half")
    save_artifact(Popularity(days=3).fit(data), saved)
    assert sorted(p.name[:5] for p in saved.iterdir()) == ["data-", "manif"]


def test_loading_goes_on_where_another_process_saves_meanwhile(
    saved: Path, data: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, calls = artifact._check_files, []

    def save_first(*given: object) -> None:
        if not calls:
            calls.append(1)
            save_artifact(Popularity(days=3).fit(data), saved)
        check(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(artifact, "_check_files", save_first)
    assert load_artifact(saved, TYPES).days == 3


def test_a_foreign_manifest_and_a_link_are_not_overwritten(tmp_path: Path, data: RetailData) -> None:
    foreign = tmp_path / "app"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"name": "my app"}')
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for place in (foreign, tmp_path / "link"):
        with pytest.raises(ArtifactError, match="will not be overwritten"):
            save_artifact(Popularity().fit(data), place)
    assert (foreign / "manifest.json").read_text() == '{"name": "my app"}'


def test_a_linked_folder_of_parts_is_refused(saved: Path, tmp_path: Path) -> None:
    (parts,) = (p for p in saved.iterdir() if p.is_dir())
    parts.rename(tmp_path / "elsewhere")
    parts.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ArtifactError, match="is a link; copy the artifact itself here"):
        load_artifact(saved, TYPES)


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
