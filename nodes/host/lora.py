"""LoRA files on the host's MODEL, through its own adapters: offload, unloading and other nodes work with them."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_patcher
import folder_paths
import torch

from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import LoraError
from ...gloria_core.lora import Fit, Lora, differences, fit, normalise, read_lora
from ...gloria_core.model import GloriaDiT
from .dora import TrainedLengths
from .model import rebuild
from .support import GloriaModel

APPLIED = "gloria_loras"
"""Where a MODEL remembers which LoRAs it has: a tuple of (file, strength)."""

_NETWORK = "diffusion_model."
_log = logging.getLogger(__name__)


def lora_files() -> list[str]:
    """Return the names of the files in the host's ``loras`` folders."""
    return list(folder_paths.get_filename_list("loras"))


def lora_path(name: str) -> Path:
    """Return the path of a LoRA file; an unknown name raises LoraError."""
    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise LoraError(f"There is no file {name!r} in models/loras; copy it there and press R to refresh.")
    return Path(path)


def apply_lora(
    patcher: comfy.model_patcher.ModelPatcher, name: str, strength: float, *, as_trained: bool = True
) -> tuple[comfy.model_patcher.ModelPatcher, str]:
    """Put a LoRA on a MODEL.

    Args:
        patcher: a MODEL, ours or the host's own Wan; it stays as it is.
        name: a file of models/loras.
        strength: the change is multiplied by it; negative goes the other way, and 0 changes nothing.
        as_trained: whether to take over the settings in the header of a LoRA of ours.

    Returns:
        The MODEL with the LoRA, and a report in which every key of the file is accounted for.

    Raises:
        LoraError: the file is missing or damaged, fits the model in nothing, or the strength is no number.
        CheckpointError: the settings cannot be taken over, because another node has replaced parts of the model.
    """
    if not math.isfinite(strength):
        raise LoraError(f"The strength of {name} is {strength}; use a number such as 1.")
    if strength == 0:
        return patcher, f"{name} at strength 0: not used."
    network = patcher.model.diffusion_model
    lora = normalise(read_lora(lora_path(name)), _layers(_shapes(network)))
    lines = []
    if lora.config is not None and isinstance(patcher.model, GloriaModel):
        if as_trained:
            patcher, taken = _take_over(patcher, lora, lora.config)
            lines += taken
        differing = differences(lora.config, patcher.model.gloria)
        if differing:
            lines.append(f"Warning: trained for another model or other settings: {'; '.join(differing)}.")
    found = fit(lora, _shapes(patcher.model.diffusion_model), _model_name(patcher))
    patched = patcher.clone()
    for patches in _patches(found):
        patched.add_patches(patches, strength)
    patched.set_attachments(APPLIED, (*(patcher.get_attachment(APPLIED) or ()), (name, strength)))
    report = "\n".join([found.report(strength), *lines])
    _log.log(logging.WARNING if found.unused or len(report.splitlines()) > 1 else logging.INFO, "%s", report)
    return patched, report


def _shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights and biases that the host can patch: those that leaf layers own (trap 12)."""
    shapes = {}
    for name, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if len(own) < sum(1 for _ in module.parameters()):
            continue
        for kind in ("weight", "bias"):
            if own.get(kind) is not None:  # GGUF's blocks have a shape of their own
                shapes[f"{name}.{kind}"] = tuple(getattr(own[kind], "tensor_shape", own[kind].shape))
    return shapes


def _layers(shapes: Iterable[str]) -> list[str]:
    return [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]


def _model_name(patcher: comfy.model_patcher.ModelPatcher) -> str:
    model = patcher.model
    return (
        f"the model {model.gloria.name!r}" if isinstance(model, GloriaModel) else f"this {type(model).__name__} model"
    )


def _take_over(
    patcher: comfy.model_patcher.ModelPatcher, lora: Lora, trained: ModelConfig
) -> tuple[comfy.model_patcher.ModelPatcher, list[str]]:
    """Return the MODEL with the anchors placed as the LoRA was trained, and with the audio branch that it brings.

    The branch begins at zero: the LoRA holds it whole, as a difference from that.
    """
    config: ModelConfig = patcher.model.gloria
    lines, wanted = [], config
    if trained.anchors != config.anchors:
        wanted = replace(wanted, anchors=trained.anchors)
        lines.append("The anchors are placed and attended to as it was trained.")
    if trained.audio is not None and config.audio is None and any("audio" in layer for layer in lora.layers):
        wanted = replace(wanted, audio=trained.audio)
        lines.append("It brings an audio branch, which was built into the model.")
    if wanted == config:
        return patcher, []
    before, after = (GloriaDiT(c, device="meta").state_dict() for c in (config, wanted))
    zeros = {name: torch.zeros(weight.shape) for name, weight in after.items() if name not in before}
    return rebuild(patcher, wanted, zeros), lines


def _patches(found: Fit) -> list[dict[str, Any]]:
    """Return the host's patches by weight, in the order in which they are to be put on; one weight may have several."""
    replaced: dict[str, Any] = {}
    added: dict[str, Any] = {}
    matrices: dict[str, torch.Tensor] = {}
    lengths: dict[str, torch.Tensor] = {}
    for layer, parts in found.layers.items():
        weight = f"{_NETWORK}{layer}.weight"
        for part, tensor in parts.items():
            match part:
                case "set_weight":
                    replaced[weight] = ("set", (tensor,))
                case "diff":
                    added[weight] = ("diff", (tensor,))
                case "diff_b":
                    added[f"{_NETWORK}{layer}.bias"] = ("diff", (tensor,))
                case "dora_scale":
                    lengths[weight] = tensor
                case _:
                    matrices[f"{_NETWORK}{layer}.{part}"] = tensor
    return [replaced, _adapters(found, matrices, lengths), added]


def _adapters(found: Fit, matrices: Mapping[str, torch.Tensor], lengths: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    targets = {f"{_NETWORK}{layer}": f"{_NETWORK}{layer}.weight" for layer in found.layers}
    adapters = comfy.lora.load_lora(matrices, targets, log_missing=False)
    return {
        weight: TrainedLengths(adapter, lengths[weight]) if weight in lengths else adapter
        for weight, adapter in adapters.items()
    }
