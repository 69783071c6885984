"""From encoded pictures to a checked anchor set."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AnchorError
from ..types import SLOTS, Anchor, AnchorRole, AnchorSet
from .roles import parse_role, parse_slot


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorRules:
    """What a model takes as anchors."""

    channels: int
    """Channels of the model's latents."""
    patch_height: int = 2
    """Rows of a latent in one token; an anchor's height is a multiple."""
    patch_width: int = 2
    """Columns of a latent in one token; an anchor's width is a multiple."""
    needs_global: bool = True
    """Whether a character without the global anchor is refused. Paper: 4.1, always present."""


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


def build_anchor_set(anchors: Iterable[Anchor], rules: AnchorRules) -> AnchorSet:
    """Return the anchors as a set that the model takes.

    Args:
        anchors: in any order, also the members of several sets; the new set has them in the order of their slots.
        rules: what the model takes.

    Raises:
        AnchorError: the global anchor is missing, a slot is taken twice, or a latent does not fit the model.
    """
    order = {(role, slot): place for place, (role, slot) in enumerate((r, s) for r in SLOTS for s in SLOTS[r])}
    found = AnchorSet(tuple(sorted(anchors, key=lambda anchor: order[anchor.role, anchor.slot])))
    if rules.needs_global and found.get(AnchorRole.GLOBAL) is None:
        have = ", ".join(anchor.name for anchor in found) or "none"
        raise AnchorError(
            f"The global anchor is missing (given: {have}). Every character needs one picture of the whole scene as "
            "its global anchor; the start frame will do."
        )
    for anchor in found:
        _check_latent(anchor, rules)
    return found


def _check_latent(anchor: Anchor, rules: AnchorRules) -> None:
    latent = anchor.latent
    _, channels, _, height, width = latent.shape
    if channels != rules.channels:
        raise AnchorError(
            f"The {anchor.name} anchor was encoded to {channels} channels, but this model works with {rules.channels}; "
            "encode it with the VAE that belongs to the model."
        )
    if not height or not width or height % rules.patch_height or width % rules.patch_width:
        raise AnchorError(
            f"The {anchor.name} anchor is {width} wide and {height} high in latents; both must be multiples of the "
            f"model's patch ({rules.patch_width} wide, {rules.patch_height} high). Before it is encoded, crop or scale the picture to "
            f"{_nearest(width, rules.patch_width)} x {_nearest(height, rules.patch_height)} latents."
        )
    if not latent.is_floating_point() or not bool(torch.isfinite(latent).all()):
        raise AnchorError(
            f"The {anchor.name} anchor's latent holds values that are not numbers; encode its picture again, in float32 or "
            "bfloat16."
        )


def _nearest(size: int, patch: int) -> int:
    return max(patch, (size + patch // 2) // patch * patch)
