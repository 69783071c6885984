"""Long videos that cannot be lost, measured in the real host. Prints numbers and ratios; not a test.

``python tests/bench/long.py [flat] [kills] [--minutes 10] [--steps 2] [--kills 20] [--out FOLDER]`` also writes
``long-DATE.json``.

- flat: resident memory of the server at chunk 2 and at the last chunk of a one-minute and a ten-minute run, and the
  time of a chunk in the last tenth of the run against the second tenth.
- kills: the server is killed at random moments of one run until it has been killed so often; then the run is finished
  and its latents compared with an uninterrupted run's. Finished chunks that were lost: those that had their name when
  the server died and are not used again.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gloria_core.runs.digest import digest_of
from launch import LaunchError
from launch.client import Client, PromptError
from launch.environment import HOST, Environment
from launch.server import Server, Settings, running, wait_until_ready
from tests.host.workflows import latents_of_run, minute

MB = 1e6


def started(base: Path) -> Any:
    environment = Environment(Path(sys.executable), HOST, own=False)
    return running(environment, Settings(base=base, log=base / "host.log", cpu=True, threads=1))


def film(run: str, seconds: float, steps: int) -> dict[str, Any]:
    return minute(seconds=seconds, steps=steps, run=run, filename_prefix=f"bench/{run}")


def watched(server: Server, prompt: dict[str, Any]) -> list[tuple[float, float]]:
    """Run a prompt; the time and the resident megabytes at the end of each chunk."""
    process, marks = psutil.Process(server.process.pid), []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.chunk":
            marks.append((time.perf_counter(), process.memory_info().rss / MB))

    Client(server.url).run(prompt, listen, server.require_alive)
    return marks


def flat(minutes: float, steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as server:
        wait_until_ready(server)
        short = watched(server, film("short", 60.0, steps))
        long = watched(server, film("long", 60.0 * minutes, steps))
    times = [after[0] - before[0] for before, after in pairwise(long)]
    tenth = len(times) // 10
    peaks = [max(rss for _, rss in marks[2:]) for marks in (short, long)]
    return {
        "chunks": len(long),
        "rss_mb_short_chunk_2": round(short[1][1]),
        "rss_mb_short_peak_after": round(peaks[0]),
        "rss_mb_long_chunk_2": round(long[1][1]),
        "rss_mb_long_last": round(long[-1][1]),
        "rss_mb_long_peak_after": round(peaks[1]),
        "rss_long_over_short": round(peaks[1] / peaks[0], 4),
        "chunk_s_median": round(statistics.median(times), 4),
        "chunk_time_last_tenth_over_second": round(
            statistics.median(times[-tenth:]) / statistics.median(times[tenth : 2 * tenth]), 4
        ),
    }


def kills(count: int, steps: int) -> dict[str, float]:
    dice, seconds = random.Random(1), 60.0
    lost = done = 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        run = base / "output" / "gloria_runs" / "killed"
        had: dict[str, str] = {}
        while done < count:
            with started(base) as server:
                wait_until_ready(server)
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
            wait_until_ready(server)
            Client(server.url).run(film("killed", seconds, steps), lambda *_: None, server.require_alive)
            Client(server.url).run(film("whole", seconds, steps), lambda *_: None, server.require_alive)
        told = json.loads((run / "run.json").read_text(encoding="utf-8"))
        latents = [latents_of_run(run.with_name(name)) for name in ("killed", "whole")]
        again = sum(entry["take"] > 1 for entry in told["chunks"])
    return {
        "kills": done,
        "chunks": len(told["chunks"]),
        "finished_chunks_lost": lost,
        "chunks_made_twice": again,
        "largest_difference": float((latents[0] - latents[1]).abs().max()),
        "bit_identical": float(torch.equal(*latents)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["flat", "kills"], choices=["flat", "kills"], metavar="PART")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    found: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "steps": given.steps}
    if "flat" in given.parts:
        found["flat"] = flat(given.minutes, given.steps)
        print(json.dumps(found["flat"], indent=1), flush=True)
    if "kills" in given.parts:
        found["kills"] = kills(given.kills, given.steps)
        print(json.dumps(found["kills"], indent=1), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / f"long-{found['date']}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
