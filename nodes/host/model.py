"""A GloriaDiT as the host's own MODEL, so that stock samplers, LoRA loaders, offload and patches work on it.

The network is built without memory and then given the weights as they lie: mapped from their file, in the type that the
file has. No weight is copied that need not be converted.
"""

from collections.abc import Mapping

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor

from ...gloria_core.checkpoint import model_shapes
from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import CheckpointError
from .gguf import separated
from .network import CACHE, HostDiT, tables, with_run_cache
from .operations import INPUT_SCALE, SCALE
from .patcher import around, new_patcher
from .quant import WeightTypes, choose_types, in_types
from .support import GloriaModel, GloriaSupport, NanoLatent

__all__ = [
    "CACHE", "GloriaModel", "GloriaSupport", "HostDiT", "NanoLatent", "build_model", "build_patcher", "model_config",
    "rebuild", "with_run_cache",
]  # fmt: skip

_SHOWN = 10


def build_patcher(
    state_dict: Mapping[str, Tensor], config: ModelConfig, weight_dtype: str = "default"
) -> comfy.model_patcher.ModelPatcher:
    """Make the host's MODEL from weights.

    Args:
        state_dict: the network's weights under Wan's names, without a prefix. A float8 matrix may have a
            ``scale_weight`` beside it. They are not copied: change none of them afterwards.
        config: its architecture.
        weight_dtype: one of ``quant.WEIGHT_DTYPES``.

    Returns:
        A ModelPatcher whose weights are loaded and which gives every sampling run a fresh anchor cache.

    Raises:
        CheckpointError: weights are missing or left over, or one has the wrong shape; each is named.
        ConfigError: the model works in a latent space that this pack does not know, or the weights type is unknown.
    """
    supported = GloriaSupport(config).supported_inference_dtypes
    return new_patcher(build_model(state_dict, config, choose_types(state_dict, supported, weight_dtype)))


def build_model(state_dict: Mapping[str, Tensor], config: ModelConfig, types: WeightTypes) -> GloriaModel:
    """Make the host's model from weights, with the types that were chosen for them; see ``build_patcher``."""
    _check_fit(state_dict, model_shapes(config), config.name)
    support = GloriaSupport(config)
    support.set_inference_dtype(types.stored, types.cast)
    support.custom_operations = types.layers
    support.optimizations["fp8"] = types.fast
    model = support.get_model(state_dict, device=torch.device("meta"))
    model.weight_types = types
    network, offload = model.diffusion_model, comfy.model_management.unet_offload_device()
    by_layer = {f"{name}.weight" if name in support.tables else name: value for name, value in state_dict.items()}
    kept = in_types(by_layer, network, types)
    if getattr(comfy.utils, "DISABLE_MMAP", False):  # the user's own setting: no weight may be a page of a file
        kept = {name: weight.clone() if weight is by_layer[name] else weight for name, weight in kept.items()}
    model.mapped = frozenset(weight.data_ptr() for name, weight in kept.items() if weight is by_layer[name])
    network.load_state_dict(kept, strict=False, assign=True)  # strictness: see _check_fit
    network.requires_grad_(False)
    model.device = offload
    return model.to(offload)


def rebuild(
    patcher: comfy.model_patcher.ModelPatcher, config: ModelConfig, extra_weights: Mapping[str, Tensor]
) -> comfy.model_patcher.ModelPatcher:
    """Return a new MODEL of another configuration, with the weights of one of ours and more beside them.

    The weights are shared, not copied. Patches, LoRAs, wrappers and model options go along. The given MODEL stays as it
    is; if it is on the device, it is unloaded first.

    Args:
        patcher: a MODEL of ours.
        config: the new architecture; it must differ from the old one only by what ``extra_weights`` adds or replaces.
        extra_weights: by the core's names.

    Raises:
        CheckpointError: the MODEL is not ours, or was replaced in parts or compiled before; or weights do not fit.
    """
    model_config(patcher)
    patcher.detach()
    model: GloriaModel = patcher.model
    known = model_shapes(config)
    kept = {name: weight for name, weight in _own_weights(model).items() if _layer_of(name) in known}
    return around(patcher, build_model({**kept, **extra_weights}, config, model.weight_types))


def _own_weights(model: GloriaModel) -> dict[str, Tensor]:
    """Return the network's weights by the core's names, each a tensor of its own that shares the model's memory."""
    layers = {f"{name}.weight": name for name in tables(model.diffusion_model)}
    found = model.diffusion_model.named_parameters()
    return {layers.get(name, name): separated(parameter) for name, parameter in found}


def model_config(patcher: comfy.model_patcher.ModelPatcher) -> ModelConfig:
    """Return the configuration of a MODEL of ours; any other MODEL raises CheckpointError."""
    if not isinstance(patcher.model, GloriaModel):
        raise CheckpointError(
            f"This MODEL is a {type(patcher.model).__name__}, not a Gloria model: connect Load Gloria DiT or Gloria "
            "Nano."
        )
    return patcher.model.gloria


def _layer_of(name: str) -> str:
    """Return the name of the weight that a scale belongs to; any other name as it is."""
    for scale in (SCALE, INPUT_SCALE):
        if name.endswith(f".{scale}"):
            return name.removesuffix(scale) + "weight"
    return name


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], name: str) -> None:
    missing = sorted(set(expected) - set(weights))
    unknown = sorted(given for given in weights if _layer_of(given) not in expected)
    other = [
        f"{key} is {tuple(weights[key].shape)}, not {shape}"
        for key, shape in expected.items()
        if key in weights and tuple(weights[key].shape) != shape
    ]
    parts = [_named("missing", missing), _named("not known to the model", unknown), _named("of another shape", other)]
    told = "; ".join(part for part in parts if part)
    if told:
        raise CheckpointError(f"The weights do not fit the model {name!r}: {told}.")


def _named(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
    return f"{len(keys)} {what} ({shown})" if keys else ""
