"""Tiny public audio branches: random weights under the authors' own names, in their own proportions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig

DIM, BLOCKS = 48, 2
PLACES = {
    "global_position": 20, "view_position": 40, "view_step": 20, "expression_position": 120, "expression_step": 20,
}  # fmt: skip


def base_config() -> ModelConfig:
    """A tiny Wan model of the width that the branches are made for."""
    return ModelConfig(
        in_channels=4, out_channels=4, dim=DIM, ffn_dim=64, num_heads=2, num_layers=BLOCKS, text_dim=16, text_length=4,
        freq_dim=32, chunk_latents=6, anchors=AnchorConfig(**PLACES),
    )  # fmt: skip


class Names(dict[str, Tensor]):
    """Random tensors, drawn by name and shape."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int) -> None:
        spread = 0.5 / max(shape[-1], 1) ** 0.5 if len(shape) > 1 else 0.3
        centre = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        self[name] = centre + spread * 2 * torch.randn(shape, generator=self.generator)

    def linear(self, name: str, rows: int, columns: int) -> None:
        self.draw(f"{name}.weight", rows, columns)
        self.draw(f"{name}.bias", rows)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width)
        self.draw(f"{name}.bias", width)


Family = Callable[[], tuple[AudioConfig, dict[str, Tensor], dict[str, Tensor]]]
"""Gives the configuration, the authors' file, and the same tensors under our names."""


def fantasytalking_file(dim: int = DIM, blocks: int = BLOCKS, features: int = 12, width: int = 20) -> Names:
    w = Names(1)
    w.draw("proj_model.proj.weight", width, features)
    w.norm("proj_model.norm", width)
    for i in range(blocks):
        for part in ("k_proj", "v_proj"):
            w.draw(f"audio_processor.blocks.{i}.cross_attn.processor.{part}.weight", dim, width)
    return w


def multitalk_file(
    dim: int = DIM, blocks: int = BLOCKS, features: int = 9, width: int = 6, tokens: int = 4, hidden: int = 10
) -> Names:
    w = Names(2)
    w.linear("audio_proj.proj1", hidden, 5 * features)
    w.linear("audio_proj.proj1_vf", hidden, 8 * features)
    w.linear("audio_proj.proj2", hidden, hidden)
    w.linear("audio_proj.proj3", tokens * width, hidden)
    w.norm("audio_proj.norm", width)
    for i in range(blocks):
        w.linear(f"blocks.{i}.audio_cross_attn.q_linear", dim, dim)
        w.linear(f"blocks.{i}.audio_cross_attn.kv_linear", 2 * dim, width)
        w.linear(f"blocks.{i}.audio_cross_attn.proj", dim, dim)
        w.norm(f"blocks.{i}.norm_x", dim)
    return w


def humo_file(
    dim: int = DIM, blocks: int = BLOCKS, features: int = 10, width: int = 8, tokens: int = 3, hidden: int = 10
) -> Names:
    w = Names(3)
    w.linear("audio_proj.audio_proj_glob_1.layer", hidden, 8 * features)
    w.linear("audio_proj.audio_proj_glob_2.layer", hidden, hidden)
    w.linear("audio_proj.audio_proj_glob_3.layer", tokens * width, hidden)
    w.norm("audio_proj.audio_proj_glob_norm.layer", width)
    for i in range(blocks):
        name = f"blocks.{i}.audio_cross_attn_wrapper."
        for part in ("q", "o"):
            w.linear(f"{name}audio_cross_attn.{part}", dim, dim)
        for part in ("k", "v"):
            w.linear(f"{name}audio_cross_attn.{part}", dim, width)
        for part in ("norm_q", "norm_k"):
            w.draw(f"{name}audio_cross_attn.{part}.weight", dim)
        w.norm(f"{name}norm1_audio", dim)
    return w


def _fantasytalking() -> tuple[AudioConfig, dict[str, Tensor], dict[str, Tensor]]:
    w = fantasytalking_file()
    ours = {
        "audio_embedding.proj.weight": w["proj_model.proj.weight"],
        "audio_embedding.norm.weight": w["proj_model.norm.weight"],
        "audio_embedding.norm.bias": w["proj_model.norm.bias"],
    }
    for i in range(BLOCKS):
        for part in "kv":
            name = f"audio_processor.blocks.{i}.cross_attn.processor.{part}_proj.weight"
            ours[f"blocks.{i}.audio_attn.{part}.weight"] = w[name]
    config = AudioConfig(
        kind="wav2vec2-rows", feature_dim=12, dim=20, every=1, projection="fantasytalking", kv_bias=False,
        output="shared",
    )  # fmt: skip
    return config, w, ours


def _multitalk() -> tuple[AudioConfig, dict[str, Tensor], dict[str, Tensor]]:
    w = multitalk_file()
    parts = {"q_linear": "q", "kv_linear": "kv", "proj": "o"}
    ours = {}
    for name, tensor in w.items():
        if name.startswith("audio_proj."):
            ours[name.replace("audio_proj.", "audio_embedding.")] = tensor
            continue
        _, block, *rest = name.split(".")
        inner = "norm" if rest[0] == "norm_x" else parts[rest[1]]
        ours[f"blocks.{block}.audio_attn.{inner}.{rest[-1]}"] = tensor
    config = AudioConfig(
        kind="wav2vec2-layers", feature_dim=9, dim=6, every=1, projection="multitalk", tokens=4, hidden=10,
        queries="own", fused=True, own_norm=True, placement="sequential",
    )  # fmt: skip
    return config, w, ours


def _humo() -> tuple[AudioConfig, dict[str, Tensor], dict[str, Tensor]]:
    w = humo_file()
    ours = {}
    for name, tensor in w.items():
        new = name.replace("audio_proj.audio_proj_glob_norm.layer", "audio_embedding.norm")
        new = new.replace("audio_proj.audio_proj_glob_", "audio_embedding.proj").replace(".layer.", ".")
        new = new.replace("audio_cross_attn_wrapper.audio_cross_attn", "audio_attn")
        ours[new.replace("audio_cross_attn_wrapper.norm1_audio", "audio_attn.norm")] = tensor
    config = AudioConfig(
        kind="whisper-groups", feature_dim=10, dim=8, every=1, projection="humo", tokens=3, hidden=10, queries="own",
        query_norm=True, key_norm=True, own_norm=True, placement="sequential",
    )  # fmt: skip
    return config, w, ours


FAMILIES: dict[str, Family] = {"FantasyTalking": _fantasytalking, "MultiTalk": _multitalk, "HuMo": _humo}
