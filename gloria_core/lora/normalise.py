"""From any trainer's LoRA file to one spelling, with the scaling written into it."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import ConfigError, LoraError
from .keys import flat_names, read_key
from .read import LoraFile, PeftConfig

PREFIX = "diffusion_model."
"""What the host puts before the names of a model's layers."""
CONFIG_KEY = "gloria.lora.config"
"""Metadata entry with the ModelConfig that a LoRA of ours was trained for, as JSON."""

Parts = dict[str, Tensor]
"""One layer's matrices and numbers, by the host's names for them."""

_TOGETHER: tuple[tuple[str, ...], ...] = (
    ("lora_up.weight", "lora_down.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("hada_t1", "hada_t2"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
    ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
)
"""Matrices that mean nothing without each other."""

_FACTOR = re.compile(r"(?:lora_(?:up|down|mid)\.weight|hada_|lokr_|[ab][12]\.weight|oft_blocks).*")
"""Parts that are multiplied, and so need rows and columns."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lora:
    """A LoRA in one spelling: Wan's layer names, the host's names for the parts, scaling in ``alpha``."""

    name: str
    """The file's name."""
    layers: Mapping[str, Parts]
    """Parts by Wan's layer name; every ``lora_up`` has its ``alpha``, so that its scale is alpha / rank."""
    keys: Mapping[str, tuple[str, ...]]
    """The file's keys that each layer came from."""
    unknown: tuple[str, ...]
    """Keys of the file that belong to no kind of LoRA."""
    config: ModelConfig | None = None
    """The model that it was trained for, where Gloria wrote the file."""
    notes: tuple[str, ...] = ()
    """What a user should know about the file."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parts under ``diffusion_model.<layer>.<part>``, as the host's stock loader reads them."""
        return {f"{PREFIX}{layer}.{part}": t for layer, parts in self.layers.items() for part, t in parts.items()}


def normalise(file: LoraFile, model_layers: Iterable[str] = ()) -> Lora:
    """Bring a LoRA file to one spelling.

    Args:
        file: what was read.
        model_layers: names of the layers of the model that it is for; needed for flat names of layers beyond Wan's.

    Raises:
        LoraError: a layer is given twice, a matrix stands without its partner, or a scale is no number.
    """
    known = flat_names(model_layers)
    layers: dict[str, Parts] = {}
    keys: dict[str, list[str]] = {}
    trained_as: dict[str, str] = {}
    unknown = []
    for key, tensor in file.tensors.items():
        found = read_key(key, known)
        if found is None:
            unknown.append(key)
            continue
        parts = layers.setdefault(found.layer, {})
        if found.part in parts:
            raise LoraError(
                f"{file.name} gives {found.layer} twice (again as {key}): a file with LoRAs for both experts of an "
                "A14B model, or one spelled in two ways, has to be split first."
            )
        parts[found.part] = tensor
        keys.setdefault(found.layer, []).append(key)
        trained_as[found.layer] = found.trained_as
    for layer, parts in layers.items():
        _check_parts(file.name, layer, parts)
    peft, notes = _trusted(file.peft, layers, trained_as)
    for layer, parts in layers.items():
        _bake(file.name, layer, parts, peft.scale(trained_as[layer]) if peft else 1.0)
    config, more = _read_config(file.metadata)
    return Lora(
        name=file.name,
        layers=layers,
        keys={layer: tuple(found) for layer, found in keys.items()},
        unknown=tuple(unknown),
        config=config,
        notes=(*notes, *more),
    )


def rank(parts: Parts) -> int:
    """Return the inner width of a low-rank layer, by which alpha is divided; 0 where the scale is not alpha / rank."""
    for name in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in parts:
            return int(parts[name].shape[0])
    return 0


def _trusted(
    peft: PeftConfig | None, layers: Mapping[str, Parts], trained_as: Mapping[str, str]
) -> tuple[PeftConfig | None, list[str]]:
    """Return PEFT's settings if their ranks are those of the matrices; settings of another file are told and left."""
    if peft is None:
        return None, []
    wrong = [
        (layer, rank(parts), peft.rank_of(trained_as[layer]))
        for layer, parts in layers.items()
        if "lora_down.weight" in parts and rank(parts) != peft.rank_of(trained_as[layer])
    ]
    if not wrong:
        return peft, []
    layer, has, says = wrong[0]
    return None, [
        f"PEFT's settings beside it say rank {says}, but {layer} has rank {has}: they belong to another file and were "
        "not used."
    ]


def _check_parts(name: str, layer: str, parts: Parts) -> None:
    for part, tensor in parts.items():
        if _FACTOR.fullmatch(part) and tensor.ndim < (3 if part == "oft_blocks" else 2):
            raise LoraError(f"In {name} the {part} of {layer} has {tensor.ndim} sides and is no matrix: it is damaged.")
    for group in _TOGETHER:
        given = [part for part in group if part in parts]
        if given and len(given) < len(group):
            lost = ", ".join(part for part in group if part not in parts)
            raise LoraError(f"In {name} the layer {layer} has {given[0]} without {lost}: the file is not complete.")


def _bake(name: str, layer: str, parts: Parts, scale: float) -> None:
    """Write a layer's scale into its alpha; what the host has no place for is turned into what it has."""
    inner = rank(parts)
    if "alpha" in parts:
        alpha = parts["alpha"]
        if alpha.numel() != 1 or not math.isfinite(float(alpha)):
            raise LoraError(f"In {name} the alpha of {layer} is no finite number, so its scale is unknown.")
        parts["alpha"] = alpha.float().reshape(())
        scale = float(alpha) / inner if inner else 1.0
    elif inner:
        parts["alpha"] = torch.tensor(scale * inner)
    elif "lokr_w1" in parts:  # the host scales whole factors by 1 whatever alpha says
        parts["lokr_w1"] = parts["lokr_w1"] * scale if scale != 1.0 else parts["lokr_w1"]
    elif "oft_blocks" in parts:  # here alpha bounds the rotation; 0 means that nothing does
        parts["alpha"] = torch.tensor(0.0)
    if "lora_up.bias" in parts:
        bias = parts.pop("lora_up.bias").float() * scale
        parts["diff_b"] = parts["diff_b"].float() + bias if "diff_b" in parts else bias
    if "dora_scale" in parts and parts["dora_scale"].ndim == 1:  # PEFT's vector: one number for each output
        parts["dora_scale"] = parts["dora_scale"].unsqueeze(1)


def _read_config(metadata: Mapping[str, str]) -> tuple[ModelConfig | None, list[str]]:
    if CONFIG_KEY not in metadata:
        return None, []
    try:
        return ModelConfig.from_json(metadata[CONFIG_KEY]), []
    except (ConfigError, TypeError, ArithmeticError) as error:
        return None, [f"The settings in its header are not understood, so they were not compared: {error}"]
