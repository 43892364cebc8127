"""Malformed study files: every fault at once, each with its place, the offender and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import load_study, planned

GOOD = """\
name: faces
question: Does it help?
metric: test/accuracy
base:
  task: emotion
  data: {name: rendered, size: 48}
  training: {epochs: 8, warmup_epochs: 1}
variants:
  SL: {}
  SL + puzzling:
    pretext: {puzzling: {grid: 2, weight: 1.2}}
seeds: [0, 1]
search:
  base: {pretext: {puzzling: {}}}
  space:
    pretext.puzzling.grid: {choice: [2, 3]}
    pretext.puzzling.weight: {loguniform: [0.1, 10]}
    pretext.puzzling.feed: {choice: [shared, mixed]}
    pretext.puzzling.share: {uniform: [0.1, 0.9], when: {pretext.puzzling.feed: mixed}}
  sampler: tpe
  pruner: {name: successive_halving, grace_epochs: 2}
  trials: 4
  objective: {val/accuracy: max}
profiles:
  quick: {}
resources: {workers: 1, cpus: 1, gpus: 0}
"""

# (the text in GOOD, its replacement, place, words of the line)
CASES = [
    ("name: faces", "nam: faces", "1:1", ["nam: there is no key 'nam'", "did you mean 'name'?"]),
    ("name: faces", "name: ../faces", "1:7", ["'../faces'", "letters, digits"]),
    ("name: faces", "name: 7", "1:7", ["name: should be text, not 7", "quotes"]),
    ("metric: test/accuracy", "metric: test/acuracy", "3:9", ["'test/acuracy'", "did you mean 'test/accuracy'?"]),
    ("task: emotion", "task: emotions", "5:9", ["base.task: 'emotions' is no", "did you mean 'emotion'?"]),
    ("size: 48", "sise: 48", "6:26", ["base.data.sise: there is no option 'sise'", "did you mean 'size'?"]),
    ("size: 48", "size: 4", "6:32", ["base.data.size", "greater than or equal to 16, not 4"]),
    ("size: 48", "size: '48'", "6:32", ["base.data.size: should be a number, not the text '48'", "without quotes"]),
    ("size: 48", "size: big", "6:32", ["base.data.size", "'big'"]),
    ("size: 48", "size: 48, size: 64", "6:36", ["base.data.size: the key 'size' appears twice", "line 6"]),
    ("name: rendered", "name: ferplus, images: 100", "6:33", ["base.data.images", "'ferplus'", "data.fraction"]),
    ("epochs: 8", "epochs: true", "7:22", ["base.training.epochs", "not true"]),
    (
        "warmup_epochs: 1",
        "warmup_epochs: 9",
        "7:40",
        ["base.training.warmup_epochs: 9 is more than training.epochs, 8", "use 0 to 8"],
    ),
    ("  SL: {}", "  SL: {training.epochs: 0}", "9:25", ["variants.SL.training.epochs", "not 0"]),
    ("  SL: {}", "  SL: {training.epoch: 1}", "9:8", ["variants.SL.training.epoch", "did you mean 'epochs'?"]),
    ("  SL: {}", "  SL: {data: 5}", "9:14", ["variants.SL.data", "not 5"]),
    (
        "  SL: {}",
        "  SL: {pretext.puzzling.grid: 3}",
        "9:8",
        [
            "variants.SL.pretext.puzzling.grid",
            "there is no pretext task 'puzzling' here to change",
            "pretext: {puzzling: {grid: …}}",
        ],
    ),
    ("  SL: {}", "  search: {}", "9:3", ["variants.search: 'search' is a name that results use", "another"]),
    ("  SL: {}", '  "S\\nL": {}', "9:3", ["variants.S\\nL", "can't be printed", "one line"]),
    ("  SL: {}", f"  {'x' * 81}: {{}}", "9:3", ["81 characters", "at most 80"]),
    ("  SL: {}", "  7: {}", "9:3", ["a key is text, not 7", "quotes"]),
    ("  SL: {}", "  SL: {seed: 3}", "9:8", ["variants.SL.seed", "seeds: [0, 1, 2]"]),
    ("  SL: {}", "  SL: 5", "9:7", ["variants.SL: should be a map, not the value 5"]),
    (
        "pretext: {puzzling: {grid: 2, ",
        "pretext: {puzling: {grid: 2, ",
        "11:15",
        ["variants.SL + puzzling.pretext.puzling: there is no pretext task 'puzling'", "did you mean 'puzzling'?"],
    ),
    ("grid: 2, weight: 1.2", "grid: 13", "11:32", ["grid: a 13 × 13 grid", "use 2 to 12"]),
    ("grid: 2, weight: 1.2", "grid: 2, wieght: 1", "11:35", ["wieght", "did you mean 'weight'?"]),
    ("grid: 2, weight: 1.2", "share: 0.4", "11:33", ["share: only the mixed feed has a share", "set feed: mixed"]),
    ("seeds: [0, 1]", "seeds: []", "12:8", ["seeds: should be a list of whole numbers", "seeds: [0, 1, 2]"]),
    ("seeds: [0, 1]", "seeds: [0, -1]", "12:12", ["seeds.1", "not -1", "use 0 to"]),
    ("seeds: [0, 1]", "seeds: [1, 1]", "12:12", ["seeds.1: the seed 1 appears twice"]),
    ("seeds: [0, 1]", "seeds: 3", "12:8", ["seeds: should be a list", "not 3"]),
    ("choice: [2, 3]", "choice: [2, 99]", "16:41", ["search.space.pretext.puzzling.grid.choice.1", "not 99"]),
    ("choice: [2, 3]", "choice: [2, 13]", "16:41", ["no trial can have pretext.puzzling.grid 13", "use 2 to 12"]),
    ("choice: [2, 3]", "choice: [2, 2]", "16:41", ["2 appears twice in the choices"]),
    ("choice: [2, 3]", "choice: []", "16:37", ["choice should be a list of values, not []"]),
    ("choice: [2, 3]", "chioce: [2, 3]", "16:29", ["'chioce'", "did you mean 'choice'?"]),
    ("choice: [2, 3]", "uniform: [2, 4]", "16:38", ["pretext.puzzling.grid takes whole numbers", "{int: [2, 4]}"]),
    ("choice: [2, 3]", "int: [4, 2]", "16:34", ["the range [4, 2] is empty", "smaller end first"]),
    ("choice: [2, 3]", "int: [2, 4], step: 0", "16:48", ["step", "not 0", "use 1 to 2"]),
    ("loguniform: [0.1, 10]", "loguniform: [0, 10]", "17:44", ["above 0, not at 0", "use uniform"]),
    ("loguniform: [0.1, 10]", "loguniform: [0.1, 5000]", "17:49", ["less than or equal to 1000, not 5000"]),
    ("loguniform: [0.1, 10]", "choice: [1], uniform: [1, 2]", "17:30", ["has choice and uniform", "keep one"]),
    ("pretext.puzzling.weight:", "pretext.puzzling.wieght:", "17:5", ["'wieght'", "did you mean 'weight'?"]),
    (
        "pretext.puzzling.weight:",
        "pretext.inpainting.weight:",
        "17:5",
        ["the search's base has no pretext task", "base: {pretext: {inpainting: {}}}"],
    ),
    ("pretext.puzzling.weight:", "data.protocol:", "17:5", ["data.protocol can't be searched"]),
    ("pretext.puzzling.weight:", "training:", "17:5", ["'training' is a group of options"]),
    ("feed: {choice: [shared, mixed]}", "feed: {choice: [shared, mixd]}", "18:46", ["'mixd'", "did you mean 'mixed'?"]),
    (
        "when: {pretext.puzzling.feed: mixed}",
        "when: {pretext.puzzling.feed: siamese}",
        "19:81",
        [
            "when.pretext.puzzling.feed: can never hold: pretext.puzzling.feed is never 'siamese'",
            "valid: mixed, shared",
        ],
    ),
    (
        "when: {pretext.puzzling.feed: mixed}",
        "when: {pretext.puzzling.fed: mixed}",
        "19:58",
        ["can never hold: 'pretext.puzzling.fed' is not searched", "did you mean 'pretext.puzzling.feed'?"],
    ),
    (
        "when: {pretext.puzzling.feed: mixed}",
        "when: {pretext.puzzling.share: 0.5}",
        "19:57",
        ["can never hold: it depends on itself"],
    ),
    (
        "when: {pretext.puzzling.feed: mixed}",
        "when: {pretext.puzzling.weight: 1}",
        "19:83",
        ["can never hold: pretext.puzzling.weight has a continuous range"],
    ),
    (
        "when: {pretext.puzzling.feed: mixed}",
        "when: {pretext.puzzling.feed: shared}",
        "19:40",
        ["no trial can have pretext.puzzling.share 0.1", "set feed: mixed"],
    ),
    ("sampler: tpe", "sampler: tpee", "20:12", ["there is no sampler 'tpee'", "did you mean 'tpe'?"]),
    ("sampler: tpe", "sampler: grid", "17:30", ["the grid sampler takes no continuous range", "choice or int"]),
    ("sampler: tpe", "sampler: cmaes", "16:28", ["the cmaes sampler takes numeric ranges only"]),
    ("sampler: tpe", "sampler: gp", "19:57", ["the gp sampler takes no conditions", "sampler: tpe"]),
    ("name: successive_halving", "name: succesive_halving", "21:18", ["did you mean 'successive_halving'?"]),
    ("grace_epochs: 2", "grace_epoch: 2", "21:38", ["search.pruner.grace_epoch", "did you mean 'grace_epochs'?"]),
    ("trials: 4", "trials: 0", "22:11", ["search.trials", "not 0", "use 1 to"]),
    ("trials: 4", "trails: 4", "22:3", ["there is no key 'trails' in search", "did you mean 'trials'?"]),
    ("val/accuracy: max", "test/accuracy: max", "23:15", ["'test/accuracy' is of the test split", "use val/accuracy"]),
    ("val/accuracy: max", "val/accuracy: up", "23:29", ["'up' is not a direction", "max, min"]),
    ("val/accuracy: max", "val/f1: max", "23:15", ["there is no objective 'val/f1'"]),
    ("val/accuracy: max", "cost/seconds: min", "23:14", ["has a cost alone", "add a metric"]),
    ("val/accuracy: max", "val/accuracy: max, cost/seconds: max", "23:48", ["can only be minimized", "write min"]),
    (
        "  objective: {val/accuracy: max}",
        "  objective: {val/accuracy: max, cost/seconds: min}\n  proxy: cost/seconds",
        "24:10",
        ["no objective that is measured after each epoch", "val/accuracy"],
    ),
    ("quick: {}", "quick: {sedes: [1]}", "25:11", ["profiles.quick.sedes", "did you mean 'seeds'?"]),
    ("quick: {}", "quick: {base: {training.epochs: 0}}", "25:35", ["profiles.quick.base.training.epochs", "not 0"]),
    ("quick: {}", "quick: {}\n  big: {base: {data.size: 1}}", "26:27", ["profiles.big.base.data.size", "not 1"]),
    ("quick: {}", "big: {}", "", ["--profile quick", "has no profile 'quick'", "valid: big"]),
    ("workers: 1", "workers: 0", "26:22", ["resources.workers", "not 0"]),
    ("workers: 1", "keep_last: 1", "26:24", ["resources.keep_last", "true or false, not 1"]),
    ("workers: 1", "worker: 1", "26:13", ["there is no option 'worker'", "did you mean 'workers'?"]),
    (  # fault B7: NCCL refuses two processes on one GPU
        "workers: 1, cpus: 1, gpus: 0",
        "workers: 2, cpus: 1, gpus: 0.5",
        "26:40",
        ["2 workers can't have 0.5 of a GPU each", "workers: 1"],
    ),
    ("gpus: 0", "gpus: 1.5", "26:40", ["1.5 GPUs can't be assigned", "below 1"]),
    ("resources:", "verdict: {alpha: 2}\nresources:", "26:18", ["verdict.alpha", "not 2"]),
    ("resources:", "verdict: {smallest: '1'}\nresources:", "26:21", ["verdict.smallest: should be a number, not '1'"]),
    ("resources:", "verdict: {smalest: 1}\nresources:", "26:11", ["'smalest'", "did you mean 'smallest'?"]),
    ("resources:", "verdict: 0.05\nresources:", "26:10", ["verdict: should be a map, not the value 0.05"]),
    ("question: Does it help?", "question: Does: it help?", "2:15", ["mapping values are not allowed", "quotes"]),
    ("  SL: {}", "\tSL: {}", "9:1", ["a tab", "use spaces"]),
    ("  SL: {}", "  SL: &a {}", "9:7", ["anchors and aliases are not supported (&a)", "write the value out"]),
    ("  SL: {}", "  SL: !!python/object:os.system {}", "9:7", ["tags are not supported", "plain value"]),
    ("  SL: {}", "  SL: {}\n  SL: {}", "10:3", ["variants.SL: the key 'SL' appears twice", "line 9"]),
    ("  SL: {}", "  SL: {", "11:12", ["expected ',' or '}', but got ':' while parsing a flow mapping"]),
    ("resources:", "---\nresources:", "26:1", ["a second document starts here"]),
    ("  SL: {}", "  SL: " + "[" * 60 + "]" * 60, "9:25", ["more than 20 levels deep"]),
    ("epochs: 8", "epochs: 99999999999999999999", "7:22", ["too large a number"]),
    ("epochs: 8", "epochs: .inf", "7:22", ["base.training.epochs", "inf"]),
]

SEVERAL = ("nam: faces", "trails: 4", "sampler: grid", "sampler: cmaes", "when: {pretext.puzzling.feed: shared}")


def faults(tmp_path: Path, text: str | bytes, **options: object) -> list[str]:
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError) as caught:
        load_study(path, **options)  # type: ignore[arg-type]
    return [line.removeprefix(f"{path}:") for line in str(caught.value).split("\n")]


def test_the_good_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(GOOD)
    assert [v.name for v in load_study(tmp_path / "study.yaml").variants] == ["SL", "SL + puzzling"]


@pytest.mark.parametrize(("old", "new", "place", "words"), CASES, ids=[f"{c[1][:40]!a}" for c in CASES])
def test_one_fault_is_one_line_with_its_place(tmp_path: Path, old: str, new: str, place: str, words: list[str]) -> None:
    assert GOOD.count(old) >= 1
    found = faults(tmp_path, GOOD.replace(old, new, 1))
    line = next((line for line in found if all(word in line for word in words)), None)
    assert line is not None, found
    assert line.startswith(f"{place}: " if place else "--profile"), found
    # A mistyped key also leaves one out, and a sampler or a condition may refuse two values; all else is one fault.
    assert len(found) == 1 or new in SEVERAL, found


def test_all_faults_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        GOOD.replace("task: emotion", "task: emotions")
        .replace("seeds: [0, 1]", "seeds: [0, 0]")
        .replace("trials: 4", "trials: no")
        .replace("  SL: {}", "  SL: {training.lr: -1}")
        .replace("cpus: 1", "cpus: 0")
    )
    assert [line.split(": ")[1] for line in faults(tmp_path, text)] == [
        "base.task",
        "variants.SL.training.lr",
        "seeds.1",
        "search.trials",
        "resources.cpus",
    ]


def test_a_fault_of_the_base_is_told_once_for_all_variants_and_profiles(tmp_path: Path) -> None:
    text = GOOD.replace("epochs: 8", "epochs: 0").replace("quick: {}", "quick: {}\n  paper: {}")
    assert len(faults(tmp_path, text)) == 1


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("  SL: {}", "  SL: {training.epochs: 2}"), "9:25: variants.SL.training.epochs: training.warmup_epochs: 5"),
        (("quick: {}", "quick: {base: {training: {epochs: 2}}}"), "25:37: profiles.quick.base.training.epochs"),
        (("quick: {}", "quick: {variants: {SL: {training.epochs: 2}}}"), "25:44: profiles.quick.variants.SL.train"),
    ],
)
def test_a_fault_that_arises_from_merging_points_at_the_change(
    tmp_path: Path, change: tuple[str, str], place: str
) -> None:
    text = GOOD.replace("warmup_epochs: 1", "warmup_epochs: 5").replace(*change)
    assert faults(tmp_path, text)[0].startswith(place)


def test_a_variants_feed_that_does_not_suit_the_base_is_the_variants_fault(tmp_path: Path) -> None:
    text = (
        "name: a\nbase: {pretext: {puzzling: {feed: mixed, share: 0.5}}}\n"
        "variants:\n  mixed: {}\n  shared: {pretext.puzzling.feed: shared}\n"
    )
    (line,) = faults(tmp_path, text)
    assert line.startswith("5:35: variants.shared.pretext.puzzling.feed: pretext.puzzling.share: only the mixed feed")


def test_a_default_that_does_not_suit_points_at_what_was_written(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, "name: a\nbase:\n  probe: {kind: direct}\nvariants: {SL: {}}\n")
    assert line.startswith("3:17: base.probe.kind: model.weights: a direct measurement needs a trained head")


def test_few_epochs_alone_are_no_fault_of_the_default_warm_up(tmp_path: Path) -> None:
    """Fault "defaults": `epochs: 2` was refused because of a warm-up that nobody had written."""
    text = "name: a\nbase:\n  training: {epochs: 2WARM}\nvariants: {SL: {}}\n"
    (tmp_path / "study.yaml").write_text(text.replace("WARM", ""))
    assert load_study(tmp_path / "study.yaml").variants[0].config(0).training.warmup == 2
    (line,) = faults(tmp_path, text.replace("WARM", ", warmup_epochs: 3"))
    assert line.startswith("3:40: base.training.warmup_epochs: 3 is more than training.epochs, 2")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "1:1: the file is empty; a study starts with name: and base:"),
        ("# nothing\n", "1:1: the file is empty; a study starts with name: and base:"),
        ("- a\n", "1:1: a study is a map, not a list; it starts with name: and base:"),
        ("just text\n", "1:1: a study is a map, not the value 'just text'; it starts with name: and base:"),
        (b"name: a\nquestion: caf\xe9\n", "2:14: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"name: a\nquestion: \x01\n", "2:11: character '\\x01' is not allowed in YAML; remove it"),
        ("name: a\n", "1:1: there is nothing to run; add variants, designs or a search"),
        ("variants: {SL: {}}\n", "1:1: the study has no name; write e.g. name: puzzling"),
        ("name: a\nvariants: [SL]\n", "2:11: variants: should be a map, not a list"),
        ("name: a\nsearch: {}\n", "2:1: search: trials is missing; give the total, e.g. trials: 20, or a budget"),
    ],
)
def test_files_that_are_no_study(tmp_path: Path, text: str | bytes, line: str) -> None:
    assert line in faults(tmp_path, text)


def test_an_alias_bomb_is_refused_without_being_built(tmp_path: Path) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))
    found = faults(tmp_path, f"l0: &l0 [x]\n{levels}\n")
    assert found[0] == "1:5: l0: anchors and aliases are not supported (&l0); write the value out"


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    assert "levels deep" in faults(tmp_path, "name: " + "[" * 50_000)[0]


def test_a_missing_file_is_told_with_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "puzzling.yaml").write_text(GOOD)
    with pytest.raises(StudyError, match=r"puzling\.yaml: there is no such file; did you mean .*puzzling\.yaml\?"):
        load_study(tmp_path / "puzling.yaml")
    with pytest.raises(StudyError, match="is a folder"):
        load_study(tmp_path)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"sets": ["training.epoch=2"]},
            "--set training.epoch=2: training.epoch: there is no option 'epoch'; did you mean 'epochs'?",
        ),
        (
            {"sets": ["training.epochs=two"]},
            "--set training.epochs=two: training.epochs: input should be a valid integer",
        ),
        ({"sets": ["training.epochs"]}, "--set training.epochs: is not key=value; write e.g. --set training.epochs=2"),
        (
            {"sets": ["trainig.epochs=2"]},
            "--set trainig.epochs=2: trainig.epochs: there is no option 'trainig' to set; did you mean 'training'?",
        ),
        (
            {"sets": ["base.data.size=32"]},
            "--set base.data.size=32: base.data.size: there is no option 'base' to set; write --set data.size=…",
        ),
        (
            {"sets": ["pretext.inpainting.weight=2"]},
            "--set pretext.inpainting.weight=2: pretext.inpainting.weight: "
            "no variant has the pretext task 'inpainting'; valid: puzzling",
        ),
        ({"sets": ["data={"]}, "--set data={: expected the node content"),
        (
            {"sets": ["search.trials=-1"]},
            "--set search.trials=-1: search.trials: should be a whole number above 0, not -1",
        ),
        (
            {"sets": ["data.size=16", "pretext.puzzling.grid=5"]},
            "--set pretext.puzzling.grid=5: pretext.puzzling.grid: a 5 × 5 grid cuts data.size 16 px",
        ),
        ({"sets": ["a\nb=1"]}, "--set a\\nb=1: a\\nb: there is no option"),
        ({"trials": 0}, "--trials 0: search.trials: should be a whole number above 0"),
        ({"seeds": (1, 1)}, "--seeds 1,1: seeds.1: the seed 1 appears twice"),
        ({"profile": "qick"}, "--profile qick: "),
        (
            {"datasets": ["ferplus=/a", "affectnet=/b"]},
            "--data ferplus: the study uses rendered; only one other dataset",
        ),
        ({"datasets": ["=/a"]}, "--data =/a: is not name=path"),
        ({"datasets": ["rendered=/a"]}, "--data rendered=/a: the rendered faces are generated"),
        ({"datasets": ["ferplus=/a"], "sets": ["data.images=100"]}, "--set data.images=100: data.images: only"),
    ],
)
def test_faults_of_the_command_line(tmp_path: Path, options: dict[str, object], line: str) -> None:
    found = faults(tmp_path, GOOD, **options)
    assert found[0].startswith(line), found


def test_trials_without_a_search(tmp_path: Path) -> None:
    text = "name: a\nvariants: {SL: {}}\n"
    assert faults(tmp_path, text, trials=3) == ["--trials 3: search.trials: the study has no search"]


STAGED = """\
name: staged
base: {data: {images: 200, size: 32}}
stages:
  first: {training.supervised: false, pretext: {rotation: {}}}
