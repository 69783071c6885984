"""The audio branch: windows of features become tokens, and each latent frame's tokens listen to its own. Paper: 4.2.

Which of the ways is taken that public weights need is told by ``AudioConfig``; their origin is peers.md section B. In
all of them only the video's own tokens listen, and windows of zeros are what a network hears where there is no sound.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..config import MULTITALK_FIRST, AudioConfig, ModelConfig
from ..errors import AudioError
from ..protocols import Attention, Operations
from .norm import layer_norm, turned_norm


def make_audio_embedding(config: AudioConfig, ops: Operations, factory: dict[str, Any]) -> nn.Module:
    """Return the projection of windows (B, T, W, A) to audio tokens (B, T, S, D_audio) that the configuration names."""
    match config.projection:
        case "gloria":
            return AudioEmbedding(config, ops, factory)
        case "fantasytalking":
            return RowEmbedding(config, ops, factory)
        case _:
            return PooledEmbedding(config, ops, factory)


class AudioEmbedding(nn.Module):
    """Gloria's: projects windows of features to (B, T, W, D_audio) and marks each frame's place in its window.

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
        places = torch.empty(config.window, config.dim, **factory)  # torch's own first numbers cost seconds of imports
        self.position = ops.Embedding.from_pretrained(places, freeze=False)

    def forward(self, windows: Tensor) -> Tensor:
        """Project; raises AudioError where the windows are not (B, T, W, A) of this model."""
        _check(windows, self.config)
        place = self.position(torch.arange(self.config.window, device=windows.device))
        return self.proj(windows) + place.to(windows.dtype)


