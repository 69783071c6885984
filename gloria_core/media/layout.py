"""How finished frames are shown: as they are, enlarged, or beside a strip of the anchors that they were made from.

Everything works on batches of frames as they stream by, so that a video of any length costs the memory of one chunk.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch.nn.functional import interpolate

from ..errors import MediaError
from ..types import EXPRESSIONS, VIEWS, AnchorRole

Frames = NDArray[np.uint8]
"""(n, H, W, 3) RGB."""

LAYOUTS = ("plain", "strip")
"""Names for ``layout_named``."""

_STRIP_SIDE = 384
"""A strip's text is legible from this side of the picture on; smaller pictures are enlarged to it."""
_LARGEST_FACTOR = 16
_INK, _FAINT, _PAPER, _MARK = (28, 30, 38), (122, 126, 140), (246, 245, 241), (214, 64, 38)

_STEMS = {
    "surprise": "surpris|astonish",
    "angry": "angr|anger|furious",
    "disgust": "disgust",
    "fear": "fear|afraid|scared|fright",
    "contempt": "contempt|scorn",
    "sad": "sad|unhapp",
    "neutral": "neutral|calm",
    "happy": r"\bhapp|smil|joy|laugh",
}
_SIDES = {
    "front": r"\bfront|(?<!from the )camera|viewer",
    "back": r"\bback\b|away",
    "left": r"\bleft\b",
    "right": r"\bright\b",
}


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPicture:
    """One anchor's picture (H, W, 3), uint8, and its place in the strip."""

    role: AnchorRole
    slot: str
    picture: NDArray[np.uint8]


class Layout(Protocol):
    """Turns finished frames into the frames of the file."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file's frames, both even."""
        ...

    def __call__(self, frames: Frames, prompt: str) -> Frames:
        """Lay out frames (n, h, w, 3) that were made with a prompt; returns (n, H, W, 3)."""
        ...

    def after(self, prompts: Sequence[str]) -> list[str]:
        """Go on as if these prompts had been shown, from the film's first on; return what is remembered of them."""
        ...


class Plain:
    """The frames alone, enlarged by a whole number until the smaller side is ``smallest_side`` or more."""

    def __init__(self, frame_size: tuple[int, int], smallest_side: int = 0) -> None:
        self._factor = min(_LARGEST_FACTOR, max(1, math.ceil(smallest_side / min(frame_size))))
        self._frame_size = frame_size

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file's frames."""
        width, height = (side * self._factor for side in self._frame_size)
        return width + width % 2, height + height % 2

    def __call__(self, frames: Frames, prompt: str = "") -> Frames:
        """Enlarge frames; the prompt is not shown."""
        if self._factor > 1:
            pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
            larger = interpolate(pixels, scale_factor=self._factor, mode="bicubic", align_corners=False)
            frames = larger.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        width, height = self.size
        missing = ((0, 0), (0, height - frames.shape[1]), (0, width - frames.shape[2]), (0, 0))
        return np.pad(frames, missing, mode="edge") if any(after for _, after in missing) else frames

    def after(self, prompts: Sequence[str]) -> list[str]:
        """Remember nothing."""
        return []


