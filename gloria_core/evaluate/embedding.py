"""Pictures as vectors of length 1 whose product tells how alike two pictures are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, pad

from ..errors import GloriaError
from .colour import Frames, lab, resized

_SIDE, _GRID, _DIRECTIONS = 96, 4, 4
_LIGHTNESS, _HUE, _EDGES = 32.0, 25.0, 0.8
"""What one radian stands for: in L, in a and b, and in the root of the mean slope (L per pixel) of the edges."""
_EDGES_WEIGHT = 0.7


class Embedding(Protocol):
    """Turns pictures into vectors."""

    @property
    def name(self) -> str:
        """What it is called where its numbers are shown; another name for whatever gives other numbers."""
        ...

    @property
    def floor(self) -> float:
        """The product (-1..1) of two pictures that have nothing in common; the meter calls it a similarity of 0."""
        ...

    def __call__(self, frames: Frames) -> Tensor:
        """Return vectors (n, D) of length 1, float32 on the CPU, for pictures (n, H, W, 3)."""
        ...


@dataclass(frozen=True, slots=True)
class NamedEmbedding:
    """Any function as an `Embedding`, such as a host's image encoder."""

    name: str
    function: Callable[[Frames], Tensor]
    """Takes pictures (n, H, W, 3); returns vectors (n, D) of any length, type and device."""
    floor: float = 0.0
    """See `Embedding`. Image encoders that were trained with captions seldom go below 0.4."""

    def __post_init__(self) -> None:
        if not -1 <= self.floor < 1:
            raise GloriaError(f"The floor of {self.name} is {self.floor}; it must be at least -1 and below 1.")

    def __call__(self, frames: Frames) -> Tensor:
        """Return the function's vectors (n, D), made 1 long; GloriaError where it gave something else."""
        vectors = self.function(frames).detach().float().cpu()
        if vectors.ndim != 2 or len(vectors) != len(frames) or not bool(torch.isfinite(vectors).all()):
            raise GloriaError(
                f"{self.name} returned the shape {tuple(vectors.shape)} for {len(frames)} pictures; it must return one "
                f"vector of finite numbers for each: ({len(frames)}, D)."
            )
        return normalize(vectors, dim=1)


def colour_grid(frames: Frames) -> Tensor:
    """Return what is where in pictures (n, H, W, 3): vectors (n, 224), all of length 1.

    A picture is cut into 4 x 4 fields that overlap by half, so that small motion changes little. Of each field count
    the mean colour (Lab) and how strong its edges are in four directions. Each of these seven numbers is a point on a
    circle; so nothing is lost when lengths become 1, and gain, fading, blur and noise show as well as other things do.
    """
    colours = lab(resized(frames, (_SIDE, _SIDE)))
    edges = _pooled(_edges(colours[:, :1])).sqrt()
    hue = (_pooled(colours[:, 1:]) / _HUE).clamp(-math.pi / 2, math.pi / 2)  # opposites stay opposite
    angles = torch.cat([_pooled(colours[:, :1]) / _LIGHTNESS, hue, edges / _EDGES], dim=1)  # (n, 7, 4, 4)
    weights = torch.tensor([1.0] * 3 + [_EDGES_WEIGHT] * _DIRECTIONS)
    weights = (weights / (weights.sum() * _GRID**2)).sqrt()[:, None, None]
    return torch.cat([angles.cos() * weights, angles.sin() * weights], dim=1).flatten(1)


COLOUR_GRID = NamedEmbedding("gloria-colour-grid-v1", colour_grid, floor=0.9)
"""The embedding that needs no network. Other characters of the nano world lie around its floor + 0.05."""


def _pooled(values: Tensor) -> Tensor:
    field = _SIDE // _GRID
    return avg_pool2d(values, 2 * field, field, padding=field // 2, count_include_pad=False)


def _edges(lightness: Tensor) -> Tensor:
    """Return the slope (n, 4, H, W) of a lightness (n, 1, H, W), shared out among the nearest directions."""
    padded = pad(lightness, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    direction = 2 * torch.atan2(down, across)  # doubled: an edge has no front and back
    middles = 2 * math.pi * torch.arange(_DIRECTIONS) / _DIRECTIONS
    share = (direction - middles[:, None, None]).cos().clamp(min=0)
    return torch.hypot(across, down) * share / share.sum(1, keepdim=True).clamp(min=1e-6)
