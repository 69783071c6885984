"""The host's MODEL as a checkpoint of ours, one weight at a time."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.float
import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import string_to_seed
from torch import Tensor

from ...gloria_core.checkpoint.detect import CONFIG_KEY
from ...gloria_core.checkpoint.keys import PREFIX
from ...gloria_core.checkpoint.save import write_lazily
from ...gloria_core.errors import CheckpointError, ConfigError
from .lora import APPLIED
from .model import model_config
from .network import tables
from .operations import INPUT_SCALE, SCALE

FOLDERS = ("output/diffusion_models", "models/diffusion_models")
"""Where a model can be saved; the host's loaders look into both."""

DTYPES: Mapping[str, torch.dtype | None] = {
    "as loaded": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
"""Choices of the file's numbers."""

_NETWORK = "diffusion_model."


def save_model(
    patcher: comfy.model_patcher.ModelPatcher, folder: str, name: str, dtype: str, *, with_loras: bool
) -> tuple[Path, str]:
    """Write a MODEL of ours as a checkpoint that carries its configuration.

    Args:
        patcher: the MODEL; it may be on the device, in part or whole, and stays as it is.
        folder: one of FOLDERS.
        name: the file's name without an ending, also with folders below: a number is put behind it.
        dtype: one of DTYPES.
        with_loras: whether the LoRAs on the MODEL are worked into the weights.

    Returns:
        The file, and its name as the loaders list it.

    Raises:
        CheckpointError: the MODEL is not ours or is a GGUF, or the disk is too full.
        ConfigError: a choice is unknown, or the name leads out of the folder.
        InterruptProcessingException: the user has asked to stop; no file is left.
    """
    config = model_config(patcher)
    if dtype not in DTYPES:
        raise ConfigError(f"There is no dtype {dtype!r}; use one of: {', '.join(DTYPES)}.")
    keys = _keys(patcher)
    weights = patcher.get_key_patches(_NETWORK)
    layout = {
        name: (_type(patcher, key, weights[key][0][0], DTYPES[dtype]), tuple(weights[key][0][0].shape))
        for name, key in keys.items()
    }
    path, listed = new_weights_file(folder, name)
    _check_room(path.parent, sum(kind.itemsize * math.prod(shape) for kind, shape in layout.values()))
    bar = comfy.utils.ProgressBar(len(layout))

    def weight(name: str) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update(1)
        return _weight(keys[name], weights[keys[name]], layout[name][0], with_loras)

    notes = _notes(patcher) if with_loras and patcher.patches else {}
    write_lazily(path, layout, weight, {**notes, CONFIG_KEY: config.to_json()})
    return path, listed


def new_weights_file(folder: str, name: str) -> tuple[Path, str]:
    """Return a free path for a weights file below one of FOLDERS, and its name as the loaders list it.

    Raises:
        ConfigError: the folder is unknown, or the name is empty or leads out of it.
    """
    if folder not in FOLDERS:
        raise ConfigError(f"There is no folder {folder!r} to save in; use one of: {', '.join(FOLDERS)}.")
    if folder == FOLDERS[0]:
        root = Path(folder_paths.get_output_directory()) / "diffusion_models"
    else:
        root = Path(folder_paths.get_folder_paths("diffusion_models")[0])
    root = root.resolve()
    asked = root / os.path.normpath(name.strip() or ".")
    if not name.strip() or name.endswith(("/", "\\")) or not asked.resolve().is_relative_to(root) or asked == root:
        raise ConfigError(f"{name!r} is no name for a file in {folder}; use a name such as 'gloria/my-model'.")
    asked.parent.mkdir(parents=True, exist_ok=True)
    target, stem, counter, subfolder, _ = folder_paths.get_save_image_path(str(asked.relative_to(root)), str(root))
    file = f"{stem}_{counter:05}_.safetensors"
    return Path(target) / file, os.path.join(subfolder, file)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"The model takes {needed / 1e9:.1f} GB, and the disk of {folder} has {free / 1e9:.1f} GB left: free some "
            "space, or choose bf16."
        )


def _keys(patcher: comfy.model_patcher.ModelPatcher) -> dict[str, str]:
    """Return the host's key of each weight by its name in a file; scales of quantised weights are left out."""
    network = patcher.model.diffusion_model
    layers = {f"{table}.weight": table for table in tables(network)}
    names = [name for name, _ in network.named_parameters() if not name.endswith((f".{SCALE}", f".{INPUT_SCALE}"))]
    return {PREFIX + layers.get(name, name): _NETWORK + name for name in names}


def _type(
    patcher: comfy.model_patcher.ModelPatcher, key: str, weight: Tensor, chosen: torch.dtype | None
) -> torch.dtype:
    """Return the type that a weight is written in; one whose numbers need a scale is written in the computing type."""
    if hasattr(weight, "tensor_type"):
        raise CheckpointError(
            "This MODEL comes from a GGUF file, whose blocks cannot be written as a checkpoint: load the model's bf16, "
            "fp16 or fp8 file to save it."
        )
    if chosen is not None:
        return chosen
    layer = comfy.utils.get_attr(patcher.model, key.rpartition(".")[0])
    scaled = key.endswith(".weight") and getattr(layer, SCALE, None) is not None
    return (patcher.model.manual_cast_dtype or torch.bfloat16) if scaled else weight.dtype


def _weight(key: str, patches: list[Any], dtype: torch.dtype, with_loras: bool) -> Tensor:
    """Return one weight on the CPU as it is written: the very numbers that the host would compute with."""
    weight, convert = patches[0]
    weight = weight.cpu()
    if not with_loras or len(patches) == 1:
        return convert(weight, inplace=False).to(dtype)
    changed = convert(weight.to(torch.float32, copy=True), inplace=True)
    changed = comfy.lora.calculate_weight(patches[1:], changed, key)
    return comfy.float.stochastic_rounding(changed, dtype, seed=string_to_seed(key))


def _notes(patcher: comfy.model_patcher.ModelPatcher) -> dict[str, str]:
    """Return what a later reader may want to know of the LoRAs that were worked in."""
    known = patcher.get_attachment(APPLIED) or ()
    loras = [{"file": name, "strength": strength} for name, strength in known]
    return {"gloria.loras": json.dumps(loras), "gloria.patched_weights": str(len(patcher.patches))}
