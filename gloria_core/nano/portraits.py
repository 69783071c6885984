"""Pictures of a nano character: what a person would photograph or generate for a character of their own."""

import torch
from torch import Tensor

from ..anchors.picture import AnchorPicture
from ..types import EXPRESSIONS, VIEWS, AnchorRole
from .characters import find_character
from .render import Poses, expression_anchors, render, view_anchors, view_yaw

_NEUTRAL = EXPRESSIONS.index("neutral")


def portraits(name: str) -> tuple[AnchorPicture, ...]:
    """Draw a character.

    Args:
        name: a bundled name in any case, or a number, which is the seed of an invented one.

    Returns:
        The character in its scene, its views and its expressions, in the order of their slots.

    Raises:
        GloriaError: nobody is called so.
    """
    who = find_character(name)
    scene = _images(render(who, Poses.still(torch.zeros(1, 1), torch.full((1, 1), _NEUTRAL))))
    views = _images(view_anchors(who, Poses.still(view_yaw().unsqueeze(0), torch.full((1, len(VIEWS)), _NEUTRAL))))
    moods = torch.arange(len(EXPRESSIONS)).unsqueeze(0)
    expressions = _images(expression_anchors(who, Poses.still(torch.zeros(1, len(EXPRESSIONS)), moods)))
    return (
        AnchorPicture(AnchorRole.GLOBAL, "", scene),
        *(AnchorPicture(AnchorRole.VIEW, slot, views[i : i + 1]) for i, slot in enumerate(VIEWS)),
        *(AnchorPicture(AnchorRole.EXPRESSION, slot, expressions[i : i + 1]) for i, slot in enumerate(EXPRESSIONS)),
    )


def _images(frames: Tensor) -> Tensor:
    """Turn frames (1, 3, F, H, W) in [-1, 1] into pictures (F, H, W, 3) in 0..1."""
    return ((frames[0].permute(1, 2, 3, 0) + 1.0) / 2.0).clamp(0.0, 1.0).contiguous()
