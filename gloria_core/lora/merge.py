"""A LoRA worked into weights, where no host patches them while it runs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import LoraError
from .fit import Fit
from .normalise import Parts, rank

_KNOWN = {
    "lora_up.weight", "lora_down.weight", "alpha", "diff", "diff_b", "set_weight",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b",
}  # fmt: skip


def check_mergeable(found: Fit) -> None:
    """Refuse a LoRA of a kind that only a host's adapters can apply; LoraError."""
    for layer, parts in found.layers.items():
        other = sorted(set(parts) - _KNOWN)
        if other:
            raise LoraError(
                f"{found.lora.name} has {', '.join(other)} for {layer}; only LoRAs, LoHas, LoKrs and "
                "differences can be worked into the weights. Use it inside ComfyUI, or save it as a plain LoRA."
            )


def merged(weights: Mapping[str, Tensor], found: Fit, strength: float, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return weights with a LoRA in them; those that it does not change are the very same.

    Args:
        weights: by the transformer's own names, of any float type.
        found: the LoRA, fitted to the model; see `check_mergeable`.
        strength: the change is multiplied by it.
        dtype: of the changed weights. They are reckoned in float32.
    """
    result = dict(weights)
    for layer, parts in found.layers.items():
        weight = f"{layer}.weight" if f"{layer}.weight" in weights else layer  # a table is called as its layer
        if set(parts) - {"diff_b", "alpha"}:
            result[weight] = _changed(weights[weight].float(), parts, strength).to(dtype)
        if "diff_b" in parts:
            bias = weights[f"{layer}.bias"].float()
            result[f"{layer}.bias"] = (bias + strength * parts["diff_b"].float().reshape(bias.shape)).to(dtype)
    return result


def _changed(weight: Tensor, parts: Parts, strength: float) -> Tensor:
    if "set_weight" in parts:
        weight = parts["set_weight"].float().reshape(weight.shape)
    if "lora_up.weight" in parts:
        up, down = parts["lora_up.weight"].float().flatten(1), parts["lora_down.weight"].float().flatten(1)
        scale = strength * float(parts["alpha"]) / rank(parts)
        weight = weight + scale * (up @ down).reshape(weight.shape)
    elif any(part.startswith(("hada_", "lokr_")) for part in parts):
        scale = strength * (float(parts["alpha"]) / rank(parts) if rank(parts) else 1.0)
        weight = weight + scale * _product(parts).reshape(weight.shape)
    if "diff" in parts:
        weight = weight + strength * parts["diff"].float().reshape(weight.shape)
    return weight


def _product(parts: Parts) -> Tensor:
    """Return the change of a LoHa (a product number by number) or a LoKr (a Kronecker product), unscaled."""
    if "hada_w1_a" in parts:
        one, other = (parts[f"hada_{w}_a"].float() @ parts[f"hada_{w}_b"].float() for w in ("w1", "w2"))
        return one * other
    return torch.kron(_factor(parts, "lokr_w1"), _factor(parts, "lokr_w2"))


def _factor(parts: Parts, name: str) -> Tensor:
    return parts[name].float() if name in parts else parts[f"{name}_a"].float() @ parts[f"{name}_b"].float()
