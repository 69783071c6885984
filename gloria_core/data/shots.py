"""What has to be decoded: pieces of films and single frames, read in one pass over each video."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..media import iter_frames
from .pictures import Pixels, cover, fitted


@dataclass(frozen=True, slots=True)
class Shot:
    """Some frames of a video at a size; a single frame where it is an anchor."""

    key: str
    """Where it goes in the cache."""
    frames: tuple[int, ...]
    """Source frames in their order; one may be shown several times."""
    size: tuple[int, int]
    """Width and height."""
    crop: tuple[int, int, int, int] | None = None
    use: Literal["film", "known", "seen"] = "film"
    """``film``: latents. ``known``: the beginning of a clip, with grey behind it. ``seen``: what CLIP vision sees."""
    num_latents: int = 0
    """Length of the clip that ``known`` pictures begin."""


@dataclass(slots=True, eq=False)
class _Open:
    shot: Shot
    taken: list[Pixels] = field(default_factory=list)

    def take(self, number: int, picture: Pixels) -> bool:
        """Take a frame as often as it is shown, and tell whether all are there."""
        frames, size = self.shot.frames, self.shot.size
        if frames[len(self.taken)] == number:
            shown = fitted(picture, cover(picture.shape[1], picture.shape[0], size, self.shot.crop))
            while len(self.taken) < len(frames) and frames[len(self.taken)] == number:
                self.taken.append(shown)
        return len(self.taken) == len(frames)


def read_shots(video: Path, shots: Sequence[Shot]) -> Iterator[tuple[Shot, Pixels]]:
    """Decode shots of a video in one pass, and give each as soon as its last frame is there.

    A shot whose frames the video does not have is not given.

    Args:
        video: the file.
        shots: in any order; those that overlap are held in memory together.

    Yields:
        A shot and its frames (F, H, W, 3).

    Raises:
        MediaError: the file cannot be read; shots before the damage have been given.
    """
    waiting = sorted(shots, key=lambda shot: shot.frames[0], reverse=True)
    opened: list[_Open] = []
    number = 0
    for batch in iter_frames(video):
        for picture in batch:
            while waiting and waiting[-1].frames[0] == number:
                opened.append(_Open(waiting.pop()))
            done = [item for item in opened if item.take(number, picture)]
            opened = [item for item in opened if item not in done]
            for item in done:
                yield item.shot, np.stack(item.taken)
            number += 1
            if not waiting and not opened:
                return
