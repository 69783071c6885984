"""The types of numbers that weights are kept in and computed with."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor, nn

from ...gloria_core.errors import ConfigError
from .operations import SCALE, FastScaledLayers, ScaledLayers

WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
"""Choices of a weights type, named as in the host's own loader."""

_FLOAT8: Mapping[str, torch.dtype] = {
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e4m3fn_fast": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightTypes:
    """What a model's weights are kept in, and by which layers they are computed with."""

    stored: torch.dtype
    """Type of the matrices; the others are kept in it too unless it is float8, which is for matrices alone."""
    cast: torch.dtype | None
    """Type to compute in; None is ``stored``."""
    layers: Any = None
    """Namespace of layers; None lets the host choose."""
    fast: bool = False
    """Whether float8 matrices may be multiplied as such."""
    rounds: bool = False
    """Whether matrices that a file has in full are made float8; if not, only those stay so that it has so."""

    def kept_in(self, dtype: torch.dtype, matrix: bool) -> torch.dtype:
        """Return the type in which a weight of a type in the file is kept, if it has no scale."""
        if self.stored.itemsize > 1 or (matrix and (self.rounds or dtype == self.stored)):
            return self.stored
        return self.cast or torch.float32


def choose_types(weights: Mapping[str, Tensor], supported: tuple[torch.dtype, ...], choice: str) -> WeightTypes:
    """Decide on types as the host does for its own models, but keep float8 files as small as they are.

    Args:
        weights: the file's, which are looked at but not read.
        supported: types that the model computes well in, best first.
        choice: one of WEIGHT_DTYPES.

    Raises:
        ConfigError: the choice is unknown.
    """
    if choice not in WEIGHT_DTYPES:
        raise ConfigError(f"There is no weight_dtype {choice!r}; use one of: {', '.join(WEIGHT_DTYPES)}.")
    fast = choice == "fp8_e4m3fn_fast" and comfy.model_management.supports_fp8_compute()
    device, dtypes = comfy.model_management.get_torch_device(), list(supported)
    scaled = any(name.endswith(f".{SCALE}") for name in weights)
    found = None if scaled else _found(weights)
    size = -1 if found in _FLOAT8.values() else comfy.utils.calculate_parameters(weights)  # -1: as if it hardly fitted
    stored = comfy.model_management.unet_dtype(model_params=size, supported_dtypes=dtypes, weight_dtype=found)
    if scaled:
        if choice not in ("default", "fp8_e4m3fn_fast"):
            _log.warning("The weights are quantised already; weight_dtype %s changes nothing.", choice)
    elif choice != "default":
        stored = _FLOAT8[choice]
    return WeightTypes(
        stored=stored,
        cast=comfy.model_management.unet_manual_cast(stored, device, dtypes),
        layers=(FastScaledLayers if fast else ScaledLayers) if scaled else None,
        fast=fast,
        rounds=choice != "default",
    )


def _found(weights: Mapping[str, Tensor]) -> torch.dtype | None:
    """Return float8 where any weight is so, else the type that most numbers have."""
    small = next((weight.dtype for weight in weights.values() if weight.dtype in _FLOAT8.values()), None)
    most: torch.dtype | None = small or comfy.utils.weight_dtype(weights)
    return most


def in_types(weights: Mapping[str, Tensor], network: nn.Module, types: WeightTypes) -> dict[str, Tensor]:
    """Return the weights as the network keeps them; those that are so already are not copied, nor even read.

    Args:
        weights: by the network's own names.
        network: made with ``types.stored``; where a layer asks for another type (the patch embedding does), that holds.
        types: what was chosen.
    """
    wanted = {name: parameter.dtype for name, parameter in network.named_parameters()}
    matrices = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    kept = {}
    for name, weight in weights.items():
        dtype = wanted.get(name, weight.dtype)
        if dtype == types.stored:
            dtype = types.kept_in(weight.dtype, name in matrices)
        if name.removesuffix("weight") + SCALE in weights or hasattr(weight, "tensor_type"):
            dtype = weight.dtype  # scaled, or a GGUF's: the numbers as stored mean nothing by themselves
        kept[name] = weight if weight.dtype == dtype else weight.to(dtype)
    return kept
