"""Footage for the tests: made once, copied where a test changes it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gloria_core.data.buckets import Sizes
from gloria_core.nano.encoders import NanoEncoder
from tests.core.data.footage import write_film, write_folder

SIZES = Sizes(fps=16, areas=(48 * 64,), shortest=17)


@pytest.fixture(scope="session")
def _nano_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage") / "nano"
    write_folder(folder, num_takes=2, num_chunks=3)
    return folder


@pytest.fixture
def nano_folder(_nano_footage: Path, tmp_path: Path) -> Path:
    """A folder of two takes of one nano character, and its pictures; the test may change it."""
    return Path(shutil.copytree(_nano_footage, tmp_path / "nano"))


@pytest.fixture(scope="session")
def encoder() -> NanoEncoder:
    """Nano's encoder."""
    return NanoEncoder()


@pytest.fixture
def film() -> Callable[..., Path]:
    """Write a plain film: each frame of one grey level, which tells its number."""

    def write(
        path: Path,
        num_frames: int = 33,
        fps: float = 16,
        size: tuple[int, int] = (48, 64),
        sound: float | None = None,
        shade: int = 0,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = (np.arange(num_frames) * 4 % 240 + shade).astype(np.uint8)
        frames = np.broadcast_to(levels[:, None, None, None], (num_frames, size[1], size[0], 3))
        tone = None
        if sound is not None:
            count = round(num_frames / fps * 16000)
            tone = (sound * torch.sin(torch.arange(count) * 0.2)[None], 16000)
        write_film(path, np.ascontiguousarray(frames), fps, tone)
        return path

    return write


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write a plain picture."""

    def write(path: Path, size: tuple[int, int] = (48, 64), colour: tuple[int, int, int] = (200, 80, 40)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    return write
