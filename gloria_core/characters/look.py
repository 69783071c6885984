"""What a board's page tells about a slot: sizes, what it costs, and warnings about what was measured."""

from typing import Any

import numpy as np

from ..anchors.analysis import PictureAnalysis, Seen
from ..anchors.picture import AnchorPicture, on_grid
from ..config import AnchorConfig
from ..types import AnchorRole
from .board import Slot
from .measure import sharpness
from .pictures import Picture, crop_box, cut
from .read import prepared
from .slots import role_and_slot

_SMALLEST = {AnchorRole.GLOBAL: 0, AnchorRole.VIEW: 96, AnchorRole.EXPRESSION: 64}
"""Pixels of the shorter side below which a picture shows too little; the global one may be as small as the video."""
_LARGE_VIDEO = 1280 * 720
_BLURRED = 0.02
_SURE = 0.5
_EXPRESSION = 0.6


def look_at(
    key: str,
    picture: Picture,
    slot: Slot,
    *,
    stride: int = 8,
    scene_px: int | None = None,
    analysis: PictureAnalysis | None = None,
) -> dict[str, Any]:
    """Return what a page shows of one slot.

    Args:
        key: the slot's.
        picture: the file in it, read.
        slot: the slot.
        stride: pixels of a latent along a side; a token is two latents wide.
        scene_px: shorter side of the global picture, where it is known: what is small in a small world is not.
        analysis: finds people; None leaves out what only it can tell.

    Returns:
        ``width`` and ``height`` of the upright file, ``crop_px``, ``used`` (size that is encoded), ``tokens``,
        ``rope_position`` (of the default configuration) and ``warnings``.

    Raises:
        AnchorError: the part is too small for a token, or has too many.
    """
    role, name = role_and_slot(key)
    used = prepared(key, picture, slot.crop)
    width, height = picture.size
    box = crop_box(picture.size, slot.crop) if slot.crop else (0, 0, width, height)
    fitted = on_grid(used, 2 * stride)
    tokens = (fitted.shape[1] // (2 * stride)) * (fitted.shape[2] // (2 * stride))
    return {
        "width": width,
        "height": height,
        "crop_px": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
        "used": [fitted.shape[2], fitted.shape[1]],
        "tokens": tokens,
        "rope_position": AnchorConfig().position(role, name),
        "warnings": [*picture.warnings, *_warnings(used, picture, slot, scene_px, analysis)],
    }


def _warnings(
    used: AnchorPicture, picture: Picture, slot: Slot, scene_px: int | None, analysis: PictureAnalysis | None
) -> list[str]:
    height, width = used.image.shape[1:3]
    part = cut(picture.image, slot.crop)
    found = [*_of_size(used.role, *part.size, scene_px), *_of_shape(used.role, width, height)]
    if sharpness(part) < _BLURRED:
        found.append("This looks blurred, or has hardly any detail: take a sharper picture.")
    if analysis is not None:
        found += _of_what_is_seen(used, analysis(np.asarray(part)), part.height, scene_px)
    return found


def _least(role: AnchorRole, scene_px: int | None) -> int:
    if scene_px is None:
        return _SMALLEST[role]
    return min(_SMALLEST[role], scene_px if role == AnchorRole.VIEW else scene_px // 2)


def _of_size(role: AnchorRole, width: int, height: int, scene_px: int | None) -> list[str]:
    least = _least(role, scene_px)
    if min(width, height) < least:
        return [f"This is {width} x {height} px: too small. Take at least {least} px on the shorter side."]
    if role == AnchorRole.GLOBAL and width * height > _LARGE_VIDEO:
        return [
            f"This sets the video's size: {width} x {height} is more than most models make, and slow. Scale it down, "
            "or set width and height on the sampler."
        ]
    return []


def _of_shape(role: AnchorRole, width: int, height: int) -> list[str]:
    if role == AnchorRole.VIEW and width > 1.2 * height:
        return ["This is wider than high: crop it to the body."]
    if role == AnchorRole.EXPRESSION and max(width, height) > 1.8 * min(width, height):
        return ["This is a long strip: crop it to the head."]
    return []


def _of_what_is_seen(used: AnchorPicture, seen: Seen, height: int, scene_px: int | None) -> list[str]:
    found = []
    if used.role == AnchorRole.VIEW and seen.view not in (None, used.slot) and seen.view_score(used.slot) < _SURE:
        found.append(f"This looks like a {seen.view} view.")
    if used.role == AnchorRole.EXPRESSION and seen.face is not None:
        face = round(seen.face[3] * height)
        if face < _least(used.role, scene_px):
            found.append(f"The face is {face} px: too small. Crop to the head, or take a larger picture.")
        best = max(seen.expressions, key=lambda name: seen.expressions[name], default=used.slot)
        if best != used.slot and seen.expressions[best] > _EXPRESSION:
            found.append(f"This looks {_ADJECTIVES.get(best, best)}.")
    return found


_ADJECTIVES = {"surprise": "surprised", "disgust": "disgusted", "fear": "afraid", "contempt": "contemptuous"}
