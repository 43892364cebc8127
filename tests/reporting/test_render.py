import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hmtl_ablate.reporting.choosing import ReportOptions
from hmtl_ablate.reporting.formats import DATA_FORMATS, format_names
from hmtl_ablate.reporting.render import Report, build_report, render
from hmtl_ablate.reporting.results import load_results
from tests.reporting.example import NASTY  # type: ignore[import-not-found]

CLAIM_KEYS = [
    "paper",
    "dataset",
    "model",
    "metric",
    "unit",
    "claimed",
    "verified",
    "sd",
    "n_seeds",
    "status",
    "protocol",
]
STUDY_KEYS = [
    "name",
    "profile",
    "evaluation",
    "data",
    "metric",
    "protocol",
    "question",
    "answers",
    "notes",
    "made",
    "plan",
    "controls",
    "comparisons",
    "decisions",
    "designs",
    "rows",
]
ROW_KEYS = [
    "variant",
    "n_seeds",
    "mean",
    "sd",
    "mean_ci95_low",
    "mean_ci95_high",
    "difference",
    "ci95_low",
    "ci95_high",
    "sequential_low",
    "sequential_high",
    "image_passes",
    "seconds",
    "values",
]
BY_HAND = ["SL, 2 views", "3", "72.00 ± 1.01", "+0.73 [−0.21, +1.67]", "1,234,567", "12.3"]


@pytest.fixture
def filled(store: Any) -> Report:
    variants = {"SL": "a", "SL, 2 views": "b", "SL + puzzling": "c"}
    parent = store.study(variants, [0, 1, 2], question="Does puzzling beat SL alone?")
    for variant, scores in {
        "SL": (0.701, 0.722, 0.715),
        "SL, 2 views": (0.711, 0.731, 0.718),
        "SL + puzzling": (0.722, 0.719, 0.741),
    }.items():
        for seed, score in enumerate(scores):
            store.trial(parent, variant, variants[variant], seed, score, passes=1_234_567, seconds=12.34)
    parent = store.study({"SL": "z", "SL + puzzling": "y"}, [0, 1, 2], name="paper", profile="paper", data="affectnet")
    for seed, score in enumerate((0.6021, 0.6043, 0.6032)):
        store.trial(
            parent,
            "SL",
            "z",
            seed,
            score,
            data="affectnet",
            protocol="paper",
            passes=3e7,
            seconds=86_400,
            params={
                "model.backbone": "efficientnet_b0",
                "data.size": "224",
                "data.face_crop": "none",
                "training.epochs": "100",
            },
        )
    return build_report(load_results(None, store.path))


def nasty(store: Any) -> Report:
    parent = store.study({"=SUM(A1)": "a", NASTY: "b", "[x]\nsecond line\x1b[31m": "c"}, [0, 1], question=NASTY)
    for key, variant in zip("abc", ("=SUM(A1)", NASTY, "[x]\nsecond line\x1b[31m"), strict=True):
        for seed in (0, 1):
            store.trial(parent, variant, key, seed, 0.5 + seed / 10)
    return build_report(load_results(None, store.path))


@pytest.mark.parametrize("format", format_names())
def test_an_empty_store_has_nine_unverified_claims_one_line_for_people(tmp_path: Path, format: str) -> None:
    results = load_results(None, tmp_path)
    texts = [
        render(build_report(results, "puzzling", options=ReportOptions(claims=shown)), format)
        for shown in (False, True)
    ]
    counts = [len(re.findall(r"\bUnverified\b(?!:)", text)) for text in texts]
    assert counts == ([9, 9] if format in DATA_FORMATS else [0, 9])
    if format not in DATA_FORMATS:
        assert all("No runs yet" in text for text in texts)
        assert "9 claims, none verified on this data" in texts[0]
    assert all(text.endswith("\n") for text in texts)


def test_a_study_on_other_data_comes_first_and_its_claims_are_one_line(records: Any) -> None:
    parent = records.study({"SL": "a"}, [0])
    records.trial(parent, "SL", "a", 0, 0.5)
    text = render(build_report(records.results()), "terminal")
    assert text.startswith("Studies\n=======\n")
    assert text.endswith(
        "Claims of the paper\n===================\n"
        "9 claims, none verified on this data. Their table: hmtl-ablate report --claims\n"
    )
    asked = render(build_report(records.results(), options=ReportOptions(claims=True)), "terminal")
    assert asked.index("puzzling (quick)") < asked.index("Claims of the paper") < asked.index("60.34")


