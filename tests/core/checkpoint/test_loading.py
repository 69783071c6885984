"""A load takes the memory of its file and no more, and nothing of that before a weight is used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, model_shapes, open_weights, write_checkpoint
from gloria_core.config import ModelConfig

ROOT = Path(__file__).resolve().parents[3]

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]
Save = Callable[..., Path]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the kernel's count of resident pages")
def test_the_peak_is_the_size_of_the_file(tiny: Tiny, tmp_path: Path) -> None:
    config = replace(tiny("Gloria 14B"), dim=768, num_heads=6, ffn_dim=3072, num_layers=9)
    path = tmp_path / "wide.safetensors"
    write_checkpoint(path, {name: torch.ones(shape).half() for name, shape in model_shapes(config).items()}, config)
    size = path.stat().st_size
    assert size > 180e6
    script = ROOT / "tests" / "bench" / "loader.py"
    done = subprocess.run([sys.executable, script, path, "ours"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0.9 * size < found["peak_bytes"] <= 1.1 * size
    assert found["opened_bytes"] < 0.1 * size


def test_a_weight_that_is_written_to_does_not_change_the_file(tiny: Tiny, weights: Weights, save: Save) -> None:
    """Mapped pages are private: a LoRA that is added in place stays in memory."""
    path = save(weights(tiny()))
    before = path.read_bytes()
    open_weights(inspect(path))["head.head.weight"].add_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_mapped_weights_outlive_what_opened_them(suffix: str, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    path = tmp_path / f"x.{suffix}"
    write_checkpoint(path, own, tiny()) if suffix == "safetensors" else torch.save(own, path)
    opened = open_weights(inspect(path))
    path.unlink()
    assert all(torch.equal(opened[name], own[name]) for name in own)


LARGE = """
import resource, sys
from pathlib import Path
from gloria_core.checkpoint.files import read_header, read_tensors
from gloria_core.errors import CheckpointError
header = read_header(Path(sys.argv[1]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, resource.RLIM_INFINITY))
try:
    list(read_tensors(header, ["w"]))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process's address space so")
def test_a_file_that_the_system_cannot_map_is_told(tmp_path: Path) -> None:
    size = 4 * 10**9
    head = json.dumps({"w": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + size)  # sparse: it takes no room on the disk
    command = [sys.executable, "-c", LARGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "huge.safetensors (4.0 GB) cannot be mapped into memory" in done.stdout, done.stdout + done.stderr
    assert "fp8 or GGUF" in done.stdout
