import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, model_shapes, read_header
from gloria_core.config import ModelConfig
from gloria_core.families import FAMILIES

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]
Save = Callable[..., Path]

PUBLIC_NAMES = {
    "Wan2.1 T2V 1.3B": "wan2.1_t2v_1.3B_bf16.safetensors",
    "Wan2.1 T2V 14B": "Wan2_1-T2V-14B_fp16.safetensors",
    "Wan2.1 I2V 14B 480P": "wan2.1_i2v_480p_14B_fp16.safetensors",
    "Wan2.1 I2V 14B 720P": "wan2.1_i2v_720p_14B_fp16.safetensors",
    "Wan2.1 FLF2V 14B": "wan2.1_flf2v_720p_14B_fp16.safetensors",
    "Wan2.1 Fun-InP 1.3B": "wan2.1_fun_inp_1.3B_bf16.safetensors",
    "Wan2.1 Fun-InP 14B": "Wan2.1-Fun-14B-InP.safetensors",
    "Wan2.2 T2V A14B": "wan2.2_t2v_high_noise_14B_fp16.safetensors",
    "Wan2.2 I2V A14B": "wan2.2_i2v_low_noise_14B_fp16.safetensors",
    "Wan2.2 TI2V 5B": "wan2.2_ti2v_5B_fp16.safetensors",
}

# wan.md section 1; the last two are what the audio branch adds to 16.395 and 5.000 billion.
NUM_WEIGHTS = {
    "Wan2.1 T2V 1.3B": (825, 1.419),
    "Wan2.1 T2V 14B": (1095, 14.288),
    "Wan2.1 I2V 14B 480P": (1303, 16.395),
    "Wan2.1 I2V 14B 720P": (1303, 16.395),
    "Wan2.1 FLF2V 14B": (1304, 16.396),
    "Wan2.1 Fun-InP 1.3B": (983, 1.564),
    "Wan2.1 Fun-InP 14B": (1303, 16.395),
    "Wan2.2 T2V A14B": (1095, 14.288),
    "Wan2.2 I2V A14B": (1095, 14.289),
    "Wan2.2 TI2V 5B": (825, 5.000),
    "Gloria 14B": (1428, 17.345),
    "Gloria 5B": (920, 5.337),
}


def sparse_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file with the header of a real model in bfloat16 and a hole where its weights would be."""
    content, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        content[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(content).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_of_tensors_and_weights(family: str) -> None:
    shapes = model_shapes(FAMILIES[family])
    count, billions = NUM_WEIGHTS[family]
    assert len(shapes) == count
    assert round(sum(math.prod(shape) for shape in shapes.values()) / 1e9, 3) == billions


@pytest.mark.parametrize("family", PUBLIC_NAMES)
def test_a_public_file_of_real_size_is_known_by_its_header_alone(family: str, tmp_path: Path) -> None:
    """The file's weights are a hole in the disk: 33 gigabytes that nobody could read in the time."""
    path = sparse_file(tmp_path / PUBLIC_NAMES[family], model_shapes(FAMILIES[family]))
    found = inspect(path)
    assert found.config == replace(FAMILIES[family], name=path.stem)
    assert (found.dtype, found.quantization.kind, found.container) == (torch.bfloat16, "none", "safetensors")
    assert all(name == ours for name, ours in found.names.items())


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Wan2.1 T2V 1.3B", {"prefix": "held", "codec": "wan2.1", "fps": 16.0, "chunk_latents": 21, "shift": 8.0}),
        ("Wan2.1 T2V 14B", {"prefix": "held", "fps": 16.0, "chunk_latents": 21, "shift": 5.0, "boundary": None}),
        ("Wan2.1 I2V 14B 480P", {"prefix": "given", "shift": 3.0, "spatial_stride": 8, "boundary": None}),
        ("Wan2.1 I2V 14B 720P", {"prefix": "given", "shift": 5.0}),
        ("Wan2.1 FLF2V 14B", {"prefix": "given", "shift": 16.0, "clip_positions": 514}),
        ("Wan2.2 T2V A14B", {"prefix": "held", "shift": 12.0, "boundary": 0.875, "fps": 16.0}),
        ("Wan2.2 I2V A14B", {"prefix": "given", "shift": 5.0, "boundary": 0.9, "clip_dim": 0}),
        ("Wan2.2 TI2V 5B", {"prefix": "held", "codec": "wan2.2", "spatial_stride": 16, "fps": 24.0,
                            "chunk_latents": 31, "shift": 5.0}),
        ("Gloria 14B", {"prefix": "held", "fps": 24.0, "chunk_latents": 32, "codec": "wan2.1"}),
        ("Gloria 5B", {"prefix": "held", "fps": 24.0, "chunk_latents": 32, "codec": "wan2.2"}),
    ],
)  # fmt: skip
def test_the_settings_that_come_with_a_family(family: str, settings: dict[str, object]) -> None:
    """Source: wan.md section 6, spec.md."""
    config = FAMILIES[family]
    assert {name: getattr(config, name) for name in settings} == settings
    assert (config.family, config.name) == (family, family)


@pytest.mark.parametrize(
    "family", ["Wan2.1 T2V 1.3B", "Wan2.1 I2V 14B 720P", "Wan2.1 FLF2V 14B", "Wan2.2 I2V A14B", "Wan2.2 TI2V 5B"]
)
def test_a_tiny_model_is_known_by_its_channels(family: str, tiny: Tiny, weights: Weights, save: Save) -> None:
    config = tiny(family)
    found = inspect(save(weights(config), "tiny.safetensors")).config
    assert found == replace(config, name="tiny")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Wan2.2-T2V-A14B/high_noise_model/diffusion_pytorch_model.safetensors", "Wan2.2 T2V A14B"),
        ("t2v/high-noise/diffusion_pytorch_model.safetensors", "Wan2.2 T2V A14B"),
        ("wan22_lightning_LowNoise.safetensors", "Wan2.2 T2V A14B"),
        ("slow_motion_14B.safetensors", "Wan2.1 T2V 1.3B"),
        ("Wan2.2/wan2.1_t2v_14B.safetensors", "Wan2.1 T2V 1.3B"),
    ],
)
def test_the_name_decides_only_between_equal_shapes(
    name: str, family: str, tiny: Tiny, weights: Weights, save: Save
) -> None:
    """At a tiny size all of T2V are equal; without a word for the other, the first family is taken."""
    assert inspect(save(weights(tiny()), name)).config.family == family


def test_an_image_model_is_no_text_model_whatever_it_is_called(tiny: Tiny, weights: Weights, save: Save) -> None:
    path = save(weights(tiny("Wan2.2 I2V A14B")), "wan2.1_t2v_1.3B.safetensors")
    assert inspect(path).config.family == "Wan2.2 I2V A14B"


def test_a_gloria_file_says_itself_what_it_is(tiny: Tiny, weights: Weights, save: Save) -> None:
    config = replace(tiny("Gloria 14B"), dim=48, num_heads=2, shift=7.5, name="my character")
    path = save(weights(config), "wan2.1_t2v.safetensors", {"gloria.config": config.to_json(), "note": "kept"})
    found = inspect(path)
    assert found.config == config
    assert found.metadata["note"] == "kept"
    assert found.files == (path,)


def test_types_and_sizes_are_told_of_every_tensor(save: Save) -> None:
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
             torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]  # fmt: skip
    header = read_header(save({str(t): torch.zeros(2, 3).to(t) for t in types}))
    assert {name: info.dtype for name, info in header.tensors.items()} == {str(t): t for t in types}
    assert all(info.shape == (2, 3) and info.num_numbers == 6 for info in header.tensors.values())
