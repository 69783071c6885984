from pathlib import Path

import pytest
import torch

from gloria_core.checkpoint import load_dit, read_checkpoint, read_config, write_checkpoint
from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.errors import CheckpointError
from gloria_core.model import GloriaDiT, initialise

TINY = ModelConfig(
    name="tiny", in_channels=8, out_channels=8, dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_dim=16,
    text_length=4, freq_dim=32, audio=AudioConfig(kind="mel", feature_dim=5, dim=12),
)  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, GloriaDiT]:
    dit = GloriaDiT(TINY)
    initialise(dit, torch.Generator().manual_seed(0))
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, dit.state_dict(), TINY, extra={"codec.mean": torch.ones(3)})
    return path, dit


def test_a_checkpoint_carries_its_configuration_and_weights(saved: tuple[Path, GloriaDiT]) -> None:
    path, dit = saved
    assert read_config(path) == TINY
    weights, config = read_checkpoint(path)
    again = load_dit(weights, config)
    for (name, a), (_, b) in zip(dit.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_cut_file_is_told(saved: tuple[Path, GloriaDiT]) -> None:
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut"):
        read_checkpoint(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights file nothing"):
        read_config(tmp_path / "nothing.safetensors")


def test_missing_and_foreign_names_are_told(saved: tuple[Path, GloriaDiT]) -> None:
    weights, config = read_checkpoint(saved[0])
    weights["stranger"] = weights.pop("head.head.bias")
    with pytest.raises(CheckpointError, match=r"head\.head\.bias.*stranger"):
        load_dit(weights, config)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - safetensors raises its own kinds
        write_checkpoint(tmp_path / "x.safetensors", {"a": "not a tensor"}, TINY)  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []
