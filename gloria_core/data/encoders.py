"""What turns footage into numbers, as the cache knows it: nano's own, the host's, or others."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..types import AudioFeatures


class PictureEncoder(Protocol):
    """Encodes what a model with image channels is shown of the pictures that are known, to tensors on the CPU."""

    @property
    def clip_id(self) -> str:
        """Id of CLIP vision encoding; empty where the model has no image branch."""
        ...

    def encode_known(self, frames: NDArray[np.uint8], num_latents: int) -> Tensor:
        """Encode the pictures (F, H, W, 3) that a clip begins with, as sampling does: with mid grey behind them.

        Returns latents (1, C, T, h, w), normalised like those of `Encoder.encode_video`.
        """
        ...

    def encode_seen(self, picture: NDArray[np.uint8]) -> Tensor:
        """Return what CLIP vision sees in a picture (H, W, 3): its tokens (n, D) before the last layer."""
        ...


class EncoderIds(Protocol):
    """What an encoder is: enough to tell what has to be encoded, and at which sizes.

    Each id changes whenever what is encoded changes: weights and settings count.
    """

    @property
    def codec(self) -> str:
        """The latent space, as `ModelConfig.codec` names it."""
        ...

    @property
    def video_id(self) -> str:
        """Id of video and picture encoding."""
        ...

    @property
    def text_id(self) -> str:
        """Id of text encoding."""
        ...

    @property
    def audio_id(self) -> str:
        """Id of sound encoding; empty where the model is deaf."""
        ...

    @property
    def audio_kind(self) -> str:
        """What the sound is encoded to, as `AudioConfig.kind` names it; empty where the model is deaf."""
        ...

    @property
    def pictures(self) -> PictureEncoder | None:
        """What encodes known pictures; None where the model has no image channels."""
        ...

    @property
    def grid_px(self) -> int:
        """Pixels that both sides of a picture must be multiples of: a patch of the transformer."""
        ...

    @property
    def stride_px(self) -> int:
        """Pixels of a latent along a side."""
        ...


class Encoder(EncoderIds, Protocol):
    """Encodes what a model is trained on, without gradients, on whatever device it likes, to tensors on the CPU."""

    def encode_video(self, frames: NDArray[np.uint8]) -> Tensor:
        """Encode 4k + 1 frames (F, H, W, 3) to clean, normalised latents (1, C, T, h, w); one frame is a picture."""
        ...

    def encode_text(self, texts: list[str]) -> Sequence[Tensor]:
        """Encode texts to rows (L, D) each; rows of zeros at the end may be left out."""
        ...

    def encode_audio(self, waveform: Tensor, sample_rate: int, fps: float) -> AudioFeatures:
        """Encode a whole sound (channels, samples), on the clock of a video that begins with it."""
        ...
