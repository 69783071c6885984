"""What a run is asked for, and the faces of those who do the work: whoever samples, decodes and watches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..media import FilmSound, exact_rate
from ..sampling.chunks import Chunk
from ..sampling.long_video import ChunkSampler, PrefixMode
from .chunk_file import ChunkRecord, Ingredients
from .forecast import Forecast, Memory
from .old_takes import OldTakes
from .reuse import Decision, Wish

C = TypeVar("C")
Frames = NDArray[np.uint8]
"""(n, H, W, 3) RGB."""

FORGOTTEN = 32
"""Latents that a Wan VAE is warmed with where a run goes on. One byte of 50,000 then differs by one step from an
unbroken decoding, with random weights. Source: decision 006."""


def film_rate(fps: float) -> Fraction:
    """Return the frame rate of a film's file: 23.976 is 24000/1001."""
    return exact_rate(fps)


class Decoder(Protocol):
    """Decodes the latents of one video, in order."""

    name: str
    """What frames depend on beside latents; another name makes segments anew."""
    lookback: int | None
    """Latents before a point that must be taken to go on there exactly; None is all of them."""

    def frames(self, latents: Tensor) -> Iterator[Frames]:
        """Yield the frames of the next latents (1, C, T, h, w), a few at a time."""
        ...

    def warm(self, latents: Tensor) -> None:
        """Take latents that are decoded already."""
        ...

    def reset(self) -> None:
        """Begin with the video's first latent again, or with ``warm``."""
        ...

    def snapshot(self) -> object:
        """Return the state, to come back to it."""
        ...

    def restore(self, state: Any) -> None:  # noqa: ANN401 - each decoder has its own kind of state
        """Come back to a state."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Script(Generic[C]):
    """What one chunk is made from."""

    chunk: Chunk
    seed: int
    prompt: str
    ingredients: Ingredients
    """All of it by digest, the seed among them, but for what comes before the chunk."""
    conditions: Callable[[], C]
    """Gives what the sampler needs; called just before the chunk is sampled."""
    take: int | None = None
    """A take on disk to use, whatever it was made from."""
    bridge: bool = False
    """Whether the chunk is to lead back to the later ones as they are."""

    @property
    def wish(self) -> Wish:
        """The script as something to look for on disk."""
        return Wish(self.chunk, self.ingredients, self.take, self.bridge)


class Guard(Protocol):
    """Holds the statistics of latents; see `sampling.colour_guard`."""

    def __call__(self, chunk_index: int, latents: Tensor, num_prefix: int) -> Tensor:
        """Return a chunk's latents, those behind the prefix pulled back."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what it knows after this chunk."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Know what it knew after another chunk; nothing, where the mapping is empty."""
        ...


class Meter(Protocol):
    """Measures drift; see `evaluate.drift`."""

    @property
    def name(self) -> str:
        """What its numbers depend on beside the frames and the first chunk; those of another meter do not count."""
        ...

    def keep_first(self, frames: Frames) -> None:
        """Take frames of the first chunk as what later ones are compared with."""
        ...

    def measure(self, frames: Frames) -> Mapping[str, float]:
        """Return similarities by name; ``similarity`` is the one that decides, 1 where nothing drifts."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Return what is known of the first chunk, as JSON can say it."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Know it again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Drift:
    """How drift is measured, and what is done about it."""

    meter: Meter
    threshold: float = 0.0
    """A chunk less similar than this is sampled again; 0 never does that."""
    tries: int = 0
    """How often at most."""
    embedding: str = ""
    """What compares the pictures, as it is shown to a person."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunJob(Generic[C]):
    """A whole video."""

    chunks: tuple[Chunk, ...]
    shape: tuple[int, int, int, int]
    """(B, C, h, w) of the latents; B is 1."""
    prefix_mode: PrefixMode
    start: Tensor | None
    """Clean latents that the video begins with (1, C, P, h, w)."""
    skipped_frames: int = 0
    """Frames at the start that are not part of the film: the tail of the video that it goes on from."""
    script: Callable[[Chunk, int], Script[C]]
    """A chunk as it is wanted now; the number is 0, or counts the attempts after a drifting one."""
    plain: Callable[[Chunk], Script[C]]
    """The same without re-rolls."""
    sampler: ChunkSampler[C]
    decoder: Decoder
    pictures: Callable[[Tensor], Frames] | None = None
    """For weights that are shown pictures: gives those of a prefix (1, C, P, h, w), the decoder being just before the
    next chunk."""
    guard: Guard | None = None
    drift: Drift | None = None
    fps: Fraction
    size: tuple[int, int]
    """Width and height of the film's frames."""
    look: Callable[[Chunk], str]
    """Tells what a chunk's frames in the film depend on beside the decoded ones; other words make its segment anew."""
    show: Callable[[Frames, Chunk, str], Frames]
    """Lays out decoded frames for the film, given the chunk and its prompt."""
    sound: FilmSound | None = None
    sound_digest: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a person wants to find in run.json."""
    on_frames: Callable[[Frames], None] | None = None
    """Told the film's frames before they are laid out; then every chunk is decoded, also those on disk."""
    memory: tuple[Memory, ...] = ()
    """What the work takes of each kind of memory, as far as its host can say."""
    on_forecast: Callable[[Forecast], None] | None = None
    """Told what the run will cost, before it is told what is planned."""
    removes_old: bool = False
    """Whether what the finished film does not need is deleted from the folder: other takes, other looks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkNews:
    """A chunk that is part of the film now."""

    record: ChunkRecord
    reused: bool
    drift: Mapping[str, float] | None
    attempts: int
    """How many takes were looked at."""
    segment: Path
    seconds: float
    """Time that sampling, decoding and waiting for the encoder took; 0 where it was reused."""


class Watch(Protocol):
    """Whoever follows a run. What a method raises ends the run, which can be taken up again."""

    def planned(self, decisions: list[Decision], notes: list[str]) -> None:
        """Hear what will be done, before anything is."""
        ...

    def checkpoint(self) -> None:
        """Say whether to stop: called after every few decoded frames, and between the parts of the work."""
        ...

    def shown(self, chunk: Chunk, frames: Frames) -> None:
        """Hear laid-out frames as they are decoded."""
        ...

    def finished(self, news: ChunkNews) -> None:
        """Hear of a chunk that is done."""
        ...

    def drifting(self, chunk: Chunk, drift: Mapping[str, float], attempt: int) -> None:
        """Hear that a chunk drifts and is sampled again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunResult:
    """A finished run."""

    video: Path
    last_frame: Frames
    """(H, W, 3), as decoded, without any layout."""
    chunks: tuple[ChunkNews, ...]
    old: OldTakes
    """What the folder holds, or held, that this film does not need."""
