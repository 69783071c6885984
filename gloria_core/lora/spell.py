"""One LoRA under the names of others."""

from collections.abc import Mapping

from torch import Tensor

from ..errors import LoraError
from ..names import to_diffusers
from .normalise import PREFIX, rank


def spelled(tensors: Mapping[str, Tensor], spelling: str) -> dict[str, Tensor]:
    """Name the parts of a LoRA as others read them.

    Args:
        tensors: ``diffusion_model.<layer>.<part>``, as `normalise.Lora.state_dict` gives them.
        spelling: ``comfy`` (as they are), ``kohya`` or ``diffusers``. The last knows no alpha: it goes into the
            matrices; and it has no place for anything but plain LoRAs.

    Raises:
        LoraError: the spelling is unknown, or has no name for a part.
    """
    if spelling not in ("comfy", "kohya", "diffusers"):
        raise LoraError(f"There is no spelling {spelling!r}; use comfy, kohya or diffusers.")
    if spelling == "comfy":
        return dict(tensors)
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, part = _taken_apart(name.removeprefix(PREFIX))
        layers.setdefault(layer, {})[part] = tensor
    named = _as_kohya if spelling == "kohya" else _as_diffusers
    return {key: tensor for layer, parts in layers.items() for key, tensor in named(layer, parts).items()}


def _taken_apart(name: str) -> tuple[str, str]:
    for part in ("lora_up.weight", "lora_down.weight", "lora_mid.weight"):
        if name.endswith(f".{part}"):
            return name.removesuffix(f".{part}"), part
    layer, _, part = name.rpartition(".")
    return layer, part


def _as_kohya(layer: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"lora_unet_{layer.replace('.', '_')}.{part}": tensor for part, tensor in parts.items()}


def _as_diffusers(layer: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    theirs = to_diffusers(layer)
    other = sorted(set(parts) - {"lora_up.weight", "lora_down.weight", "alpha"})
    if theirs is None or other:
        raise LoraError(
            f"Diffusers has no name for {layer}{' ' + other[0] if other else ''}: it takes plain LoRAs of Wan's own "
            "layers. Keep the spelling 'comfy', or leave that layer out."
        )
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    scale = float(parts["alpha"]) / rank(dict(parts)) if "alpha" in parts else 1.0
    return {f"transformer.{theirs}.lora_A.weight": down, f"transformer.{theirs}.lora_B.weight": up * scale}
