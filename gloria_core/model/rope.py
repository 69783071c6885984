"""Rotary positions in three axes: latent frame, row, column. Source: wan.md section 1."""

import torch
from torch import Tensor

THETA = 10000.0

Rope = Tensor
"""Rotations as unit complex numbers, complex64: (L, K/2), or (B, L, K/2) where every row has positions of its own."""

Scales = tuple[float, float, float]


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Return how many of the head's numbers turn with time, height and width: 44, 42, 42 for a head of 128."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rope(
    head_dim: int,
    start: int,
    size: tuple[int, int, int],
    device: torch.device,
    *,
    scale: Scales = (1.0, 1.0, 1.0),
    shift: Scales = (0.0, 0.0, 0.0),
) -> Rope:
    """Return the rotations of a grid of tokens in the order t, h, w.

    Args:
        head_dim: K.
        start: temporal position of the first frame; rows and columns start at 0.
        size: tokens along time, height and width.
        device: where the table is wanted.
        scale: factor on the positions of each axis (1 as trained).
        shift: added to the positions of each axis after that (0 as trained).

    Returns:
        (t*h*w, K/2), exact for every integer position whatever type the network computes in: angles are in float64.
    """
    exact = torch.device("cpu") if device.type == "mps" else device  # Apple's devices know no float64
    turns = []
    for axis, (dim, length) in enumerate(zip(axis_dims(head_dim), size, strict=True)):
        frequency = THETA ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=exact) / dim)
        position = torch.arange(length, dtype=torch.float64, device=exact) + (start if axis == 0 else 0)
        angle = torch.outer(position * scale[axis] + shift[axis], frequency)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = length
        turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64).to(device)
        turns.append(turn.view(shape).expand(*size, dim // 2))
    return torch.cat(turns, dim=-1).flatten(0, 2)  # (L, K/2)


def rotate(x: Tensor, heads: int, table: Rope) -> Tensor:
    """Turn queries or keys (B, L, N*K) by their positions; pairs are neighbours (2i, 2i+1)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    pairs = torch.view_as_complex(wide.unflatten(-1, (heads, -1, 2)))  # (B, L, N, K/2)
    turn = table.unsqueeze(-2)  # (L, 1, K/2) or (B, L, 1, K/2)
    pairs = pairs * turn if wide is x else pairs.mul_(turn)  # a copy of x need not be kept
    return torch.view_as_real(pairs).flatten(2).to(x.dtype)
