"""Small films and sounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloria_core.media import FilmSound, FilmWriter

Film = Callable[..., NDArray[np.uint8]]
Sweep = Callable[..., Tensor]
Delay = Callable[[Tensor, Tensor], int]
Shoot = Callable[..., Path]


def _sweep(seconds: float, sample_rate: int = 16000, channels: int = 1) -> Tensor:
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    phase = 2 * torch.pi * (200 * time + 1400 * time.square() / seconds)
    return (0.4 * torch.sin(phase)).float().expand(channels, -1)


def _delay(heard: Tensor, original: Tensor) -> int:
    length = min(heard.shape[1], original.shape[1])
    spectra = [torch.fft.rfft(wave[0, :length], 2 * length) for wave in (heard, original)]
    peak = int(torch.fft.irfft(spectra[0] * spectra[1].conj()).argmax())
    return peak if peak < length else peak - 2 * length


def _shoot(folder: Path, lengths: list[int], sound: FilmSound | None = None, fps: float | Fraction = 16) -> Path:
    with FilmWriter(folder / "film.mp4", fps, (64, 48), sound) as writer:
        for number, length in enumerate(lengths):
            writer.begin(folder / f"{number}.mp4")
            writer.write(_moving(length, seed=number))
            writer.end()
        writer.flush()
        shutil.copy(folder / "film.mp4", folder / "growing.mp4")
        return writer.finish(folder / "out.mp4")


def _written(path: Path, frames: NDArray[np.uint8], sound: FilmSound | None = None) -> Path:
    with FilmWriter(path.with_suffix(".growing.mp4"), 16, (64, 48), sound) as writer:
        writer.begin(path.with_suffix(".segment.mp4"))
        writer.write(frames)
        writer.end()
        return writer.finish(path)


def _moving(num_frames: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> NDArray[np.uint8]:
    width, height = size
    picture = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    large = picture.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(large, 3 * number, axis=1) for number in range(num_frames)])


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
def delay() -> Delay:
    """Samples by which one sound comes later than another, by cross-correlation of the first channels."""
    return _delay


@pytest.fixture
def moving() -> Film:
    """Frames (n, H, W, 3) of coloured squares that wander to the right."""
    return _moving


@pytest.fixture
def shoot() -> Shoot:
    """Make segments ``0.mp4``, ``1.mp4``, ... of given lengths and ``out.mp4``; ``growing.mp4`` is what grew."""
    return _shoot


@pytest.fixture
def write_film() -> Callable[..., Path]:
    """Write frames, and a sound if there is one, to a finished film."""
    return _written


@pytest.fixture
def talkie(tmp_path: Path) -> Path:
    """A film of 2 s at 16 frames a second with a rising tone."""
    return _written(tmp_path / "talkie.mp4", _film(32), FilmSound((_sweep(2), 16000)))


@pytest.fixture
def mute(tmp_path: Path) -> Path:
    """A film of half a second without sound."""
    return _written(tmp_path / "mute.mp4", _film(8))