class Strip:
    """The frames, and right of them the anchors, the prompt, and the direction and expression that it asks for."""

    def __init__(
        self, frame_size: tuple[int, int], pictures: Sequence[LabelledPicture], smallest_side: int = _STRIP_SIDE
    ) -> None:
        self._plain = Plain(frame_size, max(smallest_side, _STRIP_SIDE))
        self._pictures = tuple(pictures)
        self._height = self._plain.size[1]
        self._unit = min(self._height, 720) / 512
        self._width = 2 * round(340 * self._unit / 2)
        self._side, self._expression = "front", "neutral"
        self._drawn: tuple[str, NDArray[np.uint8]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the file's frames."""
        return self._plain.size[0] + self._width, self._height

    def __call__(self, frames: Frames, prompt: str) -> Frames:
        """Enlarge frames and put the strip beside each; it is drawn anew only where the prompt has changed."""
        frames = self._plain(frames)
        if self._drawn is None or self._drawn[0] != prompt:
            side, expression = asked_for(prompt)
            self._side, self._expression = side or self._side, expression or self._expression
            self._drawn = (prompt, self._draw(prompt))
        panel = np.broadcast_to(self._drawn[1], (frames.shape[0], *self._drawn[1].shape))
        return np.concatenate([frames, panel], axis=2)

    def after(self, prompts: Sequence[str]) -> list[str]:
        """Go on from the direction and the expression that these prompts asked for last."""
        self._side, self._expression, self._drawn = "front", "neutral", None
        for prompt in prompts:
            side, expression = asked_for(prompt)
            self._side, self._expression = side or self._side, expression or self._expression
        return [self._side, self._expression]

    def _draw(self, prompt: str) -> NDArray[np.uint8]:
        image = Image.new("RGB", (self._width, self._height), _PAPER)
        pen = ImageDraw.Draw(image)
        margin = self._px(14)
        top = margin
        top = self._draw_head(image, pen, margin, top, prompt)
        top = self._draw_row(image, pen, AnchorRole.VIEW, VIEWS, (margin, top), 96)
        for names in (EXPRESSIONS[:4], EXPRESSIONS[4:]):
            top = self._draw_row(image, pen, AnchorRole.EXPRESSION, names, (margin, top), 52)
        return np.asarray(image, dtype=np.uint8)

    def _draw_head(self, image: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int, prompt: str) -> int:
        box = (self._px(96), self._px(128))
        shown = self._find(AnchorRole.GLOBAL, "")
        if shown is not None:
            self._paste(image, pen, shown, (left, top), box, marked=False)
        self._label(pen, (left, top + box[1] + self._px(2)), "global", 11, _FAINT)
        text_left = left + box[0] + self._px(14)
        centre = (text_left + self._px(26), top + self._px(30))
        self._draw_compass(pen, centre, self._px(24))
        self._label(pen, (text_left + self._px(60), top + self._px(12)), f"faces: {self._side}", 15, _INK)
        self._label(pen, (text_left + self._px(60), top + self._px(32)), self._expression, 15, _INK)
        font = _font(self._px(13))
        lines = _wrapped(prompt, font, self._width - text_left - self._px(10))[:4]
        for number, line in enumerate(lines):
            pen.text((text_left, top + self._px(64) + number * self._px(17)), line, font=font, fill=_FAINT)
        return top + box[1] + self._px(26)

    def _draw_compass(self, pen: ImageDraw.ImageDraw, centre: tuple[int, int], radius: int) -> None:
        """Draw the direction as seen from above, the camera at the bottom."""
        x, y = centre
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_FAINT, width=self._px(2))
        across, down = {"front": (0, 1), "back": (0, -1), "left": (-1, 0), "right": (1, 0)}[self._side]
        tip, tail, wing = 0.72 * radius, 0.45 * radius, 0.42 * radius
        points = [
            (x + across * tip, y + down * tip),
            (x - across * tail + down * wing, y - down * tail + across * wing),
            (x - across * tail - down * wing, y - down * tail - across * wing),
        ]
        pen.polygon(points, fill=_MARK)

    def _draw_row(
        self,
        image: Image.Image,
        pen: ImageDraw.ImageDraw,
        role: AnchorRole,
        names: Sequence[str],
        corner: tuple[int, int],
        height: int,
    ) -> int:
        left, top = corner
        box = (self._px(72), self._px(height))
        if not any(self._find(role, name) is not None for name in names):
            return top
        marked = self._side if role == AnchorRole.VIEW else self._expression
        for column, name in enumerate(names):
            place = (left + column * (box[0] + self._px(8)), top)
            shown = self._find(role, name)
            if shown is not None:
                self._paste(image, pen, shown, place, box, marked=name == marked)
                colour = _MARK if name == marked else _FAINT
                self._label(pen, (place[0], place[1] + box[1] + self._px(2)), name, 11, colour)
        return top + box[1] + self._px(24)

    def _paste(
        self,
        image: Image.Image,
        pen: ImageDraw.ImageDraw,
        shown: LabelledPicture,
        place: tuple[int, int],
        box: tuple[int, int],
        *,
        marked: bool,
    ) -> None:
        picture = Image.fromarray(shown.picture)
        scale = min(box[0] / picture.width, box[1] / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        image.paste(picture.resize(size, Image.Resampling.BICUBIC), place)
        if marked:
            frame = self._px(3)
            edges = (place[0] - frame, place[1] - frame, place[0] + size[0] + frame - 1, place[1] + size[1] + frame - 1)
            pen.rectangle(edges, outline=_MARK, width=frame)

    def _find(self, role: AnchorRole, slot: str) -> LabelledPicture | None:
        return next((p for p in self._pictures if p.role == role and p.slot == slot), None)

    def _label(
        self, pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]
    ) -> None:
        pen.text(place, text, font=_font(self._px(size)), fill=colour)

    def _px(self, length: float) -> int:
        return max(1, round(length * self._unit))


def layout_named(
    name: str, frame_size: tuple[int, int], pictures: Sequence[LabelledPicture], smallest_side: int = 0
) -> Layout:
    """Return a layout.

    Args:
        name: one of LAYOUTS.
        frame_size: width and height of the frames that will come.
        pictures: the anchors, for the strip.
        smallest_side: enlarge frames until their smaller side has this many pixels; 0 leaves them as they are, except
            beside a strip, which needs 384 to be legible.

    Raises:
        MediaError: the name is unknown or the side is negative.
    """
    if smallest_side < 0:
        raise MediaError(f"The smallest side is {smallest_side} px; it must be 0 (as made) or more.")
    match name:
        case "plain":
            return Plain(frame_size, smallest_side)
        case "strip":
            return Strip(frame_size, pictures, smallest_side or _STRIP_SIDE)
        case _:
            raise MediaError(f"There is no layout called {name!r}; use one of: {', '.join(LAYOUTS)}.")


def asked_for(prompt: str) -> tuple[str | None, str | None]:
    """Return the view and the expression that a prompt names last, or None for what it does not name."""
    return _last(prompt, _SIDES), _last(prompt, _STEMS)


def _last(prompt: str, words: dict[str, str]) -> str | None:
    places = {name: [m.start() for m in re.finditer(pattern, prompt.lower())] for name, pattern in words.items()}
    found = {name: starts[-1] for name, starts in places.items() if starts}
    return max(found, key=lambda name: found[name]) if found else None


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
