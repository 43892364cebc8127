"""In-painting: mask a part of the image and reconstruct it with a light decoder (docs/paper.md, the method).

The paper does not specify masks, decoder and pixel loss; here they are rectangles or patches, a few convolutions on the
last feature map, and L1 on the masked area. With a perceptual network (the paper's -pl) the distance between the
features of the reconstructed and the true image is added.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from hmtl_ablate.config import InpaintingOptions
from hmtl_ablate.pretext.base import FeatureShape, PretextTask
from hmtl_ablate.pretext.perceptual import PerceptualNetwork

SHUFFLE = 4
"""Factor of the final pixel shuffle: the decoder works at a quarter of the image's side, because convolutions at the
full side would cost more than an EfficientNet-B0."""


def decoder_width(channels: int) -> int:
    """Channels of the decoder's first layer: a quarter of the backbone's, a multiple of 8 from 16 to 128.

    So that the decoder costs a similar share of any backbone: 128 of EfficientNet-B0's 1280, 24 of test_resnet's 96.
    """
    return min(max(channels // 32 * 8, 16), 128)


class Decoder(nn.Sequential):
    """Feature map [B, C, h, w] → image [B, 3, S', S'], S' the least multiple of SHUFFLE from S on: a 1 × 1 convolution,
    enlargements by at most 2, and a pixel shuffle."""

    def __init__(self, features: FeatureShape, dropout: float) -> None:
        width, side = decoder_width(features.channels), features.height
        least = width // 4
        last = -(-features.size // SHUFFLE)
        layers: list[nn.Module] = [nn.Dropout2d(dropout), nn.Conv2d(features.channels, width, 1), nn.GELU()]
        while side < last:
            narrower, side = max(width // 2, least, 16), min(2 * side, last)
            # Group norm: its result does not depend on how a batch is split over workers.
            layers += [
                nn.Upsample(size=(side, side), mode="nearest"),
                nn.Conv2d(width, narrower, 3, padding=1),
                nn.GroupNorm(8, narrower),
                nn.GELU(),
            ]
            width = narrower
        layers += [nn.Conv2d(width, 3 * SHUFFLE**2, 3, padding=1), nn.PixelShuffle(SHUFFLE)]
        super().__init__(*layers)


class Inpainting(PretextTask):
    """Masked pixels are set to 0, the mean colour of a normalised image. The loss is L1 on them; with `perceptual` also
    the perceptual distance of the reconstructed image, divided by the masked share. So neither part grows with the
    mask."""

    metric = "l1"
    regression = True
    draw_is_answer = False
    mean: Tensor
    std: Tensor

    def __init__(self, options: InpaintingOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.decoder = Decoder(features, options.dropout)
        # Not saved: they follow from the backbone. Buffers, so that they are on the device when a step needs them.
        self.register_buffer("mean", torch.tensor(features.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(features.std).view(3, 1, 1), persistent=False)
        # In a tuple, which hides the frozen network from checkpoints, the optimiser and DDP.
        self._networks = (
            () if options.perceptual is None else (PerceptualNetwork(options.perceptual, options.perceptual_layers),)
        )

    def frozen(self) -> list[tuple[nn.Module, str, str]]:
        source = self.options.perceptual_weights
        return [(inner.network, inner.name, source) for inner in self._networks if source is not None]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Inpainting:
        for network in self._networks:
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def draw(self, count: int, generator: Generator) -> Tensor:
        """The masks of `count` images.

        regions: rectangles [count, regions, 4] as (top, left, height, width) in shares of the side, each of area
        mask_ratio / regions and an aspect ratio between 1:2 and 2:1. patches: bool [count, patches, patches], of which
        round(mask_ratio × patches²), at least one and not all, are masked.
        """
        options = self.options
        if options.mask == "patches":
            cells = options.patches**2
            masked = min(max(round(options.mask_ratio * cells), 1), cells - 1)
            rank = torch.rand(count, cells, generator=generator).argsort(dim=1).argsort(dim=1)
            return (rank < masked).reshape(count, options.patches, options.patches)
        numbers = torch.rand(count, options.regions, 3, generator=generator)
        area = options.mask_ratio / options.regions
        height = (area * 2 ** (2 * numbers[..., 0] - 1)).sqrt().clamp(max=1.0).clamp(min=area)
        width = area / height
        top, left = numbers[..., 1] * (1 - height), numbers[..., 2] * (1 - width)
        return torch.stack([top, left, height, width], dim=-1)

    def mask(self, draw: Tensor, side: int) -> Tensor:
        """bool [B, 1, side, side], True where a pixel is masked; at least one is."""
        if self.options.mask == "patches":
            return F.interpolate(draw[:, None].float(), size=(side, side), mode="nearest").bool()
        places = torch.arange(side, device=draw.device)
        start = (draw[..., :2] * side).round()
        end = torch.maximum((start + (draw[..., 2:] * side).round()).clamp(max=side), start + 1)
        inside = (places >= start[..., None]) & (places < end[..., None])  # [B, regions, 2, side]
        return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).any(dim=1, keepdim=True)

    def change(self, images: Tensor, draw: Tensor) -> Tensor:
        return torch.where(self.mask(draw, images.shape[-1]), 0.0, images)  # masked_fill loses channels-last

    def forward(self, maps: Tensor, pooled: Tensor) -> Tensor:
        """An image [B, 3, s, s], s the side of the decoder's images; `loss` and `rebuilt` resize it to the input's."""
        return self.decoder(maps)

    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Mean absolute error over the masked pixels, in normalised units, + weight × perceptual distance / the masked
        share: the distance is a mean over the whole image, nearly all of which is the true one."""
        error = self._pixel_error(output, images, draw)
        for network in self._networks:
            share = self.mask(draw, images.shape[-1]).float().mean(dim=(1, 2, 3))
            distance = network(self.rebuilt(output, images, draw) * self.std + self.mean, images * self.std + self.mean)
            error = error + self.options.perceptual_weight * distance / share
        return error

    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Mean absolute error over the masked pixels, in normalised units."""
        return self._pixel_error(output, images, draw)

    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """The true image outside the mask, the decoder's output inside."""
        return torch.where(self.mask(draw, images.shape[-1]), _to_side(output, images), images)

    def _pixel_error(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        mask = self.mask(draw, images.shape[-1])
        error = (_to_side(output, images) - images.float()).abs().mean(dim=1, keepdim=True)
        return (error * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def _to_side(output: Tensor, images: Tensor) -> Tensor:
    output = output.float()
    if output.shape[-2:] == images.shape[-2:]:
        return output
    return F.interpolate(output, size=images.shape[-2:], mode="bilinear", align_corners=False)
