"""Files of a paper's claims: the example of docs/claims.md, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.cli import main
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.choosing import ReportOptions
from hmtl_ablate.reporting.claim_files import own_paper, read_claims
from hmtl_ablate.reporting.claims import claims_table, status_of
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.statistics import estimate

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "claims-example.yaml"
CLAIM = "paper: p\nclaims:\n  - {dataset: d, model: m, metric: a, claimed: 60, data: x}\n"


def log(records: Any) -> None:
    """Three seeds of puzzling on FER+: 74, 73, 75 %; three of head pose: 4.0, 4.1, 4.2°."""
    faces = records.study({"SL + puzzling": "a"}, [0, 1, 2], name="faces", data="ferplus")
    pose = records.study({"SL": "b"}, [0, 1, 2], name="pose", data="csv", metric="test/mae_yaw")
    options = {
        "model.backbone": "'tf_efficientnet_lite0'",
        "pretext.puzzling.grid": "2",
        "training.epochs": "20",
        "model.weights": "None",
    }
    for seed in range(3):
        score = (0.74, 0.73, 0.75)[seed]
        records.trial(faces, "SL + puzzling", "a", seed, score, data="ferplus", passes=20 * 25_000.0, params=options)
        records.trial(
            pose, "SL", "b", seed, 4.0 + seed / 10, data="csv", metric="test/mae_yaw", params={"training.epochs": "20"}
        )


def test_the_docs_show_the_example() -> None:
    assert f"```yaml\n{EXAMPLE.read_text()}```" in (DOCS / "claims.md").read_text()


def test_the_nine_claims_are_a_file_of_the_same_format() -> None:
    paper = own_paper()
    assert len(paper.claims) == 9
    assert paper.full()[2].at_least == {"training.epochs": 200, "data.size": 112}
    assert paper.full()[7].options["data.fraction"] == 0.2  # its own, not the file's
    assert paper.full()[4].options["data.fraction"] == 1.0


def test_another_papers_claims_follow_the_nine(records: Any) -> None:
    log(records)
    for trial in records.trials[1::2]:
        object.__setattr__(trial, "task", "pose")
    report = build_report(records.results(), options=ReportOptions(claims=True), papers=[read_claims(EXAMPLE)])
    own, other = json.loads(render(report, "json"))["claims"][:9], json.loads(render(report, "json"))["claims"][9:]
    assert {row["status"] for row in own} == {"Unverified"}
    assert [(row["model"], row["unit"], row["n_seeds"]) for row in other] == [
        ("SL + puzzling", "percent", 3),
        ("SL", "degrees", 3),
    ]
    assert [row["verified"] for row in other] == [pytest.approx(74.0), pytest.approx(4.1)]
    # 74 ± 2.48: wider than ±1 point. 4.1 ± 0.25 is below 4.5.
    assert [row["status"] for row in other] == ["Partial", "Reproduced"]
    text = render(report, "markdown")
    assert text.index(own_paper().paper) < text.index("An example, not a published paper")
    assert "at least 3 seeds at 20 epochs or more on FER+" in text
    assert "the lower end of the 95 % interval is at most claim + 0.5" in text
    own_only = render(build_report(records.results(), options=ReportOptions(claims=True)), "markdown")
    assert "the upper end of the 95 % interval reaches claim − 0.5" in own_only
    assert "lower end" not in own_only


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex", "csv", "json", "html"])
def test_every_format_names_the_papers(records: Any, format: str) -> None:
    report = build_report(records.results(), options=ReportOptions(claims=True), papers=[read_claims(EXAMPLE)])
    assert "An example, not a published paper" in render(report, format)


def test_lower_is_better_for_errors() -> None:
    score = estimate([4.0, 4.1, 4.2])  # 4.1 ± 0.2484
    assert status_of(score, 3.4, 0.5, lower=True) == "Reproduced"  # 3.852 ≤ 3.9
    assert status_of(score, 3.3, 0.5, lower=True) == "Not reproduced"  # 3.852 > 3.8


def test_what_all_claims_share_gives_way_to_their_own(records: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "paper: p\nat_least: {training.epochs: 100}\nclaims:\n"
        "  - {dataset: d, model: m, metric: a, claimed: 60, data: rendered, at_least: {training.epochs: 8}}\n"
        "  - {dataset: d, model: m, metric: a, claimed: 60, data: rendered}\n"
    )
    parent = records.study({"SL": "a"}, [0])
    records.trial(parent, "SL", "a", 0, 0.6)
    rows = claims_table(records.results(), papers=[read_claims(tmp_path / "c.yaml")])
    assert [row.status for row in rows] == ["Partial", "Unverified"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml:1:1: should be a map with the keys paper and claims"),
        ("claims: []", "c.yaml:1:1: paper: field required"),
        ("paper: p\nclaims: []\n", "c.yaml:2:1: claims: should be a list of at least one claim"),
        (CLAIM.replace("model: m, ", ""), "c.yaml:3:5: claims.0.model: field required"),
        (CLAIM.replace("claimed: 60", "claimed: sixty"), "c.yaml:3:39: claims.0.claimed: input should be a valid"),
        (CLAIM.replace("data: x", "dataa: x"), "claims.0.dataa: there is no option 'dataa'; did you mean 'data'?"),
        (CLAIM.replace("x}", "x, pretext: [puzling]}"), "did you mean 'puzzling'?"),
        (CLAIM.replace("x}", "x, options: {model.backbon: a}}"), "did you mean 'backbone'?"),
        (CLAIM.replace("x}", "x, options: {data.views: many}}"), "claims.0.options.data.views"),
        (CLAIM.replace("x}", "x, score: test/ccc_valence}"), "name a metric in percent or degrees"),
        (CLAIM.replace("x}", "x, evaluation: linear probe}"), "evaluation and probed go together"),
        (CLAIM.replace("x}", "x, task: emotions}"), "did you mean 'emotion'?"),
        (CLAIM.replace("data: x", "data: !!python/name:os.system x"), "tags are not supported"),
        (CLAIM.replace("x}", "x"), "c.yaml:4:1"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(HmtlError) as caught:
        read_claims(tmp_path / "c.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("--claims-file: ")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HmtlError, match=r"--claims-file: .*none\.yaml: there is no such file"):
        read_claims(tmp_path / "none.yaml")


def test_the_commands_refuse_a_bad_file_and_a_bad_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("paper: p\n")
    (tmp_path / "mlflow.db").touch()  # refused before it is read
    for words, message in (
        (("--claims-file", str(tmp_path / "c.yaml")), "c.yaml:1:1: claims: should be a list of at least one claim"),
        (("--evidence", "puzzling", "--claims"), "--evidence is a report of its own: leave out --claims"),
    ):
        assert main(["report", "--runs", str(tmp_path), *words]) == 2
        found = capsys.readouterr()
        assert message in found.err
        assert "Traceback" not in found.err + found.out
