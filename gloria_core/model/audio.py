"""The audio branch: windows of features become tokens, and each latent frame's tokens listen to its own. Paper: 4.2."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import AudioConfig, ModelConfig
from ..errors import AudioError
from ..protocols import Attention, Operations


class AudioEmbedding(nn.Module):
    """Projects windows of audio features (B, T, W, A) to (B, T, W, D_audio) and marks each frame's place in its window.

    Paper: 4.2. The place is ours: without it a window would be a bag of frames.
    """

    def __init__(self, config: AudioConfig, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.proj = nn.Sequential(
            ops.Linear(config.feature_dim, config.dim, **factory),
            nn.SiLU(),
            ops.Linear(config.dim, config.dim, **factory),
        )
        self.position = ops.Embedding(config.window, config.dim, **factory)

    def forward(self, windows: Tensor) -> Tensor:
        """Project; raises AudioError where the windows are not (B, T, W, A) of this model."""
        if windows.ndim != 4 or windows.shape[2:] != (self.config.window, self.config.feature_dim):
            raise AudioError(
                f"The audio windows have the shape {tuple(windows.shape)}; this model needs (batch, latent frames, "
                f"{self.config.window}, {self.config.feature_dim}) {self.config.kind} features: encode the sound with "
                "the extractor that belongs to the model."
            )
        place = self.position(torch.arange(self.config.window, device=windows.device))
        return self.proj(windows) + place.to(windows.dtype)


class AudioAttention(nn.Module):
    """Attention of each latent frame's tokens to that frame's window of sound. Paper: 4.2."""

    def __init__(self, config: ModelConfig, attention: Attention, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        assert config.audio is not None
        self.heads, self.attention = config.num_heads, attention
        self.k = ops.Linear(config.audio.dim, config.dim, **factory)
        self.v = ops.Linear(config.audio.dim, config.dim, **factory)
        self.o = ops.Linear(config.dim, config.dim, **factory)

    def forward(self, q: Tensor, audio: Tensor, options: dict[str, Any]) -> Tensor:
        """Attend from the text branch's queries (B, T*n, D) to windows (B, T, W, D_audio)."""
        frames = audio.shape[1]
        q = rearrange(q, "b (t n) d -> (b t) n d", t=frames)
        windows = rearrange(audio, "b t w a -> (b t) w a")
        k, v = self.k(windows), self.v(windows)
        out = self.attention(q, k, v, self.heads, low_precision=False, transformer_options=options)
        return self.o(rearrange(out, "(b t) n d -> b (t n) d", t=frames))
