"""Stopping a long video leaves what is finished, whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import pytest

from launch.client import PromptError
from tests.host.workflows import minute

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

KEPT = {"run.json", "events.jsonl", "lock", "waveform.json"}


def stop_in_chunk(host: Host, chunk: int, prefix: str) -> list[Path]:
    client = host.client
    stopped: list[bool] = []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.progress" and data["chunk"] == chunk and not stopped:
            stopped.append(True)
            client.interrupt()

    with pytest.raises(PromptError, match="interrupted"):
        client.run(minute(seconds=60.0, steps=8, filename_prefix=prefix), listen)
    name = prefix.replace("/", "_")
    return sorted(path for path in (host.base / "output").rglob("*") if path.is_file() and name in str(path))


def test_a_stopped_video_plays(host: Host) -> None:
    files = stop_in_chunk(host, 3, "stopped/later")
    [video] = [path for path in files if path.name == "film.mp4"]
    with av.open(str(video)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        sound = container.streams.audio[0]
        seconds = float(sound.duration * sound.time_base)
    assert frames in (33 + 20, 33 + 40, 33 + 60)
    assert abs(seconds - frames / 16) < 0.2
    chunks = [path for path in files if path.suffix == ".safetensors"]
    assert len(chunks) >= 2
    assert not [path for path in files if ".partial" in path.name]


def test_a_video_stopped_before_its_first_chunk_leaves_no_film(host: Host) -> None:
    files = stop_in_chunk(host, 1, "stopped/early")
    assert {path.name for path in files if path.suffix != ".safetensors"} <= KEPT
    assert json.loads(next(p for p in files if p.name == "run.json").read_text())["state"] == "stopped"


def test_the_host_goes_on_after_a_stop(host: Host) -> None:
    assert host.queue(minute(seconds=0.5, seed=7))["status"]["completed"]
