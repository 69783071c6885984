"""Model files with the true formats and names of public weights, and random numbers at sizes that a test can run.

What is shrunk is the width (256 of 5120) and the depth (2 blocks of 40); what other files fix stays as it is: heads of
128, text rows of 4096, CLIP rows of 1280, 2048 audio channels of FantasyTalking, 768 of InfiniteTalk. Names are spelled
out here and not taken from the code that reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

DIM, FFN, BLOCKS = 256, 512, 2
TEXT, CLIP = 4096, 1280
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, kw_only=True)
class Wan:
    """What distinguishes one public Wan transformer from another in its file."""

    in_channels: int
    out_channels: int
    clip: bool = False
    """Has the branch for CLIP vision rows, as the 2.1 I2V models do."""


I2V_21 = Wan(in_channels=36, out_channels=16, clip=True)
I2V_22 = Wan(in_channels=36, out_channels=16)
TI2V_5B = Wan(in_channels=48, out_channels=48)


def linear(name: str, rows: int, columns: int) -> Shapes:
    """Shapes of a Linear with bias."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, width: int) -> Shapes:
    """Shapes of a LayerNorm with weight and bias."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def wan_shapes(wan: Wan) -> Shapes:
    """Names and shapes of a transformer, as the original release spells them."""
    shapes: Shapes = {
        "patch_embedding.weight": (DIM, wan.in_channels, 1, 2, 2),
        "patch_embedding.bias": (DIM,),
        **linear("text_embedding.0", DIM, TEXT),
        **linear("text_embedding.2", DIM, DIM),
        **linear("time_embedding.0", DIM, 256),
        **linear("time_embedding.2", DIM, DIM),
        **linear("time_projection.1", 6 * DIM, DIM),
        **linear("head.head", 4 * wan.out_channels, DIM),
        "head.modulation": (1, 2, DIM),
    }
    if wan.clip:
        shapes |= norm("img_emb.proj.0", CLIP) | linear("img_emb.proj.1", CLIP, CLIP)
        shapes |= linear("img_emb.proj.3", DIM, CLIP) | norm("img_emb.proj.4", DIM)
    for index in range(BLOCKS):
        shapes |= _block_shapes(f"blocks.{index}", wan)
    return shapes


def _block_shapes(block: str, wan: Wan) -> Shapes:
    shapes: Shapes = {f"{block}.modulation": (1, 6, DIM), **norm(f"{block}.norm3", DIM)}
    for part in ("self_attn", "cross_attn"):
        for name in "qkvo":
            shapes |= linear(f"{block}.{part}.{name}", DIM, DIM)
        shapes |= {f"{block}.{part}.norm_{name}.weight": (DIM,) for name in "qk"}
    if wan.clip:
        for name in ("k_img", "v_img"):
            shapes |= linear(f"{block}.cross_attn.{name}", DIM, DIM)
        shapes[f"{block}.cross_attn.norm_k_img.weight"] = (DIM,)
    return shapes | linear(f"{block}.ffn.0", FFN, DIM) | linear(f"{block}.ffn.2", DIM, FFN)


def random_weights(shapes: Mapping[str, Shape], seed: int) -> dict[str, Tensor]:
    """Numbers such that a network of any depth neither dies nor explodes: norms near 1, matrices by their width."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        layer, _, kind = name.rpartition(".")
        is_norm = "norm" in layer.rpartition(".")[2] or layer.endswith(("img_emb.proj.0", "img_emb.proj.4"))
        if kind == "gamma" or (is_norm and kind == "weight"):
            made[name] = 1.0 + 0.1 * noise
        elif len(shape) < 2:
            made[name] = 0.1 * noise
        else:
            made[name] = noise / (noise[0].numel() ** 0.5)
    return made


def fp8_scaled(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantise every matrix as the ``fp8_scaled`` files do: a scale for each, and a marker that names the format."""
    made: dict[str, Tensor] = {"scaled_fp8": torch.zeros(0, dtype=FP8)}
    for name, weight in weights.items():
        if weight.ndim == 2 and name.endswith(".weight") and name != "shared.weight":
            scale = weight.abs().max().clamp(min=1e-8) / torch.finfo(FP8).max
            made[name] = (weight / scale).to(FP8)
            made[name.removesuffix("weight") + "scale_weight"] = scale.float().reshape(())
        else:
            made[name] = weight.half()
    return made


def half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in fp16."""
    return {name: weight.half() for name, weight in weights.items()}


def write(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, with the metadata that most public files have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path, metadata={"format": "pt"})


def write_wan(path: Path, wan: Wan, seed: int, *, scaled: bool = False) -> None:
    """Write a transformer, in fp16 or in fp8 with scales."""
    weights = random_weights(wan_shapes(wan), seed)
    write(path, fp8_scaled(weights) if scaled else half(weights))


def write_fantasytalking(path: Path, seed: int) -> None:
    """Write FantasyTalking's weights as the single-file copy spells them: the projection and each block's K and V."""
    shapes: Shapes = {"proj_model.proj.weight": (2048, 768), **norm("proj_model.norm", 2048)}
    for index in range(BLOCKS):
        shapes |= {f"blocks.{index}.cross_attn.{name}_proj.weight": (DIM, 2048) for name in "kv"}
    write(path, half(random_weights(shapes, seed)))


def write_infinitetalk(path: Path, seed: int) -> None:
    """Write InfiniteTalk's weights for one speaker: the projection is as large as the true one (150 MB in fp16)."""
    shapes: Shapes = {
        **linear("audio_proj.proj1", 512, 5 * 12 * 768),
        **linear("audio_proj.proj1_vf", 512, 8 * 12 * 768),
        **linear("audio_proj.proj2", 512, 512),
        **linear("audio_proj.proj3", 32 * 768, 512),
        **norm("audio_proj.norm", 768),
    }
    for index in range(BLOCKS):
        attention = f"blocks.{index}.audio_cross_attn"
        shapes |= linear(f"{attention}.q_linear", DIM, DIM) | linear(f"{attention}.kv_linear", 2 * DIM, 768)
        shapes |= linear(f"{attention}.proj", DIM, DIM) | norm(f"blocks.{index}.norm_x", DIM)
    write(path, half(random_weights(shapes, seed)))


def write_lightx2v_lora(path: Path, wan: Wan, seed: int, rank: int = 4) -> None:
    """Write a LoRA as the step distillation has it: factors with alpha, whole differences, biases and modulation."""
    generator = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    for name, shape in wan_shapes(wan).items():
        stem = "diffusion_model." + name.removesuffix(".weight").removesuffix(".bias")
        if name.endswith(".modulation"):
            if name.startswith("blocks."):
                made[stem.removesuffix("modulation") + "diff_m"] = 0.05 * torch.randn(shape, generator=generator)
        elif name.endswith(".bias"):
            made[f"{stem}.diff_b"] = 0.02 * torch.randn(shape, generator=generator)
        elif len(shape) == 2:
            rows, columns = shape
            made[f"{stem}.lora_down.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
            made[f"{stem}.lora_up.weight"] = 0.2 * torch.randn(rows, rank, generator=generator)
            made[f"{stem}.alpha"] = torch.tensor(float(rank) / 2)
        else:
            made[f"{stem}.diff"] = 0.02 * torch.randn(shape, generator=generator)
    write(path, {name: value.bfloat16() for name, value in made.items()})


def names_of(path: Path) -> set[str]:
    """Names in a safetensors file, without reading a weight."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return set(json.loads(file.read(length))) - {"__metadata__"}
