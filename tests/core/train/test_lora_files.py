"""LoRA files without a host: extracted from fine-tunes, merged, and under other names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_export import as_trained, close, output, run_of
from tiny_dit import DitTask, tiny_config

from gloria_core.checkpoint import load_dit, read_checkpoint, write_checkpoint
from gloria_core.errors import LoraError
from gloria_core.lora import normalise, read_lora
from gloria_core.lora.extract import extract, nearest
from gloria_core.train import TrainConfig
from gloria_core.train.export import export_checkpoint, export_lora, read_trained
from gloria_core.train.lora import main

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    write_checkpoint(path, DitTask().modules()["dit"].state_dict(), tiny_config())
    return path


def test_a_fine_tune_comes_back_from_its_extract(make_config: MakeConfig, base: Path, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="full")
    tuned = export_checkpoint(read_trained(run), tmp_path / "tuned.safetensors")
    lora, again = tmp_path / "lora.safetensors", tmp_path / "again.safetensors"
    assert main(["extract", str(base), str(tuned), str(lora), "--rank", "47"]) == 0
    assert main(["merge", str(base), str(lora), str(again)]) == 0
    weights, config = read_checkpoint(again)
    difference = output(load_dit(weights, config)) - output(as_trained(run))
    assert difference.abs().max() < 2e-3 * output(as_trained(run)).abs().max()
    small = tmp_path / "small.safetensors"
    assert main(["extract", str(base), str(tuned), str(small), "--rank", "2"]) == 0
    assert small.stat().st_size < lora.stat().st_size


def test_a_low_rank_is_the_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(600, 5, generator=generator) @ torch.randn(5, 700, generator=generator)
    found = nearest(true, 5)
    assert found.alpha == 5
    torch.testing.assert_close(found.up @ found.down, true, rtol=1e-3, atol=1e-3)
    noisy = true + 0.1 * torch.randn(600, 700, generator=generator)
    u, s, vh = torch.linalg.svd(noisy, full_matrices=False)
    best = (noisy - u[:, :3] @ torch.diag(s[:3]) @ vh[:3]).square().sum()
    pair = nearest(noisy, 3)
    assert (noisy - pair.up @ pair.down).square().sum() < 1.001 * best


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_a_file_of_every_kind_is_merged_as_it_was_trained(
    make_config: MakeConfig, base: Path, tmp_path: Path, kind: str
) -> None:
    run = run_of(make_config, method__kind=kind, method__full=["dit.head.*"])
    lora = export_lora(read_trained(run), tmp_path / "lora.safetensors")
    assert main(["merge", str(base), str(lora), str(tmp_path / "out.safetensors")]) == 0
    weights, config = read_checkpoint(tmp_path / "out.safetensors")
    assert close(output(load_dit(weights, config)), output(as_trained(run)))


@pytest.mark.parametrize("names", ["comfy", "kohya", "diffusers"])
def test_other_names_mean_the_same(make_config: MakeConfig, tmp_path: Path, names: str) -> None:
    run = run_of(make_config, method__kind="lora", method__preset="identity")
    lora, out = export_lora(read_trained(run), tmp_path / "lora.safetensors"), tmp_path / "out.safetensors"
    assert main(["convert", str(lora), str(out), "--names", names]) == 0
    assert any(k.startswith({"comfy": "diffusion_model.", "kohya": "lora_unet_", "diffusers": "transformer."}[names])
               for k in load_file(out))  # fmt: skip
    first, second = normalise(read_lora(lora)), normalise(read_lora(out))
    assert first.layers.keys() == second.layers.keys()
    for layer, parts in first.layers.items():
        other = second.layers[layer]
        assert close(change(other), change(parts)), layer


def change(parts: Any) -> torch.Tensor:
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    return float(parts["alpha"]) / len(down) * up @ down


def test_what_cannot_be_is_told(make_config: MakeConfig, base: Path, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="lora", method__preset="performance")
    lora = export_lora(read_trained(run), tmp_path / "lora.safetensors")
    assert main(["info", str(lora)]) == 0
    assert main(["convert", str(lora), str(tmp_path / "x"), "--names", "diffusers"]) == 1  # the ears have no name there
    assert main(["convert", str(lora), str(tmp_path / "x"), "--names", "peft"]) == 1
    assert main(["extract", str(base), str(base), str(tmp_path / "x")]) == 1
    assert not (tmp_path / "x").exists()
    with pytest.raises(LoraError, match="at least 1"):
        extract([], {}.get, {}.__getitem__, 0)
    with pytest.raises(LoraError, match="not of one architecture"):
        extract(["a.weight"], lambda _: torch.ones(3, 3), lambda _: torch.ones(3, 4), 1)
