"""Proposing the part of a picture that a slot should use."""

import numpy as np
from PIL import Image

from ..anchors.analysis import Box, PictureAnalysis
from ..errors import ConfigError
from .board import Crop
from .measure import figure_box

PRESETS = ("body", "head", "whole")
_MARGIN = 0.04
"""Of the figure's size, left free around it."""
_HEAD = 0.24
"""Height of a head with its hair, of a standing figure's: seven heads to a grown-up, fewer to a drawn one."""


def propose_crop(image: Image.Image, preset: str, analysis: PictureAnalysis | None = None) -> tuple[Crop, str]:
    """Return a crop for a preset, and what it was found by.

    Args:
        image: upright RGB.
        preset: one of PRESETS.
        analysis: finds people; None leaves a plain background or the picture's middle to go by.

    Returns:
        The crop, and ``analysis``, ``background`` or ``centre``.

    Raises:
        ConfigError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"There is no crop {preset[:40]!r}; use one of: {', '.join(PRESETS)}.")
    if preset == "whole":
        return (0.0, 0.0, 1.0, 1.0), "centre"
    seen = analysis(np.asarray(image)) if analysis is not None else None
    if seen is not None and (box := seen.face if preset == "head" else seen.body) is not None:
        return with_margin(box), "analysis"
    figure = figure_box(image)
    if figure is not None:
        return with_margin(_head_of(figure, image.size) if preset == "head" else figure), "background"
    return _centred(preset, image.size), "centre"


def with_margin(box: Box) -> Crop:
    """Return the crop around a box, with a little room."""
    x, y, width, height = box
    left, top = max(0.0, x - _MARGIN * width), max(0.0, y - _MARGIN * height)
    right, bottom = min(1.0, x + (1 + _MARGIN) * width), min(1.0, y + (1 + _MARGIN) * height)
    return _rounded(left, top, right - left, bottom - top)


def _head_of(figure: Box, size: tuple[int, int]) -> Box:
    """Return the upper end of a standing figure; a figure that is hardly taller than wide is a head already."""
    x, y, width, height = figure
    tall, wide = height * size[1], width * size[0]
    if tall < 1.6 * wide:
        return figure
    side_x = min(1.0, _HEAD * tall / size[0])
    left = min(max(0.0, x + width / 2 - side_x / 2), 1.0 - side_x)
    return left, y, side_x, _HEAD * height


def _centred(preset: str, size: tuple[int, int]) -> Crop:
    """Return the middle of a picture: 3 to 4 for a body, the upper square for a head."""
    wide, tall = size
    width = min(1.0, (0.75 * tall if preset == "body" else min(wide, tall) * 0.6) / wide)
    height = 1.0 if preset == "body" else min(1.0, width * wide / tall)
    return _rounded((1.0 - width) / 2, 0.0 if preset == "body" else (1.0 - height) / 4, width, height)


def _rounded(x: float, y: float, width: float, height: float) -> Crop:
    left, top = round(x, 4), round(y, 4)
    return left, top, min(round(width, 4), round(1 - left, 4)), min(round(height, 4), round(1 - top, 4))
