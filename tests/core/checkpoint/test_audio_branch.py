"""Public audio branches out of their files: every spelling, the true shapes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gloria_core.checkpoint import audio_branch, write_checkpoint
from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.errors import CheckpointError
from gloria_core.families import FAMILIES as MODELS
from gloria_core.model import GloriaDiT
from tests.core.audio_families import (
    BLOCKS,
    DIM,
    FAMILIES,
    Names,
    base_config,
    fantasytalking_file,
    humo_file,
    multitalk_file,
)

File = dict[str, Tensor]


def written(tmp_path: Path, tensors: File, name: str = "branch.safetensors", **notes: str) -> Path:
    path = tmp_path / name
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata=notes or None)
    return path


def rekeyed(tensors: File, *changes: tuple[str, str], head: str = "") -> File:
    for old, new in changes:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    return {head + name: tensor for name, tensor in tensors.items()}


SPELLINGS: dict[str, tuple[str, Callable[[File], File]]] = {
    "FantasyTalking, the authors' names": ("FantasyTalking", lambda w: w),
    "FantasyTalking, names without the two tables": (
        "FantasyTalking",
        lambda w: rekeyed(w, ("audio_processor.", ""), (".processor.", ".")),
    ),
    "FantasyTalking, projection without a table": ("FantasyTalking", lambda w: rekeyed(w, ("proj_model.", ""))),
    "FantasyTalking, inside a prefix": (
        "FantasyTalking",
        lambda w: rekeyed(w, ("audio_processor.", ""), head="diffusion_model."),
    ),
    "MultiTalk, the authors' names": ("MultiTalk", lambda w: w),
    "MultiTalk, the projection renamed": ("MultiTalk", lambda w: rekeyed(w, ("audio_proj.", "multitalk_audio_proj."))),
    "MultiTalk, inside a prefix": ("MultiTalk", lambda w: rekeyed(w, head="model.diffusion_model.")),
    "HuMo, the authors' names": ("HuMo", lambda w: w),
    "HuMo, inside a prefix": ("HuMo", lambda w: rekeyed(w, head="model.")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_our_names(tmp_path: Path, spelling: str) -> None:
    family, respell = SPELLINGS[spelling]
    config, file, ours = FAMILIES[family]()
    branch = audio_branch.read(written(tmp_path, respell(file), "anything.safetensors"))
    assert family in branch.family
    assert (branch.config, branch.dim, branch.num_layers, branch.num_left_out) == (config, DIM, BLOCKS, 0)
    assert branch.weights.keys() == ours.keys()
    assert all(torch.equal(branch.weights[name], tensor) for name, tensor in ours.items())


def test_an_archive_of_two_tables(tmp_path: Path) -> None:
    """The authors' own .ckpt."""
    config, file, ours = FAMILIES["FantasyTalking"]()
    tables: dict[str, File] = {"proj_model": {}, "audio_processor": {}}
    for name, tensor in file.items():
        table, inner = name.split(".", 1)
        tables[table][inner] = tensor
    torch.save(tables, tmp_path / "fantasytalking_model.ckpt")
    branch = audio_branch.read(tmp_path / "fantasytalking_model.ckpt")
    assert branch.config == config
    assert all(torch.equal(branch.weights[name], tensor) for name, tensor in ours.items())


def test_code_in_an_archive_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was run",))

    torch.save({"proj_model": Harmful()}, tmp_path / "branch.ckpt")
    with pytest.raises(CheckpointError, match="never run"):
        audio_branch.read(tmp_path / "branch.ckpt")
    assert not (tmp_path / "was run").exists()


def test_a_whole_model_gives_its_branch(tmp_path: Path) -> None:
    """HuMo's files hold the video model too."""
    _, file, ours = FAMILIES["HuMo"]()
    video = dict(GloriaDiT(base_config()).state_dict())
    branch = audio_branch.read(written(tmp_path, {**file, **video}))
    assert branch.weights.keys() == ours.keys()
    assert branch.num_left_out == len(video)


def test_weights_are_mapped_and_keep_their_type(tmp_path: Path) -> None:
    _, file, _ = FAMILIES["MultiTalk"]()
    branch = audio_branch.read(written(tmp_path, {name: tensor.half() for name, tensor in file.items()}))
    assert {tensor.dtype for tensor in branch.weights.values()} == {torch.float16}


