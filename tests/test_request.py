"""A request has one definition; whatever else takes its settings is a thin adapter, known by name."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.data.splits import HorizonSplits
from retailrec.errors import DataError, SettingError
from retailrec.recommender.among import Among
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data
from serving_support import small_model

FIELDS = {f.name for f in fields(Request)}
SOURCE = Path(__file__).parents[1] / "src" / "retailrec"
ADAPTERS = {
    "recommender/request.py Request": "the definition",
    "cli/app.py run": "settings of a file that the command may say",
    "jobs/settings.py Settings": "k and slots of a settings file",
    "serving/messages.py offer_request": "rules and ids of a body or a query, as JSON has them",
    "serving/pages/__init__.py _named": "what a form of the page names",
    "recommender/two_stage.py TwoStageRecommender.recommend_codes": "arrays, for evaluation",
    "jobs/run.py _judged": "models judged by a purpose",
    "jobs/run.py single_sources": "models judged by a purpose",
    "recommender/answerer.py _filled": "rules bound to a catalogue",
    "recommender/rules.py BoundRules": "rules and store of a request, in the codes of a catalogue",
    "recommender/answers.py AnswerReport": "what came of it: what rules and eligible items did",
    "recommender/answers.py Answer": "what came of it: purposes and reasons of the items listed",
    "serving/engine.py Offer": "what came of it, for one item",
    "serving/messages.py OfferOut": "what came of it, as JSON",
    "serving/engine.py Reply": "what came of it: kind of list, and the pool of an explored one",
    "serving/messages.py AnswerOut": "the same, as JSON",
    "serving/engine.py OfferRequest.in_arm": "what an arm of an experiment changes of it",
    "serving/experiment.py Arm": "what an arm of an experiment changes of it",
    "serving/experiment.py Assignment": "what an arm of an experiment changes of it",
    "offers/campaign.py Campaign": "a campaign's own exploration, which exchanges offers",
    "offers/exploration.py explore": "anybody's scores",
}


def signatures() -> dict[str, set[str]]:
    """Function or class -> fields of a request among its parameters, or its annotated attributes."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        place = file.relative_to(SOURCE).as_posix()

        def look(node: ast.AST, within: str, place: str = place) -> None:
            for child in ast.iter_child_nodes(node):
                name = within
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    name = f"{within}.{child.name}" if within else child.name
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    every = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
                    found[f"{place} {name}"] = {a.arg for a in every} & FIELDS
                elif isinstance(child, ast.ClassDef):
                    named = [s.target for s in child.body if isinstance(s, ast.AnnAssign)]
                    found[f"{place} {name}"] = {t.id for t in named if isinstance(t, ast.Name)} & FIELDS
                look(child, name)

        look(ast.parse(file.read_text()), "")
    return found


def test_settings_of_a_request_are_carried_by_it_alone() -> None:
    several = {name for name, taken in signatures().items() if len(taken) > 1}
    assert several - set(ADAPTERS) == set()
    assert set(ADAPTERS) <= several  # none is allowed that is not there


