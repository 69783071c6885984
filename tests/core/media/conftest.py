"""Small films and sounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloria_core.media import VideoWriter

Film = Callable[..., NDArray[np.uint8]]
Sweep = Callable[..., Tensor]


def _sweep(seconds: float, sample_rate: int = 16000, channels: int = 1) -> Tensor:
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    phase = 2 * torch.pi * (200 * time + 1400 * time.square() / seconds)
    return (0.4 * torch.sin(phase)).float().expand(channels, -1)


def _film(num_frames: int, size: tuple[int, int] = (64, 48), first: int = 0) -> NDArray[np.uint8]:
    width, height = size
    greys = (16 + 3 * np.arange(first, first + num_frames)).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (num_frames, height, width, 3)).copy()


@pytest.fixture
def sweep() -> Sweep:
    """A tone that rises from 200 to 3000 Hz: no two stretches are alike, so that a shift is measured to the sample."""
    return _sweep


@pytest.fixture
def film() -> Film:
    """Frames (n, H, W, 3), each of one even grey that tells its number."""
    return _film


@pytest.fixture
def talkie(tmp_path: Path) -> Path:
    """A film of 2 s at 16 frames a second with a rising tone."""
    path = tmp_path / "talkie.mp4"
    with VideoWriter(path, 16, (64, 48), audio=(_sweep(2), 16000)) as writer:
        writer.write(_film(32))
    return path


@pytest.fixture
def mute(tmp_path: Path) -> Path:
    """A film of half a second without sound."""
    path = tmp_path / "mute.mp4"
    with VideoWriter(path, 16, (64, 48)) as writer:
        writer.write(_film(8))
    return path
