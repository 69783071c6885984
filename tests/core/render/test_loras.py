"""LoRAs in a render: the same as weights that have them in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gloria_core.errors import GloriaError
from tests.core.render.test_pipeline import made, written
from tests.core.render.tiny_pipeline import write_pipeline

pytestmark = pytest.mark.slow

LAYER = "blocks.1.attn1.to_k"
STRENGTH, ALPHA, RANK = 0.7, 8.0, 4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def write_lora(path: Path) -> None:
    parts = {"lora_A.weight": draw(RANK, 128, seed=1), "lora_B.weight": draw(128, RANK, seed=2)}
    parts["alpha"] = torch.tensor(ALPHA)
    save_file({f"transformer.{LAYER}.{name}": tensor for name, tensor in parts.items()}, path)


def with_change(folder: Path, name: str) -> None:
    """Work the change into the file of a transformer."""
    [file] = (folder / name).glob("*.safetensors")
    weights = load_file(file)
    product = draw(128, RANK, seed=2) @ draw(RANK, 128, seed=1)
    weights[f"{LAYER}.weight"] = weights[f"{LAYER}.weight"] + STRENGTH * ALPHA / RANK * product
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize("on", ["both", "high", "low"])
def test_a_lora_is_worked_into_the_experts_that_it_is_for(tmp_path: Path, on: str) -> None:
    plain = write_pipeline(tmp_path / "plain", experts=True)
    changed = Path(shutil.copytree(plain, tmp_path / "changed"))
    for name in {"both": ["transformer", "transformer_2"], "high": ["transformer"], "low": ["transformer_2"]}[on]:
        with_change(changed, name)
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    write_lora(tmp_path / "k.safetensors")
    loras = [{"file": str(tmp_path / "k.safetensors"), "strength": STRENGTH, "on": on}]
    _, [found, *_] = made(written(folders[0], plain, model={"loras": loras}))
    _, [expected, *_] = made(written(folders[1], changed))
    _, [without, *_] = made(written(folders[2], plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert float((found - without).abs().max()) > 1e-3


def test_another_strength_is_another_model(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "plain")
    write_lora(tmp_path / "k.safetensors")
    lora = {"file": str(tmp_path / "k.safetensors")}
    made(written(tmp_path, pipeline, model={"loras": [lora]}))
    lines, _ = made(written(tmp_path, pipeline, model={"loras": [lora | {"strength": 0.5}]}))
    assert any("its model changed" in line for line in lines)
    lines, _ = made(written(tmp_path, pipeline, model={"loras": [lora]}))
    assert any(line.endswith("on disk and used again.") for line in lines)


def test_a_lora_for_an_expert_that_there_is_not(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "plain")
    write_lora(tmp_path / "k.safetensors")
    with pytest.raises(GloriaError, match="the pipeline has one transformer"):
        made(written(tmp_path, pipeline, model={"loras": [{"file": str(tmp_path / "k.safetensors"), "on": "low"}]}))


def test_a_lora_of_something_else(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path / "plain")
    save_file({"lora_unet_down_blocks_0.lora_down.weight": draw(2, 4, seed=1)}, tmp_path / "sd.safetensors")
    with pytest.raises(GloriaError, match=r"sd\.safetensors"):
        made(written(tmp_path, pipeline, model={"loras": [{"file": str(tmp_path / "sd.safetensors")}]}))
