"""Drawing plots: all lengths are pixels of the finished picture, and slanted lines come out smooth."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

_SHARPER = 2
"""Everything is drawn so many times larger and then shrunk."""


class Pen:
    """A picture that is drawn.

    Args:
        width: in pixels.
        height: in pixels.
        paper: colour of the ground.
    """

    def __init__(self, width: int, height: int, paper: Colour) -> None:
        self._size = (width, height)
        self._image = Image.new("RGB", (width * _SHARPER, height * _SHARPER), paper)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        """Return what was drawn, RGB."""
        return self._image.resize(self._size, Image.Resampling.BOX)

    def stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a line through points."""
        scaled = [(x * _SHARPER, y * _SHARPER) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * _SHARPER)), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self._draw.rectangle([_SHARPER * edge for edge in (left, top, right, bottom)], fill=colour)

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        x, y, r = (_SHARPER * part for part in (*centre, radius))
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def polygon(self, centre: Point, corners: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon whose corners are told from a centre."""
        x, y = centre
        self._draw.polygon([((x + dx) * _SHARPER, (y + dy) * _SHARPER) for dx, dy in corners], fill=colour)

    def text(self, place: Point, text: str, size: int, colour: Colour, anchor: str) -> None:
        """Write one line; ``anchor`` as Pillow has it, such as ``lt`` (left, top) or ``mm`` (middle)."""
        scaled = (place[0] * _SHARPER, place[1] * _SHARPER)
        self._draw.text(scaled, text, font=_font(size * _SHARPER), fill=colour, anchor=anchor)


def text_width(text: str, size: int) -> float:
    """Return how wide a line of text is."""
    return _font(size * _SHARPER).getlength(text) / _SHARPER


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
