"""Runs in the real host: stopped, changed, rolled again. They are killed in test_dying.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from launch.client import PromptError
from tests.host.workflows import Prompt, changed, chunk_latents, latents_of_run, minute, run_of, streams

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

SECONDS = 6.0
NUM_CHUNKS = 5


def film(run: str, **inputs: Any) -> Prompt:
    return minute(**{"seconds": SECONDS, "run": run, "filename_prefix": f"runs/{run}", **inputs})


def told(entry: dict[str, Any]) -> list[str]:
    """What the node said before it started."""
    return [line for shown in entry["outputs"].values() for line in shown.get("gloria_plan", [])]


def made(host: Host, run: str) -> dict[str, Any]:
    return json.loads((host.base / "output" / "gloria_runs" / run / "run.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(_one_host: Host) -> torch.Tensor:
    """The latents of an uninterrupted run."""
    return latents_of_run(run_of(_one_host.queue(film("whole")), _one_host.base / "output"))


def interrupted(host: Host, prompt: Prompt, chunk: int) -> None:
    client, stopped = host.client, []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.progress" and data["chunk"] == chunk and not stopped:
            stopped.append(True)
            client.interrupt()

    with pytest.raises(PromptError, match="interrupted"):
        client.run(prompt, listen)


def test_a_stopped_run_goes_on_to_the_same_latents(host: Host, whole: torch.Tensor) -> None:
    interrupted(host, film("stopped"), 3)
    assert made(host, "stopped")["state"] == "stopped"
    entry = host.queue(film("stopped"))
    assert any(line.startswith("Chunk") and "on disk and used again" in line for line in told(entry))
    assert torch.equal(latents_of_run(run_of(entry, host.base / "output")), whole)
    assert made(host, "stopped")["state"] == "finished"


def test_the_same_again_makes_no_second_video(host: Host, whole: torch.Tensor) -> None:
    again = film("whole", enlarge_to=0)
    again["extra"] = {"class_type": "PreviewAny", "inputs": {"source": ["8", 2]}}  # past the host's own cache
    again["8"]["inputs"]["filename_prefix"] = "runs/elsewhere"
    entry = host.queue(again)
    assert f"Chunks 1-{NUM_CHUNKS} are on disk and used again." in told(entry)
    assert not list((host.base / "output" / "runs").glob("elsewhere*"))


def test_a_changed_prompt_is_named_and_makes_what_depends_on_it(host: Host, whole: torch.Tensor) -> None:
    schedule = "0:00 faces the camera, happy\n0:03.3 turns to the left, happy"
    plain = "0:00 faces the camera, happy"
    first = host.queue(changed(film("prompt"), "GloriaPromptSchedule", schedule=plain))
    before = latents_of_run(run_of(first, host.base / "output"))
    entry = host.queue(changed(film("prompt"), "GloriaPromptSchedule", schedule=schedule))
    lines = told(entry)
    assert any(
        line.startswith("Chunks 3-5 are made anew: its prompt changed") and "turns to the left" in line
        for line in lines
    ), lines
    assert [chunk["reused"] for chunk in made(host, "prompt")["chunks"]] == [True, True, False, False, False]
    after = latents_of_run(run_of(entry, host.base / "output"))
    assert torch.equal(after[:, :, :14], before[:, :, :14])
    assert not torch.equal(after[:, :, 14:], before[:, :, 14:])


def test_rolling_one_chunk_again_and_back(host: Host, whole: torch.Tensor) -> None:
    output = host.base / "output"
    host.queue(film("rolled"))
    onward = host.queue(film("rolled", reroll="3"))
    assert [chunk["take"] for chunk in made(host, "rolled")["chunks"]] == [1, 1, 2, 2, 2]
    assert (chunk_latents(run_of(onward, output), 2, 2) - chunk_latents(run_of(onward, output), 2, 1)).abs().max() > 0.1
    host.queue(film("rolled", reroll="3 try 2", after_reroll="bridge back to them"))
    assert [chunk["take"] for chunk in made(host, "rolled")["chunks"]] == [1, 1, 3, 1, 1]
    entry = host.queue(film("rolled", reroll="", fps=0.0, keep_latents=True, boundary=0.1))
    assert [chunk["take"] for chunk in made(host, "rolled")["chunks"]] == [1] * NUM_CHUNKS
    assert torch.equal(latents_of_run(run_of(entry, output)), whole)


def test_a_prompt_in_a_reroll(host: Host) -> None:
    host.queue(film("worded"))
    host.queue(film("worded", reroll="0:03 prompt turns to the back, sad"))
    chunks = made(host, "worded")["chunks"]
    assert [chunk["prompt"] for chunk in chunks].count("turns to the back, sad") == 1
    assert len({chunk["seed"] for chunk in chunks}) == NUM_CHUNKS


def test_all_pictures_where_something_is_connected(host: Host) -> None:
    prompt = film("pictures", seconds=1.0)
    prompt["30"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 3], "filename_prefix": "runs/all"}}
    host.queue(prompt)
    assert len(list((host.base / "output" / "runs").glob("all*.png"))) == 16


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"run": "../outside"}, "letters, digits"),
        ({"run": "a/b"}, "letters, digits"),
        ({"run": "/etc"}, "letters, digits"),
        ({"reroll": "99"}, "there is no chunk 99; the video has 1 to 5"),
        ({"reroll": "x"}, "line 1"),
        ({"reroll": "2 take 7"}, "no take 7 of chunk 2"),
        ({"reroll": "2\n2"}, "named twice"),
        ({"reroll": "9:00"}, "the video ends at 0:06"),
    ],
)
def test_what_cannot_be(host: Host, inputs: dict[str, str], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        host.queue(film(**{"run": "wrong", **inputs}))


def test_a_run_that_another_process_works_on(host: Host) -> None:
    from gloria_core.runs.folder import RunFolder

    with (
        RunFolder(host.base / "output" / "gloria_runs" / "taken").locked(),
        pytest.raises(PromptError, match="worked on"),
    ):
        host.queue(film("taken"))


@pytest.mark.slow
def test_forty_chunks_take_no_more_memory_than_a_few(host: Host) -> None:
    process, seen = psutil.Process(host.server.process.pid), []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.chunk":
            seen.append(process.memory_info().rss)

    host.client.run(film("soak", seconds=(33 + 39 * 20) / 16), listen, host.server.require_alive)
    assert len(seen) == 40
    assert max(seen[4:]) < 1.05 * seen[3]
    told = made(host, "soak")
    assert [chunk["chunk"] for chunk in told["chunks"]] == list(range(1, 41))
    assert streams(host.base / "output" / "runs" / "soak_00001_.mp4")["frames"] == 33 + 39 * 20