@pytest.mark.parametrize("scale", ["scale_weight", "weight_scale"])
def test_float8_with_scales_is_multiplied_out(tmp_path: Path, scale: str) -> None:
    _, file, ours = FAMILIES["MultiTalk"]()
    small = dict(file)
    for name in [name for name, tensor in file.items() if tensor.ndim == 2]:
        small[name] = (file[name] / 0.01).to(torch.float8_e4m3fn)
        small[name.replace("weight", scale)] = torch.tensor(0.01)
        small[name.replace("weight", "input_scale")] = torch.tensor(1.0)
    small["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    branch = audio_branch.read(written(tmp_path, small))
    assert branch.weights.keys() == ours.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(branch.weights[name].float(), tensor, atol=0.15, rtol=0.08)
    del small["blocks.1.audio_cross_attn.proj." + scale]
    with pytest.raises(CheckpointError, match="has none"):
        audio_branch.read(written(tmp_path, small))


def test_glorias_own_branch_comes_out_of_a_checkpoint(tmp_path: Path) -> None:
    config = replace(base_config(), audio=AudioConfig(kind="mel", feature_dim=5, dim=12))
    weights = GloriaDiT(config).state_dict()
    write_checkpoint(tmp_path / "gloria.safetensors", weights, config)
    branch = audio_branch.read(tmp_path / "gloria.safetensors")
    assert (branch.family, branch.config, branch.num_layers) == ("Gloria", config.audio, BLOCKS)
    assert branch.weights.keys() == {name for name in weights if "audio" in name}
    only = {f"diffusion_model.{name}": weights[name] for name in branch.weights}
    alone = audio_branch.read(written(tmp_path, only, **{"gloria.config": config.to_json()}))
    assert alone.weights.keys() == branch.weights.keys()
    with pytest.raises(CheckpointError, match="lost the configuration"):
        audio_branch.read(written(tmp_path, only))


# The true shapes, without memory for them.


def sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of the true size whose numbers are holes on the disk."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def true_shapes(make: Callable[..., File], monkeypatch: pytest.MonkeyPatch, **sizes: int) -> dict[str, tuple[int, ...]]:
    """What ``audio_families`` would draw at the true sizes, without drawing it."""
    shapes: dict[str, tuple[int, ...]] = {}
    monkeypatch.setattr(Names, "draw", lambda self, name, *shape: shapes.__setitem__(name, shape))
    make(5120, 40, **sizes)
    return shapes


TRUE = {
    "FantasyTalking": (fantasytalking_file, {"features": 768, "width": 2048}, 83, 840_441_856),
    "MultiTalk": (
        multitalk_file,
        {"features": 9216, "width": 768, "tokens": 32, "hidden": 512},
        330,
        2_486_860_800,
    ),
    "HuMo": (humo_file, {"features": 6400, "width": 1536, "tokens": 16, "hidden": 512}, 488, 2_767_000_000),
}


@pytest.mark.parametrize("family", TRUE)
def test_the_true_shapes_fit_the_true_model(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, sizes, number, parameters = TRUE[family]
    shapes = true_shapes(make, monkeypatch, **sizes)
    assert len(shapes) == number
    branch = audio_branch.read(sparse(tmp_path / "true.safetensors", shapes))
    model = MODELS["Wan2.1 I2V 14B 480P"]
    config = audio_branch.joined(model, branch, strength=0.5)
    assert config.audio == replace(branch.config, strength=0.5)
    assert config.fps == {"FantasyTalking": 23.0}.get(family, 25.0)
    dit = GloriaDiT(config, device="meta")
    own = {name: tensor for name, tensor in dit.state_dict().items() if "audio" in name}
    assert {name: tuple(tensor.shape) for name, tensor in branch.weights.items()} == {
        name: tuple(tensor.shape) for name, tensor in own.items()
    }
    assert sum(tensor.numel() for tensor in own.values()) == pytest.approx(parameters, rel=0.02)
    for other in ("Wan2.1 T2V 1.3B", "Wan2.2 TI2V 5B"):
        with pytest.raises(CheckpointError, match=r"width 5120 with 40 blocks.*a Wan 14B"):
            audio_branch.joined(MODELS[other], branch)


# What is refused.


def without(family: str, *names: str) -> File:
    file = FAMILIES[family]()[1]
    return {name: tensor for name, tensor in file.items() if name not in names}


def reshaped(family: str, name: str, *shape: int) -> File:
    return {**FAMILIES[family]()[1], name: torch.zeros(shape)}


REFUSED: dict[str, tuple[File, str]] = {
    "a block's keys are missing": (
        without("FantasyTalking", "audio_processor.blocks.1.cross_attn.processor.k_proj.weight"),
        r"1 of 7 weights are missing .*blocks.1.audio_attn.k.weight",
    ),
    "the projection is missing": (without("FantasyTalking", "proj_model.proj.weight"), "lacks 'audio_embedding.proj"),
    "a bias is missing": (without("MultiTalk", "blocks.0.norm_x.bias"), "1 of 26 weights are missing"),
    "the first layer for later latents is missing": (
        without("MultiTalk", "audio_proj.proj1_vf.weight"), "audio_embedding.proj1_vf.weight",
    ),
    "a block in the middle is missing": (
        {n: t for n, t in multitalk_file(blocks=3).items() if not n.startswith("blocks.1.")},
        "8 of 34 weights are missing",
    ),
    "a norm of keys is missing": (
        without("HuMo", "blocks.1.audio_cross_attn_wrapper.audio_cross_attn.norm_k.weight"), "audio_attn.norm_k",
    ),
    "blocks of two widths": (
        reshaped("HuMo", "blocks.1.audio_cross_attn_wrapper.audio_cross_attn.q.weight", 24, 24), r"widths \[24, 48\]",
    ),
    "an output of another shape": (
        reshaped("MultiTalk", "blocks.0.audio_cross_attn.proj.weight", DIM, 24), "another shape",
    ),
    "features of no whole width": (reshaped("MultiTalk", "audio_proj.proj1_vf.weight", 10, 70), "another shape"),
    "a norm of nothing": (reshaped("HuMo", "audio_proj.audio_proj_glob_norm.layer.weight", 0), "no sense"),
    "a tensor of a variant": (
        {**multitalk_file(), "blocks.0.audio_cross_attn.extra.weight": torch.zeros(2)},
        "1 of its tensors are not known",
    ),
    "a weight under two names": (
        {**multitalk_file(), **rekeyed(multitalk_file(), ("audio_proj.", "multitalk_audio_proj."))}, "twice",
    ),
    "LongCat's": ({**multitalk_file(), "blocks.0.audio_cross_attn.q_norm.weight": torch.zeros(2)}, "LongCat"),
    "S2V's": ({"casual_audio_encoder.weights": torch.zeros(1, 25, 1, 1)}, "S2V"),
    "a LoRA": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.zeros(2, 2)}, "is a LoRA"),
    "a VAE": ({"decoder.middle.0.residual.0.gamma": torch.zeros(2)}, "is a VAE"),
    "a video model": ({"patch_embedding.weight": torch.zeros(2)}, "without an audio branch"),
    "an audio encoder": ({"feature_extractor.conv_layers.0.conv.weight": torch.zeros(2)}, "wav2vec2"),
    "something else": ({"some.weight": torch.zeros(2)}, "called some.weight"),
    "whole numbers": (
        {**multitalk_file(), "audio_proj.proj2.weight": torch.zeros(10, 10, dtype=torch.int8)}, "torch.int8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_is_loaded_in_part(case: str, tmp_path: Path) -> None:
    tensors, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message) as told:
        audio_branch.read(written(tmp_path, tensors))
    assert "branch.safetensors" in str(told.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"\x08\0\0\0\0\0\0\0garbage!", "not safetensors"), (b"GGUF" + bytes(60), "GGUF|broken|cut")],
)
def test_broken_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "branch.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        audio_branch.read(tmp_path / "branch.safetensors")


def test_a_branch_replaces_the_one_that_is_there() -> None:
    config, _, ours = FAMILIES["MultiTalk"]()
    branch = audio_branch.AudioBranch(
        family="MultiTalk", config=config, weights=ours, dim=DIM, num_layers=BLOCKS, fps=25.0, num_left_out=0
    )
    before = replace(base_config(), audio=AudioConfig())
    assert audio_branch.joined(before, branch).audio == config
    assert ModelConfig.from_json(audio_branch.joined(before, branch).to_json()).audio == config
