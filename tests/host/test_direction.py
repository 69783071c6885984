"""Direction over time in the real host: anchors, guidance, joints, another video's tail, drift, the sound's end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import av
import pytest
import torch

from launch.client import PromptError
from tests.host.workflows import Prompt, changed, files_of, latents_of_run, minute, run_of, streams

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Host

pytestmark = pytest.mark.host

SECONDS = 4.5
"""Four chunks; they begin at 0, 2.06, 3.31 and, cut at the end, 4.56 s."""


def film(run: str, **inputs: Any) -> Prompt:
    made = minute(**{"seconds": SECONDS, "run": f"direction-{run}", "filename_prefix": f"direction/{run}", **inputs})
    return changed(made, "GloriaPromptSchedule", schedule="0:00 faces the camera, happy")


def scheduled(run: str, schedule: str, **inputs: Any) -> Prompt:
    prompt = film(run, **inputs)
    prompt["40"] = {
        "class_type": "GloriaAnchorSchedule",
        "inputs": {"anchors": prompt["8"]["inputs"]["anchors"], "schedule": schedule},
    }
    prompt["8"]["inputs"]["anchors"] = ["40", 0]
    return prompt


def latents(host: Host, prompt: Prompt) -> torch.Tensor:
    return latents_of_run(run_of(host.queue(prompt), host.base / "output"))


def made(host: Host, run: str) -> list[dict[str, Any]]:
    path = host.base / "output" / "gloria_runs" / f"direction-{run}" / "run.json"
    return json.loads(path.read_text(encoding="utf-8"))["chunks"]


@pytest.fixture(scope="module")
def plain(_one_host: Host) -> torch.Tensor:
    return latents(_one_host, film("plain"))


def same(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many latents at the start are equal."""
    alike = (one == other).all(dim=4).all(dim=3).all(dim=1)[0]
    return int(alike.long().cumprod(0).sum())


@pytest.mark.parametrize(
    "schedule", ["0:00 all\n0:02 global", "0:00 all\n0:02 views*3, global, expressions*0.3", "0:02.2-0:03 hide front"]
)
def test_anchors_change_where_the_schedule_says(host: Host, plain: torch.Tensor, schedule: str) -> None:
    name = f"anchors{len(schedule)}"
    assert same(latents(host, scheduled(name, schedule)), plain) == 9, "the first chunk is as before"
    assert "front view" in made(host, name)[0]["inputs"]["anchors"]["words"]


def test_a_schedule_that_says_nothing_changes_nothing(host: Host, plain: torch.Tensor) -> None:
    assert torch.equal(latents(host, scheduled("nothing", "0:00 all")), plain)


def test_a_schedule_with_an_unknown_word(host: Host) -> None:
    with pytest.raises(PromptError, match="frnt"):
        host.queue(scheduled("wrong", "0:00 frnt"))


def test_guidance_that_a_prompt_brings(host: Host, plain: torch.Tensor) -> None:
    guided = changed(
        film("guided"),
        "GloriaPromptSchedule",
        schedule="0:00 faces the camera, happy\n0:02.1 [text 3, audio 2] faces the camera, happy",
    )
    assert same(latents(host, guided), plain) == 9
    assert made(host, "guided")[1]["inputs"]["guidance"]["words"] == "text 3, sound 2"


def test_guidance_without_a_negative_prompt(host: Host) -> None:
    prompt = changed(film("bare", negative=None), "GloriaPromptSchedule", schedule="0:00 [text 3] faces the camera")
    with pytest.raises(PromptError, match="text guidance is 3, which needs a negative prompt"):
        host.queue(prompt)


@pytest.mark.parametrize(("snap", "first"), [("early", 1), ("late", 2)])
def test_cues_move_as_asked(host: Host, snap: str, first: int) -> None:
    prompt = film(f"snap-{snap}", snap=snap)
    host.queue(changed(prompt, "GloriaPromptSchedule", schedule="0:00 faces the camera\n0:02.7 turns to the left"))
    told = [chunk["prompt"] for chunk in made(host, f"snap-{snap}")]
    assert told.index("turns to the left") == first


