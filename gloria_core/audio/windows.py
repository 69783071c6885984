"""What each latent frame hears: a window of feature rows around the pixel frames that it decodes to."""

import torch
from torch import Tensor

from ..errors import AudioError
from ..types import AudioFeatures

WINDOW = 8
"""Pixel frames in a window: the four that a latent decodes to, with context."""
_STRIDE = 4
_FIRST = -5


def windows(features: AudioFeatures, start_latent: int, num_latents: int) -> Tensor:
    """Cut windows for a run of latents, at their absolute places in the whole video.

    Latent i >= 1 decodes to pixel frames 4i-3 .. 4i and hears 4i-5 .. 4i+2; latent 0 decodes to frame 0 and hears
    -2 .. 2, with padding in the slots before. Frames outside the video are the
    features' ``padding`` row, or zeros.
    Paper: 4.2; the sizes are ours.

    Args:
        features: rows (F, A) of the whole video.
        start_latent: absolute index of the first latent.
        num_latents: latents T.

    Returns:
        (T, 8, A), on the features' device and in their dtype.

    Raises:
        AudioError: a negative index, no latents, or features that are not rows.
    """
    rows = features.frames
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise AudioError(
            f"The audio features have the shape {tuple(rows.shape)}; give (frames, features), 1 frame or more."
        )
    if start_latent < 0 or num_latents < 1:
        raise AudioError(
            f"There are no windows for {num_latents} latents from {start_latent} on; count from 0, take 1 or more."
        )
    padding = rows.new_zeros(rows.shape[1]) if features.padding is None else features.padding.to(rows)
    latents = torch.arange(start_latent, start_latent + num_latents, device=rows.device)
    frames = latents[:, None] * _STRIDE + _FIRST + torch.arange(WINDOW, device=rows.device)  # (T, 8)
    inside = (frames >= 0) & (frames < rows.shape[0])
    return torch.where(inside[..., None], rows[frames.clamp(0, rows.shape[0] - 1)], padding)  # (T, 8, A)
