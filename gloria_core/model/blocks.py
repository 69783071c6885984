"""Wan's transformer block with room for foreign keys and values and an audio branch.

Key names and numerics follow Wan (wan.md sections 1 and 2); ``audio_attn`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..protocols import Attention, Operations
from .audio import AudioAttention
from .bias import AttentionBias, attend_biased
from .modulation import Modulation
from .norm import layer_norm, scaled_norm, turned_norm
from .rope import Rope
from .table import make_table

KV = tuple[Tensor, Tensor]
"""Keys (turned by their positions) and values, each (B, S, D)."""

_MOST_PIECES = 8
"""Into how many pieces of tokens training cuts the feed-forward network at most; none has fewer than D / 2 tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What video tokens listen to besides each other, and what they heed more or less."""

    text: Tensor | None = None
    """Embedded text (B, L_text, D)."""
    image: Tensor | None = None
    """Embedded CLIP tokens (B, L_clip, D)."""
    audio: Tensor | None = None
    """Audio tokens of each latent frame (B, T, S, D_audio)."""
    num_audio_tokens: int = 0
    """Tokens at the start of the sequence that hear the audio."""
    options: dict[str, Any] = field(default_factory=dict)
    """The host's transformer options, handed on to the attention callable."""
    bias: AttentionBias | None = None
    """What is added to the logits of self-attention; None where nothing is."""


