"""What can be measured of a picture without understanding it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LONGEST = 512
"""Pixels: blur is judged at the size at which it would be seen, so that a large soft photograph is no blurred one."""
_HALF_SHARP = 200.0
"""Variance of the Laplacian of a picture that is neither blurred nor crisp, on grey levels 0..255."""


def grey(image: Image.Image, longest: int = _LONGEST) -> NDArray[np.float32]:
    """Return the brightness (H, W), 0..255, of a picture that is scaled down to a longest side."""
    small = image.convert("L")
    small.thumbnail((longest, longest), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def sharpness(image: Image.Image) -> float:
    """Return 0..1: how much fine structure a picture has; a flat one has 0, a blurred one less than 0.05.

    It compares pictures of one source; a drawing has less of it than a photograph.
    """
    level = grey(image)
    if min(level.shape) < 3:
        return 0.0
    middle = level[1:-1, 1:-1]
    neighbours = level[:-2, 1:-1] + level[2:, 1:-1] + level[1:-1, :-2] + level[1:-1, 2:]
    variance = float((neighbours - 4.0 * middle).var())
    return variance / (variance + _HALF_SHARP)


def difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the mean absolute difference of two pictures of one shape, 0..1."""
    return float(np.abs(one - other).mean()) / 255.0


def figure_box(image: Image.Image) -> tuple[float, float, float, float] | None:
    """Return the smallest box, in fractions, around what is not background; None where there is no plain background.

    The background is plain where the picture's border has nearly one colour.
    """
    small = image.copy()
    small.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BOX)
    pixels = np.asarray(small, np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0)
    if float((np.abs(border - colour).max(axis=1) <= _PLAIN).mean()) < _MOSTLY:
        return None
    rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) > _PLAIN)
    if not len(rows):
        return None
    height, width = pixels.shape[:2]
    left, top = int(columns.min()), int(rows.min())
    right, bottom = int(columns.max()) + 1, int(rows.max()) + 1
    return left / width, top / height, (right - left) / width, (bottom - top) / height


_PLAIN = 24
"""Levels of 255 by which a background's pixels differ at most, noise of JPEG among it."""
_MOSTLY = 0.8
"""Share of the border that must be background; the figure may touch it."""
