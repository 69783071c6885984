"""Speed and memory of gloria-nano on this machine. Prints numbers and ratios; not a test.

``python tests/bench/nano.py [world] [train] [demo] [--out FOLDER]`` (all three parts unless some are named) also writes
``nano-DATE.json``. CPU time, alternating order, medians, self/self beside each ratio. The demo is measured whole, as a
user runs it: wall clock, CPU time and the largest resident memory of its server, for two lengths.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gloria_core.model import GloriaDiT, initialise
from gloria_core.nano.characters import Characters
from gloria_core.nano.render import Poses, render
from gloria_core.nano.task import nano_config
from gloria_core.nano.timeline import camera_drift
from gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet

ROOT = Path(__file__).resolve().parents[2]
_CHARACTERS, _CLIPS, _ROUNDS = 4, 3, 5
_POLL_S = 0.2


def _cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def world() -> dict[str, float]:
    """Frames drawn in a CPU second, painting included: stills, the anchors of a character, a clip."""
    generator = torch.Generator().manual_seed(0)
    num = 64
    characters = Characters.random(num, generator)
    result = {}
    for frames in (1, 13, 33):
        shape = (num, frames)
        poses = Poses(
            yaw=6.28 * torch.rand(shape, generator=generator),
            emotion=torch.softmax(torch.randn(*shape, 8, generator=generator), -1),
            mouth=torch.rand(shape, generator=generator),
            camera=camera_drift(*shape, generator),
        )
        seconds = [_cpu_seconds(lambda poses=poses: render(characters, poses)) for _ in range(_ROUNDS)]
        result[f"frames_per_core_second_{frames}_a_character"] = round(num * frames / statistics.median(seconds))
    return result


def _anchors(batch: int) -> AnchorSet:
    made = [Anchor(AnchorRole.GLOBAL, "", torch.randn(batch, 64, 1, 8, 6))]
    made += [Anchor(AnchorRole.VIEW, v, torch.randn(batch, 64, 1, 8, 6)) for v in VIEWS]
    made += [Anchor(AnchorRole.EXPRESSION, e, torch.randn(batch, 64, 1, 4, 6)) for e in EXPRESSIONS]
    return AnchorSet(tuple(made))


def _train_step(dit: GloriaDiT, given: AnchorSet) -> None:
    batch = _CHARACTERS * _CLIPS
    x, audio = torch.randn(batch, 64, 9, 8, 6), torch.randn(batch, 9, 8, 32)
    context = torch.randn(batch, dit.config.text_length, dit.config.text_dim)
    out = dit(x, torch.rand(batch) * 1000, context, anchors=given, num_prefix=4, audio=audio)
    out.square().mean().backward()


def train() -> dict[str, object]:
    """Clips forward and backward in a CPU second, in both attention modes."""
    given = _anchors(_CHARACTERS)
    models = {}
    for name in ("joint", "cached", "joint again"):
        models[name] = GloriaDiT(nano_config(name.split()[0]))  # type: ignore[arg-type]
        initialise(models[name], torch.Generator().manual_seed(0))
        _train_step(models[name], given)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(_ROUNDS):
        for name in sorted(models, reverse=bool(turn % 2)):
            times[name].append(_cpu_seconds(lambda name=name: _train_step(models[name], given)))
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "clips_per_core_second": {name: round(_CHARACTERS * _CLIPS / value, 2) for name, value in median.items()},
        "joint_over_cached": round(median["joint"] / median["cached"], 3),
        "self_over_self": round(median["joint"] / median["joint again"], 3),
    }


def _watched_demo(seconds: int, folder: Path) -> dict[str, float]:
    """Run the demo and look at its processes until it ends; the numbers are of the whole tree."""
    command = [sys.executable, str(ROOT / "run.py"), "demo", "--seconds", str(seconds)]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--out", str(folder / f"{seconds}.mp4")], stdout=subprocess.DEVNULL)
    root, cpu, resident = psutil.Process(process.pid), {}, 0
    while process.poll() is None:
        alive = []
        for one in [root, *root.children(recursive=True)]:
            try:
                times = one.cpu_times()
                cpu[one.pid] = times.user + times.system
                alive.append(one.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        resident = max(resident, max(alive, default=0))
        time.sleep(_POLL_S)
    if process.returncode:
        raise SystemExit(f"the demo of {seconds} s failed")
    wall = time.perf_counter() - began
    return {"wall_s": round(wall, 1), "cpu_s": round(sum(cpu.values()), 1), "peak_rss_gb": round(resident / 1e9, 3)}


def demo() -> dict[str, object]:
    """The demo's minute, set-up done before, and a third of it beside: memory must not grow with the length."""
    with tempfile.TemporaryDirectory() as folder:
        _watched_demo(4, Path(folder))
        short, minute = (_watched_demo(seconds, Path(folder)) for seconds in (20, 60))
    return {"20_s": short, "60_s": minute, "rss_60_over_20": round(minute["peak_rss_gb"] / short["peak_rss_gb"], 3)}


PARTS: dict[str, Callable[[], dict[str, object]]] = {"world": world, "train": train, "demo": demo}  # type: ignore[dict-item]


def main() -> None:
    """Measure the named parts, print them, and write the dated file."""
    parser = argparse.ArgumentParser(description="Measure gloria-nano on this machine.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="all where none is named")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    day = datetime.now(UTC).date().isoformat()
    result: dict[str, object] = {"date": day, "cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2)}
    for name in arguments.parts or PARTS:
        result[name] = PARTS[name]()
    text = json.dumps(result, indent=1)
    sys.stdout.write(text + "\n")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"nano-{day}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
