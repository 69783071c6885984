"""LoRAs as a training run writes them: here and in the stock node, with their settings and their audio branch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sd
import pytest
import torch
from gloria_pack.gloria_core.config import AnchorConfig, ModelConfig
from gloria_pack.gloria_core.lora import LowRank, write_lora
from gloria_pack.gloria_core.model import GloriaDiT
from safetensors.torch import save_file
from tiny_lora import CONFIG, LAYERS, build, close, draw, kept, layer, ours, stock, used

pytest_plugins = ["tiny_lora"]  # its fixtures


def trained(loras: Path, config: ModelConfig) -> None:
    """Write a LoRA as a training run does: low-rank changes, a table, and the audio branch as a whole."""
    state = GloriaDiT(config, device="meta").state_dict()
    pairs = {
        name: LowRank(draw(2, 48, seed=i), draw(48, 2, seed=9 + i), 1.5) for i, name in enumerate(list(LAYERS)[1:3])
    }
    whole = {
        name: draw(*w.shape, seed=5) for name, w in state.items() if "audio" in name or name == "blocks.1.modulation"
    }
    write_lora(loras / "trained.safetensors", pairs, config, differences=whole)


def test_what_we_write_the_stock_node_loads_with_the_same_effect(
    patcher: Any, loras: Path, load: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    trained(loras, CONFIG)
    mine, report = ours(patcher, "trained.safetensors", 0.8)
    names = sorted({key.removeprefix("diffusion_model.").rpartition(".")[0] for key in mine.patches})
    assert len(names) > 6
    load(mine)
    got = {name: used(mine, name) for name in names}
    mine.detach()
    before = {name: kept(patcher, name) for name in names}
    theirs = load(stock(patcher, "trained.safetensors", 0.8))
    assert not any("not loaded" in record.message.lower() for record in caplog.records)
    for name in names:
        for a, b in zip(got[name], used(theirs, name), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert close(a, b), name
        assert (got[name][0] - before[name][0]).abs().max() > 1e-2, name
    theirs.detach()
    assert "Not used" not in report
    assert "Warning" not in report


def test_a_trained_lora_brings_its_settings_and_its_audio_branch(loras: Path) -> None:
    theirs = replace(CONFIG, anchors=AnchorConfig(mode="cached", global_position=20))
    trained(loras, theirs)
    deaf = build(replace(CONFIG, audio=None))
    model, report = ours(deaf, "trained.safetensors")
    assert model.model.gloria.anchors == theirs.anchors
    assert model.model.gloria.audio == theirs.audio
    assert "anchors are placed" in report
    assert "brings an audio branch" in report
    assert "Warning" not in report
    model.load(model.load_device, full_load=True)
    assert torch.equal(layer(model, "blocks.0.audio_attn.v").weight, draw(48, 32, seed=5))
    model.detach()
    assert deaf.model.gloria.audio is None


def test_settings_that_are_not_taken_over_are_warned_about(loras: Path) -> None:
    trained(loras, replace(CONFIG, anchors=AnchorConfig(mode="cached")))
    model, report = ours(build(), "trained.safetensors", settings_of_lora=False)
    assert model.model.gloria.anchors.mode == "joint"
    assert "Warning" in report
    assert "anchors.mode cached (this model: joint)" in report


def test_the_hosts_own_wan_takes_loras_of_every_naming_but_no_tables(loras: Path) -> None:
    config = ModelConfig(dim=128, num_heads=1, num_layers=1, ffn_dim=64, chunk_latents=9)
    shapes = GloriaDiT(config, device="meta").state_dict()
    wan = comfy.sd.load_diffusion_model_state_dict({name: draw(*w.shape) for name, w in shapes.items()})
    change = {"blocks.0.attn1.to_q.diff": draw(128, 128, seed=7), "blocks.0.diff_m": draw(1, 6, 128)}
    save_file({f"transformer.{name}": t for name, t in change.items()}, loras / "some.safetensors")
    model, report = ours(wan, "some.safetensors")
    assert list(model.patches) == ["diffusion_model.blocks.0.self_attn.q.weight"]
    assert "only in a model of Load Gloria DiT" in report
