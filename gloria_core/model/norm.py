"""Norms that keep nothing for the backward pass but what they are given, in the type that it is given in.

torch's own keep float32 copies of half-precision tokens under autocast, and of those whose weight has another type; and
a scale that is trained keeps the normed tokens too. Layers that a host lends are called as they are, as is everything
where no gradient is wanted.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm

from .modulation import Modulation
from .rope import Rope, rotate


def computing_dtype(x: Tensor) -> torch.dtype:
    """Return the type that tokens are in: autocast's where it is on, and else that of the network's input."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def scaled_norm(norm: nn.Module, x: Tensor, modulation: Modulation, shift: Tensor, scale: Tensor) -> Tensor:
    """Return norm(x) (1 + scale) + shift.

    Args:
        norm: a layer norm without weights.
        x: tokens (B, L, D).
        modulation: whose runs x consists of.
        shift: a part of it (B, S, D).
        scale: another.
    """
    if type(norm) is nn.LayerNorm and torch.is_grad_enabled():
        made: Tensor = _ScaledNorm.apply(x, shift, scale, modulation, norm.eps)
        return made
    return modulation.scaled(norm(x), shift, scale)


def layer_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Return norm(x) of a layer norm with weights and tokens (B, L, D), in their type."""
    if type(norm) is not nn.LayerNorm or computing_dtype(x) == x.dtype == norm.weight.dtype == torch.float32:
        return norm(x)
    with _as_given(x):
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return torch.nn.functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def turned_norm(norm: nn.Module, x: Tensor, heads: int, table: Rope | None = None) -> Tensor:
    """Return norm(x), turned by its positions where a table of them is given.

    Args:
        norm: an RMS norm with weights.
        x: queries or keys (B, L, N*K).
        heads: number of heads N.
        table: the tokens' rotations.
    """
    if type(norm) is nn.RMSNorm and torch.is_grad_enabled():
        made: Tensor = _TurnedNorm.apply(x, norm.weight, table, heads, norm.eps)
        return made
    normed: Tensor = norm(x)
    return normed if table is None else rotate(normed, heads, table)


def _as_given(x: Tensor) -> AbstractContextManager[Any]:
    """Keep autocast, which has no setting for devices such as ``meta``, from changing types."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class _ScaledNorm(torch.autograd.Function):
    """A layer norm under AdaLN that keeps its input and two numbers of each token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, modulation: Modulation, eps: float) -> Tensor:  # noqa: ANN401 - torch's
        with _as_given(x):
            normed, mean, inverse = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
            ctx.save_for_backward(x, mean, inverse, scale)
            ctx.modulation = modulation
            return modulation.scaled(normed, shift, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        x, mean, inverse, scale = ctx.saved_tensors
        for_x = for_shift = for_scale = None
        if ctx.needs_input_grad[1]:
            for_shift = ctx.modulation.summed(grad).sum_to_size(scale.shape)
        if ctx.needs_input_grad[2]:
            for_scale = ctx.modulation.summed(((x - mean) * inverse).mul_(grad)).sum_to_size(scale.shape)
        if ctx.needs_input_grad[0]:
            weight = (1 + scale).flatten() if scale.numel() == x.shape[-1] else None  # one for all tokens
            grad = grad if weight is not None else ctx.modulation.scaled_alone(grad, scale)
            for_x, _, _ = torch.ops.aten.native_layer_norm_backward(
                grad, x, x.shape[-1:], mean, inverse, weight, None, [True, False, False]
            )
        return for_x, for_shift, for_scale, None, None


class _TurnedNorm(torch.autograd.Function):
    """An RMS norm, and a rotation where there is one, that keep their input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, table: Rope | None, heads: int, eps: float) -> Tensor:  # noqa: ANN401 - torch's
        ctx.save_for_backward(x, weight, table)
        ctx.heads, ctx.eps = heads, eps
        with _as_given(x):
            normed = rms_norm(x, x.shape[-1:], weight.to(x.dtype), eps)
            return normed if table is None else rotate(normed, heads, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        x, weight, table = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        if table is not None:  # its inverse turns back; attention may give gradients in any layout
            grad = rotate(grad.contiguous(), ctx.heads, table.conj())
        grad, exact = grad.to(wide), x.to(wide)
        inverse = exact.square().mean(-1, keepdim=True).add_(ctx.eps).rsqrt_()
        normed = exact * inverse
        for_x = for_weight = None
        if ctx.needs_input_grad[1]:
            for_weight = (grad * normed).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            grad = grad * weight.to(wide)
            along = (grad * normed).mean(-1, keepdim=True)
            for_x = grad.sub_(normed.mul_(along)).mul_(inverse).to(x.dtype)
        return for_x, for_weight, None, None, None
