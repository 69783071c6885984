import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, open_weights, read_checkpoint
from gloria_core.config import ModelConfig

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]
Save = Callable[..., Path]
FP8 = torch.float8_e4m3fn
SCALE = 0.03125  # a power of two: dividing by it and multiplying it again loses nothing


def layers(weights: dict[str, Tensor]) -> list[str]:
    return [n.removesuffix(".weight") for n, t in weights.items() if n.startswith("blocks.") and t.ndim == 2]


def quantised(weights: dict[str, Tensor], scale: str, dtype: torch.dtype = FP8) -> dict[str, Tensor]:
    """Every matrix of the blocks in float8, with a scale under the spelling that is given."""
    made = {name: t.half() for name, t in weights.items()}
    for layer in layers(weights):
        made[f"{layer}.weight"] = (weights[f"{layer}.weight"] / SCALE).to(dtype)
        made[f"{layer}.{scale}"] = torch.tensor(SCALE)
    return made


def blob(**entry: object) -> Tensor:
    return torch.tensor(list(json.dumps(entry).encode()), dtype=torch.uint8)


def file_of(layout: str, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and notes of a file of each layout. Source: wan.md section 2."""
    match layout:
        case "fp8_scaled":
            made = quantised(weights, "scale_weight") | {"scaled_fp8": torch.zeros(0, dtype=FP8)}
            return made | {f"{layer}.scale_input": torch.tensor(1.5) for layer in layers(weights)}, {}
        case "metadata":
            told = {layer: {"format": "float8_e4m3fn"} for layer in layers(weights)}
            note = json.dumps({"format_version": "1.0", "layers": told})
            return quantised(weights, "weight_scale"), {"_quantization_metadata": note}
        case "comfy_quant":
            made = quantised(weights, "weight_scale")
            first, *others = layers(weights)
            made[f"{first}.comfy_quant"] = blob(format="float8_e4m3fn", full_precision_matrix_mult=True)
            return made | {f"{layer}.comfy_quant": blob(format="float8_e4m3fn") for layer in others}, {}
    raise AssertionError(layout)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("layout", ["fp8_scaled", "metadata", "comfy_quant"])
def test_scaled_float8_has_one_spelling(layout: str, prefix: str, tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    tensors, notes = file_of(layout, own)
    found = inspect(save({prefix + name: t for name, t in tensors.items()}, metadata=notes))
    assert (found.quantization.kind, found.dtype) == (layout, FP8)
    assert found.quantization.layers == dict.fromkeys(layers(own), "float8_e4m3fn")
    opened = open_weights(found)
    scales = {name for name in opened if name.endswith(".scale_weight")}
    assert scales == {f"{layer}.scale_weight" for layer in layers(own)}
    assert {n for n in opened if n.endswith(".scale_input")} == (
        {f"{layer}.scale_input" for layer in layers(own)} if layout == "fp8_scaled" else set()
    )
    assert opened["blocks.1.ffn.0.weight"].dtype == FP8
    assert opened["blocks.1.ffn.0.scale_weight"] == SCALE
    assert not {"scaled_fp8", "blocks.0.self_attn.q.comfy_quant"} & opened.keys()


def test_what_the_layouts_say_beside_the_scale(tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    by_layer = inspect(save(file_of("comfy_quant", own)[0])).quantization
    assert by_layer.full_precision == {layers(own)[0]}
    tensors, _ = file_of("fp8_scaled", own)
    marked = inspect(save(tensors)).quantization
    assert marked.marker is not None
    assert marked.marker.dtype == FP8
    assert marked.full_precision == set()
    tensors["scaled_fp8"] = torch.zeros(2)  # two numbers: products in the compute type
    assert inspect(save(tensors)).quantization.full_precision == set(layers(own))


def test_values_are_what_is_stored_times_the_scale(tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    tensors, _ = file_of("fp8_scaled", own)
    plain, _config = read_checkpoint(save(tensors))
    assert plain.keys() == own.keys()
    for layer in layers(own):
        wanted = (own[f"{layer}.weight"] / SCALE).to(FP8).float() * SCALE
        assert torch.equal(plain[f"{layer}.weight"].float(), wanted.bfloat16().float())


def test_a_scale_for_each_row(tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    tensors, _ = file_of("fp8_scaled", own)
    rows = torch.linspace(1, 2, 96).unsqueeze(1)
    tensors["blocks.0.ffn.0.scale_weight"] = rows
    plain, _config = read_checkpoint(save(tensors))
    wanted = (tensors["blocks.0.ffn.0.weight"].float() * rows).bfloat16()
    assert torch.equal(plain["blocks.0.ffn.0.weight"], wanted)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_float8(dtype: torch.dtype, tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    found = inspect(save({name: t.to(dtype) if t.ndim == 2 else t.half() for name, t in own.items()}))
    assert (found.quantization.kind, found.dtype, found.quantization.scales) == ("fp8", dtype, {})
    assert set(layers(own)) < set(found.quantization.layers)


def test_diffusers_names_have_scales_too(tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    tensors = {name: t.half() for name, t in own.items()}
    tensors["blocks.0.attn1.to_q.weight"] = tensors.pop("blocks.0.self_attn.q.weight").to(FP8)
    tensors["blocks.0.attn1.to_q.weight_scale"] = torch.tensor(2.0)
    tensors["condition_embedder.time_proj.weight"] = tensors.pop("time_projection.1.weight")
    found = inspect(save(tensors))
    assert found.quantization.scales == {"blocks.0.attn1.to_q.weight_scale": "blocks.0.self_attn.q.scale_weight"}
