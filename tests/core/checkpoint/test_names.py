import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, load_dit, open_weights, read_checkpoint
from gloria_core.config import ModelConfig
from gloria_core.names import from_diffusers

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]
Save = Callable[..., Path]

PREFIXES = ["", "model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "module.", "net.model."]


def diffusers_weights(config: ModelConfig) -> dict[str, Tensor]:
    """The names and shapes are those of the library's own model."""
    clip = {"image_dim": config.clip_dim, "added_kv_proj_dim": config.dim} if config.clip_dim else {}
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=config.num_heads, attention_head_dim=config.head_dim, in_channels=config.in_channels,
        out_channels=config.out_channels, text_dim=config.text_dim, freq_dim=config.freq_dim, ffn_dim=config.ffn_dim,
        num_layers=config.num_layers, pos_embed_seq_len=config.clip_positions or None, **clip,
    )  # fmt: skip
    return {name: t.half() for name, t in model.state_dict().items()}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_in_the_wild(prefix: str, tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny("Wan2.1 I2V 14B 720P"))
    path = save({prefix + name: t for name, t in own.items()})
    assert same(open_weights(inspect(path)), own)


@pytest.mark.parametrize("family", ["Wan2.1 T2V 1.3B", "Wan2.1 I2V 14B 720P", "Wan2.1 FLF2V 14B", "Wan2.2 TI2V 5B"])
@pytest.mark.parametrize("prefix", ["", "transformer.", "model.diffusion_model."])
def test_diffusers_names(family: str, prefix: str, tiny: Tiny, weights: Weights, save: Save) -> None:
    theirs = diffusers_weights(tiny(family))
    found = inspect(save({prefix + name: t for name, t in theirs.items()}))
    assert found.config.family == family
    assert set(found.names.values()) == set(weights(tiny(family)))
    opened = open_weights(found)
    for name, ours in found.names.items():
        assert torch.equal(opened[ours], theirs[name.removeprefix(prefix)]), name


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("blocks.7.norm2", "blocks.7.norm3"),
        ("blocks.0.attn1.to_out.0", "blocks.0.self_attn.o"),
        ("blocks.0.attn2.to_out.0", "blocks.0.cross_attn.o"),
        ("blocks.12.attn2.add_k_proj", "blocks.12.cross_attn.k_img"),
        ("blocks.0.attn2.norm_added_k", "blocks.0.cross_attn.norm_k_img"),
        ("scale_shift_table", "head.modulation"),
        ("blocks.3.scale_shift_table", "blocks.3.modulation"),
        ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
        ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
        ("blocks.0.norm3", None),
        ("anything.else", None),
    ],
)
def test_names_that_are_easily_swapped(theirs: str, ours: str | None) -> None:
    """Source: wan.md section 2 and trap 1."""
    assert from_diffusers(theirs) == ours


def test_an_unused_norm_of_some_diffusers_files_is_passed_over(tiny: Tiny, save: Save) -> None:
    theirs = diffusers_weights(tiny("Wan2.1 I2V 14B 720P"))
    theirs["blocks.0.attn2.norm_added_q.weight"] = torch.ones(128)
    found = inspect(save(theirs))
    assert "blocks.0.attn2.norm_added_q.weight" not in found.names


def test_tables_that_a_host_saved_as_layers(tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny("Wan2.1 FLF2V 14B"))
    saved = {f"{name}.weight" if name.endswith(("modulation", "emb_pos")) else name: t for name, t in own.items()}
    path = save({f"model.diffusion_model.{name}": t for name, t in saved.items()})
    assert same(open_weights(inspect(path)), own)


def test_other_models_in_the_same_file_are_left_alone(tiny: Tiny, weights: Weights, save: Save) -> None:
    own = weights(tiny())
    others = {
        "first_stage_model.decoder.middle.0.residual.0.gamma": torch.ones(1),
        "text_encoders.umt5xxl.transformer.shared.weight": torch.ones(1),
        "optimizer.state.0.patch_embedding.weight": torch.ones(1),
    }
    path = save({f"model.diffusion_model.{name}": t for name, t in own.items()} | others)
    assert same(open_weights(inspect(path)), own)


def in_shards(save: Save, tensors: dict[str, Tensor], folder: str, parts: int = 3) -> list[Path]:
    names = sorted(tensors)
    stem = "diffusion_pytorch_model"
    paths, places = [], {}
    for part in range(parts):
        file = f"{stem}-{part + 1:05d}-of-{parts:05d}.safetensors"
        held = names[part::parts]
        paths.append(save({name: tensors[name] for name in held}, f"{folder}/{file}"))
        places |= dict.fromkeys(held, file)
    index = paths[0].with_name(f"{stem}.safetensors.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}), encoding="utf-8")
    return [*paths, index]


def test_shards_by_their_index_a_part_their_folder_or_the_pipelines_folder(tiny: Tiny, save: Save) -> None:
    theirs = diffusers_weights(tiny("Wan2.2 TI2V 5B"))
    *parts, index = in_shards(save, theirs, "Wan2.2-TI2V-5B-Diffusers/transformer")
    expected = open_weights(inspect(save(theirs, "single.safetensors")))
    for path in (index, parts[1], index.parent, index.parent.parent):
        found = inspect(path)
        assert found.config.family == "Wan2.2 TI2V 5B"
        assert found.files == tuple(parts)
        assert same(open_weights(found), expected)
    index.unlink()
    assert same(open_weights(inspect(parts[2])), expected), "without an index, the parts' own names tell"


def test_a_folder_with_one_file(tiny: Tiny, weights: Weights, save: Save) -> None:
    path = save(weights(tiny()), "folder/diffusion_pytorch_model.safetensors")
    (path.parent / "config.json").write_text("{}", encoding="utf-8")
    assert inspect(path.parent).files == (path,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_come_as_they_are_stored(dtype: torch.dtype, tiny: Tiny, weights: Weights, save: Save) -> None:
    own = {name: t.to(dtype) for name, t in weights(tiny()).items()}
    path = save(own)
    found = inspect(path)
    assert found.dtype == dtype
    assert same(open_weights(found), own)
    plain, config = read_checkpoint(path)
    dit = load_dit(plain, config, dtype=dtype)
    assert dit.blocks[0].self_attn.q.weight.dtype == dtype
    assert dit.blocks[0].self_attn.q.weight.data_ptr() == plain["blocks.0.self_attn.q.weight"].data_ptr()
    assert dit.patch_embedding.weight.dtype == torch.float32
