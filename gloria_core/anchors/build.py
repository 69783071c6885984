"""From encoded pictures to a checked anchor set."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import AnchorError
from ..types import SLOTS, Anchor, AnchorRole, AnchorSet
from .roles import parse_role, parse_slot


def make_anchor(role: AnchorRole | str, slot: str, latent: Tensor) -> Anchor:
    """Return one anchor from names as people type them.

    Args:
        role: "global", "view" or "expression", in any case.
        slot: a name from `types.SLOTS`, in any case; empty for the global anchor.
        latent: the picture's clean, normalised latent (B, C, 1, h, w).

    Raises:
        AnchorError: a name is unknown or the latent is not one picture.
    """
    known = role if isinstance(role, AnchorRole) else parse_role(role)
    return Anchor(known, parse_slot(known, slot), latent)


def build_anchor_set(anchors: Iterable[Anchor], config: ModelConfig, *, needs_global: bool = True) -> AnchorSet:
    """Return the anchors as a set that a model takes.

    Args:
        anchors: in any order, also the members of several sets; the new set has them in the order of their slots.
        config: the model's configuration: its latent channels and its patch.
        needs_global: whether a character without the global anchor is refused. Paper: 4.1, always present.

    Raises:
        AnchorError: the global anchor is missing, a slot is taken twice, or a latent does not fit the model.
    """
    order = [(role, slot) for role, slots in SLOTS.items() for slot in slots]
    found = AnchorSet(tuple(sorted(anchors, key=lambda anchor: order.index((anchor.role, anchor.slot)))))
    if needs_global and found.get(AnchorRole.GLOBAL) is None:
        have = ", ".join(anchor.name for anchor in found) or "none"
        raise AnchorError(
            f"The global anchor is missing (given: {have}). Every character needs one picture of the whole scene as "
            "its global anchor; the start frame will do."
        )
    for anchor in found:
        _check_latent(anchor, config)
    return found


def _check_latent(anchor: Anchor, config: ModelConfig) -> None:
    latent = anchor.latent
    _, channels, _, height, width = latent.shape
    _, rows, columns = config.patch_size
    if channels != config.out_channels:
        raise AnchorError(
            f"The {anchor.name} anchor was encoded to {channels} channels, but this model works with "
            f"{config.out_channels}; encode it with the VAE that belongs to the model."
        )
    if not height or not width or height % rows or width % columns:
        pixels = config.spatial_stride
        raise AnchorError(
            f"The {anchor.name} anchor's picture is {width * pixels} x {height * pixels} pixels; this model needs a "
            f"width that is a multiple of {columns * pixels} and a height that is one of {rows * pixels}: "
            f"crop or scale it to {_nearest(width, columns) * pixels} x {_nearest(height, rows) * pixels} first."
        )
    if not latent.is_floating_point() or not bool(torch.isfinite(latent).all()):
        raise AnchorError(
            f"The {anchor.name} anchor's latent holds values that are not numbers; encode its picture again, in "
            "float32 or bfloat16."
        )


def _nearest(size: int, patch: int) -> int:
    return max(patch, (size + patch // 2) // patch * patch)
