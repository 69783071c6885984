"""Pictures made small, in Lab colours, and what their colours are like as a whole.

Lab is the CIE's space of 1976: L is lightness 0..100, a runs from green to red, b from blue to yellow. A step of 2 to 3
in any direction is just seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import MediaError

Frames = NDArray[np.uint8]
"""(n, H, W, 3) RGB."""

TOLERANCE = 40.0
"""Distance in Lab at which the similarity of colours has fallen to 1/e; see `ColourStatistics.similarity`."""
_STATISTICS_SIDE = 96
_SRGB_LINEAR = torch.tensor(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (i / 255 for i in range(256))]
)
_XYZ_FROM_RGB = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883])  # D65


def resized(frames: Frames, size: tuple[int, int]) -> Frames:
    """Resize pictures (n, H, W, 3) to a width and height; where it shrinks, each new pixel is the mean of its area."""
    if (frames.shape[2], frames.shape[1]) == size:
        return frames
    shrinks = size[0] <= frames.shape[2] and size[1] <= frames.shape[1]
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, how), dtype=np.uint8) for frame in frames])


def reduced(frames: Frames, shorter_side: int) -> Frames:
    """Shrink pictures (n, H, W, 3) until their shorter side has so many pixels; smaller ones stay as they are."""
    height, width = frames.shape[1:3]
    factor = shorter_side / min(height, width)
    return frames if factor >= 1 else resized(frames, (round(width * factor), round(height * factor)))


def check_frames(frames: Frames) -> None:
    """Refuse what is no batch of pictures; raises MediaError."""
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape or frames.dtype != np.uint8:
        raise MediaError(
            f"Pictures of the shape {tuple(frames.shape)} and the type {frames.dtype} cannot be compared; give at "
            "least one, as (number, height, width, 3) of 8-bit RGB."
        )


def lab(frames: Frames) -> Tensor:
    """Convert sRGB pictures (n, H, W, 3) to Lab (n, 3, H, W). Source: CIE 15:2004, IEC 61966-2-1."""
    linear = _SRGB_LINEAR[torch.from_numpy(np.ascontiguousarray(frames)).int()]
    xyz = linear @ (_XYZ_FROM_RGB / _WHITE[:, None]).T
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


@dataclass(frozen=True, slots=True)
class ColourStatistics:
    """What the colours of some pictures are like as a whole: mean and spread (standard deviation) in Lab."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]

    @staticmethod
    def of(frames: Frames) -> ColourStatistics:
        """Measure pictures (n, H, W, 3): the medians over them, so that a flash in a few changes nothing."""
        colours = lab(resized(frames, (_STATISTICS_SIDE, _STATISTICS_SIDE))).flatten(2)  # (n, 3, pixels)
        mean, spread = colours.mean(2).median(0).values, colours.std(2).median(0).values
        return ColourStatistics(_three(mean), _three(spread))

    def distance(self, other: ColourStatistics) -> float:
        """Return the Euclidean distance of all six numbers, in Lab units."""
        return math.dist([*self.mean, *self.spread], [*other.mean, *other.spread])

    def similarity(self, other: ColourStatistics) -> float:
        """Return exp(-distance / TOLERANCE): 1 for the same colours, falling to 0."""
        return math.exp(-self.distance(other) / TOLERANCE)


def _three(values: Tensor) -> tuple[float, float, float]:
    one, two, three = (round(value, 4) for value in values.tolist())
    return one, two, three
