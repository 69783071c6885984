"""How far a chunk of a long video has drifted from the anchors and from the video's first chunk.

A character turns and changes its face because it is told to, and that must not count as drift. Hence: each sampled
frame counts with the reference that it is most like, be it the global anchor, a view, an expression or a moment of the
first chunk; of these numbers the better half of the chunk counts, since between two known poses a frame is like none;
and colours are compared as a whole, wherever in the picture they are. Give all anchor pictures that show the scene or
the character as the video does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import GloriaError
from .colour import ColourStatistics, Frames, check_frames, reduced
from .embedding import COLOUR_GRID, Embedding

DEFAULT_THRESHOLD = 0.7
"""Below this similarity a chunk has drifted, for COLOUR_GRID with a global anchor and the four views.

Measured on 64 characters of the nano world, 7 chunks of each behind the first, all turning and changing their mood, the
mouth moving. True chunks have a median of 0.93, and 1 % are below 0.69. What lies below 0.7: 1 % of the true ones, 93 %
of other characters in their place, 99 % after a blur of 2 pixels, 95 % after noise of 0.25 (in -1..1), 69 % after a
gain of 30 %, 71 % after a tint of 0.3; and of slighter changes few: 3 % after a gain of 15 %, 18 % after a tint of
0.15. At 0.75 it would be 5 % of the true ones, and 98, 100, 100, 97 and 84 % of the strong changes. Where the views are
not given, a turn to them looks like drift more often: 4 % of the true chunks are below 0.7 then.
"""
SIMILARITIES = ("to_anchor", "to_first", "colour_to_anchor", "colour_to_first")
"""Names of what is measured of a chunk."""
SAMPLED_FRAMES = 16
"""Frames of a chunk that are looked at, spread evenly."""
_SHORTER_SIDE = 224
"""Pictures are made no larger than this before anything is measured; image encoders want this size."""
_KEPT_MOMENTS = 4
_DIGITS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkDrift:
    """How like a chunk is to what is known: 1 for the same, 0 for nothing in common; None where nothing was given."""

    to_anchor: float | None
    """By the embedding, to the anchor pictures: their product p as max(0, (p - floor) / (1 - floor))."""
    to_first: float | None
    """The same to the first chunk."""
    colour_to_anchor: float | None
    """By the colours as a whole (`ColourStatistics.similarity`), to the most alike anchor picture."""
    colour_to_first: float | None
    """The same to the first chunk."""
    embedding: str
    """The embedding's name."""

    @property
    def similarity(self) -> float:
        """One number to decide by: the worse of embedding and colours, each to what the chunk is most like."""
        content = _best(self.to_anchor, self.to_first)
        colour = _best(self.colour_to_anchor, self.colour_to_first)
        return min(1.0 if content is None else content, 1.0 if colour is None else colour)

    def numbers(self) -> dict[str, float]:
        """Return what there is by name, ``similarity`` among it, as a run tells it."""
        found = {name: getattr(self, name) for name in SIMILARITIES} | {"similarity": self.similarity}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True, eq=False)
class _Reference:
    vectors: Tensor
    """(n, D)."""
    colours: tuple[ColourStatistics, ...]


