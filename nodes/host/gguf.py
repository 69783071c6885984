"""GGUF files through the layers of the ComfyUI-GGUF pack, where the user has it: it knows how the blocks are packed."""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor, nn

from ...gloria_core.checkpoint import Inspection
from ...gloria_core.checkpoint.blank import BLANK
from ...gloria_core.errors import CheckpointError
from ...gloria_core.model import GloriaDiT
from .quant import WeightTypes

_PREFIX = "model.diffusion_model."


@dataclass(frozen=True, slots=True)
class GgufPack:
    """The three modules of the pack that hold what is needed."""

    ops: ModuleType
    loader: ModuleType
    nodes: ModuleType


def find_pack() -> GgufPack:
    """Return the installed pack, whatever its folder is called.

    Raises:
        CheckpointError: it is not there, or has not loaded.
    """
    for name in [name for name in sys.modules if name.endswith(".ops")]:
        package = name.removesuffix(".ops")
        ops, loader, nodes = (sys.modules.get(f"{package}.{part}") for part in ("ops", "loader", "nodes"))
        if not (ops and loader and nodes):
            continue
        if hasattr(ops, "GGMLOps") and hasattr(loader, "gguf_sd_loader") and hasattr(nodes, "GGUFModelPatcher"):
            return GgufPack(ops, loader, nodes)
    raise CheckpointError(
        "A .gguf file needs the ComfyUI-GGUF pack, which is not installed or did not load: install it with the "
        "Manager (search for GGUF) and restart, or choose a .safetensors file."
    )


def read_gguf(inspection: Inspection, supported: tuple[torch.dtype, ...]) -> tuple[dict[str, Tensor], WeightTypes]:
    """Return the weights by the core's names, matrices still packed as in the file, and how they are computed with.

    Args:
        inspection: of a GGUF file.
        supported: types that the model computes well in, best first.

    Raises:
        CheckpointError: the pack is not there.
    """
    pack = find_pack()
    read = pack.loader.gguf_sd_loader(str(inspection.files[0]))
    stored: dict[str, Any] = read[0] if isinstance(read, tuple) else read  # newer versions return notes too
    matrices = _matrices(inspection)
    weights = {}
    for theirs, ours in inspection.names.items():
        tensor = stored[theirs] if theirs in stored else stored[theirs.removeprefix(_PREFIX)]
        weights[ours] = tensor if ours in matrices and pack.loader.is_quantized(tensor) else _plain(tensor, pack)
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(supported_dtypes=list(supported))
    cast = comfy.model_management.unet_manual_cast(dtype, device, list(supported))
    return weights, WeightTypes(stored=dtype, cast=cast, layers=pack.ops.GGMLOps())


def gguf_patcher(patcher: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """Return a MODEL as the pack has it: a LoRA is added to a matrix whenever that is unpacked."""
    return find_pack().nodes.GGUFModelPatcher.clone(patcher)


def separated(weight: Any) -> Tensor:  # noqa: ANN401 - an ordinary tensor, or the pack's packed one
    """Return a tensor of its own that shares the memory of a model's weight, packed or not."""
    if not hasattr(weight, "tensor_type"):
        plain: Tensor = weight.detach()
        return plain
    packed: Tensor = type(weight)(
        weight.as_subclass(Tensor), tensor_type=weight.tensor_type, tensor_shape=weight.tensor_shape, patches=[]
    )
    vars(packed)["is_largest_weight"] = getattr(weight, "is_largest_weight", False)
    return packed


def _matrices(inspection: Inspection) -> set[str]:
    network = GloriaDiT(inspection.config, operations=BLANK, device="meta")
    return {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}


def _plain(tensor: Tensor, pack: GgufPack) -> Tensor:
    """Return an ordinary tensor: layers other than matrices know no packed ones."""
    if pack.loader.is_quantized(tensor):
        tensor = pack.loader.dequantize_tensor(tensor, dtype=torch.float32)
    return tensor.as_subclass(Tensor)
