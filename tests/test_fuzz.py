"""A short run of `make fuzz`, and the fuzzer itself: it finds what it is there to find."""

from __future__ import annotations

import pytest

import fuzzing


def test_mutated_inputs_are_read_whole_or_refused_in_words() -> None:
    for seed in range(60):
        kind, outcome, message = fuzzing.one(seed)
        assert outcome in ("read", "refused"), f"seed {seed} ({kind}): {message}"
        assert outcome == "read" or len(message) > 20


def test_the_fuzzer_sees_a_lost_line(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fuzzing.load_dataset

    def careless(name: str, path: object) -> object:
        data = whole(name, path)  # type: ignore[arg-type]
        data.report.read -= 1
        return data

    monkeypatch.setattr(fuzzing, "load_dataset", careless)
    assert any(fuzzing.one(seed)[1] == "failed" for seed in range(5))