def test_json_has_exactly_the_declared_keys(filled: Report) -> None:
    data = json.loads(render(filled, "json"))
    assert list(data) == ["claims", "studies"]
    assert [list(claim) for claim in data["claims"]] == [CLAIM_KEYS] * 9
    assert [list(study) for study in data["studies"]] == [STUDY_KEYS] * 2
    for row in data["studies"][0]["rows"]:
        assert [key for key in row if key in ROW_KEYS] == ROW_KEYS
    claim = data["claims"][4]
    assert (claim["status"], claim["protocol"], claim["n_seeds"]) == ("Reproduced", "paper", 3)
    assert claim["verified"] == pytest.approx(60.32)
    baseline, views, _ = data["studies"][0]["rows"]
    assert baseline["mean"] == pytest.approx((0.701 + 0.722 + 0.715) / 3)
    assert (baseline["difference"], baseline["ci95_low"], baseline["ci95_high"]) == (None, None, None)
    assert views["difference"] == pytest.approx((0.010 + 0.009 + 0.003) / 3)
    assert views["ci95_low"] < views["difference"] < views["ci95_high"]
    assert views["mean_ci95_low"] < views["mean"] < views["mean_ci95_high"]


def test_json_never_holds_nan(store: Any) -> None:
    parent = store.study({"SL": "a", "puzzling": "b"}, [0])
    store.trial(parent, "SL", "a", 0, 0.5, seconds=math.nan)
    store.trial(parent, "puzzling", "b", 0, math.nan)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = render(build_report(load_results(None, store.path)), "json")
    (study,) = json.loads(text, parse_constant=refuse)["studies"]
    assert study["rows"][0] | {"mean": 0.5, "sd": None, "seconds": None, "mean_ci95_low": None} == study["rows"][0]
    assert study["rows"][1]["mean"] is None


def test_the_terminal_fits_100_columns(filled: Report) -> None:
    text = render(filled, "terminal")
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("SL, 2 views")]
    assert line.split("  ")[0] == "SL, 2 views"
    # By hand: means 72.00 and 71.27; differences 1.0, 0.9, 0.3 → 0.73, sd 0.3786, half 4.3027 · 0.3786 / √3 = 0.94
    cells = re.split(r"\s{2,}", line)
    assert [cell for cell in cells if cell in BY_HAND] == BY_HAND
    assert "60.32 ± 0.11" in text
    # Numbers of other data stand apart from those of the claims' data.
    claims, own, other = (
        text.index(heading)
        for heading in ("Claims of the paper", "Studies on the claims' data", "Studies on other data")
    )
    assert own < text.index("paper (paper), data: affectnet") < other < claims
    assert other < text.index("These numbers verify no claim.") < text.index("puzzling (quick), data: rendered")
    assert "Protocol paper: weights selected on the official validation set" in text
    assert "3 of 6 trials not finished yet" in text


def test_long_names_wrap_in_their_own_column(store: Any) -> None:
    name = "SL + SSL puzzling with three changed views and a very long explanation of it all " * 2
    parent = store.study({"SL": "a", name: "b"}, [0, 1])
    for key, variant in (("a", "SL"), ("b", name)):
        for seed in (0, 1):
            store.trial(parent, variant, key, seed, 0.5 + seed / 10)
    text = render(build_report(load_results(None, store.path)), "terminal")
    assert max(map(len, text.splitlines())) <= 100
    assert "55.00 ± 7.07" in text


def test_markup_and_control_characters_stay_text(store: Any) -> None:
    text = render(nasty(store), "terminal")
    assert "[red]bold[/]" in text
    assert "\x1b" not in text


def test_markdown_cells(store: Any) -> None:
    text = render(nasty(store), "markdown")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", row) for row in rows[-3:]]
    assert len({len(row) for row in cells}) == 1, "a name adds no cell"
    assert re.sub(r"\\(.)", r"\1", cells[1][1]).strip() == NASTY
    assert "\n[x]" not in text
    assert "<b>" not in re.sub(r"\\.", "", text)


