"""What a training writes, in the host's own loader, on the host's own Wan model and on ours: as the training saw it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths
import pytest
import torch
from gloria_pack.gloria_core.checkpoint import load_dit, write_checkpoint
from gloria_pack.gloria_core.config import AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import LoraError
from gloria_pack.gloria_core.train import method, train
from gloria_pack.gloria_core.train.config import TrainConfig, from_table
from gloria_pack.gloria_core.train.export import export_run, read_trained
from gloria_pack.gloria_core.types import Anchor, AnchorRole, AnchorSet, TrainBatch
from gloria_pack.nodes.host import training_check
from gloria_pack.nodes.host.model import build_patcher
from safetensors.torch import load_file, save_file
from tiny_wan import tiny, weights
from torch import Tensor, nn

import nodes as stock_nodes

TARGET = f"{__name__}:WanTask"
PLAIN = tiny("t2v", text_length=8)
HEARING = replace(PLAIN, audio=AudioConfig(kind="mel", feature_dim=20, dim=32))
SEEING = tiny("i2v", text_length=8)
MODELS = {"plain": PLAIN, "hearing": HEARING, "seeing": SEEING}
KINDS = ("lora", "lokr", "loha")


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class WanTask:
    """One batch for a tiny Wan, with anchors and, where it hears or sees, sound, image channels and CLIP's tokens."""

    num_held_out = 0
    new_parameters: tuple[str, ...] = ()

    def __init__(self, model: str = "plain") -> None:
        self.config = MODELS[model]

    def modules(self) -> dict[str, nn.Module]:
        return {"dit": load_dit(weights(self.config), self.config)}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        heard = noise(1, 3, 8, 20, seed=step + 9) if self.config.audio else None
        pictures = AnchorSet((Anchor(AnchorRole.VIEW, "left", noise(1, 16, 1, 4, 4, seed=5)),))
        sees = self.config.has_image_channels
        return TrainBatch(
            noise(1, 16, 3, 4, 4, seed=step), context=noise(1, 8, 4096, seed=3), num_prefix=0 if sees else 1,
            audio=heard, anchors=pictures, image=noise(1, 20, 3, 4, 4, seed=6) if sees else None,
            clip_fea=noise(1, 257, 1280, seed=7) if sees else None,
        )  # fmt: skip

    def held_out(self, index: int) -> TrainBatch:
        raise NotImplementedError

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _with_gradients(_without_gradients: None) -> Iterator[None]:
    """Training is another process's matter in the host; here it happens in this one."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@pytest.fixture(autouse=True)
def loras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", place)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setitem(sys.modules, __name__, sys.modules[WanTask.__module__])
    return tmp_path


def settings(out: Path, kind: str, *, model: str = "plain", **chosen: Any) -> TrainConfig:
    return from_table(
        {
            "run": {"out": str(out), "total_steps": 3, "device": "cpu"},
            "task": {"target": TARGET, "options": {"model": model}},
            "method": {"kind": kind, "rank": 4, "alpha": 3.0, **chosen},
            "optim": {"lr": 0.02, "warmup_steps": 0, "ema_decay": 0.0},
            "log": {"log_every": 0, "held_out_every": 0, "sample_every": 0, "checkpoint_every": 0},
        }
    )


def as_trained(run: Path, config: TrainConfig) -> dict[str, Tensor]:
    """The network's weights as they were at the end of the training, adapters worked in by peft itself."""
    trained = read_trained(run)
    dit = WanTask(**config.task.options).modules()["dit"]
    method.add_adapters(dit, config.method, 0)
    parameters, _ = method.choose_trained({"dit": dit}, config.run, config.method)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(trained.weights["dit"][name.removeprefix("dit.")])
    for module in dit.modules():
        if hasattr(module, "base_layer"):
            module.merge()
    return {method.plain_name(n): p.detach() for n, p in dit.named_parameters() if not method.is_adapter(f".{n}")}


