"""What a model with image channels is shown of a clip: the pictures that are known, and which ones these are.

Known pictures at their places and mid grey everywhere else go through the VAE in one piece; a mask tells the two apart.
Source: wan.md section 3.
"""

import torch
from torch import Tensor

from .chunks import STRIDE, frames_of

MASKS = STRIDE
"""Channels of the mask: the pictures of a latent frame. The image latent's channels stand behind them."""
_GREY = 0.5


def known_video(num_latents: int, first: Tensor | None, last: Tensor | None = None) -> Tensor:
    """Return a clip's pictures (F, H, W, 3), 0..1, as they are to be encoded.

    Args:
        num_latents: length of the clip.
        first: the pictures that it begins with (f, H, W, 3), 0..1; f = 4(P - 1) + 1 for P known latents.
        last: those that it ends with; one of the two is given.
    """
    some = first if first is not None else last
    assert some is not None  # the callers know one of the two
    video = torch.full((frames_of(range(num_latents)).stop, *some.shape[1:3], 3), _GREY)
    if first is not None:
        video[: len(first)] = first[..., :3]
    if last is not None:
        video[-len(last) :] = last[..., :3]
    return video


def known_mask(num_latents: int, num_first: int = 0, num_last: int = 0) -> Tensor:
    """Return the mask (4, T) of a clip that begins and ends with so many known pictures: 1 where one is known."""
    pictures = torch.zeros(STRIDE * num_latents)
    if num_first:
        pictures[: num_first + STRIDE - 1] = 1.0  # the first picture counts four times: it fills a latent alone
    if num_last:
        pictures[-num_last:] = 1.0
    return pictures.view(num_latents, STRIDE).T
