"""A tiny MODEL for LoRAs, a folder for their files, and what a layer computes with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sd
import folder_paths
import pytest
import torch
from gloria_pack.gloria_core.config import AudioConfig, ModelConfig
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.lora import GloriaLoRA
from torch import Tensor

import nodes as stock_nodes

Tensors = dict[str, Tensor]
RANK, ALPHA = 2, 3.0
AUDIO = AudioConfig(kind="mel", feature_dim=20, dim=32)
CONFIG = ModelConfig(
    name="tiny", dim=48, ffn_dim=96, num_heads=2, num_layers=3, text_dim=24, text_length=6, freq_dim=32, clip_dim=20,
    audio=AUDIO, chunk_latents=9,
)  # fmt: skip

LAYERS = {
    "blocks.0.cross_attn.k": "blocks.0.attn2.to_k",
    "blocks.1.self_attn.q": "blocks.1.attn1.to_q",
    "blocks.0.self_attn.o": "blocks.0.attn1.to_out.0",
    "blocks.2.cross_attn.v_img": "blocks.2.attn2.add_v_proj",
    "blocks.2.cross_attn.k_img": "blocks.2.attn2.add_k_proj",
    "blocks.1.ffn.0": "blocks.1.ffn.net.0.proj",
    "blocks.1.ffn.2": "blocks.1.ffn.net.2",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "blocks.0.audio_attn.v": "blocks.0.audio_attn.v",
}
"""Wan's names and Diffusers', of one layer of each kind."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def build(config: ModelConfig = CONFIG) -> Any:
    state = {
        name: draw(*value.shape, seed=i)
        for i, (name, value) in enumerate(GloriaDiT(config, device="meta").state_dict().items())
    }
    return host_model.build_patcher(state, config)


@pytest.fixture(scope="module")
def patcher() -> Any:
    with torch.inference_mode():
        return build()


@pytest.fixture(autouse=True)
def loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = ([str(tmp_path)], {".safetensors", ".pt", ".bin"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", place)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def layer(patcher: Any, name: str) -> Any:
    return patcher.model.diffusion_model.get_submodule(name)


def kept(patcher: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Return copies of a layer's unpatched weight and bias."""
    patcher.detach()
    found = layer(patcher, name)
    return found.weight.clone(), None if found.bias is None else found.bias.clone()


def used(patcher: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias that a layer computes with, as the model lies in memory now."""
    found = layer(patcher, name)
    weight, bias = comfy.ops.cast_bias_weight(found, dtype=torch.float32, device="cpu", bias_dtype=torch.float32)
    return weight.clone(), None if bias is None else bias.clone()


@pytest.fixture(params=["whole", "low VRAM"])
def load(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Return what loads a MODEL: with patched weights, or with patches that run whenever a weight is used."""

    def run(patcher: Any) -> Any:
        whole = request.param == "whole"
        patcher.load(patcher.load_device, lowvram_model_memory=0 if whole else 1, full_load=whole)
        assert patcher.model.model_lowvram != whole
        return patcher

    return run


def ours(patcher: Any, name: str, strength: float = 1.0, **more: Any) -> tuple[Any, str]:
    model, report = GloriaLoRA.execute(patcher, name, strength, **more).result
    return model, report


def stock(patcher: Any, name: str, strength: float = 1.0) -> Any:
    return stock_nodes.LoraLoaderModelOnly().load_lora_model_only(patcher, name, strength)[0]


def matrices(patcher: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return known A (r, in) and B (out, r) for each layer."""
    found = {}
    for i, name in enumerate(LAYERS):
        out, columns = layer(patcher, name).weight.shape
        found[name] = draw(RANK, columns, seed=2 * i), draw(out, RANK, seed=2 * i + 1)
    return found


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-6, rtol=1e-6)


def under(name: str) -> str:
    return name.replace(".", "_")