variants:
  SL: {}
  tuned: {model.weights: "trial:first"}
evaluations:
  probe: {probe: {kind: linear}, of: [SL]}
"""
STAGED_CASES = [
    ('"trial:first"', '"trial:frist"', "7:26", ["there is no stage or variant 'frist'", "did you mean 'first'?"]),
    ('"trial:first"', '"trial:tuned"', "7:3", ["'tuned' depends on its own weights, through tuned"]),
    ('"trial:first"', '"trail:first"', "7:26", ["'trail:first' names no weights", "file:PATH or trial:NAME"]),
    ("  SL: {}", "  first: {}", "4:3", ["'first' is also a variant"]),
    ("pretext: {rotation: {}}}", "training.epochs: 9}", "4:32", ["nothing to train", "add a pretext task"]),
    ("pretext: {rotation: {}}}", "pretext: {rotation: {feed: mixed}}}", "4:66", ["use feed: siamese or shared"]),
    ("of: [SL]", "of: [SLL]", "9:39", ["there is no variant or stage 'SLL'", "did you mean 'SL'?"]),
    ("of: [SL]", "of: [[SL]]", "9:39", ["there is no variant or stage ['SL']"]),
    ("of: [SL]", "of: SL", "9:38", ["should be a list of variants or stages, not 'SL'"]),
    ("kind: linear", "kind: linaer", "9:25", ["did you mean 'linear'?"]),
    ("kind: linear", "kind: knn, hidden: 64", "9:38", ["hidden: has no effect with kind: knn"]),
    ("name: staged", "metric: test/mae\nname: staged", "1:9", ["'SL' is not measured by test/mae"]),
    (
        "name: staged",
        "name: staged\nsearch: {space: {training.lr: {loguniform: [1e-4, 1e-2]}}, trials: 2, "
        "objective: {val/mae: min}}",
        "2:83",
        ["not measured by 'val/mae'", "val/ece"],
    ),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), STAGED_CASES, ids=[f"{c[1][:40]!a}" for c in STAGED_CASES])
def test_faults_of_stages_and_evaluations(tmp_path: Path, old: str, new: str, place: str, words: list[str]) -> None:
    assert STAGED.count(old) == 1
    found = faults(tmp_path, STAGED.replace(old, new))
    line = next((line for line in found if all(word in line for word in words)), None)
    assert line is not None, found
    assert line.startswith(f"{place}: "), line


def test_the_good_staged_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(STAGED)
    study = load_study(tmp_path / "good.yaml")
    assert [variant.name for variant in study.variants] == ["SL", "tuned", "SL → probe"]
    assert study.variants[2].config(0).model.weights == "trial:SL"
    assert study.metric == "test/accuracy"


def test_a_changed_stage_changes_the_key_of_who_starts_from_it(tmp_path: Path) -> None:
    keys = []
    for weight in ("", "weight: 2"):
        (tmp_path / "s.yaml").write_text(STAGED.replace("rotation: {}", f"rotation: {{{weight}}}"))
        keys.append({variant.name: variant.key for variant in load_study(tmp_path / "s.yaml").variants})
    assert keys[0]["tuned"] != keys[1]["tuned"]
    assert keys[0]["SL"] == keys[1]["SL"]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_config_survives_its_own_file(path: Path) -> None:
    """config.json names every field; reading it back refuses nothing and changes nothing."""
    for profile in ("quick", "paper") if "paper:" in path.read_text() else ("quick",):
        for _, _, config in planned(load_study(path, profile=profile)):
            assert parse_config(config.model_dump(mode="json")) == config
