"""What a search's trial tries, in words."""

from hmtl_ablate.running.naming import tried_text
from hmtl_ablate.study import load_study


def test_values_in_place_of_a_hash() -> None:
    space = {
        "pretext.puzzling.weight": {"loguniform": [0.1, 10.0]},
        "pretext.puzzling.feed": {"choice": ["shared", "mixed"]},
        "pretext.puzzling.share": {"uniform": [0.1, 0.9], "when": {"pretext.puzzling.feed": "mixed"}},
    }
    search = load_study(
        {
            "name": "s",
            "search": {
                "base": {"pretext": {"puzzling": {}}},
                "space": space,
                "trials": 2,
                "racing": None,
                "objective": {"val/accuracy": "max"},
            },
        }
    ).search
    assert search is not None
    weight = {"pretext.puzzling.weight": 1.9432}
    shared = search.resolve({**weight, "pretext.puzzling.feed": "shared"}, 3)
    mixed = search.resolve({**weight, "pretext.puzzling.feed": "mixed", "pretext.puzzling.share": 0.25}, 3)
    assert tried_text(search, shared) == "weight 1.9, feed shared"
    assert tried_text(search, mixed) == "weight 1.9, feed mixed, share 0.25"
