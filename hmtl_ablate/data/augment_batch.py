"""Training views drawn for a whole batch at once on a GPU, from the same distribution as augment.py's.

All random numbers except the noise are drawn on the CPU, so nothing waits for the device. Two are drawn once per batch,
which does not change an image's own distribution: the order of the colour jitter and the strength of the down-scaling.
Rotation, crop, flip and resizing are one sampling of the stored image; colours and blur are kornia's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import kornia
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from hmtl_ablate.data.views import BLUR_SIDE, BLUR_SIGMA, DOWNSCALE, HOLE, JITTER, LEVELS, NOISE
from hmtl_ablate.to_device import to_device


@dataclass(frozen=True)
class Draws:
    """The random numbers of B images; tensors on the CPU, one row per image."""

    angle: Tensor
    """Degrees, [B]."""
    crop: Tensor
    """Side as a share of the image's, top and left as shares of the free range, [B, 3]."""
    flipped: Tensor
    """bool [B], like the four below."""
    jittered: Tensor
    factors: Tensor
    """What is added to the brightness, factors of contrast and saturation, and the hue's shift in turns, [B, 4]."""
    greyed: Tensor
    blurred: Tensor
    downscaled: Tensor
    noise: Tensor
    """Standard deviation, [B]."""
    hole: Tensor
    """Top and left as shares of the free range, [B, 2]."""
    order: tuple[int, ...]
    """Of the four colour changes; one for the batch."""
    scale: float
    """Of the down-scaling; one for the batch."""

    def of(self, rows: Tensor) -> Draws:
        """The draws of some of the images, int64 [b]."""
        held: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        own: dict[str, Any] = {name: value[rows] for name, value in held.items() if isinstance(value, Tensor)}
        return replace(self, **own)


class BatchView:
    """Turns stored images, uint8 [B, S, S, C], into the views that the model sees, float [B, 3, size, size], 0 to 1.

    level: none, weak or strong; stored: S in pixels; channels: C, 1 (grey) or 3; without `turn` nothing is rotated.
    """

    def __init__(self, level: str, stored: int, size: int, channels: int, turn: bool = True) -> None:
        self.level, self.stored, self.size = LEVELS[level], stored, size
        self.colour = channels > 1
        self.turn = self.level.turn if turn else 0.0

    def draw(self, count: int, generator: Generator) -> Draws:
        """The random numbers of `count` images; generator: on the CPU."""
        level = self.level

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=generator)

        def happens(probability: float) -> Tensor:
            return torch.rand(count, generator=generator) < probability

        crop = torch.cat([uniform(*level.crop, 1), uniform(0, 1, 2)], dim=1)
        return Draws(
            angle=uniform(-self.turn, self.turn),
            crop=crop,
            flipped=happens(0.5),
            jittered=happens(level.jitter),
            factors=torch.stack([uniform(*span) for span in JITTER.values()], dim=1),
            greyed=happens(level.grey if self.colour else 0.0),
            blurred=happens(level.blur),
            downscaled=happens(level.downscale),
            noise=uniform(*NOISE),
            hole=uniform(0, 1, 2),
            order=tuple(torch.randperm(len(JITTER), generator=generator).tolist()),
            scale=float(uniform(*DOWNSCALE)[0]),
        )

    def __call__(self, images: Tensor, draws: Draws, noise: Generator | None = None) -> Tensor:
        """noise: the generator of the noise, on the images' device; torch's own by default."""
        views = self._sampled(images.permute(0, 3, 1, 2).float() / 255, draws)
        if not self.colour:
            views = views.expand(-1, 3, -1, -1).contiguous()
        _change(views, draws.jittered, lambda some: self._jittered(some, draws))
        _change(views, draws.greyed, lambda some: kornia.color.rgb_to_grayscale(some).expand_as(some))
        _change(
            views, draws.blurred, lambda some: kornia.filters.gaussian_blur2d(some, BLUR_SIDE, (BLUR_SIGMA, BLUR_SIGMA))
        )
        _change(views, draws.downscaled, lambda some: self._downscaled(some, draws.scale))
        if self.level.noisy:
            deviation = to_device(draws.noise, views.device).view(-1, 1, 1, 1)
            views = (views + deviation * torch.randn(views.shape, generator=noise, device=views.device)).clamp(0, 1)
            views = views.masked_fill(self._holes(draws.hole, views.device), 0.0)
        return views

    def _sampled(self, images: Tensor, draws: Draws) -> Tensor:
        """`images` [B, C, S, S] rotated about the centre, cropped, flipped and resized, in one sampling; 0 outside."""
        share, corner = draws.crop[:, :1], draws.crop[:, 1:]
        side = (share * self.stored).round().clamp(min=1)
        start = ((self.stored - side) * corner).round() if self.level.anywhere else ((self.stored - side) / 2).floor()
        zoom, (top, left) = side[:, 0] / self.stored, ((2 * start + side) / self.stored - 1).expand(-1, 2).unbind(1)
        cos, sin = draws.angle.deg2rad().cos(), draws.angle.deg2rad().sin()
        across = torch.where(draws.flipped, -zoom, zoom)
        theta = torch.stack(
            [
                torch.stack([cos * across, -sin * zoom, cos * left - sin * top], dim=1),
                torch.stack([sin * across, cos * zoom, sin * left + cos * top], dim=1),
            ],
            dim=1,
        )
        finer = -(-self.stored // self.size)  # an image that shrinks is averaged, so that no pixel is skipped
        shape = (len(images), images.shape[1], self.size * finer, self.size * finer)
        grid = F.affine_grid(to_device(theta, images.device), list(shape), align_corners=False)
        found = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        found = found * (grid.abs() <= 1).all(dim=3)[:, None]  # padding with zeros would also darken a straight edge
        return F.avg_pool2d(found, finer) if finer > 1 else found

    def _jittered(self, images: Tensor, draws: Draws) -> Tensor:
        bright, contrast, saturation, hue = to_device(draws.factors[draws.jittered], images.device).unbind(1)
        steps: list[Callable[[Tensor], Tensor]] = [
            lambda some: (some + bright.view(-1, 1, 1, 1)).clamp(0, 1),
            lambda some: kornia.enhance.adjust_contrast_with_mean_subtraction(some, contrast),
        ]
        if self.colour:
            steps += [
                lambda some: kornia.enhance.adjust_saturation_with_gray_subtraction(some, saturation),
                lambda some: kornia.enhance.adjust_hue(some, hue * (2 * torch.pi)),
            ]
        for step in draws.order:
            if step < len(steps):
                images = steps[step](images)
        return images

    def _downscaled(self, images: Tensor, scale: float) -> Tensor:
        small = F.interpolate(images, size=(max(1, round(self.size * scale)),) * 2, mode="area")
        return F.interpolate(small, size=(self.size, self.size), mode="bilinear", align_corners=False)

    def _holes(self, corner: Tensor, device: torch.device) -> Tensor:
        """bool [B, 1, size, size]."""
        side = round(self.size * HOLE)
        start = to_device((corner * (self.size - side + 1)).floor(), device)[..., None]
        places = torch.arange(self.size, device=device)
        inside = (places >= start) & (places < start + side)  # [B, 2, size]
        return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]


def _change(images: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Change the chosen images, bool [B], in place."""
    rows = chosen.nonzero().flatten()
    if len(rows):
        index = to_device(rows, images.device)
        images.index_copy_(0, index, change(images.index_select(0, index)))
