"""Decoding a video of any length as one causal stream, with what the decoder remembers kept between the pieces."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import GloriaError
from ..runs.job import Frames

Memory = list[object]
"""What a decoder keeps from one latent to the next; empty before the video's first."""
Step = Callable[[Tensor, Memory], Tensor]
"""Decodes the next latent (1, C, 1, h, w) to frames (1, 3, 1 or 4, H, W) in [-1, 1], and replaces the memory."""


class StepDecoder:
    """Decodes the latents of one video, each once and in order; frames are those of one long decoding.

    Args:
        name: what frames depend on beside latents and the VAE's weights.
        step: decodes a latent.
        lookback: latents before a point that must be taken to go on there exactly; None is all of them.
    """

    def __init__(self, name: str, step: Step, *, lookback: int | None) -> None:
        self.name, self.lookback = name, lookback
        self._step = step
        self.reset()

    def reset(self) -> None:
        """Begin with the video's first latent again."""
        self._state: tuple[object, ...] = ()

    def snapshot(self) -> tuple[object, ...]:
        """Return the state; nothing in it is ever changed in place."""
        return self._state

    def restore(self, state: tuple[object, ...]) -> None:
        """Come back to a state."""
        self._state = state

    def warm(self, latents: Tensor) -> None:
        """Take latents that are decoded already."""
        for _ in self.frames(latents):
            pass

    def frames(self, latents: Tensor) -> Iterator[Frames]:
        """Yield each latent's frames. The stream moves on when all are taken; until then it stands where it stood.

        Raises:
            GloriaError: the latents are not of one video.
        """
        if latents.ndim != 5 or latents.shape[0] != 1:
            raise GloriaError(
                f"The latents to decode have the shape {tuple(latents.shape)}; a video is decoded from one clip at a "
                "time, (1, channels, frames, height, width)."
            )
        memory = list(self._state)
        for index in range(latents.shape[2]):
            with torch.inference_mode():
                pixels = self._step(latents[:, :, index : index + 1], memory)
            yield to_bytes(pixels)
        self._state = tuple(memory)


def to_bytes(pixels: Tensor) -> Frames:
    """Turn frames (1, 3, F, H, W) in [-1, 1] into bytes (F, H, W, 3)."""
    pictures = ((pixels.float() + 1.0) / 2.0).clamp(0.0, 1.0)[0].movedim(0, -1)
    return picture_bytes(pictures)


def picture_bytes(pictures: Tensor) -> Frames:
    """Turn pictures (..., 3), 0..1, into bytes."""
    found: Frames = (pictures[..., :3] * 255.0).round().clamp(0, 255).to("cpu", torch.uint8).numpy()
    return np.ascontiguousarray(found)
