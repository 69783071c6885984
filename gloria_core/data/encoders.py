"""What turns footage into numbers, as the cache knows it: nano's own, the host's, or others."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..types import AudioFeatures


class Encoder(Protocol):
    """Encodes what a model is trained on. Each id changes whenever its results do: weights and settings count.

    Encoders run without gradients, on whatever device they like, and return tensors on the CPU.
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
    def grid_px(self) -> int:
        """Pixels that both sides of a picture must be multiples of: a patch of the transformer."""
        ...

    @property
    def stride_px(self) -> int:
        """Pixels of a latent along a side."""
        ...

    def encode_video(self, frames: NDArray[np.uint8]) -> Tensor:
        """Encode 4k + 1 frames (F, H, W, 3) to clean, normalised latents (1, C, T, h, w); one frame is a picture."""
        ...

    def encode_text(self, texts: list[str]) -> list[Tensor]:
        """Encode texts to rows (L, D) each; rows of zeros at the end may be left out."""
        ...

    def encode_audio(self, waveform: Tensor, sample_rate: int, fps: float) -> AudioFeatures:
        """Encode a whole sound (channels, samples), on the clock of a video that begins with it."""
        ...
