"""Disks that fill up, folders that can only be read, files that were damaged: told in a sentence, and gone on from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from gloria_core.runs.folder import RunFolder
from launch.client import PromptError
from tests.host.workflows import Prompt, latents_of_run, minute, run_of, streams

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

SECONDS, NUM_CHUNKS = 6.0, 5

Mount = Callable[[Path, str], None]
"""Puts a small disk of its own onto a folder, or changes its options."""


def film(run: str, **inputs: Any) -> Prompt:
    return minute(**{"seconds": SECONDS, "run": run, "filename_prefix": f"runs/{run}", **inputs})


@pytest.fixture
def mount() -> Iterator[Mount]:
    mounted: list[Path] = []

    def put(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        again = ["remount,"] if folder in mounted else [""]
        command = ["mount", "-t", "tmpfs", "-o", again[0] + options, "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    if not sys.platform.startswith("linux"):
        pytest.skip("this system has no tmpfs to fill")
    yield put
    for folder in dict.fromkeys(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def whole(_one_host: Host) -> torch.Tensor:
    """The latents of an undisturbed run."""
    return latents_of_run(run_of(_one_host.queue(film("undisturbed")), _one_host.base / "output"))


def plan_of(entry: dict[str, Any]) -> list[str]:
    """What the node said of chunks before it started."""
    lines = [line for shown in entry["outputs"].values() for line in shown.get("gloria_plan", [])]
    return [line for line in lines if line.startswith("Chunk") or ".safetensors" in line]


def refused(host: Host, prompt: Prompt) -> str:
    with pytest.raises(PromptError) as problem:
        host.queue(prompt)
    return str(problem.value)


def fill(folder: Path, leave: int) -> Path:
    """Fill a disk but for some bytes, as somebody else might; returns the file to delete again."""
    filler = folder / "somebody else's file"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, max(0, filler.stat().st_size - leave))
    return filler


def stop_at_a_full_disk(host: Host, prompt: Prompt, disk: Path, chunk: int, leave: int) -> tuple[str, Path]:
    """Let a disk fill up when a chunk is done; the node's message, and what fills the disk."""
    filled: list[Path] = []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.chunk" and data["chunk"] == chunk:
            filled.append(fill(disk, leave))

    with pytest.raises(PromptError) as problem:
        host.client.run(prompt, listen)
    return str(problem.value), filled[0]


@pytest.mark.parametrize("leave", [8_000, 120_000, 200_000])
def test_a_disk_that_fills_up(host: Host, mount: Mount, leave: int) -> None:
    name = f"full_{leave}"
    run = host.base / "output" / "gloria_runs" / name
    mount(run, "size=16m")
    long = film(name, seconds=12.0)
    told, filler = stop_at_a_full_disk(host, long, run, 2, leave)
    assert str(run) in told, "the disk is named"
    assert "No space left on device" in told or "the disk is full" in told
    assert "ree some space" in told
    assert not list(run.rglob("*.partial*")), "what could not be finished is gone"
    takes, broken = RunFolder(run).takes(to_the_last_byte=True)
    assert len(takes) >= 2
    assert not broken
    filler.unlink()
    entry = host.queue(long)
    plain = host.queue(film("enough", seconds=12.0))
    assert torch.equal(*(latents_of_run(run_of(one, host.base / "output")) for one in (entry, plain)))
    assert streams(host.base / "output" / "runs" / f"{name}_00001_.mp4")["frames"] == 192
    assert plan_of(entry)[0].startswith("Chunk")


def test_a_full_disk_for_the_finished_video(host: Host, mount: Mount) -> None:
    folder = host.base / "output" / "small"
    mount(folder, "size=20k")
    told = refused(host, film("small", filename_prefix="small/film"))
    assert f"{folder / 'film_00001_.mp4'} cannot be written (No space left on device): free some space" in told
    assert not list(folder.iterdir())
    told_run = json.loads((host.base / "output" / "gloria_runs" / "small" / "run.json").read_text(encoding="utf-8"))
    assert told_run["state"] == "failed"
    assert len(told_run["chunks"]) == NUM_CHUNKS
    mount(folder, "size=64m")
    assert f"Chunks 1-{NUM_CHUNKS} are on disk and used again." in plan_of(
        host.queue(film("small", filename_prefix="small/film"))
    )
    assert streams(folder / "film_00001_.mp4")["frames"] == round(SECONDS * 16)


def test_a_run_folder_that_can_only_be_read(host: Host, mount: Mount) -> None:
    run = host.base / "output" / "gloria_runs" / "readonly"
    mount(run, "size=64m")
    host.queue(film("readonly"))
    mount(run, "size=64m,ro")
    told = refused(host, film("readonly", seed=5))
    assert f"The run's folder {run} may not be written to (Read-only file system)" in told
    mount(run, "size=64m,rw")
    assert host.queue(film("readonly", seed=5))["status"]["completed"]


def test_an_output_folder_that_can_only_be_read(host: Host, mount: Mount) -> None:
    folder = host.base / "output" / "shown"
    mount(folder, "size=1m,ro")
    told = refused(host, film("shown", filename_prefix="shown/film", seconds=3.0))
    assert f"{folder / 'film_00001_.mp4'} cannot be written (Read-only file system): choose a folder that may" in told


def test_a_file_where_the_run_would_be(host: Host) -> None:
    (host.base / "output" / "gloria_runs" / "letter").write_text("no folder")
    told = refused(host, film("letter"))
    assert "The run's folder" in told
    assert "another name for the run" in told


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:-50] + bytes([data[-50] ^ 1]) + data[-49:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": cut,
    "empty": lambda data: b"",
    "garbage": lambda data: b"Dear reader, this is no chunk. " * 40,
    "a huge header": lambda data: (1 << 60).to_bytes(8, "little") + data[8:],
    "one bit": flipped,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_chunk_file(host: Host, whole: torch.Tensor, damage: str) -> None:
    name = "damaged_" + damage.replace(" ", "_")
    run = host.base / "output" / "gloria_runs" / name
    host.queue(film(name))
    chunk = run / "chunks" / "0002.take-1.safetensors"
    chunk.write_bytes(DAMAGES[damage](chunk.read_bytes()))
    entry = host.queue(film(name, filename_prefix=f"runs/{name}_again", layout="strip"))
    lines = plan_of(entry)
    assert any("0002.take-1.safetensors" in line for line in lines), lines
    assert any(line.startswith("Chunks 1-2") and "used again" in line for line in lines), lines
    assert torch.equal(latents_of_run(run_of(entry, host.base / "output")), whole)
