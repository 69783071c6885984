"""Exact measures of a network's forward pass that need no device and know no noise: FLOPs and peak live bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from gloria_core.train.live_bytes import LiveBytes


def count_flops(network: nn.Module, *given: object, **named: object) -> int:
    """Return the FLOPs of a forward pass, of matrix products and attention; real sizes need tensors on ``meta``."""
    network.requires_grad_(False)  # else torch's counter follows gradients, too
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*given, **named)
    return counter.get_total_flops()


def peak_bytes(network: nn.Module, *given: object, **named: object) -> int:
    """Return the most bytes that a forward pass holds at one time beside its weights and inputs."""
    old = [*network.parameters(), *network.buffers()]
    old += [leaf for leaf in tree_leaves((given, named)) if isinstance(leaf, Tensor)]
    live = LiveBytes(old)
    with torch.no_grad(), live:
        network(*given, **named)
    return live.peak


def stub_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **_options: object) -> Tensor:
    """Allocate what a fused attention kernel returns, and nothing else, for (B, L, N*K) as the host and we call it."""
    return torch.empty_like(q)


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Put another value under a name of a module for the length of a ``with`` block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
