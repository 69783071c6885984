"""The bundled gloria-nano as the host's objects, and pictures of its characters."""

import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor

from ...gloria_core.nano.bundle import load_bundle
from ...gloria_core.nano.characters import find_character
from ...gloria_core.nano.render import Poses, expression_anchors, render, view_anchors, view_yaw
from ...gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole
from ..sockets import AnchorPicture
from .checkpoints import model_from
from .text import build_clip
from .vae import NanoVAE

_NEUTRAL = EXPRESSIONS.index("neutral")


def load_nano(attention: str) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Return the bundled model, its text encoder and its VAE.

    Raises:
        CheckpointError: the bundled file is missing or was cut.
        ConfigError: the attention mode is unknown.
    """
    bundle = load_bundle()
    return model_from(bundle.dit, bundle.config, attention), build_clip(bundle.text_encoder), NanoVAE(bundle.codec)


def character_pictures(name: str) -> tuple[Tensor, tuple[AnchorPicture, ...], Tensor, Tensor]:
    """Draw a character.

    Args:
        name: a bundled name in any case, or a number, which is the seed of an invented one.

    Returns:
        As the host's IMAGEs: the character in its scene (1, H, W, 3); all views and expressions with their roles; the
        views (4, H, W, 3) in the order of VIEWS; the expressions (8, H', W, 3) in the order of EXPRESSIONS.

    Raises:
        GloriaError: nobody is called so.
    """
    who = find_character(name)
    scene = _images(render(who, Poses.still(torch.zeros(1, 1), torch.full((1, 1), _NEUTRAL))))
    views = _images(view_anchors(who, Poses.still(view_yaw().unsqueeze(0), torch.full((1, len(VIEWS)), _NEUTRAL))))
    moods = torch.arange(len(EXPRESSIONS)).unsqueeze(0)
    expressions = _images(expression_anchors(who, Poses.still(torch.zeros(1, len(EXPRESSIONS)), moods)))
    pictures = [AnchorPicture(AnchorRole.VIEW, slot, views[i : i + 1]) for i, slot in enumerate(VIEWS)]
    pictures += [
        AnchorPicture(AnchorRole.EXPRESSION, slot, expressions[i : i + 1]) for i, slot in enumerate(EXPRESSIONS)
    ]
    return scene, tuple(pictures), views, expressions


def _images(frames: Tensor) -> Tensor:
    """Turn the core's frames (1, 3, F, H, W) in [-1, 1] into the host's IMAGE (F, H, W, 3) in 0..1."""
    return ((frames[0].permute(1, 2, 3, 0) + 1.0) / 2.0).clamp(0.0, 1.0).contiguous()
