from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gloria_core.config import AnchorConfig, ModelConfig
from gloria_core.errors import LoraError
from gloria_core.lora import LowRank, normalise, read_lora, write_lora

Q = "blocks.0.self_attn.q"
CONFIG = ModelConfig(name="trained", anchors=AnchorConfig(expression_step=50))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_written_is_read_back_with_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lora.safetensors"
    change = LowRank(draw(4, 6), draw(8, 4, seed=1), alpha=2.0)
    whole = {
        "blocks.0.audio_attn.v.weight": draw(8, 3), "blocks.0.audio_attn.v.bias": draw(8),
        "blocks.0.modulation": draw(1, 6, 8),
    }  # fmt: skip
    write_lora(path, {Q: change}, CONFIG, differences=whole, notes={"ss_steps": "10"})
    file = read_lora(path)
    assert file.metadata["ss_steps"] == "10"
    assert sorted(file.tensors) == [
        "diffusion_model.blocks.0.audio_attn.v.diff",
        "diffusion_model.blocks.0.audio_attn.v.diff_b",
        "diffusion_model.blocks.0.modulation.diff",
        f"diffusion_model.{Q}.alpha",
        f"diffusion_model.{Q}.lora_A.weight",
        f"diffusion_model.{Q}.lora_B.weight",
    ]
    lora = normalise(file)
    assert lora.config == CONFIG
    assert float(lora.layers[Q]["alpha"]) == 2.0
    assert torch.equal(lora.layers["blocks.0.modulation"]["diff"], whole["blocks.0.modulation"])
    assert list(path.parent.iterdir()) == [path]


def test_matrices_may_be_stored_smaller(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    write_lora(path, {Q: LowRank(draw(4, 6), draw(8, 4), alpha=0.1)}, CONFIG, dtype=torch.bfloat16)
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor(f"diffusion_model.{Q}.lora_A.weight").dtype == torch.bfloat16
        assert file.get_tensor(f"diffusion_model.{Q}.alpha").dtype == torch.float32


def test_settings_of_a_newer_version_are_told(tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    save_file({f"{Q}.diff": draw(8, 6)}, path, metadata={"gloria.lora.config": '{"field_of_the_future": 1}'})
    lora = normalise(read_lora(path))
    assert lora.config is None
    assert "field_of_the_future" in lora.notes[0]


@pytest.mark.parametrize(
    ("low_rank", "whole", "says"),
    [
        ({}, {}, "no change at all"),
        ({Q: LowRank(draw(4, 6), draw(8, 3), 1.0)}, {}, r"\(8, 3\) and \(4, 6\)"),
        ({Q: LowRank(draw(4, 6) / 0, draw(8, 4), 1.0)}, {}, "diverged"),
        ({}, {"blocks.0.modulation": torch.full((1, 6, 8), float("nan"))}, "diverged"),
    ],
)
def test_what_cannot_be_a_lora_is_not_written(
    tmp_path: Path, low_rank: dict[str, LowRank], whole: dict[str, Tensor], says: str
) -> None:
    with pytest.raises(LoraError, match=says):
        write_lora(tmp_path / "bad.safetensors", low_rank, CONFIG, differences=whole)
    assert not list(tmp_path.iterdir())
