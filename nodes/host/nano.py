"""The bundled gloria-nano as the host's objects, and pictures of its characters."""

import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor

from ...gloria_core.nano.bundle import load_bundle
from ...gloria_core.nano.portraits import portraits
from ...gloria_core.types import AnchorRole
from ..sockets import AnchorPicture
from .checkpoints import model_from
from .text import build_clip
from .vae import NanoVAE


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
    scene, *others = portraits(name)
    views, expressions = (
        torch.cat([picture.image for picture in others if picture.role == role])
        for role in (AnchorRole.VIEW, AnchorRole.EXPRESSION)
    )
    return scene.image, tuple(others), views, expressions
