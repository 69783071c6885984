"""Quantised files: kept as small as they are, computed with as their scales say, patched by LoRAs like any other."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.sd
import folder_paths
import pytest
import torch
from gloria_pack.gloria_core.errors import ConfigError
from gloria_pack.nodes.host import checkpoints
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host.operations import SCALE
from safetensors.torch import save_file
from tiny_gloria import little_room
from tiny_wan import draw, text, tiny, weights
from torch import Tensor

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
CONFIG = tiny("t2v", num_layers=1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def is_matrix(name: str, value: Tensor) -> bool:
    """The file keeps the first text layer and the head in full, as many public ones do."""
    return value.ndim == 2 and name.endswith(".weight") and name not in ("text_embedding.0.weight", "head.head.weight")


def scaled(dtype: torch.dtype, *, rows: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The weights as stored, their scales by layer, and what both mean."""
    stored, scales, meant = {}, {}, {}
    for name, value in weights(CONFIG).items():
        stored[name] = meant[name] = value
        if is_matrix(name, value):
            most = value.abs().amax(dim=1, keepdim=True) if rows else value.abs().max()
            scale = most / torch.finfo(dtype).max
            stored[name] = (value / scale).to(dtype)
            meant[name] = stored[name].float() * scale
            scales[name.removesuffix(".weight")] = scale.float()
    return stored, scales, meant


def write(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> str:
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "tiny.safetensors", metadata)
    return "tiny.safetensors"


def spelled(folder: Path, how: str, dtype: torch.dtype, *, rows: bool = False) -> tuple[str, dict[str, Tensor]]:
    """Write the file in one of the spellings; return its name, and what its weights mean."""
    stored, scales, meant = scaled(dtype, rows=rows)
    kind = str(dtype).removeprefix("torch.")
    layers = {layer: {"format": kind} for layer in scales}
    if how == "fp8_scaled":
        extra = {f"{layer}.scale_weight": scale for layer, scale in scales.items()}
        return write(folder, stored | extra | {"scaled_fp8": torch.zeros(0, dtype=dtype)}), meant
    extra = {f"{layer}.weight_scale": scale for layer, scale in scales.items()}
    extra |= {f"{layer}.input_scale": torch.ones(()) for layer in scales}
    if how == "metadata":
        return write(folder, stored | extra, {"_quantization_metadata": json.dumps({"layers": layers})}), meant
    blobs = {f"{layer}.comfy_quant": torch.tensor(list(json.dumps(entry).encode()), dtype=torch.uint8)
             for layer, entry in layers.items()}  # fmt: skip
    return write(folder, stored | extra | blobs), meant


def run(patcher: Any) -> Tensor:
    noise, latent = draw(1, 16, 2, 8, 8, seed=9), torch.zeros(1, 16, 2, 8, 8)
    return comfy.sample.sample(
        patcher, noise, 2, 3.0, "euler", "simple", text(1), text(2), latent, seed=7, disable_pbar=True
    )


def kept(patcher: Any) -> dict[str, torch.dtype]:
    return {name: value.dtype for name, value in patcher.model.diffusion_model.named_parameters()}


@pytest.mark.parametrize("dtype", FP8)
@pytest.mark.parametrize("how", ["fp8_scaled", "metadata", "comfy_quant"])
def test_scaled_matrices_mean_what_their_scales_say(folder: Path, how: str, dtype: torch.dtype) -> None:
    name, meant = spelled(folder, how, dtype)
    patcher = checkpoints.load_model(name, "as trained")
    eight = {name for name, kind in kept(patcher).items() if kind == dtype}
    assert eight == {name for name, value in weights(CONFIG).items() if is_matrix(name, value)}
    made = run(patcher)
    assert (made - run(host_model.build_patcher(meant, CONFIG))).abs().max() < 1e-4
    assert (made - run(host_model.build_patcher(weights(CONFIG), CONFIG))).abs().max() > 1e-3


def test_the_hosts_own_loader_agrees(folder: Path) -> None:
    stored, scales, _ = scaled(torch.float8_e4m3fn)
    for name, value in weights(CONFIG).items():
        if name.endswith("bias"):  # the host rounds these too, and matrices that have no scale
            stored[name] = value.to(torch.float8_e4m3fn).float()
        if value.ndim == 2 and not is_matrix(name, value):
            scale = value.abs().max() / 448
            stored[name], scales[name.removesuffix(".weight")] = (value / scale).to(torch.float8_e4m3fn), scale
    extra = {f"{layer}.scale_weight": scale for layer, scale in scales.items()}
    name = write(folder, stored | extra | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)})
    theirs = comfy.sd.load_diffusion_model(str(folder / name))
    assert (run(checkpoints.load_model(name, "as trained")) - run(theirs)).abs().max() < 1e-4


def test_a_scale_for_each_row(folder: Path) -> None:
    name, meant = spelled(folder, "fp8_scaled", torch.float8_e4m3fn, rows=True)
    patcher = checkpoints.load_model(name, "as trained")
    assert (run(patcher) - run(host_model.build_patcher(meant, CONFIG))).abs().max() < 1e-4


