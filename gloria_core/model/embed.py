"""What turns numbers into tokens: patches, timestep, text, CLIP vision. Source: wan.md sections 1 and 2."""

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import ModelConfig
from ..protocols import Operations
from .table import make_table


def sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Return [cos | sin] features (..., dim) of timesteps in 0..1000, computed in float64, given in float32."""
    half = dim // 2
    exact = timestep.cpu() if timestep.device.type == "mps" else timestep  # Apple's devices know no float64
    frequency = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64, device=exact.device) / half)
    angle = exact.double().unsqueeze(-1) * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1).float().to(timestep.device)


def pad_to_patch(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Repeat the first rows and columns of (B, C, T, h, w) behind the last until both divide by the patch."""
    rows, columns = (-x.shape[-2]) % patch[1], (-x.shape[-1]) % patch[2]
    if rows or columns:
        x = torch.nn.functional.pad(x, (0, columns, 0, rows, 0, 0), mode="circular")
    return x


def unpatchify(tokens: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Lay the head's features (B, L, pt*ph*pw*C), channels last, out as (B, C, T, h, w)."""
    t, h, w = grid
    pt, ph, pw = patch
    return rearrange(tokens, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw)


def anchor_input(latent: Tensor, config: ModelConfig, like: Tensor) -> Tensor:
    """Fill the input channels of an anchor (B, C, 1, h, w), with the dtype and device of ``like``.

    They are [latent] or, in a 36-channel model, [latent, mask 1, latent].
    """
    latent = latent.to(like)
    if config.has_image_channels:
        masks = config.in_channels - 2 * config.out_channels
        ones = latent.new_ones(latent.shape[0], masks, *latent.shape[2:])
        latent = torch.cat([latent, ones, latent], dim=1)
    return latent


class ClipEmbedding(nn.Module):
    """Projects CLIP vision tokens (B, n, 1280) to (B, n, D); n is 257, or 514 for a first and a last image."""

    def __init__(self, clip_dim: int, dim: int, positions: int, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        self.positions = positions
        self.emb_pos = make_table(self, 1, positions, clip_dim, ops=ops, factory=factory) if positions else None
        self.proj = nn.Sequential(
            ops.LayerNorm(clip_dim, **factory),
            ops.Linear(clip_dim, clip_dim, **factory),
            nn.GELU(),
            ops.Linear(clip_dim, dim, **factory),
            ops.LayerNorm(dim, **factory),
        )

    def forward(self, clip: Tensor) -> Tensor:
        """Return the projected tokens, with learned positions where the model has them (first and last frame)."""
        if self.emb_pos is not None:
            clip = clip[:, : self.positions] + self.emb_pos(clip)[:, : clip.shape[1]]
        return self.proj(clip)
