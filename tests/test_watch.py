"""What is watched: thresholds from past weeks, alarms, and figures of a published week by other means."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from retailrec.errors import DataError
from retailrec.jobs.watch import (
    FALSE_ALARM,
    LEAST_PAST,
    MEASURES,
    alarms_of,
    bounds,
    history_of,
    stability_index,
)
from retailrec.report.week_page import render_watch


def quiet(n: int, rng: np.random.Generator, days: int = 7) -> list[dict[str, Any]]:
    """Weeks whose figures are drawn around the same middle, a tenth of it apart."""
    return [
        {
            "days": days,
            "values": {
                name: float(np.exp(rng.normal(np.log(0.3), 0.1)) if m.least[1] < 0.05 else 0.0)
                for name, m in MEASURES.items()
            },
        }
        for _ in range(n)
    ]


def test_quiet_weeks_alarm_as_seldom_as_is_stated() -> None:
    rng = np.random.default_rng(1)
    weeks = [alarms_of(quiet(20, rng), 19) for _ in range(400)]
    assert sum(bool(alarms) for alarms in weeks) / len(weeks) <= 1.5 * FALSE_ALARM


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_alarms_on_its_side_alone(name: str) -> None:
    rows = quiet(20, np.random.default_rng(2))
    row, side = rows[-1], MEASURES[name].side
    for value, on in ((0.01, "low"), (2.0, "high")):
        row["values"][name] = value
        found = [alarm for alarm in alarms_of(rows, 19) if alarm.measure == name]
        assert bool(found) == (side in (on, "both"))
        for alarm in found:
            assert MEASURES[name].meaning in alarm.message
            assert alarm.look == MEASURES[name].look


def test_few_weeks_and_weeks_of_other_length_teach_nothing() -> None:
    rng = np.random.default_rng(3)
    rows = quiet(LEAST_PAST - 1, rng)
    assert bounds(rows, "ratio", 7) is None
    assert bounds(rows + quiet(1, rng), "ratio", 7) is not None
    assert bounds(rows + quiet(1, rng, days=6), "ratio", 7) is None
    assert bounds(quiet(20, rng), "ratio", 6) is None


def test_a_share_that_was_always_nothing_may_grow_a_little() -> None:
    rows = [{"days": 7, "values": {"fallback": 0.0}} for _ in range(12)]
    low, high = bounds(rows, "fallback", 7) or (None, None)
    assert low is None
    assert high == pytest.approx(MEASURES["fallback"].least[1], rel=0.5)


@pytest.mark.parametrize("name", ["precision", "ratio", "pool_recall", "calibration", "coverage"])
def test_nothing_is_usual_where_past_weeks_had_nothing(name: str) -> None:
    """A small shop has weeks in which no listed item was bought; the next one is none to look at."""
    rows = [{"days": 7, "values": {name: 0.0 if n % 3 == 0 else 0.02}} for n in range(13)]
    assert alarms_of(rows, 12) == []
    rows[12]["values"][name] = 0.0
    always = [row | {"values": {name: 0.02}} for row in rows[:12]]
    assert [alarm.measure for alarm in alarms_of([*always, rows[12]], 12)] == [name]


def test_the_stability_index_by_hand() -> None:
    """Halves of 0 and 1 become a fourth and three fourths."""
    then, now = np.array([0.0, 1.0] * 2), np.array([0.0, 1.0, 1.0, 1.0])
    by_hand = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.75 - 0.5) * np.log(0.75 / 0.5)
    assert stability_index(then, now) == pytest.approx(by_hand)
    gone = np.array([np.nan] * 4)
    assert stability_index(then, gone) > 1
    assert stability_index(gone, gone) == 0


def test_a_page_shows_alarms_and_escapes_what_comes_from_data() -> None:
    rows = quiet(12, np.random.default_rng(4))
    rows[-1]["values"]["ratio"] = 0.05
    weeks = [
        row
        | {
            "end": f"2024-01-{n + 1:02}",
            "usual": {name: bounds(rows[:n], name, 7) for name in MEASURES},
            "alarms": [alarm.measure for alarm in alarms_of(rows, n)],
        }
        for n, row in enumerate(rows)
    ]
    page = render_watch(
        {
            "week": "2024-01-12-aaaaaaaa",
            "alarms": [alarm._asdict() for alarm in alarms_of(rows, 11)],
            "findings": [{"severity": "warn", "name": "late_lines", "message": "<script>1</script>"}],
            "ages": {"data_days": None, "model_days": 7.0},
            "drift": [{"column": "<b>", "index": 0.1, "effect": -0.2, "then": None, "now": 1.0}],
            "weeks": weeks,
            "measures": {n: {"meaning": m.meaning, "percent": m.percent} for n, m in MEASURES.items()},
            "false_alarm": FALSE_ALARM,
            "least_past": LEAST_PAST,
        }
    )
    assert "Ratio is 0.050, usual is at least" in page
    assert "Look first at drift by column" in page
    assert "<script>1" not in page
    assert "<b></td>" not in page
    assert page.count("<figure>") == len(MEASURES)


@pytest.mark.parametrize(
    "values", [{"ratio": "2"}, {"ratio": {}}, ["ratio"], None, {"ratio": 1e400}, {"ratio": 10**400}]
)
def test_a_damaged_history_is_said_and_takes_no_other_measure_away(
    values: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("fastapi")
    from retailrec.serving.service import Measures, WeekFigures

    rows = [{"name": "w", "end": "", "days": 7, "values": values, "drift": []}] * 9
    (tmp_path / "watch.json").write_text(json.dumps({"weeks": rows}))
    with pytest.raises(DataError, match="roll back to another week"):
        history_of(tmp_path)
    measures = Measures()
    measures.registry.register(WeekFigures(SimpleNamespace(week=tmp_path)))  # type: ignore[arg-type]
    measures.took("/health/live", "GET", 200, 0.1)
    assert b'status="200"} 1.0' in measures.text()
    assert "roll back to another week" in caplog.text
