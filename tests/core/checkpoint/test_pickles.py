"""Torch's own archives: tensors come out, code never runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, open_weights
from gloria_core.config import ModelConfig
from gloria_core.errors import CheckpointError

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]


@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin"])
@pytest.mark.parametrize("wrap", ["", "state_dict", "model", "module"])
def test_archives_as_trainers_write_them(suffix: str, wrap: str, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    config = tiny()
    own = weights(config)
    path = tmp_path / f"tiny.{suffix}"
    torch.save({wrap: own, "epoch": 3, "optimizer": {"state": {"0": torch.ones(2)}}} if wrap else own, path)
    found = inspect(path)
    assert (found.container, found.config.family) == ("pickle", config.family)
    opened = open_weights(found)
    assert opened.keys() == own.keys()
    assert all(torch.equal(opened[name], own[name]) for name in own)


def test_the_old_format_is_read_too(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    torch.save(own, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert open_weights(inspect(tmp_path / "old.pt")).keys() == own.keys()


class Trap:
    """Makes a file of its name where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["evil.pt", "evil.bin", "evil.safetensors"])
@pytest.mark.parametrize("modern", [True, False])
def test_code_in_an_archive_is_refused_and_not_run(name: str, modern: bool, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"patch_embedding.weight": Trap(sprung)}, tmp_path / name, _use_new_zipfile_serialization=modern)
    with pytest.raises(CheckpointError, match=r"evil"):
        inspect(tmp_path / name)
    assert not sprung.exists()
