"""A training as pictures: the loss and the held-out loss over the steps, and how often each noise level is trained."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from ..evaluate.pen import Colour, Pen, Point
from .config import ObjectiveConfig
from .curve import loss_curve
from .objective import sample_sigma

_INK, _FAINT, _GRID, _PAPER = (28, 30, 38), (110, 114, 128), (222, 221, 216), (250, 249, 246)
_TRAINED, _HELD_OUT, _MARK = (30, 92, 170), (196, 48, 32), (200, 202, 212)
_SMALLEST_LOSS = 1e-8


def loss_plot(events: Sequence[Mapping[str, Any]], *, width: int = 1200, height: int = 480) -> Image.Image:
    """Draw a job's losses on a logarithmic scale; checkpoints are marked by upright lines.

    Args:
        events: as `status.job_events` gives them; stages follow each other on the axis.
        width: in pixels.
        height: in pixels.

    Returns:
        An RGB picture; without any loss yet it says so.
    """
    curve = loss_curve(events)
    sheet = _Sheet(width, height, [*curve.trained, *curve.held_out])
    if not curve.trained:
        sheet.pen.text((width / 2, height / 2), "no loss yet", 18, _FAINT, "mm")
        return sheet.pen.picture()
    sheet.axes()
    for step in curve.checkpoints:
        sheet.upright(step)
    sheet.line(curve.trained, _TRAINED, 1.5)
    sheet.line(curve.held_out, _HELD_OUT, 2.5)
    sheet.head("Loss", [("trained clips", _TRAINED), ("held-out clips", _HELD_OUT), ("checkpoint", _MARK)])
    return sheet.pen.picture()


def sigma_plot(config: ObjectiveConfig, *, width: int = 800, height: int = 320, num_draws: int = 20_000) -> Image.Image:
    """Draw how often each noise level (0 clean, 1 pure noise) is trained."""
    drawn = sample_sigma(config, num_draws, torch.Generator().manual_seed(0))
    counts = torch.histc(drawn, bins=40, min=0.0, max=1.0) / num_draws * 40
    pen = Pen(width, height, _PAPER)
    left, right, top, bottom = 40.0, width - 20.0, 50.0, height - 40.0
    most = max(float(counts.max()), 1.0)
    for index, count in enumerate(counts.tolist()):
        x = left + (right - left) * index / 40
        pen.box(x, bottom - (bottom - top) * count / most, x + (right - left) / 40 - 2, bottom, _TRAINED)
    for tick in range(0, 11, 2):
        pen.text((left + (right - left) * tick / 10, bottom + 8), f"{tick / 10:.1f}", 12, _FAINT, "mt")
    pen.text((left, 14), "How often each noise level is trained (0 clean, 1 noise)", 15, _INK, "lt")
    return pen.picture()


class _Sheet:
    """The drawing of values over steps."""

    def __init__(self, width: int, height: int, points: Sequence[Point]) -> None:
        self.pen = Pen(width, height, _PAPER)
        self.left, self.right, self.top, self.bottom = 70.0, width - 24.0, 64.0, height - 56.0
        values = [max(value, _SMALLEST_LOSS) for _, value in points] or [0.1, 1.0]
        self.last = max([step for step, _ in points] or [1.0])
        self.low, self.high = math.log10(min(values)) - 0.03, math.log10(max(values)) + 0.03

    def axes(self) -> None:
        """Draw grid, ticks and labels."""
        for value in _ticks(self.low, self.high):
            y = self._y(value)
            self.pen.stroke([(self.left, y), (self.right, y)], _GRID, 1)
            self.pen.text((self.left - 8, y), f"{value:.3g}", 12, _FAINT, "rm")
        for part in range(6):
            step = self.last * part / 5
            self.pen.text((self._x(step), self.bottom + 9), f"{step:.0f}", 12, _FAINT, "mt")
        self.pen.stroke([(self.left, self.bottom), (self.right, self.bottom)], _INK, 1.5)
        self.pen.text(((self.left + self.right) / 2, self.bottom + 28), "step", 13, _INK, "mt")

    def upright(self, step: float) -> None:
        """Mark a step."""
        self.pen.stroke([(self._x(step), self.top), (self._x(step), self.bottom)], _MARK, 1)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw values over steps."""
        placed = [(self._x(step), self._y(value)) for step, value in points]
        if len(placed) > 1:
            self.pen.stroke(placed, colour, width)
        for place in placed if len(placed) < 60 else ():
            self.pen.disc(place, width + 0.8, colour)

    def head(self, title: str, legend: Sequence[tuple[str, Colour]]) -> None:
        """Write the title and what the lines mean."""
        self.pen.text((24, 14), title, 16, _INK, "lt")
        x = 24.0
        for label, colour in legend:
            self.pen.stroke([(x, 46), (x + 20, 46)], colour, 2.5)
            self.pen.text((x + 26, 46), label, 12, _INK, "lm")
            x += 26 + 8 * len(label) + 20

    def _x(self, step: float) -> float:
        return self.left + (self.right - self.left) * step / max(self.last, 1.0)

    def _y(self, value: float) -> float:
        place = (math.log10(max(value, _SMALLEST_LOSS)) - self.low) / max(self.high - self.low, 1e-6)
        return self.bottom - (self.bottom - self.top) * place


def _ticks(low: float, high: float) -> list[float]:
    """Return round values between two powers of ten: 1, 2 and 5, or even steps where they are close together."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    found = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= math.log10(m * 10.0**d) <= high]
    return found if len(found) > 2 else [10 ** (low + (high - low) * part / 4) for part in range(5)]
