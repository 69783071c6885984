"""A bias on the attention to anchors, for attention callables that take no mask.

A bias that depends on the query only by its latent frame has a low rank: it is the product of a few more columns of
queries and keys. With these columns any kernel computes it, and keys that were kept from before stay valid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..protocols import Attention
from ..types import Anchor

HIDDEN = -1000.0
"""What is added to the logit of a hidden key. Its share becomes exactly 0, and no float16 number overflows."""

_QUERY_SHARE = 32.0
"""The query's factor of ``HIDDEN``: with the scale, both factors are of moderate size in any type."""

_MULTIPLE = 8
"""Kernels take heads of a multiple of so many numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBias:
    """What is added to the attention's logits: ``queries @ keys.T``, the same in every head and clip."""

    queries: Tensor
    """(L, R), L queries."""
    keys: Tensor
    """(S, R), S keys."""


def anchor_bias(
    anchors: Sequence[Anchor],
    lengths: Sequence[int],
    *,
    frames: range,
    per_frame: int,
    num_others: int = 0,
    num_behind: int = 0,
    like: Tensor,
) -> AttentionBias | None:
    """Return the bias by which a video's tokens heed some anchors more or less, or not at all in some frames.

    Args:
        anchors: as they follow each other in the keys, behind the video's own; their strengths are above 0.
        lengths: how many keys each has.
        frames: the latent frames of the chunk that the video's tokens belong to.
        per_frame: tokens of each of them.
        num_others: queries behind the video's that are not biased (the anchors' own).
        num_behind: keys behind the anchors' that are not biased (a prefix's).
        like: has the dtype and device of queries and keys.

    Returns:
        The bias, or None where every anchor is heeded as trained.
    """
    patterns = [frozenset(f for hidden in a.hidden for f in hidden if f in frames) for a in anchors]
    distinct = sorted({pattern for pattern in patterns if pattern}, key=sorted)
    if not distinct and all(anchor.strength == 1.0 for anchor in anchors):
        return None
    num_video = len(frames) * per_frame
    queries = like.new_zeros(num_video + num_others, 1 + len(distinct))
    keys = like.new_zeros(num_video + sum(lengths) + num_behind, 1 + len(distinct))
    queries[:num_video, 0] = 1.0
    for column, pattern in enumerate(distinct, 1):
        for frame in pattern:
            queries[:num_video].unflatten(0, (len(frames), per_frame))[frame - frames.start, :, column] = _QUERY_SHARE
    first = num_video
    for anchor, length, pattern in zip(anchors, lengths, patterns, strict=True):
        here = slice(first, first + length)
        keys[here, 0] = math.log(anchor.strength)
        if pattern:
            keys[here, 1 + distinct.index(pattern)] = HIDDEN / _QUERY_SHARE
        first += length
    return AttentionBias(queries, keys)


def attend_biased(
    attend: Attention, q: Tensor, k: Tensor, v: Tensor, heads: int, bias: AttentionBias, options: dict[str, Any]
) -> Tensor:
    """Attend with a bias, by an attention callable that knows none.

    Args:
        attend: the callable; it divides logits by the square root of a head's width.
        q: queries (B, L, N*K).
        k: keys (B, S, N*K).
        v: values (B, S, N*K).
        heads: number of heads N.
        bias: what is added to the logits.
        options: the host's, for the callable. Kernels that quantise are kept away: the bias is beyond their range.

    Returns:
        (B, L, N*K).
    """
    width = q.shape[-1] // heads
    padded = -(-(width + bias.keys.shape[1]) // _MULTIPLE) * _MULTIPLE
    q, k, v = (rearrange(x, "b l (n k) -> b l n k", n=heads) for x in (q, k, v))
    q = _widened(q * math.sqrt(padded / width), bias.queries, padded)
    k = _widened(k, bias.keys * math.sqrt(padded), padded)
    v = torch.nn.functional.pad(v, (0, padded - width)).flatten(2)
    out = attend(q, k, v, heads, low_precision=False, transformer_options=options)
    return out.unflatten(2, (heads, padded))[..., :width].flatten(2)


def _widened(x: Tensor, columns: Tensor, width: int) -> Tensor:
    """Put columns (L, R) and zeros behind every head of x (B, L, N, K), up to a width; return (B, L, N*width)."""
    columns = torch.nn.functional.pad(columns, (0, width - x.shape[-1] - columns.shape[1]))
    return torch.cat([x, columns[None, :, None].expand(*x.shape[:3], -1)], dim=-1).flatten(2)
