import numpy as np
import pytest
import torch

from hmtl_ablate.config import PRETEXT_OPTIONS, parse_config
from hmtl_ablate.errors import ConfigError
from hmtl_ablate.pretext import FeatureShape, build
from hmtl_ablate.pretext.puzzling import shuffle_tiles
from hmtl_ablate.pretext.rotation import turn_tiles
from hmtl_ablate.training import feeds

B, SIZE = 10, 16
ALL = np.ones(B, np.bool_)


def planned(**raw: object) -> tuple[list[feeds.Stream], list[feeds.ModelInput], torch.Tensor]:
    config = parse_config({"data": {"size": SIZE}, **raw})
    tasks = {name: build(name, options, FeatureShape(SIZE, 4, 1, 1, 4)) for name, options in config.pretext.items()}
    plan = feeds.streams(config, B)
    assert len(plan) == config.passes_per_image
    views = torch.rand(len(plan), B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    inputs = feeds.build_inputs(plan, tasks, views, torch.arange(B), B, torch.Generator().manual_seed(1))
    return plan, inputs, views


def changed_rows(inputs: feeds.ModelInput) -> list[int]:
    return sorted(
        {
            int(row)
            for query in inputs.queries.values()
            for row, before in zip(query.rows, query.before, strict=True)
            if not torch.equal(inputs.images[row], before)
        }
    )


@pytest.mark.parametrize(
    ("raw", "passes"),
    [
        ({}, 1),
        ({"data": {"views": 3, "size": SIZE}}, 3),
        ({"pretext": {"puzzling": {"feed": "shared"}}}, 1),
        ({"pretext": {"inpainting": {"feed": "mixed"}}}, 1),
        ({"pretext": {"puzzling": {"feed": "siamese"}}}, 2),
        ({"pretext": {"puzzling": {"feed": "siamese", "changed_views": [[1.0, 1.1], [1, 1], [0.6, 1]]}}}, 4),
        (
            {
                "data": {"views": 2, "size": SIZE},
                "pretext": {"puzzling": {"feed": "siamese"}, "inpainting": {"feed": "siamese"}},
            },
            4,
        ),
    ],
)
def test_image_passes_of_each_feed(raw: dict[str, object], passes: int) -> None:
    plan, inputs, _ = planned(**raw)
    assert len(plan) == sum(len(one.views) for one in inputs) == passes
    assert sum(len(one.images) for one in inputs) == B * passes


def test_plain_sl_shows_whole_images_with_full_weight() -> None:
    plan, (inputs,), views = planned()
    assert torch.equal(inputs.images, views[0])
    assert inputs.weights.tolist() == [1.0] * B
    assert (feeds.supervised_total(plan, ALL), feeds.changed_total(plan)) == (B, {})


def test_shared_changes_every_image() -> None:
    plan, (inputs,), _ = planned(pretext={"inpainting": {"feed": "shared"}})
    assert changed_rows(inputs) == list(range(B))
    assert inputs.weights.tolist() == [1.0] * B
    assert feeds.changed_total(plan) == {"inpainting": B}


def test_mixed_changes_its_share_and_weighs_it() -> None:
    plan, (inputs,), views = planned(pretext={"inpainting": {"feed": "mixed", "share": 0.3, "supervised_weight": 0.5}})
    assert changed_rows(inputs) == [0, 1, 2]
    assert torch.equal(inputs.images[3:], views[0, 3:])
    assert inputs.weights.tolist() == [0.5] * 3 + [1.0] * 7
    assert feeds.supervised_total(plan, ALL) == pytest.approx(8.5)
    assert feeds.changed_total(plan) == {"inpainting": 3}


def test_two_mixed_tasks_take_different_images() -> None:
    _, (inputs,), _ = planned(
        pretext={"inpainting": {"feed": "mixed", "share": 0.2}, "puzzling": {"feed": "mixed", "share": 0.5}}
    )
    assert {name: query.rows.tolist() for name, query in inputs.queries.items()} == {
        "puzzling": [0, 1, 2, 3, 4],
        "inpainting": [5, 6],
    }


def test_siamese_leaves_the_whole_view_and_sizes_the_changed_ones() -> None:
    plan, inputs, views = planned(
        pretext={"puzzling": {"feed": "siamese", "supervised_weight": 0.25, "changed_views": [[1, 1], [0.5, 0.75]]}}
    )
    assert [one.views for one in inputs] == [(0, 1), (2,)]  # images of one size go together
    assert torch.equal(inputs[0].images[:B], views[0])
    assert not torch.equal(inputs[0].images[B:], views[1])
    assert inputs[0].weights.tolist() == [1.0] * B + [0.25] * B
    assert SIZE // 2 <= inputs[1].images.shape[-1] <= SIZE * 3 // 4
    assert feeds.supervised_total(plan, ALL) == pytest.approx(B + 2 * 0.25 * B)
    assert feeds.changed_total(plan) == {"puzzling": 2 * B}


def test_workers_see_what_one_worker_would() -> None:
    config = parse_config({"data": {"size": SIZE}, "pretext": {"puzzling": {"feed": "mixed", "share": 0.55}}})
    tasks = {"puzzling": build("puzzling", config.pretext["puzzling"], FeatureShape(SIZE, 4, 1, 1, 4))}
    plan = feeds.streams(config, B)
    views = torch.rand(1, B, 3, SIZE, SIZE)
    (one,) = feeds.build_inputs(plan, tasks, views, torch.arange(B), B, torch.Generator().manual_seed(1))
    for rank in (0, 1):
        rows = torch.arange(rank, B, 2)
        (part,) = feeds.build_inputs(plan, tasks, views[:, rows], rows, B, torch.Generator().manual_seed(1))
        assert torch.equal(part.images, one.images[rows])
        assert torch.equal(part.weights, one.weights[rows])


def test_tasks_that_join_change_the_same_images_in_turn() -> None:
    plan, (inputs,), views = planned(
        pretext={"puzzling": {"feed": "siamese", "grid": 2}, "rotation": {"joins": "puzzling", "grid": 2}}
    )
    assert len(plan) == 2
    puzzled, turned = inputs.queries["puzzling"], inputs.queries["rotation"]
    assert torch.equal(puzzled.before, views[1])
    assert torch.equal(turned.before, shuffle_tiles(views[1], puzzled.draw, 2))
    assert torch.equal(inputs.images[B:], turn_tiles(turned.before, turned.draw, 2))
    assert feeds.changed_total(plan) == {"puzzling": B, "rotation": B}


def test_shared_tasks_all_change_every_image() -> None:
    plan, (inputs,), _ = planned(pretext={"inpainting": {"feed": "shared"}, "puzzling": {"feed": "shared"}})
    assert list(inputs.queries) == ["puzzling", "inpainting"]
    assert len(plan) == 1


def test_pre_training_has_no_whole_views_that_no_head_reads() -> None:
    for feed in ("siamese", "shared"):
        plan, (inputs,), _ = planned(training={"supervised": False}, pretext={"rotation": {"feed": feed}})
        assert len(plan) == 1
        assert inputs.queries["rotation"].rows.tolist() == list(range(B))


AUTHORS = {"feed": "siamese", "grid": 2, "changed_views": [[1, 1], [1, 1], [0.5, 0.5]]}


@pytest.mark.parametrize("same", [False, True])
def test_changed_views_may_share_their_permutation(same: bool) -> None:
    """Fault A5: in the authors' siamese script the three puzzled views have one permutation."""
    _, inputs, _ = planned(pretext={"puzzling": {**AUTHORS, "same_draw": same}})
    draws = [draw for one in inputs for draw in one.queries["puzzling"].draw.split(B)]
    assert len(draws) == 3
    assert [torch.equal(draws[0], other) for other in draws[1:]] == [same, same]


def test_view_sources_say_whose_augmentation_a_pass_shows() -> None:
    """Fault A9: the authors' views are made from one augmented image."""
    both = {"puzzling": {**AUTHORS, "same_augmentation": True}, "rotation": {}}
    assert parse_config({"data": {"views": 2}, "pretext": both}).view_sources == (0, 1, 0, 0, 0, 5)
    alone = {"training": {"supervised": False}, "pretext": both}
    assert parse_config(alone).view_sources == (0, 0, 0, 3)
    for name in ("same_augmentation", "same_draw"):
        with pytest.raises(ConfigError, match="only the siamese feed has changed views, not 'mixed'"):
            parse_config({"pretext": {"puzzling": {"feed": "mixed", name: True}}})


def test_missing_labels_do_not_count() -> None:
    plan, _, _ = planned(pretext={"inpainting": {"feed": "mixed", "share": 0.3, "supervised_weight": 0.5}})
    labelled = np.ones(B, np.bool_)
    labelled[[0, 9]] = False  # one changed row and one whole one
    assert feeds.supervised_total(plan, labelled) == pytest.approx(2 * 0.5 + 6)


@pytest.mark.parametrize("task", PRETEXT_OPTIONS)
@pytest.mark.parametrize("feed", ["shared", "mixed", "siamese"])
def test_images_keep_their_memory_format(task: str, feed: str) -> None:
    config = parse_config({"data": {"size": SIZE}, "pretext": {task: {"feed": feed}}})
    tasks = {task: build(task, config.pretext[task], FeatureShape(SIZE, 4, 1, 1, 4))}
    plan = feeds.streams(config, B)
    for memory in (torch.channels_last, torch.contiguous_format):
        views = torch.rand(len(plan) * B, 3, SIZE, SIZE).contiguous(memory_format=memory)
        views = views.unflatten(0, (len(plan), B))  # as the loop makes them
        for inputs in feeds.build_inputs(plan, tasks, views, torch.arange(B), B, torch.Generator().manual_seed(1)):
            assert inputs.images.is_contiguous(memory_format=memory)
