from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from gloria_core.checkpoint.save import write_lazily
from gloria_core.errors import CheckpointError

WEIGHTS = {
    "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "whole": torch.arange(4.0),
    "eight": torch.ones(3, dtype=torch.float8_e4m3fn),
    "number": torch.tensor(2.5),
    "none": torch.zeros(0, 4),
}
LAYOUT = {name: (t.dtype, tuple(t.shape)) for name, t in WEIGHTS.items()}


def test_tensors_are_asked_for_one_by_one_while_the_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "w.safetensors"
    asked = []

    def give(name: str) -> Tensor:
        assert path.with_name("w.safetensors.partial").is_file()
        asked.append(name)
        return WEIGHTS[name]

    write_lazily(path, LAYOUT, give, {"about": "a test"})
    assert sorted(asked) == sorted(WEIGHTS)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["about"] == "a test"
        for name, wanted in WEIGHTS.items():
            found = file.get_tensor(name)
            assert found.dtype == wanted.dtype
            assert torch.equal(found.float(), wanted.float())


def test_what_was_not_announced_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"an older file")
    with pytest.raises(CheckpointError, match="was announced"):
        write_lazily(path, {"a": (torch.float32, (2,))}, lambda _: torch.ones(3), {})
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == b"an older file"


def test_an_error_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    def stop(_: str) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lazily(tmp_path / "w.safetensors", LAYOUT, stop, {})
    assert not list(tmp_path.iterdir())
