"""What a picture of the nano world shows, read by the renderer itself.

The picture is compared with renders of each possible answer in the same pose; the nearest one is what it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .characters import Characters
from .render import Poses, render

TORSO = (slice(30, 54), slice(11, 37))
"""Rows and columns of a picture that show the torso."""
HEAD = (slice(4, 32), slice(8, 40))
"""Rows and columns of a picture that show the head."""
OPENINGS = torch.linspace(0, 1, 6)
"""Openings of the mouth that are told apart."""

Option = Callable[[Characters, Poses], tuple[Characters, Poses]]
"""Changes characters or poses to one possible answer."""


def nearest(
    made: Tensor,
    who: Characters,
    poses: Poses,
    options: Sequence[Option],
    window: tuple[slice, slice],
) -> Tensor:
    """Return which option's render is nearest to each picture.

    Args:
        made: (N, 3, 64, 48).
        who: N characters.
        poses: one frame each (F = 1).
        options: each changes characters or poses to one possible answer.
        window: rows and columns that are compared.
    """
    errors = []
    for option in options:
        picture = render(*option(who, poses), background=True)[:, :, 0]
        errors.append((picture[:, :, *window] - made[:, :, *window]).square().mean(dim=(1, 2, 3)))
    return torch.stack(errors).argmin(0)


def with_field(name: str, value: int) -> Option:
    """Return an option that sets a field of the characters (a badge's colour) to a value."""
    return lambda who, poses: (replace(who, **{name: torch.full_like(getattr(who, name), value)}), poses)


def with_logo(shape: int, colour: int) -> Option:
    """Return an option that puts a logo on the back."""

    def change(who: Characters, poses: Poses) -> tuple[Characters, Poses]:
        whole = replace(
            who, back_shape=torch.full_like(who.back_shape, shape), back_colour=torch.full_like(who.back_colour, colour)
        )
        return whole, poses

    return change


def with_mood(emotion: int) -> Option:
    """Return an option that shows one emotion."""

    def change(who: Characters, poses: Poses) -> tuple[Characters, Poses]:
        weights = torch.zeros_like(poses.emotion)
        weights[..., emotion] = 1
        return who, replace(poses, emotion=weights)

    return change


def with_cheek(colour: int) -> Option:
    """Return an option that paints the cheeks."""
    return lambda who, poses: (replace(who, cheek=torch.full_like(who.cheek, colour)), poses)


def with_opening(amount: float) -> Option:
    """Return an option that opens the mouth, 0..1."""
    return lambda who, poses: (who, replace(poses, mouth=torch.full_like(poses.mouth, amount)))


def frame(poses: Poses, index: int) -> Poses:
    """Return one frame of the poses (F = 1)."""
    return poses.part(slice(None), slice(index, index + 1))


def share(right: Tensor) -> float:
    """Return how much of a bool tensor is true, 0..1."""
    return float(right.float().mean())


def correlation(a: Tensor, b: Tensor) -> float:
    """Return Pearson's correlation of two tensors of one shape."""
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-9))
