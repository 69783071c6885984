"""Nano's own encoders for a dataset: the bundled codec and text encoder, and mel bands."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import mel_features
from ..audio.mel import silence_row
from ..runs.digest import digest_of
from ..types import AudioFeatures
from .bundle import Bundle, load_bundle
from .codec import SIDE
from .text import tokenize


class NanoEncoder:
    """Encodes footage for nano, see `data.encoders.Encoder`.

    Args:
        bundle: nano's parts; the bundled ones where None.
    """

    codec = "nano"
    audio_kind = "mel"
    pictures = None
    stride_px = SIDE

    def __init__(self, bundle: Bundle | None = None) -> None:
        self._bundle = bundle or load_bundle()
        self.grid_px = SIDE * self._bundle.config.patch_size[1]
        self.video_id = digest_of("nano", *self._bundle.codec.state_dict().values())
        self.text_id = digest_of("nano", *self._bundle.text_encoder.state_dict().values())
        self.audio_id = digest_of("mel", silence_row())

    def encode_video(self, frames: NDArray[np.uint8]) -> Tensor:
        """Encode 4k + 1 frames (F, H, W, 3) to (1, 64, T, H / 8, W / 8)."""
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1.0
        return self._bundle.codec.encode(pixels[None])

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> list[Tensor]:
        """Encode texts to rows (10, 64) each; words that nano never learned are left out."""
        words = torch.tensor([tokenize(text)[0] for text in texts])
        return list(self._bundle.text_encoder(words))

    def encode_audio(self, waveform: Tensor, sample_rate: int, fps: float) -> AudioFeatures:
        """Encode a sound (channels, samples) to a row of mel bands for each frame."""
        num_frames = max(1, math.ceil(waveform.shape[-1] / sample_rate * fps))
        return mel_features(waveform, sample_rate, fps=fps, num_frames=num_frames)
