"""Long videos that cannot be lost, measured in the real host. Prints numbers and ratios; not a test.

``python tests/bench/long.py [flat] [kills] [steps] [stream] [--minutes 10] [--steps 2] [--kills 20] [--out FOLDER]``
also writes ``long-DATE.json``. Processor time is that of the server and its children, by the kernel's own count, so
that what else the machine does hardly counts. Linux only.

- flat: resident memory and bytes of living tensors at chunk 2 and at the last chunk of a ten-minute run, and the
  processor time of the chunks in the last tenth of the run against the second tenth. The network does the same work
  in each chunk: where its own time changes, the machine has, and the chunks' time is also told by its clock.
- kills: the server is killed at random moments of one run until it has been killed so often; then the run is finished
  and its latents compared with an uninterrupted run's. Finished chunks that were lost: those that had their name when
  the server died and are not used again.
- steps: processor time of a solver step outside the network, in our sampler and in the stock KSampler with Apply
  Anchors, at the same shape, alternating; both with and without latents that are held by a mask.
- stream: work and result of decoding as a stream against decoding in one go, with the host's Wan VAEs at their own
  architecture, narrow and with random weights.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gloria_core.runs.digest import digest_of
from launch import LaunchError
from launch.client import Client, PromptError
from launch.environment import HOST, Environment
from launch.server import PACK_NAME, Server, Settings, running, wait_until_ready
from tests.host import tiny_encoders
from tests.host.workflows import Prompt, changed, latents_of_run, minute, shipped

MB = 1e6
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PARTS = ("flat", "kills", "steps", "stream")
SOLVER_STEPS = 60
"""Of each clip by which the time of a step is told."""


@contextmanager
def started(base: Path, *extra: str) -> Iterator[Server]:
    environment = Environment(Path(sys.executable), HOST, own=False)
    os.environ["GLORIA_PROBE"] = str(base / "probe.jsonl")
    packs = base / "custom_nodes"
    packs.mkdir(exist_ok=True)
    shutil.copy2(Path(__file__).with_name("probe.py"), packs / "probe.py")
    options = ("--whitelist-custom-nodes", PACK_NAME, "probe.py", *extra)
    settings = Settings(base=base, log=base / "host.log", cpu=True, threads=1, extra=options)
    with running(environment, settings) as server:
        wait_until_ready(server)
        yield server


def notes(base: Path, name: str) -> list[dict[str, Any]]:
    """What the probe has noted under a name."""
    lines = (base / "probe.jsonl").read_text(encoding="utf-8").splitlines()
    return [noted for noted in map(json.loads, lines) if noted["name"] == name]


def film(run: str, seconds: float, steps: int, **inputs: Any) -> Prompt:
    return minute(**{"seconds": seconds, "steps": steps, "run": run, "filename_prefix": f"bench/{run}", **inputs})


def probed(prompt: Prompt, name: str, sampler: str, alive_at: str = "") -> Prompt:
    """The same prompt with the probe before its sampler."""
    made = changed(prompt, sampler, model=["probe", 0])
    made["probe"] = {"class_type": "BenchProbe", "inputs": {"model": ["1", 0], "name": name, "alive_at": alive_at}}
    return made


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def processor_s(pid: int) -> float:
    """Processor time of a process, its threads, and its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_A_SECOND


def watched(server: Server, prompt: Prompt) -> list[tuple[float, float]]:
    """Run a prompt; the processor time and the resident megabytes at the end of each chunk."""
    pid, marks = server.process.pid, []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.chunk" and data["state"] == "done":
            marks.append((processor_s(pid), resident_mb(pid)))

    Client(server.url).run(prompt, listen, server.require_alive)
    return marks


