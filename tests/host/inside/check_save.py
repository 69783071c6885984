"""Gloria Save Model: what is saved is the model that was there, with its LoRAs or without, and loads again."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch
from gloria_pack.gloria_core.checkpoint import inspect, read_checkpoint
from gloria_pack.gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import CheckpointError, ConfigError
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host.lora import apply_lora
from gloria_pack.nodes.save import SaveModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

CONFIG = ModelConfig(
    name="tiny", dim=48, ffn_dim=96, num_heads=2, num_layers=2, text_dim=24, text_length=6, freq_dim=32, clip_dim=20,
    clip_positions=4, audio=AudioConfig(kind="mel", feature_dim=20, dim=32), chunk_latents=9,
    anchors=AnchorConfig(mode="cached", global_position=20),
)  # fmt: skip
Q, TABLE = "blocks.0.self_attn.q", "blocks.1.modulation"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def state() -> dict[str, Tensor]:
    shapes = GloriaDiT(CONFIG, device="meta").state_dict()
    return {name: draw(*value.shape, seed=i) for i, (name, value) in enumerate(shapes.items())}


@pytest.fixture
def patcher() -> Any:
    return host_model.build_patcher(state(), CONFIG)


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("loras", "diffusion_models"):
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    return tmp_path


def with_lora(patcher: Any, folders: Path) -> Any:
    changes = {f"{Q}.lora_A.weight": draw(2, 48, seed=1), f"{Q}.lora_B.weight": draw(48, 2, seed=2)}
    changes |= {f"{TABLE}.diff": draw(1, 6, 48, seed=3), f"{Q}.diff_b": draw(48, seed=4)}
    save_file(changes, folders / "loras" / "some.safetensors")
    return apply_lora(patcher, "some.safetensors", 0.5)[0]


def save(patcher: Any, folders: Path, **choices: Any) -> Path:
    given = {"name": "gloria/model", "folder": "output/diffusion_models", "dtype": "as loaded", "with_loras": True}
    listed = SaveModel.execute(patcher, **{**given, **choices}).result[0]
    where = {"output/diffusion_models": "output/diffusion_models", "models/diffusion_models": "diffusion_models"}
    return folders / where[{**given, **choices}["folder"]] / listed


def forward(patcher: Any) -> Tensor:
    patcher.load(patcher.load_device, full_load=True)
    given = draw(1, 16, 2, 4, 6, seed=1), torch.tensor([300.0]), draw(1, 6, 24, seed=2)
    out: Tensor = patcher.model.diffusion_model(*given, clip_fea=draw(1, 4, 20, seed=3))
    patcher.detach()
    return out


def test_a_saved_model_loads_again_and_gives_the_same(patcher: Any, folders: Path) -> None:
    path = save(patcher, folders)
    assert inspect(path).config == CONFIG
    weights, config = read_checkpoint(path)
    own = state()
    assert set(weights) == set(own)
    assert all(torch.equal(weights[name], own[name]) for name in own)
    assert torch.allclose(forward(host_model.build_patcher(weights, config)), forward(patcher), atol=1e-4)


@pytest.mark.parametrize("memory", ["unloaded", "whole", "low VRAM"])
def test_loras_are_worked_in_or_left_out_however_the_model_lies_in_memory(
    patcher: Any, folders: Path, memory: str
) -> None:
    patched, own = with_lora(patcher, folders), state()
    expected = forward(patched)
    if memory != "unloaded":
        patched.load(patched.load_device, lowvram_model_memory=int(memory != "whole"), full_load=memory == "whole")
    path = save(patched, folders)
    without, _ = read_checkpoint(save(patched, folders, with_loras=False))
    patched.detach()
    baked, config = read_checkpoint(path)
    assert torch.allclose(baked[f"{Q}.weight"], own[f"{Q}.weight"] + 0.5 * draw(48, 2, seed=2) @ draw(2, 48, seed=1))
    assert torch.allclose(baked[f"{Q}.bias"], own[f"{Q}.bias"] + 0.5 * draw(48, seed=4))
    assert torch.allclose(baked[TABLE], own[TABLE] + 0.5 * draw(1, 6, 48, seed=3))
    assert torch.allclose(forward(host_model.build_patcher(baked, config)), expected, atol=1e-4)
    assert all(torch.equal(without[name], own[name]) for name in own)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["gloria.loras"]) == [{"file": "some.safetensors", "strength": 0.5}]


def test_the_type_can_be_chosen(patcher: Any, folders: Path) -> None:
    own = state()
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        with safe_open(save(patcher, folders, dtype=name), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                assert torch.equal(file.get_tensor(key), own[key.removeprefix("diffusion_model.")].to(dtype))


def test_scaled_float8_weights_are_written_unpacked(folders: Path) -> None:
    own, scale = state(), torch.tensor(0.02)
    stored = (own[f"{Q}.weight"] / scale).to(torch.float8_e4m3fn)
    quantised = host_model.build_patcher({**own, f"{Q}.weight": stored, f"{Q}.scale_weight": scale}, CONFIG)
    weights, _ = read_checkpoint(save(quantised, folders, dtype="fp32"))
    assert set(weights) == set(own)
    assert torch.equal(weights[f"{Q}.weight"], stored.float() * scale)


def test_nothing_is_overwritten_and_both_folders_are_served(patcher: Any, folders: Path) -> None:
    paths = [save(patcher, folders) for _ in range(2)]
    paths += [save(patcher, folders, folder="models/diffusion_models", name="mine")]
    assert len(set(paths)) == 3
    assert all(path.is_file() for path in paths)


@pytest.mark.parametrize("name", ["", "  ", "../other", "gloria/../../other", "gloria/", "..", "."])
def test_names_that_lead_elsewhere_are_refused(patcher: Any, folders: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a file"):
        save(patcher, folders, name=name)
    with pytest.raises(ConfigError, match="is no name for a file"):
        save(patcher, folders, name=str(folders / "absolute"))
    assert not list(folders.rglob("*.safetensors"))


@pytest.mark.parametrize(("choice", "says"), [({"dtype": "int3"}, "no dtype"), ({"folder": "input"}, "no folder")])
def test_unknown_choices_are_refused(patcher: Any, choice: dict[str, str], says: str) -> None:
    given = {"name": "a", "folder": "output/diffusion_models", "dtype": "bf16", "with_loras": True}
    with pytest.raises(ConfigError, match=says):
        SaveModel.execute(patcher, **{**given, **choice})


def test_a_full_disk_is_told_before_anything_is_written(
    patcher: Any, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10, 0, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"has 0\.0 GB left"):
        save(patcher, folders)
    assert not list(folders.rglob("*.safetensors*"))


def test_a_stop_leaves_no_file(patcher: Any, folders: Path) -> None:
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(patcher, folders)
    assert not list(folders.rglob("*.safetensors*"))


def test_packed_blocks_and_other_models_are_refused(patcher: Any, folders: Path) -> None:
    weight = patcher.model.diffusion_model.get_submodule(Q).weight
    weight.tensor_type = 12
    with pytest.raises(CheckpointError, match="GGUF"):
        save(patcher, folders)
    patcher.model = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match="not a Gloria model"):
        save(patcher, folders)
