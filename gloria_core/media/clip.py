"""A short video in one file, written in one go."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from .film import FilmWriter
from .film_sound import FilmSound


def write_clip(
    target: Path, frames: Iterable[NDArray[np.uint8]], fps: float | Fraction, sound: FilmSound | None = None
) -> None:
    """Write a video that appears whole or not at all, in memory that does not grow with its length.

    Args:
        target: an .mp4; one of that name is replaced.
        frames: batches (n, H, W, 3), RGB, all of one size with even sides.
        fps: frames a second.
        sound: what is heard, from the first frame on.

    Raises:
        MediaError: there are no frames, they do not fit each other, or the disk refuses.
    """
    batches = iter(frames)
    first = next(batches, None)
    if first is None:
        raise MediaError(f"There are no frames for {target.name}; give one at least.")
    height, width = first.shape[1:3]
    with (
        TemporaryDirectory(prefix="gloria-") as folder,
        FilmWriter(Path(folder) / "film.mp4", fps, (width, height), sound) as writer,
    ):
        writer.begin(Path(folder) / "segment.mp4")
        for batch in chain([first], batches):
            writer.write(batch)
        writer.end()
        writer.finish(target)
