"""Rotary positions in three axes: latent frame, row, column. Source: wan.md section 1."""

import torch
from torch import Tensor

THETA = 10000.0

Rope = tuple[Tensor, Tensor]
"""Cosines and sines in float32, each (L, K/2), or (B, L, K/2) where every row has positions of its own."""


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Return how many of the head's numbers turn with time, height and width: 44, 42, 42 for a head of 128."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rope(head_dim: int, start: int, size: tuple[int, int, int], device: torch.device) -> Rope:
    """Return the rotations of a grid of tokens in the order t, h, w.

    Args:
        head_dim: K.
        start: temporal position of the first frame; rows and columns start at 0.
        size: tokens along time, height and width.
        device: where the tables are wanted.

    Returns:
        Cosines and sines (t*h*w, K/2), exact for every integer position (computed in float64).
    """
    angles = []
    for axis, (dim, length) in enumerate(zip(axis_dims(head_dim), size, strict=True)):
        frequency = THETA ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)
        position = torch.arange(length, dtype=torch.float64, device=device) + (start if axis == 0 else 0)
        shape = [1, 1, 1, dim // 2]
        shape[axis] = length
        angles.append(torch.outer(position, frequency).view(shape).expand(*size, dim // 2))
    angle = torch.cat(angles, dim=-1).flatten(0, 2)  # (L, K/2)
    return angle.cos().float(), angle.sin().float()


def join(ropes: list[Rope]) -> Rope:
    """Concatenate the rotations of several groups of tokens."""
    return torch.cat([cos for cos, _ in ropes]), torch.cat([sin for _, sin in ropes])


def rotate(x: Tensor, heads: int, table: Rope) -> Tensor:
    """Turn queries or keys (B, L, N*K) by their positions; pairs are neighbours (2i, 2i+1)."""
    turn = torch.complex(*table).unsqueeze(-2)  # (L, 1, K/2) or (B, L, 1, K/2)
    pairs = torch.view_as_complex(x.float().unflatten(-1, (heads, -1, 2)))  # (B, L, N, K/2)
    return torch.view_as_real(pairs * turn).flatten(2).to(x.dtype)
