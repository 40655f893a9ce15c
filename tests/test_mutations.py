"""The list that `make mutants` tries fits the source and the tests as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from mutation_places import definitions, place_of  # noqa: E402
from mutation_tests import NEAREST, TESTS, files_of  # noqa: E402
from mutations import EQUIVALENT, MUTATIONS  # noqa: E402

PLACES = definitions(ROOT / "src" / "retailrec")


@pytest.mark.parametrize("wing", MUTATIONS)
def test_every_mutation_fits_the_source(wing: str) -> None:
    stale = []
    for mutation in MUTATIONS[wing]:
        try:
            place_of(mutation, PLACES)
        except LookupError as error:
            stale.append(str(error))
    assert not stale, "\n".join(stale)


def test_a_mutation_that_fits_no_longer_is_named() -> None:
    where, old, new = MUTATIONS["data"][0]
    for stale in ((where, f"{old} that nobody wrote", new), ("nowhere", old, new)):
        with pytest.raises(LookupError, match=f"'{stale[0]}'.*Bring tools/mutations.py up to date"):
            place_of(stale, PLACES)


def test_mutations_that_count_as_neither_are_tried_too() -> None:
    assert set(EQUIVALENT) <= {mutation for wing in MUTATIONS.values() for mutation in wing}


def test_every_wing_names_tests_that_are_there() -> None:
    assert set(TESTS) == set(MUTATIONS)
    for wing in TESTS:
        for name in files_of(wing):
            file, _, test = name.partition("::")
            assert (ROOT / file).exists(), name
            assert not test or f"def {test}(" in (ROOT / file).read_text(), name
    assert set(NEAREST.values()) <= {name for names in TESTS.values() for name in names}
