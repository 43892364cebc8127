"""Order, seeds and sharing of batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.training.batches import EvaluationImages, TrainingBatches, seed_of, stream
from hmtl_ablate.training.supervised import build_tasks


@pytest.fixture
def batches(make, pack: Pack):
    def build(rank: int = 0, world_size: int = 1, **changes: object) -> TrainingBatches:
        config = make(**changes)
        rows = np.flatnonzero(pack.split == 0)
        return TrainingBatches(config, pack, rows, build_tasks(config, pack, rows), rank, world_size)

    return build


@given(st.integers(0, 2**31), st.integers(0, 1000), st.integers(0, 10**6))
def test_seeds_are_32_bit_and_depend_on_every_number(seed: int, epoch: int, image: int) -> None:
    value = seed_of(seed, epoch, image)
    assert 0 <= value < 2**32
    assert value == seed_of(seed, epoch, image)
    assert value not in (
        seed_of(seed, epoch, image + 1),
        seed_of(seed, epoch + 1, image),
        seed_of(seed + 1, epoch, image),
    )


def test_a_seed_by_hand() -> None:
    assert seed_of(0) == 0x6522DF69  # CRC-32 of eight zero bytes


def test_an_epoch_shows_each_image_once_in_an_order_of_its_own(batches) -> None:
    made = batches(training__batch_size=8)
    first, second = made._ordered(1), made._ordered(2)
    assert sorted(first) == sorted(second) == sorted(made.indices)
    assert not np.array_equal(first, second)
    assert made.steps == len(made.indices) // 8
    assert len(made) == 3 * made.steps


def test_batch_n_is_the_same_however_it_is_reached(batches) -> None:
    made = batches(training__batch_size=8, training__epochs=1)
    late = list(stream(made, made.steps - 2))
    assert [(batch.epoch, batch.step) for batch in late] == [(1, made.steps - 2), (1, made.steps - 1)]
    assert torch.equal(late[0].views, made[made.steps - 2].views)
    assert torch.equal(late[0].targets["emotion"], made[made.steps - 2].targets["emotion"])


def test_workers_share_each_batch(batches) -> None:
    whole = batches(data__views=2)[1]
    shares = [batches(rank, 2, data__views=2)[1] for rank in (0, 1)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.views, whole.views[:, rank::2])
        assert torch.equal(share.targets["emotion"], whole.targets["emotion"][:, rank::2])
        assert np.array_equal(share.labelled["emotion"], whole.labelled["emotion"])


def test_a_batch_is_at_most_the_training_split(batches) -> None:
    made = batches(training__batch_size=1000)
    assert (made.batch_size, made.steps) == (len(made.indices), 1)


def test_evaluation_images_are_by_position_in_the_split(make, pack: Pack) -> None:
    rows = np.flatnonzero(pack.split == 1)
    images = EvaluationImages(make(), pack, rows)
    taken = images.take(np.array([2, 0]))
    assert (taken.shape, taken.dtype) == ((2, 32, 32, 3), torch.uint8)
    assert torch.equal(taken[1], EvaluationImages(make(), pack, rows[:1]).take(np.array([0]))[0])