class RowEmbedding(nn.Module):
    """FantasyTalking's: projects and norms each row by itself, to (B, T, W, D_audio).

    A row of zeros is no row: it stands where a window reaches beyond the sound, stays a row of zeros, and the
    attention leaves it out. (wav2vec 2.0 never gives a row of zeros, not even in silence.)
    """

    def __init__(self, config: AudioConfig, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.proj = ops.Linear(config.feature_dim, config.dim, bias=False, **factory)
        self.norm = ops.LayerNorm(config.dim, **factory)

    def forward(self, windows: Tensor) -> Tensor:
        """Project; raises AudioError where the windows are not (B, T, any, A) of this model."""
        _check(windows, self.config)
        return self.norm(self.proj(windows)) * _filled(windows)


class PooledEmbedding(nn.Module):
    """HuMo's and MultiTalk's: projects a whole window to S tokens (B, T, S, D_audio), through three layers and a norm.

    MultiTalk's windows carry a mark behind the features, 1 in the video's first latent and 0 elsewhere: that latent is
    one frame, hears the last five rows of its window alone, and has a first layer of its own.
    """

    def __init__(self, config: AudioConfig, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        if config.projection == "multitalk":
            self.proj1 = ops.Linear(MULTITALK_FIRST * config.feature_dim, config.hidden, **factory)
            self.proj1_vf = ops.Linear(config.window * config.feature_dim, config.hidden, **factory)
        else:
            self.proj1 = ops.Linear(config.window * config.feature_dim, config.hidden, **factory)
        self.proj2 = ops.Linear(config.hidden, config.hidden, **factory)
        self.proj3 = ops.Linear(config.hidden, config.tokens * config.dim, **factory)
        self.norm = ops.LayerNorm(config.dim, **factory)

    def forward(self, windows: Tensor) -> Tensor:
        """Project; raises AudioError where the windows are not (B, T, W, A) of this model."""
        _check(windows, self.config)
        if self.config.projection == "multitalk":
            rows, first = windows[..., :-1], windows[:, :, 0, -1:] != 0  # (B, T, W, A), (B, T, 1)
            x = torch.where(first, self.proj1(rows[:, :, -MULTITALK_FIRST:].flatten(2)), self.proj1_vf(rows.flatten(2)))
        else:
            x = self.proj1(windows.flatten(2))
        x = self.proj3(self.proj2(x.relu()).relu())  # (B, T, S*D_audio)
        return self.norm(x.unflatten(2, (self.config.tokens, self.config.dim)))


def _check(windows: Tensor, config: AudioConfig) -> None:
    length = windows.shape[2] if windows.ndim == 4 and config.projection == "fantasytalking" else config.window
    if windows.ndim != 4 or windows.shape[2:] != (length, config.window_dim):
        rows = "any" if config.projection == "fantasytalking" else config.window
        raise AudioError(
            f"The audio windows have the shape {tuple(windows.shape)}; this model needs (batch, latent frames, "
            f"{rows}, {config.window_dim}) {config.kind} features: encode the sound with the extractor that belongs to "
            "the model."
        )


def _filled(rows: Tensor) -> Tensor:
    """Return 1 for rows (..., A) and 0 for rows of zeros, (..., 1)."""
    return (rows != 0).any(-1, keepdim=True).to(rows)


class AudioAttention(nn.Module):
    """Attention of each latent frame's tokens to that frame's audio tokens. Paper: 4.2."""

    def __init__(self, config: ModelConfig, attention: Attention, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        assert config.audio is not None
        branch, dim = config.audio, config.dim
        self.config, self.heads, self.attention = branch, config.num_heads, attention
        if branch.own_norm:
            self.norm = ops.LayerNorm(dim, eps=config.eps, elementwise_affine=True, **factory)
        if branch.queries == "own":
            self.q = ops.Linear(dim, dim, **factory)
        if branch.fused:
            self.kv = ops.Linear(branch.dim, 2 * dim, bias=branch.kv_bias, **factory)
        else:
            self.k = ops.Linear(branch.dim, dim, bias=branch.kv_bias, **factory)
            self.v = ops.Linear(branch.dim, dim, bias=branch.kv_bias, **factory)
        if branch.output == "own":
            self.o = ops.Linear(dim, dim, **factory)
        if branch.query_norm:
            self.norm_q = ops.RMSNorm(dim, eps=config.eps, elementwise_affine=True, **factory)
        if branch.key_norm:
            self.norm_k = ops.RMSNorm(dim, eps=config.eps, elementwise_affine=True, **factory)

    def forward(self, x: Tensor, audio: Tensor, num_tokens: int, options: dict[str, Any]) -> Tensor:
        """Listen.

        Args:
            x: what queries come from (B, L, D): the text attention's queries where they are shared; its normed tokens;
                or, in the sequential placement, the tokens themselves.
            audio: audio tokens (B, T, S, D_audio).
            num_tokens: tokens T*n at the start of x that belong to the video, with its clean prefix where both are one
                sequence; the others (anchors, references) hear nothing.
            options: the host's, for the attention callable.

        Returns:
            What to add (B, L, D), zero for the other tokens; before the text attention's output matrix where that is
            shared.
        """
        frames, length = audio.shape[1], x.shape[1]
        q = rearrange(self._queries(x[:, :num_tokens]), "b (t n) d -> (b t) n d", t=frames)
        heard = self._attend(q, rearrange(audio, "b t s a -> (b t) s a"), options)
        heard = rearrange(heard, "(b t) n d -> b (t n) d", t=frames)
        if self.config.output == "own":
            heard = self.o(heard)
        if self.config.strength != 1.0:
            heard = heard * self.config.strength
        return torch.nn.functional.pad(heard, (0, 0, 0, length - num_tokens)) if num_tokens < length else heard

    def _queries(self, x: Tensor) -> Tensor:
        if self.config.queries == "shared":
            return x
        q = self.q(layer_norm(self.norm, x) if self.config.own_norm else x)
        return turned_norm(self.norm_q, q, self.heads) if self.config.query_norm else q

    def _attend(self, q: Tensor, tokens: Tensor, options: dict[str, Any]) -> Tensor:
        """Attend from (B*T, n, D) to (B*T, S, D_audio)."""
        k, v = self.kv(tokens).chunk(2, dim=-1) if self.config.fused else (self.k(tokens), self.v(tokens))
        if self.config.key_norm:
            k = turned_norm(self.norm_k, k, self.heads)

        def attend(k: Tensor, v: Tensor) -> Tensor:
            return self.attention(q, k, v, self.heads, low_precision=False, transformer_options=options)

        if self.config.projection == "fantasytalking":
            return _without_empty(attend, k, v, _filled(tokens))
        return attend(k.contiguous(), v.contiguous())

    def silence(self) -> None:
        """Zero the values, so that a new branch says nothing at first. Paper: 4.4."""
        with torch.no_grad():
            for parameter in (self.kv if self.config.fused else self.v).parameters():
                parameter[parameter.shape[0] // 2 if self.config.fused else 0 :].zero_()
            if self.config.output == "own":
                self.o.bias.zero_()


def _without_empty(attend: Callable[[Tensor, Tensor], Tensor], k: Tensor, v: Tensor, filled: Tensor) -> Tensor:
    """Attend as if the empty rows were not there, with a callable that knows no mask.

    Empty rows bring no value, so they only take a share of the attention away. How much of it the filled rows keep is
    what the same attention gives with ones for values; dividing by that share makes up for it. The empty rows' keys are
    the mean of the filled ones, so that the filled rows always keep at least the share of their number.

    Args:
        attend: attention over keys and values (B, S, D).
        k: keys.
        v: values.
        filled: (B, S, 1), 1 for rows that count and 0 for empty ones; where all are empty, zeros are heard.
    """
    number = filled.sum(1, keepdim=True)  # (B, 1, 1)
    mean = (k * filled).sum(1, keepdim=True) / number.clamp_min(1)
    heard = attend(torch.where(filled != 0, k, mean), v * filled)
    share = attend(torch.where(filled != 0, k, mean), filled.expand_as(v).contiguous())
    return heard / share.clamp_min(1 / (2 * k.shape[1]))
