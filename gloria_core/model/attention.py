"""Attention where no host lends one: xformers or torch, chosen once.

No kernel is required. What is installed is tried with a small call, and the log says what was chosen and why.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ..protocols import Attention

HOPPER = (9, 0)
"""Compute capability from which cuDNN's kernel is the fastest of torch's. Source: performance.md section 3."""

CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]

_log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """An attention callable, its name and why it was taken."""

    attend: Attention
    name: str
    reason: str


@functools.cache
def choose_attention() -> Choice:
    """Return the attention of this machine; the first call looks, logs what it chose and why, and is remembered."""
    choice = _look()
    _log.info("Attention: %s (%s).", choice.name, choice.reason)
    return choice


def torch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    *,
    low_precision: bool = True,
    transformer_options: dict[str, Any] | None = None,
) -> Tensor:
    """Attend with torch's own kernels, in torch's own order.

    Args:
        q: queries (B, L, N*K).
        k: keys (B, S, N*K).
        v: values (B, S, N*K).
        heads: number of heads N.
        low_precision: accepted for the host's sake; torch's kernels keep the precision of their inputs.
        transformer_options: accepted for the host's sake; not used.

    Returns:
        (B, L, N*K).
    """
    q, k, v = (rearrange(x, "b l (n k) -> b n l k", n=heads) for x in (q, k, v))
    return rearrange(scaled_dot_product_attention(q, k, v), "b n l k -> b l (n k)")


def cudnn_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    *,
    low_precision: bool = True,
    transformer_options: dict[str, Any] | None = None,
) -> Tensor:
    """Attend as ``torch_attention`` does, with cuDNN's kernel wherever it can."""
    with sdpa_kernel(CUDNN_FIRST, set_priority=True):
        return torch_attention(q, k, v, heads)


def xformers_attention(kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attention:
    """Return xformers' ``memory_efficient_attention`` in the shape that the transformer asks for."""

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        *,
        low_precision: bool = True,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        if not q.is_cuda:  # a model that was left on the CPU of a machine with a GPU
            return torch_attention(q, k, v, heads)
        q, k, v = (rearrange(x, "b l (n k) -> b l n k", n=heads) for x in (q, k, v))
        return rearrange(kernel(q, k, v), "b l n k -> b l (n k)")

    return attend


def _look() -> Choice:
    if not torch.cuda.is_available():
        return Choice(torch_attention, "torch", "there is no CUDA device")
    kernel, reason = _xformers()
    if kernel is not None:
        return Choice(xformers_attention(kernel), "xformers", reason)
    if torch.cuda.get_device_capability() >= HOPPER:
        return Choice(cudnn_attention, "torch, cuDNN first", f"{reason}; the GPU is a Hopper or newer")
    return Choice(torch_attention, "torch", reason)


def _xformers() -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor] | None, str]:
    """Return xformers' kernel if it is there and works, and why it is taken or not."""
    try:
        package = importlib.import_module("xformers")
        kernel = importlib.import_module("xformers.ops").memory_efficient_attention
    except (ImportError, OSError) as error:
        return None, f"xformers cannot be imported: {error}"
    if not getattr(package, "_has_cpp_library", False):
        return None, "xformers' C library does not load: it was built for another torch or CUDA"
    probe = torch.ones(1, 16, 1, 64, device="cuda", dtype=torch.float16)
    try:
        works = bool(torch.isfinite(kernel(probe, probe, probe)).all())
    except (RuntimeError, NotImplementedError) as error:  # how it says that no kernel fits the GPU
        return None, f"xformers has no kernel for this GPU: {error}"
    return (kernel, "xformers is installed and works") if works else (None, "xformers gave NaN in a small call")
