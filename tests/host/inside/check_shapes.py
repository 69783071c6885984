"""At their real sizes, on the meta device: every name and shape is the host's WanModel's and Diffusers'."""

from __future__ import annotations

import math

import comfy.ldm.wan.model
import comfy.ops
import diffusers
import pytest
import torch
from gloria_pack.gloria_core.checkpoint import model_shapes
from gloria_pack.gloria_core.config import ModelConfig
from gloria_pack.gloria_core.families import FAMILIES
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.names import from_diffusers

WAN = [name for name, config in FAMILIES.items() if config.audio is None]

Shapes = dict[str, tuple[int, ...]]


def shapes_of(model: torch.nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def of_the_host(config: ModelConfig) -> Shapes:
    model = comfy.ldm.wan.model.WanModel(
        model_type="i2v" if config.clip_dim else "t2v",
        in_dim=config.in_channels,
        out_dim=config.out_channels,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        flf_pos_embed_token_number=config.clip_positions or None,
        device="meta",
        dtype=torch.bfloat16,
        operations=comfy.ops.disable_weight_init,
    )
    return shapes_of(model)


def of_diffusers(config: ModelConfig) -> Shapes:
    clip = {"image_dim": config.clip_dim, "added_kv_proj_dim": config.dim} if config.clip_dim else {}
    with torch.device("meta"):
        model = diffusers.WanTransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            text_dim=config.text_dim,
            freq_dim=config.freq_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
            pos_embed_seq_len=config.clip_positions or None,
            **clip,
        )
    return shapes_of(model)


def renamed(shapes: Shapes) -> Shapes:
    ours = {}
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        whole = from_diffusers(name)
        ours[whole or f"{from_diffusers(layer)}.{kind}"] = shape
    return ours


@pytest.mark.parametrize("family", WAN)
def test_names_and_shapes_are_the_hosts(family: str) -> None:
    config = FAMILIES[family]
    assert model_shapes(config) == of_the_host(config)


@pytest.mark.parametrize("family", WAN)
def test_names_and_shapes_are_those_of_diffusers(family: str) -> None:
    """The map between the names is one to one: nothing falls together, nothing is left over."""
    config = FAMILIES[family]
    theirs = of_diffusers(config)
    ours = renamed(theirs)
    assert len(ours) == len(theirs)
    assert ours == model_shapes(config)


@pytest.mark.parametrize(("family", "base"), [("Gloria 14B", "Wan2.1 I2V 14B 720P"), ("Gloria 5B", "Wan2.2 TI2V 5B")])
def test_gloria_adds_the_audio_branch_and_nothing_else(family: str, base: str) -> None:
    config, wan = FAMILIES[family], of_the_host(FAMILIES[base])
    ours = model_shapes(config)
    assert {name: ours[name] for name in wan} == wan
    added = ours.keys() - wan.keys()
    assert all(name.startswith("audio_embedding.") or ".audio_attn." in name for name in added)
    sound = config.audio
    assert sound is not None
    blocks = len({name.split(".")[1] for name in added if ".audio_attn." in name})
    assert blocks == config.num_layers // 2
    key_and_value = 2 * (sound.dim * config.dim + config.dim)
    output = config.dim * config.dim + config.dim
    projection = sound.feature_dim * sound.dim + sound.dim + sound.dim * sound.dim + sound.dim
    places = sound.window * sound.dim
    counted = sum(math.prod(ours[name]) for name in added)
    assert counted == blocks * (key_and_value + output) + projection + places


def test_a_real_size_is_built_without_memory() -> None:
    model = GloriaDiT(FAMILIES["Gloria 14B"], device="meta", dtype=torch.bfloat16)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) > 17e9