@pytest.mark.parametrize("rows", [False, True], ids=["one scale", "a scale for each row"])
@pytest.mark.parametrize("partly", [False, True], ids=["loaded", "partly loaded"])
def test_a_lora_on_scaled_matrices(folder: Path, partly: bool, rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    name, meant = spelled(folder, "fp8_scaled", torch.float8_e4m3fn, rows=rows)
    difference = 0.1 * draw(128, 128, seed=5)
    lora = {
        "diffusion_model.blocks.0.self_attn.q.diff": difference,
        "diffusion_model.head.head.diff_b": draw(64, seed=6),
    }
    patcher = checkpoints.load_model(name, "as trained")
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    with monkeypatch.context() as room:
        if partly:
            little_room(room)
        made = run(patched)
    assert patched.model.model_lowvram == partly
    plain = run(host_model.build_patcher(meant, CONFIG))
    meant["blocks.0.self_attn.q.weight"] = meant["blocks.0.self_attn.q.weight"] + difference
    meant["head.head.bias"] = meant["head.head.bias"] + lora["diffusion_model.head.head.diff_b"]
    expected = run(host_model.build_patcher(meant, CONFIG))
    off = (made - expected).abs().mean()
    assert off < (1e-5 if partly else 0.05 * (expected - plain).abs().mean())  # a loaded matrix is rounded to float8
    assert (run(patcher) - plain).abs().max() < 1e-4


def test_what_comes_beside_scaled_matrices_stays_in_full(folder: Path) -> None:
    """In the host's own layers for such files it would be rounded to float8 without a word (wan.md, trap 15)."""
    name, _ = spelled(folder, "fp8_scaled", torch.float8_e4m3fn)
    patcher = checkpoints.load_model(name, "as trained")
    fine = weights(CONFIG)["text_embedding.0.weight"] * 1.01
    rebuilt = host_model.rebuild(patcher, patcher.model.gloria, {"text_embedding.0.weight": fine})
    assert torch.equal(rebuilt.model.diffusion_model.text_embedding[0].weight, fine)
    scales = [name for name in kept(rebuilt) if name.endswith(SCALE)]
    assert scales == [name for name in kept(patcher) if name.endswith(SCALE)]
    assert (run(rebuilt) - run(patcher)).abs().max() > 1e-4


def test_a_scaled_model_is_saved_as_one(folder: Path) -> None:
    name, _ = spelled(folder, "fp8_scaled", torch.float8_e4m3fn)
    patcher = checkpoints.load_model(name, "as trained")
    made = run(patcher)
    saved = {name: value.clone().contiguous() for name, value in patcher.model.state_dict_for_saving().items()}
    save_file(saved, folder / "saved.safetensors")
    assert torch.equal(run(checkpoints.load_model("saved.safetensors", "as trained")), made)


def plain_float8(folder: Path) -> tuple[str, dict[str, Tensor]]:
    stored = {n: v.to(torch.float8_e4m3fn) if is_matrix(n, v) else v for n, v in weights(CONFIG).items()}
    return write(folder, stored), {name: value.float() for name, value in stored.items()}


def test_plain_float8_is_kept_and_nothing_else_is_rounded(folder: Path) -> None:
    name, meant = plain_float8(folder)
    patcher = checkpoints.load_model(name, "as trained")
    eight = {name for name, kind in kept(patcher).items() if kind == torch.float8_e4m3fn}
    assert eight == {name for name, value in meant.items() if is_matrix(name, value)}
    made = run(patcher)
    assert (made - run(host_model.build_patcher(meant, CONFIG))).abs().max() < 1e-4
    assert (made - run(comfy.sd.load_diffusion_model(str(folder / name)))).abs().max() < 1e-4


@pytest.mark.parametrize("choice", ["fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"])
def test_matrices_are_made_float8_where_that_is_asked_for(folder: Path, choice: str) -> None:
    name = write(folder, weights(CONFIG))
    patcher = checkpoints.load_model(name, "as trained", choice)
    dtype = torch.float8_e5m2 if "e5m2" in choice else torch.float8_e4m3fn
    eight = {name for name, kind in kept(patcher).items() if kind == dtype}
    assert eight == {name for name, value in weights(CONFIG).items() if value.ndim == 2}
    rounded = {n: v.to(dtype).float() if v.ndim == 2 else v for n, v in weights(CONFIG).items()}
    assert (run(patcher) - run(host_model.build_patcher(rounded, CONFIG))).abs().max() < 1e-4


def test_a_choice_that_changes_nothing_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, _ = spelled(folder, "fp8_scaled", torch.float8_e4m3fn)
    with caplog.at_level(logging.WARNING):
        checkpoints.load_model(name, "as trained", "fp8_e5m2")
    assert "fp8_e5m2 changes nothing" in caplog.text
    with pytest.raises(ConfigError, match=r"no weight_dtype 'int3'; use one of: default"):
        checkpoints.load_model(name, "as trained", "int3")


def test_products_in_float8_are_near_where_the_device_has_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, meant = spelled(folder, "fp8_scaled", torch.float8_e4m3fn)
    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    used: list[int] = []
    real = comfy.ops.fp8_linear
    monkeypatch.setattr(comfy.ops, "fp8_linear", lambda layer, x: used.append(1) or real(layer, x))
    fast = run(checkpoints.load_model(name, "as trained", "fp8_e4m3fn_fast"))
    exact = run(host_model.build_patcher(meant, CONFIG))
    assert used
    assert (fast - exact).abs().mean() < 0.1 * exact.abs().mean()
