"""Which sizes and lengths footage is brought to, and which of its frames are shown when.

A size is a bucket of an area and a shape on the model's grid. A film is cut into pieces of 4k + 1 frames, each encoded
once; batches are windows of latents of equal size and length out of the pieces.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from ..errors import ConfigError
from ..sampling.chunks import STRIDE
from ..tables import at_least, positive

USUAL_AREAS: Mapping[str, int] = {"nano": 48 * 64, "wan2.1": 832 * 480, "wan2.2": 1280 * 704}
"""Pixels of a frame that each latent space's models are used at. Source: wan.md section 1; nano's is its only one."""
_WIDEST = 3.0
_SPARE = 1.05
_COARSE, _COARSE_FROM = 32, 256 * 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What footage is brought to before it is encoded; the dataset's settings."""

    fps: float
    """Frames a second of the latents: the rate that the model was trained at."""
    areas: tuple[int, ...]
    """Pixels of a frame; with several, each clip is encoded at each that its source is large enough for."""
    longest: int = 129
    """Pixel frames of the longest piece, 4k + 1; longer clips are cut into equal pieces."""
    shortest: int = 17
    """Pixel frames of the shortest piece; shorter clips are left out and named."""
    anchor_area: int = 0
    """Pixels of an anchor at most; 0 takes the largest of ``areas``. Pictures keep their shape."""
    prefix_latents: int = 4
    """Latents that training clips go on from; counts only for models with image channels."""

    def __post_init__(self) -> None:
        positive("fps", self.fps)
        if not self.areas:
            raise ConfigError("areas is empty; give the pixels of a frame, such as [399360] for 832 x 480.")
        for area in self.areas:
            at_least("areas", area, 256)
        at_least("shortest", self.shortest, 1)
        at_least("longest", self.longest, self.shortest)
        at_least("prefix_latents", self.prefix_latents, 1)
        if self.longest % STRIDE != 1:
            raise ConfigError(f"longest is {self.longest}; it must be 4k+1: use {num_frames(self.longest)}.")

    @property
    def largest_anchor(self) -> int:
        """Pixels of an anchor at most."""
        return self.anchor_area or max(self.areas)


def areas_of(text: str, codec: str) -> tuple[int, ...]:
    """Return the areas of sizes as people write them, ``832x480, 480x272``; of the usual one where the text is empty.

    Only the area counts: each clip keeps its own shape.

    Raises:
        ConfigError: it is of another form.
    """
    sizes = [part.strip() for part in text.lower().split(",") if part.strip()]
    areas = []
    for size in sizes:
        sides = [side.strip() for side in size.split("x")]
        if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
            raise ConfigError(f"The size {size!r} is not understood; write it as 832x480, several with commas.")
        areas.append(int(sides[0]) * int(sides[1]))
    return tuple(areas) or (USUAL_AREAS.get(codec, USUAL_AREAS["wan2.1"]),)


def num_frames(available: int) -> int:
    """Return the largest 4k + 1 that is not above a number of frames; 0 where there is none."""
    return 0 if available < 1 else (available - 1) // STRIDE * STRIDE + 1


def bucket_size(width: int, height: int, area: int, grid: int) -> tuple[int, int]:
    """Return the width and height of the bucket that fits a picture best: the nearest shape.

    Args:
        width: of the picture.
        height: of the picture.
        area: pixels of the bucket; a twentieth more is allowed.
        grid: pixels that both sides are multiples of. Large areas use multiples of 32, so that buckets are few.
    """
    step = math.lcm(grid, _COARSE) if area >= _COARSE_FROM else grid
    wanted = math.log(width / height)
    choices = []
    for wide in range(step, math.isqrt(round(area * _WIDEST)) + step, step):
        for high in {max(step, area // wide // step * step), (area // wide // step + 1) * step}:
            if wide * high <= area * _SPARE and 1 / _WIDEST <= wide / high <= _WIDEST:
                choices.append((abs(math.log(wide / high) - wanted), -wide * high, wide, high))
    return min(choices)[2:] if choices else (step, step)


def areas_for(width: int, height: int, areas: tuple[int, ...]) -> tuple[int, ...]:
    """Return the areas that a source is large enough for (a tenth may be lacking), or the smallest of all."""
    return tuple(area for area in areas if area <= 1.1 * width * height) or (min(areas),)


def shown_frames(source: range, source_fps: Fraction, fps: Fraction) -> tuple[int, list[int]]:
    """Return which source frames the frames of another clock show: the nearest in time.

    Both clocks begin with frame 0 of the source video, whatever part of it is asked for: so a sound encoded once for
    the whole video fits every clip of it.

    Args:
        source: frames of the source video.
        source_fps: its frames a second.
        fps: frames a second of the other clock.

    Returns:
        The number of the first frame on the other clock, and the source frame that it and each after it shows.
    """
    ratio = source_fps / fps
    half = Fraction(1, 2)
    first = max(0, math.ceil((source.start - half) / ratio))
    stop = math.ceil((source.stop - half) / ratio)
    return first, [math.floor(number * ratio + half) for number in range(first, stop)]


def on_clock(frame: int, source_fps: Fraction, fps: Fraction) -> int:
    """Return the frame of another clock that is nearest to a source frame."""
    return math.floor(frame * fps / source_fps + Fraction(1, 2))


def cut(count: int, sizes: Sizes) -> list[range]:
    """Cut so many frames into equal pieces of 4k + 1 frames, none longer than allowed; none where they are too few."""
    if count < sizes.shortest:
        return []
    pieces = math.ceil(count / sizes.longest)
    length = num_frames(count // pieces)
    if length < sizes.shortest and pieces == 1:
        return []
    return [range(index * (count // pieces), index * (count // pieces) + length) for index in range(pieces)]
