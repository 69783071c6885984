"""A picture analysis that knows one man by his colours, as an author of such a part would write it: without Gloria."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HAIR, SKIN, SHIRT = (37, 25, 17), (190, 145, 113), (185, 55, 55)
NEAR = 40
"""Levels of 255 by which light, scaling and compression change a colour."""


class Colours:
    """Yaw by where the skin of the head lies in it, boxes by what is not white, surprise by a tongue."""

    def __call__(self, picture: Any) -> dict[str, Any]:
        """Look at one picture."""
        height, width = picture.shape[:2]
        figure = picture.min(2) < 215
        shirt = np.abs(picture.astype(int) - SHIRT).max(2) < NEAR
        if not shirt.any() or not figure.any():
            return {}
        collar = int(np.argmax(shirt.sum(1) > 0.5 * np.maximum(figure.sum(1), 1)))
        head = picture[:collar].astype(int)
        inside = figure[:collar]
        skin, hair = (inside & (np.abs(head - colour).max(2) < NEAR) for colour in (SKIN, HAIR))
        if not (skin | hair).any():
            return {}
        found: dict[str, Any] = {"yaw": _yaw(skin, hair), "face": _box(skin | hair, height, width)}
        body = _box(figure, height, width)
        if body[3] * height > 1.3 * body[2] * width:  # more than head and shoulders
            found["body"] = body
        tongue = (inside & (head[..., 0] - head[..., 1] > 85))[: collar * 9 // 10]  # below it the shirt shines through
        if abs(found["yaw"]) < 50:
            found["expressions"] = {"surprise": 0.9} if tongue.sum() > 0.01 * inside.sum() else {"neutral": 0.7}
        return found


def _yaw(skin: Any, hair: Any) -> float:
    """Return degrees: the skin looks where it lies against the hair, and is as wide as the head from the front."""
    columns = np.nonzero((skin | hair).any(0))[0]
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 2
    aside = (np.nonzero(skin)[1].mean() - middle) / half if skin.any() else 0.0
    share = skin.sum() / (skin | hair).sum()
    return math.degrees(math.atan2(3.0 * aside, 2.0 * (share - 0.5)))


def _box(mask: Any, height: int, width: int) -> tuple[float, ...]:
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return tuple(float(v) for v in (left / width, top / height, (right - left) / width, (bottom - top) / height))
