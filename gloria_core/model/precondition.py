"""From the network's output to a velocity, where a model knows the spread of its latents (nano; Wan does not)."""

from collections.abc import Sequence

import torch
from torch import Tensor

_LOWEST = 0.02
"""Below this noise level the velocity of a clean guess is no longer blown up."""


def best_guess(
    output: Tensor, x: Tensor, timestep: Tensor, latent_std: Sequence[float], patch: tuple[int, int, int]
) -> Tensor:
    """Turn the network's output F into a velocity c_skip x + c_out F.

    For a clean latent of standard deviation s and the noise level sigma, c_skip x is the best linear guess of the
    velocity and c_out the standard deviation of what remains, so that F is of unit size at every noise level.
    Source: the argument of Karras et al. 2022 (EDM, section 5), worked out for x = (1-sigma) x0 + sigma noise.

    Args:
        output: F, (B, C, T, h, w).
        x: the network's input (B, C or more, T, h, w), noisy latents first.
        timestep: for each clip (B,), latent frame (B, T) or token (B, L), 0..1000.
        latent_std: s of each channel.
        patch: latent frames, rows and columns in one token.

    Returns:
        The velocity, like ``output``.
    """
    std = torch.tensor(latent_std, device=x.device, dtype=torch.float32).view(1, -1, 1, 1, 1)
    sigma = _for_latents(timestep.float() / 1000, x.shape[2:], patch)
    variance = ((1 - sigma) * std) ** 2 + sigma**2
    skip = (sigma - (1 - sigma) * std**2) / variance
    scale = std / variance.sqrt()
    latent = x[:, : output.shape[1]]
    return (skip * latent + scale * output).to(output.dtype)


def from_clean(
    output: Tensor, x: Tensor, timestep: Tensor, latent_std: Sequence[float], patch: tuple[int, int, int]
) -> Tensor:
    """Turn the network's output F = -x0 / s into a velocity (x + s F) / sigma; arguments as for ``best_guess``.

    The noise reaches the velocity beside the network, which need not print it: right for a network that is narrower
    than its patches. Source: Li and He 2025, "Back to Basics: Let Denoising Generative Models Denoise". The sign makes
    F the same as ``best_guess``'s at pure noise, so that weights of one kind can be trained on as the other.
    """
    std = torch.tensor(latent_std, device=x.device, dtype=torch.float32).view(1, -1, 1, 1, 1)
    sigma = _for_latents(timestep.float() / 1000, x.shape[2:], patch)
    latent = x[:, : output.shape[1]]
    return ((latent + std * output) / sigma.clamp_min(_LOWEST)).to(output.dtype)


def _for_latents(values: Tensor, size: torch.Size, patch: tuple[int, int, int]) -> Tensor:
    """Give values (B,), (B, T) or (B, L) the axes (B, 1, T, h, w), each of which may be 1."""
    frames, height, width = size
    if values.ndim == 1:
        return values.view(-1, 1, 1, 1, 1)
    if values.shape[1] <= frames:
        return values.view(len(values), 1, -1, 1, 1)
    rows, columns = -(-height // patch[1]), -(-width // patch[2])
    values = values.view(len(values), 1, frames, rows, columns)
    return values.repeat_interleave(patch[1], dim=3)[..., :height, :].repeat_interleave(patch[2], dim=4)[..., :width]
