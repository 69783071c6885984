"""Finding the panels of a sheet: a turnaround, a row of expressions, a page of both."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import AnchorError

MOST_PANELS = 64
_LONGEST = 1024
_UNIFORM = 20
"""Levels of 255 between the darkest and the brightest pixel of a gutter's line, noise of JPEG among it."""
_THINNEST_GUTTER, _THINNEST_PANEL = 0.006, 0.04
"""Of the sheet's side: thinner gutters are gaps inside a figure, thinner panels are captions and rules."""

Pixels = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two not included."""


@dataclass(frozen=True, slots=True)
class Panels:
    """The panels of a sheet in the order of reading."""

    boxes: tuple[Pixels, ...]
    grid: tuple[int, int] | None
    """Columns and rows, where every row has as many panels."""


def grid_panels(size: tuple[int, int], columns: int, rows: int) -> Panels:
    """Return the panels of a sheet of equal panels.

    Raises:
        AnchorError: the numbers make no sense for the sheet.
    """
    width, height = size
    if not (1 <= columns <= width and 1 <= rows <= height) or columns * rows > MOST_PANELS:
        raise AnchorError(
            f"A grid of {columns} x {rows} does not fit a sheet of {width} x {height} pixels; take at most "
            f"{MOST_PANELS} panels, counted from left to right and from top to bottom."
        )
    across = [width * i // columns for i in range(columns + 1)]
    down = [height * i // rows for i in range(rows + 1)]
    boxes = [(across[c], down[r], across[c + 1], down[r + 1]) for r in range(rows) for c in range(columns)]
    return Panels(tuple(boxes), (columns, rows))


def find_panels(sheet: Image.Image) -> Panels:
    """Return the panels that rows and columns of one colour separate; one panel where there are none.

    A row counts as a gutter where all its pixels have nearly one colour, whatever that is; inside each band of the
    sheet, columns do the same. Panels that touch each other cannot be told apart: set the grid by hand.
    """
    small = sheet.copy()
    small.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BOX)
    pixels = np.asarray(small, np.int16)
    scale = (sheet.width / small.width, sheet.height / small.height)
    bands = _spans(_varied(pixels))
    found = [[(left, top, right, bottom) for left, right in _columns(pixels[top:bottom])] for top, bottom in bands]
    found = [row for row in found if row]
    boxes = [_scaled(box, scale, sheet.size) for row in found for box in row]
    if not 1 < len(boxes) <= MOST_PANELS:
        return Panels(((0, 0, *sheet.size),), (1, 1))
    counts = {len(row) for row in found}
    return Panels(tuple(boxes), (counts.pop(), len(found)) if len(counts) == 1 else None)


def _columns(band: NDArray[np.int16]) -> list[tuple[int, int]]:
    return _spans(_varied(band.swapaxes(0, 1)))


def _varied(lines: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Tell which lines (n, pixels, 3) are of more than one colour."""
    return (lines.max(axis=1) - lines.min(axis=1)).max(axis=1) > _UNIFORM


def _spans(content: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where content begins and ends, gaps and specks left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], content, [False]]).astype(np.int8)))
    gap, least = _THINNEST_GUTTER * len(content), _THINNEST_PANEL * len(content)
    joined: list[tuple[int, int]] = []
    for start, stop in edges.reshape(-1, 2).tolist():
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return [(start, stop) for start, stop in joined if stop - start >= least]


def _scaled(box: Pixels, scale: tuple[float, float], size: tuple[int, int]) -> Pixels:
    left, top, right, bottom = box
    return (
        int(left * scale[0]),
        int(top * scale[1]),
        min(size[0], int(np.ceil(right * scale[0]))),
        min(size[1], int(np.ceil(bottom * scale[1]))),
    )