@pytest.mark.parametrize("inputs", [{"prefix_noise": 0.3}, {"colour_guard": 1.0}])
def test_what_holds_a_long_video_together_starts_at_the_second_chunk(
    host: Host, plain: torch.Tensor, inputs: dict[str, float]
) -> None:
    [name] = inputs
    assert same(latents(host, film(name, **inputs)), plain) == 9


def test_a_drifting_chunk_is_sampled_again(host: Host) -> None:
    entry = host.queue(film("drifting", drift_threshold=1.0, drift_tries=1))
    chunks = made(host, "drifting")
    assert [chunk["attempts"] for chunk in chunks] == [2] * len(chunks)
    assert all(0 < chunk["drift"]["similarity"] < 1 for chunk in chunks)
    assert "drifts (similarity" in host.log()
    told = [(data["chunk"], data["state"]) for event, data in host.events if event == "gloria.chunk"]
    assert told == [(chunk["chunk"], state) for chunk in chunks for state in ("drifting", "done")]
    takes = list((run_of(entry, host.base / "output") / "chunks").glob("*.safetensors"))
    assert len(takes) == 2 * len(chunks)


def test_drift_is_a_picture_and_numbers(host: Host) -> None:
    prompt = film("plain")
    prompt["30"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 4], "filename_prefix": "direction/drift"}}
    entry = host.queue(prompt)
    assert len(files_of(entry, host.base / "output", ".png")) == 1
    told = entry["outputs"]["8"]["gloria_drift"]
    assert told == [chunk["drift"] for chunk in made(host, "plain")]
    assert all(0 < drift["similarity"] <= 1 for drift in told)


def test_a_video_goes_on_from_another(host: Host, plain: torch.Tensor) -> None:
    prompt = film("going-on", seconds=2.0)
    before = film("plain")
    prompt["50"] = before["8"]
    prompt["8"]["inputs"].update(continue_from=["50", 0], start_image=None)
    entry = host.queue(prompt)
    [video] = [path for path in set(files_of(entry, host.base / "output", ".mp4")) if path.name.startswith("going-on")]
    assert streams(video)["frames"] == 32
    run = host.base / "output" / "gloria_runs" / "direction-going-on"
    first = latents_of_run(run)[:, :, :4]
    shown = plain[:, :, : 1 + (round(SECONDS * 16) - 1) // 4]
    assert (first[:, :, 1:] - shown[:, :, -3:]).abs().mean() < 0.5 * shown.std(), "H.264 lies between the two"


def test_a_tail_and_a_start_picture_do_not_go_together(host: Host) -> None:
    prompt = film("both")
    prompt["50"] = film("plain")["8"]
    prompt["8"]["inputs"]["continue_from"] = ["50", 0]
    with pytest.raises(PromptError, match="Disconnect one of them"):
        host.queue(prompt)


def sound_of(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) / container.streams.audio[0].rate


@pytest.mark.parametrize(("fit", "frames"), [("stop", 16), ("hold", 72), ("loop", 72)])
def test_where_the_sound_ends(host: Host, fit: str, frames: int) -> None:
    prompt = film(f"sound-{fit}", sound_end=fit)
    speech = next(name for name, node in prompt.items() if node["class_type"] == "GloriaLoadSpeech")
    prompt["60"] = {
        "class_type": "TrimAudioDuration",
        "inputs": {"audio": [speech, 0], "start_index": 2.0, "duration": 1.0},
    }
    encoder = next(node for node in prompt.values() if node["class_type"] == "GloriaAudioEncoder")
    encoder["inputs"]["audio"] = ["60", 0]
    entry = host.queue(prompt)
    [video] = [path for path in set(files_of(entry, host.base / "output", ".mp4")) if "sound" in path.name]
    assert streams(video)["frames"] == frames
    assert abs(sound_of(video) - frames / 16) < 0.1
    heard = [chunk["inputs"]["sound"]["digest"] for chunk in made(host, f"sound-{fit}")]
    if fit == "loop":
        assert len(set(heard)) == len(heard)
