"""Pictures on their way to an encoder: read, cut to a shape and brought to a size, never squeezed."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DatasetError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""
Pixels = NDArray[np.uint8]

_GREY = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class Fit:
    """The middle of a picture that has the shape of a size, and that size."""

    box: Box
    width: int
    height: int

    def place(self, box: Box) -> Box:
        """Return where a box of the picture lies in the fitted one, in shares of its sides; it may stick out."""
        left, top, right, bottom = self.box
        across, down = right - left, bottom - top
        return (box[0] - left) / across, (box[1] - top) / down, (box[2] - left) / across, (box[3] - top) / down


def cover(width: int, height: int, size: tuple[int, int], crop: tuple[int, int, int, int] | None = None) -> Fit:
    """Return the largest middle part of a picture, or of a crop of it, that has the shape of a size (width, height)."""
    left, top, wide, high = crop or (0, 0, width, height)
    scale = max(size[0] / wide, size[1] / high)
    across, down = size[0] / scale, size[1] / scale
    x, y = left + (wide - across) / 2, top + (high - down) / 2
    return Fit((x, y, x + across, y + down), *size)


def anchor_size(width: int, height: int, area: int, grid: int) -> tuple[int, int]:
    """Return the size of an anchor: the picture's own, at most so many pixels, sides rounded to the grid."""
    scale = min(1.0, math.sqrt(area / (width * height)))
    wide, high = (max(grid, round(side * scale / grid) * grid) for side in (width, height))
    return wide, high


def read_picture(path: Path) -> Pixels:
    """Return a picture (H, W, 3), upright; what is transparent becomes mid grey.

    Raises:
        DatasetError: the file is missing or is no picture.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if "A" in picture.getbands() or "transparency" in picture.info:
                clear = picture.convert("RGBA")
                picture = Image.new("RGB", clear.size, _GREY)
                picture.paste(clear, mask=clear.getchannel("A"))
            return np.array(picture.convert("RGB"), np.uint8)
    except FileNotFoundError as error:
        raise DatasetError(f"There is no picture {path}; check its name and its folder.") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{path} is not a picture that can be read ({error}); save it again as .png.") from error


def check_crop(path: Path, width: int, height: int, crop: tuple[int, int, int, int] | None) -> None:
    """Refuse a crop that is not inside of a picture with DatasetError."""
    if crop is not None and (crop[0] + crop[2] > width or crop[1] + crop[3] > height):
        raise DatasetError(
            f"The crop {list(crop)} (left, top, width, height) of {path} reaches beyond its {width} x {height} pixels; "
            "make it smaller."
        )


def fitted(picture: Pixels, fit: Fit) -> Pixels:
    """Return the part of a picture (H, W, 3) that a fit tells, at its size."""
    box = fit.box
    if box == (0, 0, picture.shape[1], picture.shape[0]) and (fit.width, fit.height) == picture.shape[1::-1]:
        return picture
    size = (fit.width, fit.height)
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box=box), np.uint8)