def in_host(patcher: Any, name: str) -> dict[str, Tensor]:
    """The network's weights as the host computes with them, under the stock LoRA node's patches."""
    patched = stock_nodes.LoraLoaderModelOnly().load_lora_model_only(patcher, name, 1.0)[0]
    patched.load(patched.load_device, full_load=True)
    found = {n: p.detach().float().clone() for n, p in patched.model.diffusion_model.named_parameters()}
    patched.detach()
    return found


def same(expected: dict[str, Tensor], found: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    shared = found.keys() & expected.keys() & before.keys()
    changed = [name for name in sorted(shared) if not torch.equal(expected[name], before[name])]
    assert len(changed) > 10
    for name in changed:
        scale = float((expected[name] - before[name]).abs().max())
        assert scale > 1e-4, name
        worst = float((found[name] - expected[name]).abs().max())
        assert worst < 1e-5 * max(1.0, float(expected[name].abs().max())), f"{name} is {worst:.2g} off"


@pytest.mark.parametrize(("kind", "model"), [*((kind, "plain") for kind in KINDS), ("lora", "seeing")])
def test_the_stock_node_gives_what_the_training_saw(
    loras: Path, kind: str, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    image_branch = {"layers": ["blocks.*.cross_attn.[kv]_img"]} if model == "seeing" else {}
    config = settings(loras / "run", kind, model=model, **image_branch)
    train(config)
    written = export_run(loras / "run")
    (loras / "trained.safetensors").write_bytes(written.read_bytes())
    expected, before = as_trained(loras / "run", config), weights(MODELS[model])
    with torch.inference_mode():
        stock = comfy.sd.load_diffusion_model_state_dict(weights(MODELS[model]))
        same(expected, in_host(stock, "trained.safetensors"), before)
        same(expected, in_host(build_patcher(weights(MODELS[model]), MODELS[model]), "trained.safetensors"), before)
    image_keys = [name for name in expected if ".k_img." in name and not torch.equal(expected[name], before[name])]
    assert bool(image_keys) == (model == "seeing")
    assert not any("not loaded" in record.message for record in caplog.records)
    told = training_check.check_file(loras / "trained.safetensors", config)
    assert "the stock LoRA loader uses all" in told
    assert "on a stock Wan model" in told


def test_ears_are_trained_whole_and_come_along(loras: Path) -> None:
    config = settings(loras / "run", "lora", model="hearing", preset="performance")
    train(config)
    (loras / "trained.safetensors").write_bytes(export_run(loras / "run").read_bytes())
    expected, before = as_trained(loras / "run", config), weights(HEARING)
    with torch.inference_mode():
        found = in_host(build_patcher(weights(HEARING), HEARING), "trained.safetensors")
    same(expected, found, before)
    assert any("audio" in name and not torch.equal(expected[name], before[name]) for name in expected)
    assert "more on a Gloria model" in training_check.check_file(loras / "trained.safetensors", config)


def test_a_part_that_a_loader_would_leave_out_is_found(loras: Path) -> None:
    config = settings(loras / "run", "lora")
    train(config)
    written = export_run(loras / "run")
    damaged = {key.replace("blocks.1.ffn.2", "blocks.7.ffn.2"): t for key, t in load_file(written).items()}
    damaged = {key: t.contiguous() for key, t in damaged.items()}
    from safetensors import safe_open

    with safe_open(written, "pt") as file:
        header = file.metadata()
    save_file(damaged, loras / "damaged.safetensors", metadata=header)
    with pytest.raises(LoraError, match=r"3 parts that this model would leave out, such as .*blocks\.7"):
        training_check.check_file(loras / "damaged.safetensors", config)


@pytest.mark.parametrize("model", ["plain", "seeing"])
def test_a_whole_model_is_loaded(loras: Path, model: str) -> None:
    config = settings(loras / "run", "full", model=model)
    written = loras / "model.safetensors"
    write_checkpoint(written, weights(MODELS[model]), MODELS[model])
    assert "loaded as a model" in training_check.check_file(written, config)


def test_the_configuration_of_a_model_survives(loras: Path) -> None:
    config = settings(loras / "run", "lora")
    train(config)
    trained = read_trained(loras / "run")
    assert isinstance(trained.model, ModelConfig)
    assert trained.model == PLAIN
    assert isinstance(export_run(loras / "run"), Path)
