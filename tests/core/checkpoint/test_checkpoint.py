import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from gloria_core.checkpoint import (
    inspect,
    load_dit,
    open_weights,
    read_checkpoint,
    read_config,
    write_checkpoint,
    write_tensors,
)
from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.errors import CheckpointError
from gloria_core.model import GloriaDiT, initialise

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]

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


@pytest.mark.parametrize("family", ["Gloria 14B", "Gloria 5B"])
def test_gloria_on_top_of_wan_is_written_and_read(family: str, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    """Every convention of the specification travels, none is guessed again from a shape."""
    config = replace(tiny(family), name="Anna", shift=6.5, fps=25.0).with_mode("cached")
    config = replace(config, anchors=replace(config.anchors, global_position=41, expression_position=250))
    own = {name: t.bfloat16() for name, t in weights(config).items()}
    path = tmp_path / "anna.safetensors"
    write_checkpoint(path, own, config, notes={"gloria.record": "trained on Anna"})
    found = inspect(path)
    assert found.config == config
    assert found.config.family == family
    assert found.metadata["gloria.record"] == "trained on Anna"
    opened = open_weights(found)
    assert opened.keys() == own.keys()
    assert all(torch.equal(opened[name], own[name]) for name in own)
    dit = load_dit(opened, found.config, dtype=torch.bfloat16)
    assert (dit.img_emb is not None) == (family == "Gloria 14B")
    assert dit.audio_embedding is not None


def test_a_float8_gloria_checkpoint_keeps_its_scales(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    config = tiny("Gloria 5B")
    own = weights(config)
    own["blocks.0.ffn.0.weight"] = own["blocks.0.ffn.0.weight"].to(torch.float8_e4m3fn)
    own["blocks.0.ffn.0.scale_weight"] = torch.tensor(0.5)
    write_checkpoint(tmp_path / "x.safetensors", own, config)
    found = inspect(tmp_path / "x.safetensors")
    assert found.quantization.layers == {"blocks.0.ffn.0": "float8_e4m3fn"}
    assert open_weights(found)["blocks.0.ffn.0.scale_weight"] == 0.5


def test_what_is_written_is_what_the_formats_own_library_reads(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "small": torch.ones(3, dtype=torch.float8_e4m3fn),
        "wide": base.double(),
        "half": base.half(),
        "turned": base.T,
        "part": base[1:3, 2:4],
        "shared": base,
        "again": base,
        "bytes": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "yes": torch.tensor([True, False]),
        "number": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "Zeichen äöü": torch.ones(1).bfloat16(),
    }
    path = tmp_path / "new folder" / "x.safetensors"
    write_tensors(path, tensors, {"note": "straße"})
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].float(), tensor.float()), name
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "straße"}


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


def test_a_weight_of_another_shape_is_told(saved: tuple[Path, GloriaDiT]) -> None:
    weights, config = read_checkpoint(saved[0])
    weights["head.head.bias"] = torch.ones(5)
    with pytest.raises(CheckpointError, match=r"tiny do not fit.*head\.head\.bias"):
        load_dit(weights, config)


@pytest.mark.parametrize("value", ["not a tensor", torch.ones(2, dtype=torch.complex64)])
def test_what_the_format_cannot_hold_is_refused_before_a_byte_is_written(value: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'diffusion_model\.a' is a (str|torch\.complex64)"):
        write_checkpoint(tmp_path / "x.safetensors", {"a": value}, TINY)  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_file_before_as_it_was(
    saved: tuple[Path, GloriaDiT], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, dit = saved
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gloria_core.checkpoint.save._write_numbers", full)
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors cannot be written \(No space left"):
        write_checkpoint(path, dit.state_dict(), TINY)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
