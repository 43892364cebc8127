from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.config import InpaintingOptions
from hmtl_ablate.pretext import FeatureShape
from hmtl_ablate.pretext.inpainting import Inpainting


def task(size: int = 32, **options: Any) -> Inpainting:
    return Inpainting(InpaintingOptions(**options), FeatureShape(size, 8, 1, 1, 8))


def test_loss_counts_masked_pixels_only() -> None:
    inpainting = task(mask="patches", patches=4, mask_ratio=0.25)
    images = torch.rand(3, 3, 32, 32)
    draw = inpainting.draw(3, torch.Generator().manual_seed(0))
    mask = inpainting.mask(draw, 32)
    assert mask.float().mean().item() == 0.25
    outside = torch.where(mask, images, images + 100)
    assert inpainting.loss(outside, images, draw).tolist() == [0.0] * 3
    inside = torch.where(mask, images + 0.5, images + 100)
    assert inpainting.loss(inside, images, draw).tolist() == pytest.approx([0.5] * 3, abs=1e-5)


def test_one_masked_pixel_by_hand() -> None:
    inpainting = task(size=4, mask="patches", patches=4, mask_ratio=0.07)
    draw = torch.zeros(1, 4, 4, dtype=torch.bool)
    draw[0, 1, 2] = True
    images, output = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    output[0, :, 1, 2] = torch.tensor([0.1, 0.2, 0.6])
    assert inpainting.loss(output, images, draw).item() == pytest.approx(0.3)
    changed = inpainting.change(torch.ones(1, 3, 4, 4), draw)
    assert changed[0, :, 1, 2].sum() == 0
    assert changed.sum() == 3 * 15


def test_no_gradient_from_unmasked_pixels() -> None:
    inpainting = task(mask="patches", patches=2, mask_ratio=0.25)
    draw = inpainting.draw(1, torch.Generator().manual_seed(3))
    output = torch.rand(1, 3, 32, 32, requires_grad=True)
    inpainting.loss(output, torch.zeros(1, 3, 32, 32), draw).sum().backward()
    assert output.grad is not None
    touched = output.grad.abs().sum(dim=1) > 0
    assert torch.equal(touched, inpainting.mask(draw, 32)[:, 0])


@settings(max_examples=50)
@given(st.floats(0.05, 0.9), st.integers(1, 8), st.integers(0, 1000))
def test_regions_cover_at_most_the_ratio_and_at_least_a_region(ratio: float, regions: int, seed: int) -> None:
    inpainting = task(size=128, mask_ratio=ratio, regions=regions)
    draw = inpainting.draw(4, torch.Generator().manual_seed(seed))
    covered = inpainting.mask(draw, 128).float().mean(dim=(1, 2, 3))
    rounding = 0.02 + 0.01 * regions
    assert bool((covered <= ratio + rounding).all())
    assert bool((covered >= ratio / regions - 0.02).all())


@given(st.floats(0.01, 0.99), st.integers(2, 12), st.integers(0, 1000))
def test_patches_mask_the_rounded_share_exactly(ratio: float, patches: int, seed: int) -> None:
    inpainting = task(mask="patches", patches=patches, mask_ratio=ratio)
    draw = inpainting.draw(3, torch.Generator().manual_seed(seed))
    expected = min(max(round(ratio * patches**2), 1), patches**2 - 1)
    assert draw.sum(dim=(1, 2)).tolist() == [expected] * 3


def test_rebuilt_equals_the_image_outside_the_mask() -> None:
    inpainting = task(mask_ratio=0.4)
    images, output = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    draw = inpainting.draw(2, torch.Generator().manual_seed(1))
    mask = inpainting.mask(draw, 32).expand_as(images)
    rebuilt = inpainting.rebuilt(output, images, draw)
    assert torch.equal(rebuilt[~mask], images[~mask])
    assert torch.equal(rebuilt[mask], output[mask])