def test_requests_are_the_same_however_they_are_said(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text("min_new = 2\n")
    pl.DataFrame({"item_id": [3, 1]}).write_csv(tmp_path / "among.csv")
    plain = {
        "k": 4,
        "purpose": "mixed",
        "slots": None,
        "rules": tmp_path / "rules.toml",
        "among": [tmp_path / "among.csv"],
        "reasons": True,
        "at": "2024-01-31",
    }
    said, read = Request(rules=Rules(min_new=2), k=4, reasons=True), Request.read(plain)
    assert (read.rules, read.k, read.reasons) == (said.rules, said.k, said.reasons)
    assert isinstance(read.among, Among)
    assert read.fingerprint() == Request.read(plain).fingerprint()
    same = Request(k=np.int64(4), explore=0.5, pool=8), Request(k=4, explore=np.float32(0.5), pool=8)
    assert same[0].fingerprint() == same[1].fingerprint() == {"k": "4", "explore": "0.5", "pool": "8"}
    whole, real = (Request(rules=Rules(price_floor=money)) for money in (2, 2.0))
    assert whole.fingerprint() == real.fingerprint()
    assert set(read.fingerprint()) == {"k", "rules", "among", "reasons", "at"}
    assert Request(slots={"replenish": 0, "discover": 2}) == Request(k=2, purpose="discover")
    assert Request.of(3, purpose="replenish") == Request(k=3, purpose="replenish")
    assert Request.of(said) is said


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"purpose": "new"}, "no purpose 'new'; expected mixed, replenish, discover"),
        ({"slots": {"replenish": -1}}, "replenish must be a whole number"),
        ({"rules": 7}, "rules must be Rules"),
        ({"rules": {"min_new": -1}}, "min_new must be at least 0"),
        ({"reason": True}, "no setting 'reason'; expected k, purpose"),
        ({"request": Request(), "k": 3}, "k came beside a request"),
    ],
)
def test_what_makes_no_sense_is_refused_once(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        Request.of(**settings)


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    return small_model().fit(small_data(users=60, weeks=30, items=200))


def test_receipts_come_first(model: TwoStageRecommender) -> None:
    for ask in (lambda: model.recommend([1, 2]), lambda: model.recommend(users=[1, 2])):
        with pytest.raises(DataError, match=r"recommend\(receipts, users=\[1, 2\]\)"):
            ask()
    history = small_data(users=60, weeks=30, items=200).history(codes=[0])
    with pytest.raises(DataError, match="at is a time of a RetailData"):
        model.recommend(history, at="2000-05-01")


def test_as_of_a_time_nothing_later_is_known(model: TwoStageRecommender) -> None:
    data = small_data(users=60, weeks=30, items=200)
    at = data.end.replace(day=20)
    assert model.recommend(data, k=4, at=at).equals(model.recommend(data.asof(at), k=4))
    assert not model.recommend(data, k=4, at=at).equals(model.recommend(data, k=4))
    with pytest.raises(DataError, match="what comes then is not known"):
        model.recommend(data, at="2030-01-01")


@pytest.mark.parametrize("ids", [["x"], ["1", "x"], ["x", "0001"], ["1", "2"], [1.5], [1, 99_999]])
@pytest.mark.parametrize("deny", [False, True])
def test_who_is_asked_for_comes_back_by_the_id_asked_for(
    model: TwoStageRecommender, ids: list[Any], deny: bool
) -> None:
    """An id of other type than the receipts' is unknown as any other: 0001 is not shopper 1."""
    data = small_data(users=60)
    rules = Rules(deny=pl.DataFrame({"user_id": [1], "item_id": [1]})) if deny else None
    shown = model.recommend(data, users=ids, k=2, rules=rules)
    own = model.recommend(data, users=[1], k=2, rules=rules)["item_id"].to_list()
    popular = model.recommend(data, users=[99_999], k=2, rules=rules)["item_id"].to_list()
    for id in ids:
        mine = shown.filter(pl.col("user_id").cast(pl.String) == str(id))["item_id"].to_list()
        known = str(id) in ("1", "2")
        assert (mine == popular) is not known
        assert (mine == own) is (str(id) == "1")
    assert shown.height == 2 * len(ids)


def test_with_margins_a_probability_is_still_that_of_a_purchase() -> None:
    """A list ordered by money tells the chance that the plain list tells of the same item."""
    data = small_data(users=60, weeks=40, items=200)
    model = small_model(calibrate=True)
    model.label_splits = HorizonSplits(28, 2)
    model.fit(data)
    margin = data.items.select("item_id", margin=pl.lit(0.25))
    plain = model.recommend(data, k=200).select("user_id", "item_id", "probability")
    money = model.recommend(data, k=3, rules=Rules(margin=margin))
    both = money.join(plain, on=["user_id", "item_id"])
    assert both.height == money.height
    assert both["probability"].equals(both["probability_right"], check_names=False)


@pytest.mark.parametrize(
    "asked", [{"k": 10**20}, {"k": 100_001}, {"k": 5, "pool": 10**9}, {"slots": {"mixed": 10**6}}]
)
def test_a_list_without_end_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="may be 100,000 at most"):
        Request(**asked)


def test_frames_of_a_request_may_be_of_any_library() -> None:
    pairs = pl.DataFrame({"user_id": [1, 2], "item_id": [7, 8]})
    items = pairs.select("item_id")
    frames = {
        "available": items,
        "deny": pairs,
        "margin": items.with_columns(margin=pl.lit(1.5)),
    }
    lists: dict[str, Any] = {"dismissals": pairs, "previous": pairs}
    polars = Request(k=1, rules=Rules(**frames), **lists, steady=1.0)
    pandas = Request(
        k=1,
        rules=Rules(**{name: frame.to_pandas() for name, frame in frames.items()}),
        **{name: frame.to_pandas() for name, frame in lists.items()},
        steady=1.0,
    )
    assert pandas.fingerprint() == polars.fingerprint()
    for name in frames:
        with pytest.raises(DataError, match=f"rules: {name} must be a data frame"):
            Rules(**{name: [7]})
    for name in lists:
        with pytest.raises(DataError, match="must be a data frame"):
            Request(**{name: [7]}, steady=1.0 if name == "previous" else 0.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"k": 5, "slots": {"discover": 4}}, "slots say k too: 4, and k is 5"),
        (
            {"purpose": "discover", "slots": {"discover": 1, "mixed": 1}},
            "slots say purpose too: 'mixed'",
        ),
    ],
)
def test_slots_beside_another_length_or_purpose_are_refused(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        Request(**settings)
    again = {"k": 4, "purpose": "discover", "slots": {"discover": 4}}
    assert Request(**again) == Request(slots={"discover": 4})  # type: ignore[arg-type]


def test_a_store_without_a_rule_by_store_is_refused(model: TwoStageRecommender) -> None:
    with pytest.raises(SettingError, match="--in-store north needs --rules"):
        model.recommend(small_data(users=40), k=2, in_store="north")


def test_a_rule_that_there_is_not_is_refused_in_a_table_too() -> None:
    with pytest.raises(SettingError, match="there is no rule 'min_old'"):
        Request(rules={"min_old": 1})  # type: ignore[arg-type]
