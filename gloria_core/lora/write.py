"""Writing LoRA files that every stock loader reads, with the settings that they were trained with inside."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..config import ModelConfig
from ..errors import LoraError
from ..whole import written_whole
from .normalise import CONFIG_KEY, PREFIX


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A layer's trained low-rank change: alpha / r * up @ down."""

    down: Tensor
    """(r, in), or a kernel (r, C_in, ...) for a convolution."""
    up: Tensor
    """(out, r), or (out, r, 1, ...) for a convolution."""
    alpha: float
    """The change is scaled by alpha / r."""


def write_lora(
    path: Path,
    low_rank: Mapping[str, LowRank],
    config: ModelConfig,
    *,
    factors: Mapping[str, Mapping[str, Tensor]] | None = None,
    differences: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a LoRA under a temporary name, flush it to the disk, then rename it.

    Args:
        path: where to; a ``.safetensors`` file.
        low_rank: changes by Wan's layer name, such as ``blocks.0.self_attn.q``.
        config: the model that it was trained for; its settings go into the header.
        factors: changes of other kinds (LoKr, LoHa) by layer: parts by the host's names, such as ``lokr_w1``, their
            ``alpha`` among them.
        differences: full changes by the name of the weight (``blocks.0.audio_attn.v.weight``), bias
            (``....bias``) or table (``blocks.0.modulation``), each trained minus untrained. A branch that starts from
            zeros is given whole by them.
        dtype: type of the matrices in the file; as they are where None. Alphas are always float32.
        notes: more text for the header, such as a training record.

    Raises:
        LoraError: there is nothing to write, matrices do not multiply, a number is not finite, or the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    for layer, change in low_rank.items():
        _check_pair(layer, change)
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = change.down
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = change.up
    for layer, parts in (factors or {}).items():
        if "alpha" not in parts:
            raise LoraError(f"{layer} has no alpha; readers would take another scale than it was trained with.")
        tensors |= {f"{PREFIX}{layer}.{part}": tensor for part, tensor in parts.items() if part != "alpha"}
    for name, difference in (differences or {}).items():
        tensors[PREFIX + _difference_name(name)] = difference
    if not tensors:
        raise LoraError(f"{path.name} would hold no change at all: train at least one layer.")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise LoraError(f"{name} holds infinite or undefined numbers: the training diverged; lower its rate.")
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    tensors |= {f"{PREFIX}{layer}.alpha": torch.tensor(change.alpha) for layer, change in low_rank.items()}
    tensors |= {f"{PREFIX}{layer}.alpha": parts["alpha"].float() for layer, parts in (factors or {}).items()}
    with written_whole(path, kind=LoraError) as partial:
        save_file(tensors, partial, metadata={**(notes or {}), CONFIG_KEY: config.to_json()})


def _check_pair(layer: str, change: LowRank) -> None:
    if change.up.ndim < 2 or change.down.ndim < 2 or change.up.shape[1] != change.down.shape[0]:
        raise LoraError(
            f"The matrices of {layer} are {tuple(change.up.shape)} and {tuple(change.down.shape)}; the columns of the "
            "first must be the rows of the second."
        )


def _difference_name(name: str) -> str:
    if name.endswith(".bias"):
        return name.removesuffix(".bias") + ".diff_b"
    return name.removesuffix(".weight") + ".diff"
