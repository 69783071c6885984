"""Time and memory of loading a weights file; each way needs a process of its own.

    python tests/bench/loader.py FILE

prints both ways and their ratios; with ``ours`` or ``load_file`` behind FILE, one way as JSON. Linux only: the peak is
the kernel's own count of resident pages (VmHWM).
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 - the baseline is a process that has everything imported
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from gloria_core.checkpoint import inspect, load_dit, open_weights  # noqa: E402 - needs the path


def peak_bytes() -> int:
    """The most memory that this process has had."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def read_through(weights: dict[str, Tensor]) -> float:
    """Touch every page, as the first use of a model does, without making a copy of a tensor."""
    return sum(float(t.flatten()[:: 4096 // t.dtype.itemsize].float().sum()) for t in weights.values())


def measure(path: Path, way: str) -> dict[str, float]:
    """Load, then read through; return the seconds of both steps, the CPU's, and the bytes above the baseline."""
    gc.collect()
    before = peak_bytes()
    start, cpu_start = time.perf_counter(), time.process_time()
    network: nn.Module | None = None
    if way == "ours":
        inspection = inspect(path)
        weights = open_weights(inspection)
        network = load_dit(weights, inspection.config, dtype=inspection.dtype)
    else:
        weights = load_file(path)
    loaded = time.perf_counter()
    opened = peak_bytes() - before
    read_through(weights if network is None else network.state_dict())
    done, cpu_done = time.perf_counter(), time.process_time()
    return {
        "load_s": loaded - start,
        "read_s": done - loaded,
        "cpu_s": cpu_done - cpu_start,
        "opened_bytes": opened,
        "peak_bytes": peak_bytes() - before,
    }


def in_its_own_process(path: Path, way: str) -> dict[str, float]:
    """Measure one way in a fresh process."""
    command = [sys.executable, __file__, str(path), way]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure one way, or both in turn."""
    path = Path(sys.argv[1])
    if len(sys.argv) > 2:
        torch.set_num_threads(1)
        print(json.dumps(measure(path, sys.argv[2])))
        return
    ours, theirs = in_its_own_process(path, "ours"), in_its_own_process(path, "load_file")
    size = path.stat().st_size
    for name, found in (("ours", ours), ("safetensors.load_file", theirs)):
        print(
            f"{name}: load {found['load_s']:.3f} s, read through {found['read_s']:.3f} s, peak "
            f"{found['peak_bytes'] / size:.3f} x the file, {found['opened_bytes'] / size:.3f} before the first read"
        )


if __name__ == "__main__":
    main()
