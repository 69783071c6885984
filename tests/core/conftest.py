"""Fakes of the protocols, and the closed-form model of a Gaussian world."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from gloria_core.types import AnchorSet


@dataclass
class Call:
    """What a denoiser was given in one pass."""

    x: Tensor
    timestep: Tensor
    context: Tensor
    anchors: AnchorSet | None
    num_prefix: int
    prefix_timestep: float
    audio: Tensor | None
    cache: Any


@dataclass
class FakeDenoiser:
    """A `Denoiser` for latents whose every value is drawn from N(mean + context's mean + audio's mean, std^2).

    For such a world the best velocity is known exactly, so that sampling has a known result.
    """

    mean: float = 0.0
    std: float = 0.5
    calls: list[Call] = field(default_factory=list)

    def __call__(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        anchors: AnchorSet | None = None,
        num_prefix: int = 0,
        prefix_timestep: float = 0.0,
        audio: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        self.calls.append(Call(x.clone(), timestep, context, anchors, num_prefix, prefix_timestep, audio, cache))
        s = (timestep / 1000).view(-1, 1, 1, 1, 1)
        mean = self.mean + context.mean(dim=(1, 2)).view(-1, 1, 1, 1, 1)
        if audio is not None:
            mean = mean + audio.mean(dim=(2, 3)).view(audio.shape[0], 1, -1, 1, 1)
        x0 = mean + (1 - s) * self.std**2 / ((1 - s) ** 2 * self.std**2 + s**2) * (x - (1 - s) * mean)
        velocity = (x - x0) / s
        return torch.cat([torch.zeros_like(velocity[:, :, :num_prefix]), velocity[:, :, num_prefix:]], dim=2)


@dataclass
class FakeCache:
    """A `Cache` that counts."""

    chunks_started: int = 0

    def start_chunk(self) -> None:
        self.chunks_started += 1


@pytest.fixture
def make_denoiser() -> Callable[..., FakeDenoiser]:
    """Return a maker of fake denoisers."""
    return FakeDenoiser


@pytest.fixture
def cache() -> FakeCache:
    """Return a fresh counting cache."""
    return FakeCache()


@pytest.fixture
def generator() -> torch.Generator:
    """Return a seeded source of randomness."""
    return torch.Generator().manual_seed(20260718)
