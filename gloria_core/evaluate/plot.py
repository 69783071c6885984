"""Drift as a picture: how similar each chunk is, over the seconds of the video."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from PIL import Image

from ..errors import GloriaError
from .drift import SIMILARITIES
from .pen import Colour, Pen, Point, text_width

SMALLEST_SIZE = (640, 280)
"""Width and height in pixels below which the texts would not fit."""
_INK, _FAINT, _GRID, _PAPER = (28, 30, 38), (110, 114, 128), (222, 221, 216), (250, 249, 246)
_LIMIT, _SHADE = (196, 48, 32), (249, 226, 220)
_LOOKS: dict[str, tuple[str, Colour, float]] = {  # label, colour, width of the line
    "colour_to_anchor": ("colours, to anchors", (232, 158, 62), 1.5),
    "colour_to_first": ("colours, to first chunk", (190, 132, 190), 1.5),
    "to_anchor": ("content, to anchors", (30, 92, 170), 2.5),
    "to_first": ("content, to first chunk", (22, 140, 112), 2.5),
}
_TRIANGLE, _DIAMOND = ((-5, -4), (5, -4), (0, 5)), ((0, -6), (5, 0), (0, 6), (-5, 0))
_STEPS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlottedChunk:
    """One chunk of the plot."""

    start_s: float
    end_s: float
    drift: Mapping[str, float] = field(default_factory=dict)
    """`ChunkDrift.numbers`; a number that is not there makes a gap in its line."""
    is_reroll: bool = False
    """Whether it was made again, because it drifted or because somebody wished so."""
    is_bridge: bool = False
    """Whether it leads back to chunks that were there before."""


def drift_plot(
    chunks: Sequence[PlottedChunk],
    *,
    width: int = 1200,
    height: int = 480,
    threshold: float = 0.0,
    embedding: str = "",
) -> Image.Image:
    """Draw the similarities of a video's chunks.

    Args:
        chunks: in order.
        width: of the picture, in pixels.
        height: the same.
        threshold: below this similarity a chunk counts as drifting and is shaded; 0 draws no threshold.
        embedding: name of what compared the content, to be printed.

    Returns:
        An RGB picture.

    Raises:
        GloriaError: there are no chunks, or the picture would be too small to read.
    """
    if not chunks:
        raise GloriaError("There are no chunks to plot; make at least one.")
    if width < SMALLEST_SIZE[0] or height < SMALLEST_SIZE[1]:
        raise GloriaError(
            f"The plot is {width} x {height} pixels; make it at least {SMALLEST_SIZE[0]} x {SMALLEST_SIZE[1]}."
        )
    pen = Pen(width, height, _PAPER)
    sheet = _Sheet(pen, chunks, (width, height), threshold)
    sheet.shade(threshold)
    sheet.axes()
    for name in _LOOKS:
        sheet.line(name)
    sheet.limit(threshold)
    sheet.marks()
    sheet.head(embedding)
    return pen.picture()


class _Sheet:
    """The drawing; all lengths are pixels of the finished picture."""

    def __init__(self, pen: Pen, chunks: Sequence[PlottedChunk], size: tuple[int, int], threshold: float) -> None:
        self.pen, self.chunks = pen, chunks
        self.left, self.right, self.top, self.bottom = 58, size[0] - 24, 74, size[1] - 62
        self.first_s, self.last_s = chunks[0].start_s, max(chunks[-1].end_s, chunks[0].start_s + 1e-3)
        values = [chunk.drift[name] for chunk in chunks for name in _LOOKS if name in chunk.drift]
        lowest = min([*values, 0.9, *([threshold] if threshold > 0 else [])])
        self.lowest = max(-1.0, math.floor((lowest - 0.04) * 10) / 10)

    def shade(self, threshold: float) -> None:
        """Tint the chunks that drift."""
        for chunk in self.chunks:
            if chunk.drift.get("similarity", 1.0) < threshold:
                self.pen.box(self._x(chunk.start_s), self.top, self._x(chunk.end_s), self.bottom, _SHADE)

    def axes(self) -> None:
        """Draw grid, ticks and labels."""
        step = 0.1 if self.lowest >= 0.3 else 0.2
        value = 1.0
        while value > self.lowest - 1e-6:
            self.pen.stroke([(self.left, self._y(value)), (self.right, self._y(value))], _GRID, 1)
            self.pen.text((self.left - 8, self._y(value)), f"{value:.1f}", 12, _FAINT, "rm")
            value -= step
        room = (self.right - self.left) / 70
        step_s = next((s for s in _STEPS_S if (self.last_s - self.first_s) / s <= room), _STEPS_S[-1])
        tick = math.ceil(self.first_s / step_s - 1e-9) * step_s
        while tick <= self.last_s + 1e-9:
            self.pen.stroke([(self._x(tick), self.bottom), (self._x(tick), self.bottom + 5)], _FAINT, 1)
            self.pen.text((self._x(tick), self.bottom + 9), f"{tick:g}", 12, _FAINT, "mt")
            tick += step_s
        if (self.right - self.left) / len(self.chunks) >= 6:
            for chunk in self.chunks[1:]:
                self.pen.stroke(
                    [(self._x(chunk.start_s), self.bottom - 4), (self._x(chunk.start_s), self.bottom)], _FAINT, 1
                )
        self.pen.stroke([(self.left, self.bottom), (self.right, self.bottom)], _INK, 1.5)
        self.pen.text(((self.left + self.right) / 2, self.bottom + 29), "time in the video (s)", 13, _INK, "mt")

    def line(self, name: str) -> None:
        """Draw one similarity over the chunks' middles."""
        _, colour, width = _LOOKS[name]
        found = [self._point(chunk, name) for chunk in self.chunks]
        for one, other in pairwise(found):
            if one is not None and other is not None:
                self.pen.stroke([one, other], colour, width)
        dense = (self.right - self.left) / len(self.chunks) < 8
        for index, point in enumerate(found):
            alone = all(found[i] is None for i in (index - 1, index + 1) if 0 <= i < len(found))
            if point is not None and (alone or not dense):
                self.pen.disc(point, width + 0.8, colour)

    def limit(self, threshold: float) -> None:
        """Draw the threshold as a dashed line."""
        if threshold <= 0:
            return
        x, y = float(self.left), self._y(threshold)
        while x < self.right:
            self.pen.stroke([(x, y), (min(x + 8, self.right), y)], _LIMIT, 1.5)
            x += 13
        self.pen.text((self.left + 6, y + 4), f"threshold {threshold:g}", 12, _LIMIT, "lt")

    def marks(self) -> None:
        """Mark what was made again, and bridges, above the lines."""
        for chunk in self.chunks:
            x = self._x((chunk.start_s + chunk.end_s) / 2)
            if chunk.is_bridge:
                self.pen.polygon((x, self.top - 7), _DIAMOND, _INK)
            elif chunk.is_reroll:
                self.pen.polygon((x, self.top - 7), _TRIANGLE, _LIMIT)

    def head(self, embedding: str) -> None:
        """Write the title, the embedding's name and what the lines and marks mean."""
        self.pen.text((self.left - 34, 14), "Similarity (1 = the same)", 16, _INK, "lt")
        if embedding:
            self.pen.text((self.right, 17), f"content by {embedding}", 12, _FAINT, "rt")
        x, y = float(self.left - 34), 48.0
        for name in SIMILARITIES:
            label, colour, width = _LOOKS[name]
            if any(name in chunk.drift for chunk in self.chunks):
                self.pen.stroke([(x, y), (x + 20, y)], colour, width)
                self.pen.disc((x + 10, y), width + 0.8, colour)
                x = self._legend_text(x + 26, y, label)
        if any(chunk.is_reroll and not chunk.is_bridge for chunk in self.chunks):
            self.pen.polygon((x + 5, y), _TRIANGLE, _LIMIT)
            x = self._legend_text(x + 15, y, "re-rolled")
        if any(chunk.is_bridge for chunk in self.chunks):
            self.pen.polygon((x + 5, y), _DIAMOND, _INK)
            self._legend_text(x + 15, y, "bridge")

    def _legend_text(self, x: float, y: float, label: str) -> float:
        size = 12 if self.right > 900 else 10
        self.pen.text((x, y), label, size, _INK, "lm")
        return x + text_width(label, size) + (22 if self.right > 900 else 10)

    def _point(self, chunk: PlottedChunk, name: str) -> Point | None:
        value = chunk.drift.get(name)
        return None if value is None else (self._x((chunk.start_s + chunk.end_s) / 2), self._y(value))

    def _x(self, second: float) -> float:
        return self.left + (self.right - self.left) * (second - self.first_s) / (self.last_s - self.first_s)

    def _y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (value - self.lowest) / (1.0 - self.lowest)