def flat(minutes: float, steps: int) -> dict[str, float]:
    num_chunks = 1 + -(-(round(minutes * 60 * 16) - 33) // 20)
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as server:
        short = watched(server, film("short", 60.0, steps))
        long = film("long", 60.0 * minutes, steps)
        marks = watched(server, probed(long, "long", "GloriaChunkedLongSampler", f"2,{num_chunks}"))
        noted = notes(Path(folder), "long")
    alive = [one["alive"] for one in noted if "alive" in one]
    network = tenths([one["inside_s"] for one in noted])
    times = [after[0] - before[0] for before, after in pairwise(marks)]
    peaks = [max(rss for _, rss in run[2:]) for run in (short, marks)]
    return {
        "chunks": len(marks),
        "rss_mb_short_peak_after_chunk_2": round(peaks[0]),
        "rss_mb_chunk_2": round(marks[1][1]),
        "rss_mb_last": round(marks[-1][1]),
        "rss_last_over_chunk_2": round(marks[-1][1] / marks[1][1], 4),
        "alive_bytes_chunk_2": alive[0],
        "alive_bytes_last": alive[-1],
        "cpu_ms_chunk_mean": round(1000 * statistics.mean(times), 2),
        "cpu_last_tenth_over_second": round(tenths(times), 4),
        "network_cpu_last_tenth_over_second": round(network, 4),
        "cpu_by_the_networks_clock": round(tenths(times) / network, 4),
    }


def tenths(times: list[float]) -> float:
    """The last tenth of some times over the second tenth."""
    tenth = len(times) // 10
    return sum(times[-tenth:]) / sum(times[tenth : 2 * tenth])


def kills(count: int, steps: int) -> dict[str, float]:
    dice, seconds = random.Random(1), 60.0
    lost = done = 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        run = base / "output" / "gloria_runs" / "killed"
        had: dict[str, str] = {}
        while done < count:
            with started(base) as server:
                killer = Timer(dice.uniform(0.5, 4.0), server.process.kill)
                killer.start()
                try:
                    Client(server.url).run(film("killed", seconds, steps), lambda *_: None, server.require_alive)
                    seconds += 60.0  # finished before the kill: there must be something left to do
                except (PromptError, LaunchError, OSError):
                    pass
                killer.join()
            done += 1
            have = {path.name: digest_of(path.read_bytes()) for path in (run / "chunks").glob("*.safetensors")}
            lost += sum(have.get(file) != digest for file, digest in had.items())
            had = have
        with started(base) as server:
            Client(server.url).run(film("killed", seconds, steps), lambda *_: None, server.require_alive)
            Client(server.url).run(film("whole", seconds, steps), lambda *_: None, server.require_alive)
        told = json.loads((run / "run.json").read_text(encoding="utf-8"))
        latents = [latents_of_run(run.with_name(name)) for name in ("killed", "whole")]
        again = sum(entry["take"] > 1 for entry in told["chunks"])
        half = len(list((base / "output").rglob("*.partial*")))
    return {
        "kills": done,
        "chunks": len(told["chunks"]),
        "finished_chunks_lost": lost,
        "chunks_made_twice": again,
        "files_left_half_written": half,
        "largest_difference": float((latents[0] - latents[1]).abs().max()),
        "bit_identical": float(torch.equal(*latents)),
    }


def stock(name: str, seed: int, *, held: bool) -> Prompt:
    """One clip by the stock KSampler, at the shape of a chunk."""
    made = changed(shipped("gloria_single_clip"), "KSampler", steps=SOLVER_STEPS, seed=seed)
    if held:
        made["hold"] = {"class_type": "BenchHoldStart", "inputs": {"samples": ["9", 0], "count": 4}}
        made = changed(made, "KSampler", latent_image=["hold", 0])
    return probed(made, name, "KSampler")


def ours(name: str, seed: int, *, held: bool) -> Prompt:
    """One chunk by our sampler; where it is to be held, the one behind the first."""
    seconds, start = (53 / 16 if held else 33 / 16), None
    made = film(name, seconds, SOLVER_STEPS, seed=seed, start_image=start, keep_latents=False)
    made = changed(made, "GloriaPromptSchedule", schedule="0:00 turns to the left, happy")
    return probed(made, name, "GloriaChunkedLongSampler")


def outside_ms(base: Path, name: str) -> float:
    """Median processor time of a step outside the network, over the last sampling run of each prompt."""
    return statistics.median(1000 * (n["all_s"] - n["inside_s"]) / n["calls"] for n in notes(base, name))


def steps_outside(rounds: int = 12) -> dict[str, float]:
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as server:
        client = Client(server.url)
        for held in (False, True):
            kind = "held" if held else "free"
            makers = {f"{kind}_ours": ours, f"{kind}_stock": stock, f"{kind}_stock_again": stock}
            for turn in range(rounds):
                for name, make in makers.items():
                    client.run(make(name, 100 + turn, held=held), lambda *_: None, server.require_alive)
            if held:  # the first chunk of each film holds nothing
                _keep_later_runs(Path(folder), f"{kind}_ours")
            mine, other, again = (outside_ms(Path(folder), name) for name in makers)
            found |= {
                f"{kind}_ours_ms": round(mine, 3),
                f"{kind}_stock_ms": round(other, 3),
                f"{kind}_ours_over_stock": round(2 * mine / (other + again), 3),
                f"{kind}_stock_over_itself": round(again / other, 3),
            }
    return found


def _keep_later_runs(base: Path, name: str) -> None:
    """Leave out what the probe noted of a film's first chunk."""
    lines = [json.loads(line) for line in (base / "probe.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [noted for noted in lines if noted["name"] != name or noted["run"] % 2 == 0]
    (base / "probe.jsonl").write_text("".join(json.dumps(noted) + "\n" for noted in kept), encoding="utf-8")


def stream() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        tiny_encoders.write_vae(base / "models" / "vae" / "wan_2.1_vae.safetensors", 3, wan22=False)
        with started(base) as server:
            for name, loader in {
                "wan_2.1": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
                "nano": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
            }.items():
                slot = 2 if name == "nano" else 0
                decode = {"vae": ["1", slot], "name": name, "count": 21}
                prompt = {"1": loader, "2": {"class_type": "BenchStreamedOrNot", "inputs": decode}}
                Client(server.url).run(prompt, lambda *_: None, server.require_alive)
                [noted] = notes(base, name)
                found[name] = {key: value for key, value in noted.items() if key != "name"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    ways = {
        "flat": lambda: flat(given.minutes, given.steps),
        "kills": lambda: kills(given.kills, given.steps),
        "steps": steps_outside,
        "stream": stream,
    }
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "steps_a_chunk": given.steps}
    given.out.mkdir(parents=True, exist_ok=True)
    for part in given.parts:
        found[part] = ways[part]()
        print(json.dumps({part: found[part]}, indent=1), flush=True)
    (given.out / f"long-{found['date']}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
