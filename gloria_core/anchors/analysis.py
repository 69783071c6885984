"""What a part that understands people can tell of a picture. Gloria brings none: see `installed.py`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import VIEWS

Box = tuple[float, float, float, float]
"""x, y, width, height as fractions of the picture."""

YAW_OF_VIEW = dict(zip(VIEWS, (0.0, 180.0, 270.0, 90.0), strict=True))
"""Degrees that the body has turned when it shows a view, seen by the camera: 90 faces the right edge of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was found of the one person in a picture; None and nothing where it was not found."""

    yaw: float | None = None
    """Degrees that the body has turned away from the camera, 0..360, as in YAW_OF_VIEW."""
    expressions: Mapping[str, float] = field(default_factory=dict)
    """Score 0..1 of expressions, by their names in `types.EXPRESSIONS`."""
    face: Box | None = None
    """The head from hair to chin."""
    body: Box | None = None
    """The whole figure."""

    @property
    def view(self) -> str | None:
        """The nearest of the four views; None where the yaw is not known."""
        return None if self.yaw is None else max(VIEWS, key=self.view_score)

    def view_score(self, view: str) -> float:
        """Return 0..1: 1 where the body shows a view exactly, 0 from 90 degrees on or where the yaw is not known."""
        if self.yaw is None:
            return 0.0
        return max(0.0, math.cos(math.radians(self.yaw - YAW_OF_VIEW[view])))


class PictureAnalysis(Protocol):
    """Finds the person in pictures."""

    def __call__(self, picture: NDArray[np.uint8]) -> Seen:
        """Tell what is seen in one picture (H, W, 3)."""
        ...