def repeat_batch(x: Tensor, batch_size: int) -> Tensor:
    """Repeat each row of (Ba, ...) for the clips that share it: clip b takes row b // (B / Ba)."""
    if x.shape[0] == batch_size:
        return x
    if x.shape[0] == 1:
        return x.expand(batch_size, *x.shape[1:])
    return torch.repeat_interleave(x, batch_size // x.shape[0], dim=0)


class SelfAttention(nn.Module):
    """Self-attention with RMS-normed queries and keys and rotary positions."""

    def __init__(self, config: ModelConfig, attention: Attention, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        self.heads, self.attention = config.num_heads, attention
        self.q, self.k, self.v, self.o = (ops.Linear(config.dim, config.dim, **factory) for _ in range(4))
        self.norm_q = ops.RMSNorm(config.dim, eps=config.eps, elementwise_affine=True, **factory)
        self.norm_k = ops.RMSNorm(config.dim, eps=config.eps, elementwise_affine=True, **factory)

    def forward(
        self, x: Tensor, table: Rope, foreign: list[KV], given: Conditions, kept: list[KV] | None = None
    ) -> Tensor:
        """Attend from x (B, L, D) to itself and to foreign keys and values; append x's own K and V to ``kept``."""
        q = turned_norm(self.norm_q, self.q(x), self.heads, table)
        k = turned_norm(self.norm_k, self.k(x), self.heads, table)
        v = self.v(x)
        if kept is not None:
            kept.append((k, v))
        if foreign:
            k = torch.cat([k, *(repeat_batch(fk, len(x)) for fk, _ in foreign)], dim=1)
            v = torch.cat([v, *(repeat_batch(fv, len(x)) for _, fv in foreign)], dim=1)
        if given.bias is not None:
            return self.o(attend_biased(self.attention, q, k, v, self.heads, given.bias, given.options))
        return self.o(self.attention(q, k, v, self.heads, transformer_options=given.options))


class CrossAttention(nn.Module):
    """Attention from tokens to text, and to CLIP tokens where the model has that branch."""

    def __init__(self, config: ModelConfig, attention: Attention, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        self.heads, self.attention = config.num_heads, attention
        self.q, self.k, self.v, self.o = (ops.Linear(config.dim, config.dim, **factory) for _ in range(4))
        self.norm_q = ops.RMSNorm(config.dim, eps=config.eps, elementwise_affine=True, **factory)
        self.norm_k = ops.RMSNorm(config.dim, eps=config.eps, elementwise_affine=True, **factory)
        if config.clip_dim:
            self.k_img, self.v_img = (ops.Linear(config.dim, config.dim, **factory) for _ in range(2))
            self.norm_k_img = ops.RMSNorm(config.dim, eps=config.eps, elementwise_affine=True, **factory)

    def forward(
        self, x: Tensor, given: Conditions, beside: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend from x (B, L, D); return the result and the normed queries, which an audio branch may share.

        ``beside`` makes from the queries what joins text and image before the output projection (B, L, D).
        """
        q = turned_norm(self.norm_q, self.q(x), self.heads)
        k, v = turned_norm(self.norm_k, self.k(given.text), self.heads), self.v(given.text)
        out = self.attention(q, k, v, self.heads, low_precision=False, transformer_options=given.options)
        if given.image is not None:
            k, v = turned_norm(self.norm_k_img, self.k_img(given.image), self.heads), self.v_img(given.image)
            out = out + self.attention(q, k, v, self.heads, low_precision=False, transformer_options=given.options)
        if beside is not None:
            out = out + beside(q)
        return self.o(out), q


class Block(nn.Module):
    """Self-attention, text (with image and audio) cross-attention, feed-forward; the first and last under AdaLN."""

    feeds_whole = False
    """Whether the feed-forward network takes all tokens at once in training too, as layers that make their weights anew
    in each call need it."""

    def __init__(
        self, config: ModelConfig, attention: Attention, ops: Operations, factory: dict[str, Any], *, hears: bool
    ) -> None:
        super().__init__()
        dim = config.dim
        self.modulation = make_table(self, 1, 6, dim, ops=ops, factory=factory)
        self.norm1 = ops.LayerNorm(dim, eps=config.eps, elementwise_affine=False, **factory)
        self.self_attn = SelfAttention(config, attention, ops, factory)
        self.norm3 = ops.LayerNorm(dim, eps=config.eps, elementwise_affine=True, **factory)
        self.cross_attn = CrossAttention(config, attention, ops, factory)
        self.audio_attn = AudioAttention(config, attention, ops, factory) if hears else None
        self.norm2 = ops.LayerNorm(dim, eps=config.eps, elementwise_affine=False, **factory)
        self.ffn = nn.Sequential(
            ops.Linear(dim, config.ffn_dim, **factory),
            nn.GELU(approximate="tanh"),
            ops.Linear(config.ffn_dim, dim, **factory),
        )

    def forward(
        self,
        x: Tensor,
        modulation: Modulation,
        table: Rope,
        foreign: list[KV],
        given: Conditions,
        *,
        gives_kv: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Transform tokens.

        Args:
            x: tokens (B, L, D).
            modulation: AdaLN parameters of the tokens' timesteps, n = 6.
            table: the tokens' rotations.
            foreign: keys and values of tokens outside x that x may look at.
            given: text, image, audio, bias; without text no cross-attention is done (clean tokens of the cached mode).
            gives_kv: whether somebody wants the tokens' own keys and values too.

        Returns:
            The tokens (B, L, D); with ``gives_kv`` also their keys and values.
        """
        own: list[KV] | None = [] if gives_kv else None
        shift_sa, scale_sa, gate_sa, shift_ffn, scale_ffn, gate_ffn = modulation.parts(self.modulation)
        y = self.self_attn(scaled_norm(self.norm1, x, modulation, shift_sa, scale_sa), table, foreign, given, own)
        x = modulation.gated(x, y, gate_sa)
        del y  # a hidden vector for each token is much memory
        if given.text is not None:
            x = self._listen(x, given)
        y = self._feed(scaled_norm(self.norm2, x, modulation, shift_ffn, scale_ffn))
        x = modulation.gated(x, y, gate_ffn)
        return (x, *own[0]) if own else x

    def _feed(self, x: Tensor) -> Tensor:
        """Run the feed-forward network, in training by pieces, so that its wide gradients live one piece at a time.

        Weights that are trained, or brought to another type by autocast, would be held once for each piece.
        """
        weight = self.ffn[0].weight
        pieces = 2 * x.shape[1] // x.shape[2] if torch.is_grad_enabled() else 1
        if pieces <= 1 or self.feeds_whole or weight.requires_grad or weight.dtype != x.dtype:
            return self.ffn(x)
        return torch.cat([self.ffn(piece) for piece in x.chunk(min(pieces, _MOST_PIECES), dim=1)], dim=1)

    def _listen(self, x: Tensor, given: Conditions) -> Tensor:
        """Add what the tokens hear of text and image, and of sound where the branch for it stands (``AudioConfig``)."""
        ears, audio = self.audio_attn, given.audio
        if ears is None or audio is None:
            return x + self.cross_attn(layer_norm(self.norm3, x), given)[0]

        def hear(tokens: Tensor) -> Tensor:
            return ears(tokens, audio, given.num_audio_tokens, given.options)

        if ears.config.placement == "sequential":
            x = x + self.cross_attn(layer_norm(self.norm3, x), given)[0]
            return x + hear(x)
        shares_queries, normed = ears.config.queries == "shared", layer_norm(self.norm3, x)
        if ears.config.output == "shared":
            return x + self.cross_attn(normed, given, lambda q: hear(q if shares_queries else normed))[0]
        heard, q = self.cross_attn(normed, given)
        return x + (heard + hear(q if shares_queries else normed))


class Head(nn.Module):
    """The last norm and projection, under AdaLN by the time embedding itself."""

    def __init__(self, config: ModelConfig, ops: Operations, factory: dict[str, Any]) -> None:
        super().__init__()
        numbers = config.out_channels * config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        self.modulation = make_table(self, 1, 2, config.dim, ops=ops, factory=factory)
        self.norm = ops.LayerNorm(config.dim, eps=config.eps, elementwise_affine=False, **factory)
        self.head = ops.Linear(config.dim, numbers, **factory)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """Project tokens (B, L, D) to (B, L, pt*ph*pw*C); the modulation's n is 2."""
        shift, scale = modulation.parts(self.modulation)
        return self.head(scaled_norm(self.norm, x, modulation, shift, scale))
