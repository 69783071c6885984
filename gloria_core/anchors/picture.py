"""The pictures that anchors are encoded from, cut to the grid that a model can take."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import AnchorError
from ..types import SLOTS, AnchorRole

_MOST_PATCHES = 1 << 16
"""Of one anchor: nearly as many tokens as a whole chunk of 720p video has."""


@dataclass(frozen=True, slots=True, eq=False)
class AnchorPicture:
    """A picture and what it tells about the character."""

    role: AnchorRole
    slot: str
    """One of the role's slots, such as ``left`` or ``happy``; empty for the global anchor."""
    image: Tensor
    """(1, H, W, 3), 0..1."""

    def __post_init__(self) -> None:
        if self.slot not in SLOTS[self.role]:
            allowed = ", ".join(SLOTS[self.role]) or "no name"
            raise AnchorError(f"There is no {self.role} anchor called {self.slot!r}; use one of: {allowed}.")

    @property
    def name(self) -> str:
        """The anchor's name as an artist reads it, such as ``left view`` or ``global``."""
        return f"{self.slot} {self.role}" if self.slot else str(self.role)


def on_grid(picture: AnchorPicture, grid: int) -> Tensor:
    """Return the picture (1, H, W, 3) with sides rounded to multiples of the grid: cut or scaled, never squeezed.

    A side is rounded to the nearest multiple. The picture is scaled by one factor until it covers the new size, and
    what hangs over is cut off evenly.

    Args:
        picture: of any size.
        grid: pixels of one patch of the transformer along a side.

    Raises:
        AnchorError: it is no colour picture, smaller than half a patch, or of more than 65536 patches.
    """
    image = picture.image
    if image.ndim != 4 or image.shape[-1] < 3 or min(image.shape[1:3]) < grid // 2:
        raise AnchorError(
            f"The picture for the {picture.name} anchor has the shape {tuple(image.shape)}; it must be a colour "
            f"picture of at least {grid // 2} x {grid // 2} pixels."
        )
    height, width = image.shape[1:3]
    new_height, new_width = (max(grid, (side + grid // 2) // grid * grid) for side in (height, width))
    if new_height * new_width > _MOST_PATCHES * grid * grid:
        side = math.isqrt(_MOST_PATCHES) * grid
        raise AnchorError(
            f"The picture for the {picture.name} anchor is {width} x {height}, {new_height * new_width // grid**2} "
            f"tokens in every chunk; the most is {_MOST_PATCHES} ({side} x {side}): crop it closer, or scale it down. "
            "A head is sharp enough at 512 x 512."
        )
    if (new_height, new_width) == (height, width):
        return image
    scale = max(new_height / height, new_width / width)
    size = (max(new_height, round(height * scale)), max(new_width, round(width * scale)))
    pixels = image.movedim(-1, 1)
    if size != (height, width):
        pixels = interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    top, left = (size[0] - new_height) // 2, (size[1] - new_width) // 2
    return pixels[:, :, top : top + new_height, left : left + new_width].movedim(1, -1)
