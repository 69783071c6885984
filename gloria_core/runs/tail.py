"""The end of a video that another one goes on from."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import MediaError
from ..sampling.chunks import STRIDE, frames_of

TAIL_CONTEXT = 16
"""Latents that are encoded before a video's last ones; see `tail_pictures`."""


def num_tail_frames(num_latents: int, *, held: bool) -> int:
    """Return how many of a video's last frames are looked at to go on from ``num_latents`` latents.

    Args:
        num_latents: latents of the prefix.
        held: whether the weights hold their prefix, so that it is encoded with what comes before it.
    """
    return frames_of(range(num_latents)).stop + (STRIDE * TAIL_CONTEXT if held else 0)


def check_tail(frames: Tensor, size: tuple[int, int], num_latents: int, *, held: bool) -> Tensor:
    """Return the frames (F, H, W, 3) that a video goes on from.

    Args:
        frames: the last ones of the other video (F, H, W, 3), 0..1.
        size: width and height of the video that goes on.
        num_latents: latents of the prefix.
        held: as for `num_tail_frames`.

    Raises:
        MediaError: they have another size, or are too few.
    """
    height, width = frames.shape[1:3]
    needed = frames_of(range(num_latents)).stop
    if (width, height) != size:
        raise MediaError(
            f"The video to go on from is {width} x {height}; this one is {size[0]} x {size[1]}: scale it to that size "
            "first, without a strip beside it, or set width and height to its own."
        )
    if len(frames) < needed:
        raise MediaError(
            f"The video to go on from has {len(frames)} pictures; going on takes at least {needed}: give a longer one, "
            "or lower 'overlap_latents'."
        )
    return frames if held else frames[-needed:]


def tail_pictures(frames: Tensor | NDArray[np.uint8], num_latents: int, context: int = TAIL_CONTEXT) -> Tensor:
    """Return the frames (F, H, W, 3), 0..1, whose last ``num_latents`` latents begin a video's continuation.

    The nano codec's latents are those that encoding the whole video gives. Wan's encoders look back, ever more faintly.
    With random weights, which carry more over than trained ones should, the first of four differs from the whole
    video's by this part of the latents' spread (root mean square): with Wan 2.1's 0.9 for a context of 4, 0.3 for 8,
    0.01 for 16; with Wan 2.2's 0.4, 0.05 and 2e-4. It costs time once for a video.

    Args:
        frames: (F, H, W, 3): bytes, or 0..1. Only the last 4(num_latents - 1 + context) + 1 are looked at.
        num_latents: latents to go on from, at least 1.
        context: further latents that are encoded before these and thrown away, so that the first of the rest is made
            of four frames and what came before them, as in the middle of a video. A short video has fewer.

    Raises:
        MediaError: the video is too short.
    """
    pictures = torch.as_tensor(frames)
    if pictures.ndim != 4 or pictures.shape[-1] < 3:
        raise MediaError(
            f"The video to go on from has the shape {tuple(pictures.shape)}; it must be (frames, height, width, 3)."
        )
    there, needed = (len(pictures) - 1) // STRIDE + 1, frames_of(range(num_latents)).stop
    if len(pictures) < needed:
        raise MediaError(
            f"The video to go on from has {len(pictures)} pictures; going on from {num_latents} latent frames takes at "
            f"least {needed}: give a longer video, or go on from {max(there, 1)} latent frames."
        )
    num_frames = frames_of(range(min(num_latents + context, there))).stop
    tail = pictures[len(pictures) - num_frames :, :, :, :3]
    return tail.float() / 255.0 if tail.dtype == torch.uint8 else tail