def test_markdown_claims(filled: Report) -> None:
    text = render(filled, "markdown")
    assert "| Dataset | Model | Metric | Claimed | Verified | Status | Protocol |" in text
    assert "| AffectNet | SL (B0) | Accuracy (8 emotion) | 60.34 | 60.32 ± 0.11 (n = 3) | Reproduced | paper |" in text


def test_latex_is_escaped(store: Any) -> None:
    text = render(nasty(store), "latex")
    assert (
        r"a\textbar{}b \& c\_d 50\% \$x\$ \#1 \{e\} \textasciitilde{} \textasciicircum{} \textbackslash{}n "
        r"{[}red{]}bold{[}/{]} {*}i{*} \textless{}b\textgreater{}"
    ) in text
    for table in text.split(r"\begin{tabular}")[1:]:
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1, "a name adds no cell"
    assert not any(line.lstrip().startswith(("[", "*")) for line in text.splitlines())  # would be an argument of \\
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    lines = [line for line in text.splitlines() if not line.startswith("% ")]
    body = re.sub(r"\\[%_&$#{}]", "", "\n".join(line.removesuffix("%") for line in lines))
    assert not re.search(r"[%~^_#]", body)
    assert body.count("{") == body.count("}")
    assert body.isascii()


def test_csv_parses_back(filled: Report) -> None:
    frame = pd.read_csv(io.StringIO(render(filled, "csv")))
    assert list(frame["table"]) == ["claims"] * 9 + ["study"] * 5
    row = frame[frame["variant"] == "SL, 2 views"].iloc[0]
    assert (row["study"], row["unit"], row["n_seeds"]) == ("puzzling", "fraction", 3)
    assert row["mean"] == pytest.approx(0.72)
    assert row["difference"] == pytest.approx(0.022 / 3)
    claim = frame.iloc[4]
    assert (claim["variant"], claim["unit"], claim["claimed"]) == ("SL (B0)", "percent", 60.34)
    assert claim["mean"] == pytest.approx(60.32)


def test_csv_starts_no_formula(store: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(render(nasty(store), "csv"))))
    assert [row["variant"] for row in rows[9:]] == ["'=SUM(A1)", NASTY, "[x]\nsecond line\x1b[31m"]


def test_negative_numbers_stay_numbers_in_csv(store: Any) -> None:
    parent = store.study({"SL": "a", "worse": "b"}, [0, 1])
    for seed in (0, 1):
        store.trial(parent, "SL", "a", seed, 0.7)
        store.trial(parent, "worse", "b", seed, 0.6)
    rows = list(csv.DictReader(io.StringIO(render(build_report(load_results(None, store.path)), "csv"))))
    assert float(rows[-1]["difference"]) == pytest.approx(-0.1)


def test_a_loss_is_no_percentage(store: Any) -> None:
    parent = store.study({"SL": "a"}, [0, 1], metric="test/loss")
    for seed in (0, 1):
        store.trial(parent, "SL", "a", seed, 1.25 + seed / 2, metric="test/loss")
    text = render(build_report(load_results(None, store.path)), "terminal")
    assert "1.500 ± 0.354" in text
    assert "Lower is better" in text
    assert "points" not in text.split("puzzling (quick)")[1]


def test_each_evaluation_has_a_table_and_a_baseline_of_its_own(store: Any) -> None:
    names = {"SL": "a", "HMTL": "b", "SL → probe": "c", "HMTL → probe": "d"}
    parent = store.study(names, [0, 1], evaluations={"SL → probe": "probe", "HMTL → probe": "probe"})
    for place, (name, key) in enumerate(names.items()):
        for seed in (0, 1):
            store.trial(parent, name, key, seed, 0.1 * place + 0.01 * seed)
    own, probe = build_report(load_results(None, store.path)).tables
    assert ([row.variant for row in own.rows], own.evaluation) == (["SL", "HMTL"], "")
    assert ([row.variant for row in probe.rows], probe.evaluation) == (["SL → probe", "HMTL → probe"], "probe")
    assert probe.rows[0].difference is None
    assert probe.rows[1].difference is not None
    assert probe.rows[1].difference.mean == pytest.approx(0.1)
    assert "evaluation: probe" in render(build_report(load_results(None, store.path)), "terminal")