class DriftMeter:
    """Measures the chunks of one video.

    Args:
        anchor: the global anchor's picture (H, W, 3), uint8.
        embedding: what compares pictures; COLOUR_GRID if not given.
        more: further anchor pictures, each (H, W, 3) of its own size: views and expressions.
    """

    def __init__(self, anchor: Frames | None, embedding: Embedding | None = None, more: Sequence[Frames] = ()) -> None:
        self.embedding: Embedding = embedding or COLOUR_GRID
        pictures = ([] if anchor is None else [anchor]) + list(more)
        self._anchors = self._reference(pictures) if pictures else None
        self._first: _Reference | None = None
        shown = hashlib.blake2b(digest_size=8)
        for picture in pictures:
            shown.update(np.ascontiguousarray(picture).tobytes())
        self._name = f"{self.embedding.name}, {len(pictures)} pictures {shown.hexdigest()}"

    @property
    def name(self) -> str:
        """The embedding, and a digest of the pictures that frames are compared with."""
        return self._name

    def keep_first(self, frames: Frames) -> None:
        """Take a chunk (n, H, W, 3) as the first one: its colours, and the vectors of four of its moments."""
        frames = _sample(frames)
        moments = _spread(frames, _KEPT_MOMENTS)
        vectors = [[round(value, _DIGITS) for value in row] for row in self.embedding(moments).tolist()]
        self._first = _Reference(torch.tensor(vectors), (ColourStatistics.of(frames),))

    def measure(self, frames: Frames) -> dict[str, float]:
        """Return the `ChunkDrift.numbers` of a chunk (n, H, W, 3); see ``compare``."""
        return self.compare(frames).numbers()

    def compare(self, frames: Frames) -> ChunkDrift:
        """Compare a chunk (n, H, W, 3) with the anchors and the first chunk; the same each time.

        Raises:
            MediaError: there are no frames, or they are no 8-bit RGB.
        """
        frames = _sample(frames)
        vectors, colours = self.embedding(frames), ColourStatistics.of(frames)
        return ChunkDrift(
            to_anchor=self._alike(vectors, self._anchors),
            to_first=self._alike(vectors, self._first),
            colour_to_anchor=_colour_alike(colours, self._anchors),
            colour_to_first=_colour_alike(colours, self._first),
            embedding=self.embedding.name,
        )

    def state(self) -> dict[str, Any]:
        """Return what is kept of the first chunk, as lists that JSON can hold (16 kB); empty before ``keep_first``."""
        if self._first is None:
            return {}
        return {
            "embedding": self.embedding.name,
            "vectors": [[round(value, _DIGITS) for value in row] for row in self._first.vectors.tolist()],
            "colours": [asdict(one) for one in self._first.colours],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a ``state`` again, so that a resumed run compares with the same first chunk.

        Raises:
            GloriaError: it was made with another embedding, or is no such state.
        """
        if not state:
            self._first = None
            return
        try:
            name, vectors = state["embedding"], torch.tensor(state["vectors"], dtype=torch.float32)
            colours = tuple(ColourStatistics(tuple(one["mean"]), tuple(one["spread"])) for one in state["colours"])
        except (KeyError, TypeError, ValueError) as error:
            raise GloriaError(f"What is kept of the first chunk cannot be read ({error}); measure it again.") from error
        if name != self.embedding.name:
            raise GloriaError(
                f"The first chunk was measured with {name}, and this run measures with {self.embedding.name}; use the "
                "same embedding, or measure the first chunk again."
            )
        self._first = _Reference(vectors, colours)

    def _reference(self, pictures: Sequence[Frames]) -> _Reference:
        for picture in pictures:
            check_frames(picture[None])
        small = [reduced(picture[None], _SHORTER_SIDE) for picture in pictures]
        return _Reference(torch.cat([self.embedding(one) for one in small]), tuple(map(ColourStatistics.of, small)))

    def _alike(self, vectors: Tensor, reference: _Reference | None) -> float | None:
        """Return how like the better half of frames (n, D) is to the reference that is nearest to each."""
        if reference is None:
            return None
        nearest = (vectors @ reference.vectors.T).amax(dim=1)
        better = nearest.topk(-(-len(nearest) // 2)).values.mean()
        floor = self.embedding.floor
        return round(min(max((float(better) - floor) / (1 - floor), 0.0), 1.0), _DIGITS)


def _colour_alike(colours: ColourStatistics, reference: _Reference | None) -> float | None:
    if reference is None:
        return None
    return round(max(colours.similarity(known) for known in reference.colours), _DIGITS)


def _sample(frames: Frames) -> Frames:
    check_frames(frames)
    return reduced(_spread(frames, SAMPLED_FRAMES), _SHORTER_SIDE)


def _spread(frames: Frames, most: int) -> Frames:
    """Return at most so many pictures, spread evenly from the first to the last."""
    if len(frames) <= most:
        return frames
    return frames[np.linspace(0, len(frames) - 1, most).round().astype(int)]


def _best(*found: float | None) -> float | None:
    return max((value for value in found if value is not None), default=None)
