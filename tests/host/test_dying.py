"""The real server dies, inside its writes and at any other moment; started again, it goes on to the very same video."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

import av
import pytest
import torch

from gloria_core.events import read_events
from gloria_core.runs.folder import RunFolder
from launch import LaunchError
from launch.client import PromptError
from launch.server import PACK_NAME
from tests import faults
from tests.host.workflows import Prompt, latents_of_run, minute, run_of, streams

if TYPE_CHECKING:
    from conftest import Host, HostStarter

pytestmark = pytest.mark.host

SECONDS, NUM_CHUNKS = 6.0, 5
DEATHS = (
    "half sync gloria_runs/dying/chunks/0000.take-1.safetensors.partial #1",
    "half write gloria_runs/dying/run.json.partial #2",
    "half sync gloria_runs/dying/segments/0001.*.mp4.partial #1",
    "half write gloria_runs/dying/events.jsonl #5",
    "half write gloria_runs/dying/film.mp4* #6",
    "half write gloria_runs/dying/chunks/0003.take-1.json.partial #1",
    "half write gloria_runs/dying/segments/0004.*.png.partial #1",
    "after replace runs/dying_00001_.mp4 #1",
)
"""A write of each kind, along the video. tests/core/runs/test_every_write.py dies in all of them."""

StartDying = Callable[[str | None], Any]


def film(run: str, **inputs: Any) -> Prompt:
    return minute(**{"seconds": SECONDS, "run": run, "filename_prefix": f"runs/{run}", **inputs})


@pytest.fixture
def start_dying(start_host: HostStarter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartDying:
    """Starts servers over one output folder; each dies at a write point, or not by itself."""

    @contextmanager
    def start(die_at: str | None) -> Iterator[Host]:
        packs = tmp_path / "custom_nodes"
        packs.mkdir(exist_ok=True)
        shutil.copy2(faults.__file__, packs / "faults.py")
        monkeypatch.setenv("GLORIA_FAULT", die_at or "never")
        monkeypatch.setenv("GLORIA_FAULT_BELOW", str(tmp_path / "output"))
        with start_host(tmp_path, "--whitelist-custom-nodes", PACK_NAME, "faults.py") as host:
            yield host

    return start


def finished_chunks(run: Path) -> dict[str, bytes]:
    """What is finished; whatever has its name must be whole."""
    if not run.is_dir():
        return {}
    takes, broken = RunFolder(run).takes()
    assert not broken
    if (run / "film.mp4").exists():
        with av.open(str(run / "film.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) >= 33
    for told in run.rglob("*.json"):
        json.loads(told.read_text(encoding="utf-8"))
    return {take.path.name: take.path.read_bytes() for take in takes}


def queue_until_it_dies(host: Host, prompt: Prompt) -> None:
    with pytest.raises((PromptError, LaunchError, OSError)):
        host.queue(prompt)
    assert host.server.process.wait(10) != 0


@pytest.mark.slow
def test_a_server_that_dies_again_and_again_loses_nothing(start_dying: StartDying, tmp_path: Path) -> None:
    run = tmp_path / "output" / "gloria_runs" / "dying"
    had: dict[str, bytes] = {}
    for die_at in DEATHS[:4]:
        with start_dying(die_at) as host:
            queue_until_it_dies(host, film("dying"))
        had = still_there(had, finished_chunks(run))
    with start_dying(None) as host:  # and once in the middle of its work
        killer = Timer(random.Random(5).uniform(0.2, 0.6), host.server.process.kill)
        killer.start()
        queue_until_it_dies(host, film("dying", seconds=60.0))
    had = still_there(had, finished_chunks(run))
    for die_at in DEATHS[4:]:
        with start_dying(die_at) as host:
            queue_until_it_dies(host, film("dying"))
        had = still_there(had, finished_chunks(run))
    with start_dying(None) as host:
        entry = host.queue(film("dying"))
        whole = host.queue(film("whole"))
    output = tmp_path / "output"
    assert still_there(had, finished_chunks(run)) == had, "everything was finished before"
    assert torch.equal(latents_of_run(run_of(entry, output)), latents_of_run(run_of(whole, output)))
    assert [path.name for path in (output / "runs").glob("dying*")] == ["dying_00001_.mp4"]
    assert streams(output / "runs" / "dying_00001_.mp4")["frames"] == round(SECONDS * 16)
    assert not list(output.rglob("*.partial*"))
    assert not (run / "film.mp4").exists()
    assert read_events(run / "events.jsonl")[-1]["event"] == "finished"


def still_there(had: dict[str, bytes], have: dict[str, bytes]) -> dict[str, bytes]:
    """The finished chunks now, among them all those that were finished before, to the last byte."""
    assert had == {name: have.get(name) for name in had}
    return have


@pytest.mark.slow
def test_two_servers_never_work_in_one_run(host: Host, start_host: HostStarter, tmp_path: Path) -> None:
    output = host.base / "output"
    told: list[str] = []
    with start_host(tmp_path, "--output-directory", str(output)) as other:

        def listen(event: str, data: dict[str, Any]) -> None:
            if event == "gloria.chunk" and data["chunk"] == 2 and not told:
                with pytest.raises(PromptError) as problem:
                    other.queue(film("shared"))
                told.append(str(problem.value))

        host.client.run(film("shared", seconds=20.0), listen)
        entry = other.queue(film("shared"))
    assert "The run 'shared' is being worked on by another ComfyUI or render process." in told[0]
    lines = [line for shown in entry["outputs"].values() for line in shown.get("gloria_plan", [])]
    assert f"Chunks 1-{NUM_CHUNKS} are on disk and used again." in lines
    assert len(list((output / "gloria_runs" / "shared" / "chunks").glob("*.safetensors"))) == 16
