"""A contact sheet of a dataset: a row for each clip, with frames of it and the pictures that go with it."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import GloriaError
from .manifest import Clip, Manifest
from .pictures import Pixels, cover, fitted, read_picture
from .plan import Film, Plan
from .shots import Shot, read_shots

_HEIGHT, _GAP, _LABEL = 96, 6, 18
_FRAMES = 4
_INK, _PAPER, _MARK = (225, 225, 225), (28, 28, 30), (240, 120, 90)


def contact_sheet(manifest: Manifest, plan: Plan, *, rows: int = 12, pictures: int = 14) -> Image.Image:
    """Draw the first clips of a dataset.

    Args:
        manifest: the clips.
        plan: what was found of them; clips that cannot be used are drawn as a line of text.
        rows: clips at most.
        pictures: anchors of a clip at most.
    """
    strips = [_row(manifest, clip, plan.films.get(clip.id), pictures) for clip in manifest.clips[:rows]]
    more = len(manifest.clips) - rows
    if more > 0:
        strips.append(_text(f"and {more} more clips", 200))
    width = max(strip.width for strip in strips) + 2 * _GAP
    sheet = Image.new("RGB", (width, sum(strip.height + _GAP for strip in strips) + _GAP), _PAPER)
    top = _GAP
    for strip in strips:
        sheet.paste(strip, (_GAP, top))
        top += strip.height + _GAP
    return sheet


def _row(manifest: Manifest, clip: Clip, film: Film | None, pictures: int) -> Image.Image:
    if film is None:
        return _text(f"{clip.id}: cannot be used, see the report", 400, _MARK)
    tiles = [(f"frame {number}", tile) for number, tile in _frames(clip, film)]
    for anchor in clip.anchors[:pictures]:
        if anchor.picture:
            try:
                tiles.append((anchor.slot or "global", _thumbnail(read_picture(manifest.path(anchor.picture)))))
            except GloriaError:
                tiles.append((f"{anchor.slot or 'global'}: missing", np.zeros((_HEIGHT, _HEIGHT, 3), np.uint8)))
    caption = clip.prompts[0].text if clip.prompts else "no caption"
    return _strip(f"{clip.id}    {caption}", tiles)


def _frames(clip: Clip, film: Film) -> list[tuple[int, Pixels]]:
    frames = clip.frames or range(film.info.num_frames)
    numbers = sorted({frames[round(place * (len(frames) - 1))] for place in np.linspace(0, 1, _FRAMES)})
    size = _small(film.info.width, film.info.height)
    try:
        return [
            (shot.frames[0], taken[0]) for shot, taken in read_shots(film.path, [Shot("", (n,), size) for n in numbers])
        ]
    except GloriaError:
        return []


def _thumbnail(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    size = _small(width, height)
    return fitted(picture, cover(width, height, size))


def _small(width: int, height: int) -> tuple[int, int]:
    return max(8, min(round(width * _HEIGHT / height), 3 * _HEIGHT)), _HEIGHT


def _strip(title: str, tiles: Iterable[tuple[str, Pixels]]) -> Image.Image:
    tiles = list(tiles)
    widths = [max(tile.shape[1], 60) for _, tile in tiles]
    strip = Image.new("RGB", (max(sum(widths) + _GAP * len(widths), 400), _HEIGHT + 2 * _LABEL), _PAPER)
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(12)
    pen.text((0, 0), title[: strip.width // 6], fill=_INK, font=font)
    left = 0
    for (name, tile), width in zip(tiles, widths, strict=True):
        strip.paste(Image.fromarray(tile), (left, _LABEL))
        pen.text((left, _LABEL + _HEIGHT + 2), name[: width // 6], fill=_INK, font=font)
        left += width + _GAP
    return strip


def _text(text: str, width: int, ink: tuple[int, int, int] = _INK) -> Image.Image:
    strip = Image.new("RGB", (width, _LABEL), _PAPER)
    ImageDraw.Draw(strip).text((0, 0), text, fill=ink, font=ImageFont.load_default(12))
    return strip
