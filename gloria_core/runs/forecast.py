"""What a run will cost, in numbers and in sentences: disk, memory and time. Arithmetic only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

BITS_PER_PIXEL = 0.15
"""What a pixel of film takes at quality 18 where nothing is known yet: 0.09 in the demo's film, which stands still in
large parts; films of people lie between 0.05 and 0.5, grain above that."""
SOUND_BYTES_A_SECOND = 24_000
WEIGHTS, PASS, CACHE, LATENTS = "weights", "a forward pass", "keys and values of anchors", "latents"
DECODING, STATE, PICTURES = "decoding", "the decoder's memory", "pictures in work"
WAITING, IMAGES = "pictures that wait for a verdict", "pictures for 'images'"
"""What takes memory."""
_SMALLER = "make 'width' and 'height' smaller"
_REMEDIES = {
    PASS: f"Lower 'chunk_latents', or {_SMALLER}.",
    CACHE: "Give fewer anchors.",
    LATENTS: f"Lower 'chunk_latents', or {_SMALLER}.",
    WAITING: f"Set 'drift_threshold' to 0, lower 'chunk_latents', or {_SMALLER}.",
    IMAGES: "Disconnect 'images', and use 'video', which is on disk.",
    **dict.fromkeys((DECODING, STATE, PICTURES), f"M{_SMALLER[1:]}."),
}
"""What to change where one of these is too large."""


def latent_bytes(num_latents: int, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes of latent frames on the disk, in float32; ``shape`` is (B, C, h, w)."""
    return num_latents * math.prod(shape) * 4


def video_bytes(num_frames: int, size: tuple[int, int], bytes_a_frame: float | None = None) -> int:
    """Return about how many bytes encoded frames take.

    Args:
        num_frames: pixel frames.
        size: width and height in pixels.
        bytes_a_frame: what frames of this film took so far; None where there are none.
    """
    guess = size[0] * size[1] * BITS_PER_PIXEL / 8
    return round(num_frames * (guess if bytes_a_frame is None else bytes_a_frame))


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """What a run writes from now on, in bytes."""

    latents: int
    """Of the chunks that are made; exact."""
    segments: int
    """The chunks as videos of their own; estimated."""
    film: int
    """The whole film; estimated. It is there twice for a moment: growing and finished."""
    free: int
    """What the disk has left."""

    @property
    def needed(self) -> int:
        """What is taken at most."""
        return self.latents + self.segments + 2 * self.film


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a run takes of one kind of memory, in bytes, by the names above. Sampling and decoding follow each other."""

    place: str
    """Whose memory: ``graphics card`` or ``main memory``."""
    sampling: Mapping[str, int]
    decoding: Mapping[str, int]
    free: int
    """What can be had, with all that may be moved out of the way."""

    @property
    def needed(self) -> int:
        """What is taken at most."""
        return max(sum(self.sampling.values()), sum(self.decoding.values()))

    @property
    def least(self) -> int:
        """What is taken where weights are fetched piece by piece, at the cost of time."""
        return max(sum(parts.values()) - parts.get(WEIGHTS, 0) for parts in (self.sampling, self.decoding))

    @property
    def largest(self) -> Mapping[str, int]:
        """The parts of the phase that takes most."""
        return max(self.sampling, self.decoding, key=lambda parts: sum(parts.values()))

    @property
    def warning(self) -> str:
        """What a person should know and do where it does not fit; empty where it does."""
        if self.least > self.free:
            return (
                f"The {self.place} may not suffice: this takes about {sized(self.least)}, and {sized(self.free)} can "
                f"be had. {self._remedy}"
            )
        if self.needed > self.free:
            return (
                f"{sized(self.needed - self.free)} of weights do not fit into the {self.place} beside the work and are "
                "fetched again and again, which is slower: lower 'chunk_latents', or load weights in fp8 or GGUF."
            )
        return ""

    @property
    def _remedy(self) -> str:
        fixed = {
            name: size for parts in (self.sampling, self.decoding) for name, size in parts.items() if name != WEIGHTS
        }
        return _REMEDIES[max(fixed, key=lambda name: fixed[name])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run will cost."""

    disk: Disk
    memory: tuple[Memory, ...] = ()
    seconds: float | None = None
    """How long the chunks that are made will take; None where nothing like them was ever made."""
    by_chunks: int = 0
    """How many chunks on disk the time was told by."""

    def lines(self) -> list[str]:
        """Return sentences for a person."""
        return [self._disk_line(), *map(_memory_line, self.memory), *self._time_line(), *self.warnings()]

    def warnings(self) -> list[str]:
        """Return what does not fit, and what to do about it."""
        found = [memory.warning for memory in self.memory if memory.warning]
        if self.disk.needed > self.disk.free:
            found.append(
                f"The disk may become full: {sized(self.disk.needed)} are written, and {sized(self.disk.free)} are "
                "free. Free some space, or make the video shorter or smaller."
            )
        return found

    def told(self) -> dict[str, Any]:
        """Return all of it as JSON can say it."""
        return {
            "disk": {**asdict(self.disk), "needed": self.disk.needed},
            "memory": [
                {
                    "place": one.place,
                    "sampling": dict(one.sampling),
                    "decoding": dict(one.decoding),
                    "needed": one.needed,
                    "free": one.free,
                }
                for one in self.memory
            ],
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "by_chunks": self.by_chunks,
            "warnings": self.warnings(),
        }

    def _disk_line(self) -> str:
        disk = self.disk
        return (
            f"Disk: {sized(disk.latents)} of latents, and about {sized(disk.segments)} of pieces and "
            f"{sized(disk.film)} of film; {sized(disk.free)} are free."
        )

    def _time_line(self) -> list[str]:
        if self.seconds is None:
            return []
        chunks = "a chunk" if self.by_chunks == 1 else f"{self.by_chunks} chunks"
        return [f"It takes about {duration(self.seconds)}, by {chunks} like these on disk."]


def seconds_for(num_chunks: int, known: Sequence[float]) -> float | None:
    """Return how long chunks will take by what others took: by their median, which one slow chunk does not move."""
    return num_chunks * median(known) if known else None


def duration(seconds: float) -> str:
    """Return a length of time as a person says it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def _memory_line(memory: Memory) -> str:
    parts = sorted(memory.largest.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {sized(size)}" for name, size in parts if size >= memory.needed / 100)
    return f"{memory.place.capitalize()}: up to about {sized(memory.needed)} ({told}); {sized(memory.free)} can be had."


def sized(num_bytes: float) -> str:
    """Return bytes as a person says them: ``340 kB``, ``12 MB``, ``1.5 GB``."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.1f} GB"
    if num_bytes >= 1e7:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
