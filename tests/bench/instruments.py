"""Exact measures of a network's forward pass that need no device and know no noise: FLOPs and peak live bytes."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


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
    live = _LiveBytes(old)
    with torch.no_grad(), live:
        network(*given, **named)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Adds up storages from the operation that makes them until Python lets them go."""

    def __init__(self, old: list[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = {t.untyped_storage()._cdata: 0 for t in old}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key)


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
