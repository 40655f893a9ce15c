"""Which tests must notice a mutation of `mutations.py`: those of its wing, the nearest first."""

from __future__ import annotations

_WHY = "tests/test_understanding.py::"
_REASONS = {
    "reasons_in_words": f"{_WHY}test_what_most_of_a_list_shares_gives_way_to_what_sets_an_item_apart",
    "_due": f"{_WHY}test_what_was_due_long_ago_has_lapsed",
    "_what_it_is": f"{_WHY}test_an_item_for_which_nothing_speaks_is_called_what_it_is",
    "_bestseller": f"{_WHY}test_a_bestseller_of_its_category_is_called_so",
}
# tests that know the wing, the quick and telling ones first
TESTS: dict[str, list[str]] = {
    "data": [
        "test_prefilters",
        "test_by_hand",
        "test_data",
        "test_coding",
        "test_recommender",
        "test_features",
        "test_contracts",
        "test_contracts_recommender",
    ],
    "features": ["test_feature_oracle", "test_features"],
    "candidates": [
        "test_by_hand",
        "test_popularity",
        "test_item_item",
        "test_own_formulas",
        "test_sources",
        "test_contracts",
        "test_contracts_recommender",
    ],
    "recommender": [
        "test_rules",
        "test_by_hand",
        "test_rankers",
        "test_recommender",
        "test_training",
        "test_contracts",
        "test_contracts_recommender",
        "tests/test_understanding.py::test_reasons_state_the_facts_of_the_receipts",
        *_REASONS.values(),
    ],
    "metrics": ["test_metrics", "test_uncertainty", "src/retailrec/metrics"],
}
# of a wing's tests, the one that knows a name (its beginning) best runs first
NEAREST: dict[str, str] = {
    "Popular": "test_popularity",
    "OwnPurchases": "test_own_formulas",
    "_usual_gap": "test_own_formulas",
    "Content": "test_own_formulas",
    "proposed_pairs": "test_own_formulas",
    "TifuKNN": "test_sources",
    "UPCF": "test_sources",
    "Prediction": "test_sources",
    "ALS": "test_sources",
    "Reciprocal": "test_sources",
    "score_pool": "test_sources",
    "conjugate_steps": "test_sources",
    "least_squares": "test_sources",
    "CandidateGenerator": "test_contracts",
    "RetailData": "test_data",
    "Histor": "test_data",
    "Fold": "test_data",
    "rolling": "test_data",
    "HorizonSplits": "test_data",
    "NextBasket": "test_data",
    "align": "test_recommender",
    "typed": "test_data",
    "parse": "test_data",
    "DAY_ONE": "test_data",
    "kept_lines": "test_data",
    "set_aside": "test_data",
    "LoadReport": "test_data",
    "_": "test_data",
    "build_log": "test_coding",
    "describe": "test_coding",
    "Label": "test_contracts_recommender",
    "candidate_frame": "test_training",
    "StageOne": "test_recommender",
    "window_rows": "test_training",
    "concatenate": "test_training",
    "Windows": "test_training",
    "preranker_rows": "test_training",
    "Sampling": "test_training",
    "Calibrator": "test_training",
    "CatBoost": "test_rankers",
    "LightGBM": "test_rankers",
    "Blend": "test_rankers",
    "BlendRanker.load": "test_contracts_recommender",
    "_standard": "test_rankers",
    "TwoStageRecommender": "test_recommender",
    "TwoStageRecommender._calibrated": "test_training",
    "TwoStageRecommender.training_frame": "test_training",
    "TwoStageRecommender._named": "test_contracts_recommender",
    **_REASONS,
    "reasons": "tests/test_understanding.py::test_reasons_state_the_facts_of_the_receipts",
    "_habit": "tests/test_understanding.py::test_reasons_state_the_facts_of_the_receipts",
    "_Partners": "tests/test_understanding.py::test_reasons_state_the_facts_of_the_receipts",
}


def files_of(wing: str, where: str = "") -> list[str]:
    """Test files of a wing, as paths in the repository; the one that knows `where` best comes first."""
    begins = [name for name in NEAREST if where.startswith(name) and NEAREST[name] in TESTS[wing]]
    first = [NEAREST[max(begins, key=len)]] if begins else []
    names = dict.fromkeys([*first, *TESTS[wing]])
    return [name if "/" in name else f"tests/{name}.py" for name in names]
