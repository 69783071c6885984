"""Whether the host itself takes in whole what a training has written."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.model_detection
import comfy.utils
import torch
from torch import Tensor

from ...gloria_core.checkpoint import inspect, model_shapes, open_weights
from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import LoraError
from ...gloria_core.lora import normalise, read_lora
from ...gloria_core.train.config import TrainConfig
from .model import build_patcher
from .support import GloriaSupport

_NETWORK = "diffusion_model."
_TENSORS = (".diff", ".diff_b", ".set_weight")


def check_file(path: Path, config: TrainConfig) -> str:
    """Load a training's file through the host's own code; return what was found, in a sentence.

    Args:
        path: a LoRA, or a whole model where the weights themselves were trained.
        config: the training's settings.

    Raises:
        LoraError: the file is damaged, or the host would leave a part of the LoRA out.
        CheckpointError: the model is damaged.
    """
    if config.method.kind == "full":
        build_patcher(open_weights(inspect(path)), inspect(path).config)
        return f"{path.name} was loaded as a model; Load Gloria DiT lists it after a refresh (R)."
    trained = normalise(read_lora(path)).config
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    if trained is None:
        raise LoraError(f"{path.name} has lost the settings that it was trained with; resume the training to renew it.")
    _check(path.name, tensors, _ours(trained), "this model")
    stock = _stock(trained)
    if stock is None:
        return f"{path.name}: the stock LoRA loader uses all {len(tensors)} of its parts."
    shared = {key: tensor for key, tensor in tensors.items() if _layer(key) in _layers(stock)}
    _check(path.name, shared, stock, "the stock Wan model")
    rest = len(tensors) - len(shared)
    told = f"{path.name}: the stock LoRA loader uses all {len(shared)} of its parts on a stock Wan model"
    return f"{told}, and {rest} more on a Gloria model." if rest else f"{told}."


def _check(name: str, tensors: dict[str, Tensor], model: comfy.model_base.BaseModel, whose: str) -> None:
    unused = unused_keys(tensors, model)
    if unused:
        raise LoraError(
            f"{name} has {len(unused)} parts that {whose} would leave out, such as {unused[0]}: please report this "
            "with the job's config.toml."
        )


def unused_keys(tensors: dict[str, Tensor], model: comfy.model_base.BaseModel) -> list[str]:
    """Return the keys of a LoRA file that the host's own loader would leave out on a model."""
    places = comfy.lora.model_lora_keys_unet(model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(tensors)), places, log_missing=False)
    used: set[str] = set()
    for patch in patches.values():
        used |= set(getattr(patch, "loaded_keys", ()))
    whole = {key for key in tensors if key.endswith(_TENSORS) and _target(key, places) in patches}
    return sorted(set(tensors) - used - whole)


def _target(key: str, places: Mapping[str, str]) -> str:
    layer = _layer(key)
    weight = places.get(_NETWORK + layer, "")
    return weight.removesuffix(".weight") + ".bias" if key.endswith(".diff_b") else weight


def _layer(key: str) -> str:
    """Return the layer that a key of our own files belongs to."""
    plain = key.removeprefix(_NETWORK)
    for ending in (".lora_A.weight", ".lora_B.weight"):
        plain = plain.removesuffix(ending)
    return plain if plain != key.removeprefix(_NETWORK) else plain.rpartition(".")[0]


def _layers(model: comfy.model_base.BaseModel) -> set[str]:
    names = {key.removeprefix(_NETWORK) for key in model.state_dict()}
    return names | {name.rpartition(".")[0] for name in names}


def _ours(config: ModelConfig) -> comfy.model_base.BaseModel:
    """Return our model as the host's, without numbers."""
    support = GloriaSupport(config)
    support.set_inference_dtype(torch.float32, None)
    return support.get_model({}, device=torch.device("meta"))


def _stock(config: ModelConfig) -> comfy.model_base.BaseModel | None:
    """Return the host's own Wan model of the same sizes; None where it knows none, as for nano."""
    plain = _without_numbers(replace(config, audio=None))
    found = comfy.model_detection.model_config_from_unet(plain, "")
    if found is None or config.codec == "nano":
        return None
    found.set_inference_dtype(torch.float32, None)
    return found.get_model(plain, "", device=torch.device("meta"))


def _without_numbers(config: ModelConfig) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in model_shapes(config).items()}
