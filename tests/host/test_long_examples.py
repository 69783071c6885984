"""The example workflows for long videos, shortened, in the real host: each does what its note promises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import av
import pytest
import torch

from tests.host.workflows import Prompt, changed, chunk_latents, files_of, latents_of_run, run_of, shipped, streams

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from conftest import Host

    from launch.client import Json

pytestmark = pytest.mark.host

SAMPLER = "GloriaChunkedLongSampler"
FPS = 16
ENDS_S = [frames / FPS for frames in (33, 53, 73, 93)]
"""Where the first four chunks end."""


def told(host: Host, run: str) -> dict[str, Any]:
    path = host.base / "output" / "gloria_runs" / run / "run.json"
    return json.loads(path.read_text(encoding="utf-8"))


def sampled(host: Host, run: str) -> set[int]:
    """Numbers of the chunks that the run's last prompt found it must sample, from 1."""
    return {number for number, what in enumerate(told(host, run)["planned"], 1) if what == "make"}


def film(entry: Mapping[str, Json], host: Host, name: str) -> Path:
    [path] = [path for path in files_of(dict(entry), host.base / "output", ".mp4") if path.name.startswith(name)][:1]
    return path


def pictures(path: Path) -> torch.Tensor:
    """All frames of a video (n, H, W, 3), 0 to 255."""
    with av.open(str(path)) as container:
        return torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().mean())


def test_ten_minutes_go_on_where_they_ended(host: Host) -> None:
    shipped_film = shipped("gloria_ten_minutes")
    first = host.queue(changed(shipped_film, SAMPLER, seconds=ENDS_S[1]))
    run = run_of(first, host.base / "output")
    assert run.name == "ten-minutes"
    assert sampled(host, run.name) == {1, 2}
    begun = chunk_latents(run, 0)

    longer = host.queue(changed(shipped_film, SAMPLER, seconds=ENDS_S[2]))
    assert sampled(host, run.name) == {3}, "all that was made before was on disk"
    assert torch.equal(chunk_latents(run, 0), begun)
    made = streams(film(longer, host, "ten-minutes"))
    assert made["frames"] == 73
    assert set(made["kinds"]) == {"video", "audio"}
    assert longer["outputs"]["14"]["images"], "the drift plot"

    host.queue(changed(shipped_film, SAMPLER, seconds=ENDS_S[2], filename_prefix="test/once-more"))
    assert sampled(host, run.name) == set(), "everything was on disk"


def test_a_chunk_is_taken_again_as_the_note_says(host: Host) -> None:
    short = changed(shipped("gloria_take_again"), SAMPLER, seconds=ENDS_S[3], steps=2)
    run = run_of(host.queue(short), host.base / "output")
    third = told(host, run.name)["chunks"][2]
    assert (third["take"], third["prompt"]) == (1, "faces the camera, surprised")
    shown = latents_of_run(run)

    host.queue(changed(short, SAMPLER, reroll=""))
    third = told(host, run.name)["chunks"][2]
    assert (third["take"], third["prompt"]) == (2, "faces the camera, happy")
    assert sampled(host, run.name) == {3, 4}, "only what the line touched"
    assert not torch.equal(latents_of_run(run), shown)

    host.queue(changed(short, SAMPLER, reroll="3 take 1"))
    assert sampled(host, run.name) == set(), "the first takes were on disk"
    assert torch.equal(latents_of_run(run), shown)

    host.queue(changed(short, SAMPLER, reroll="2 try 2 bridge"))
    assert sampled(host, run.name) == {2}, "the chunks behind a bridge stay"


def test_a_drifting_chunk_is_taken_again_by_itself(host: Host) -> None:
    """A threshold that no chunk but the first reaches, which is compared with itself."""
    strict = changed(
        shipped("gloria_take_again"), SAMPLER,
        seconds=ENDS_S[1], steps=2, reroll="", drift_threshold=1.0, drift_tries=1, run="take-again-strict",
    )  # fmt: skip
    host.queue(strict)
    assert [chunk["attempts"] for chunk in told(host, "take-again-strict")["chunks"]][1] == 2


def test_prompts_guidance_and_anchors_change_along_the_film(host: Host) -> None:
    entry = host.queue(changed(shipped("gloria_direct"), SAMPLER, steps=1, layout="plain", enlarge_to=0))
    assert streams(film(entry, host, "direct"))["frames"] == 24 * FPS
    chunks = told(host, "direct")["chunks"]

    def at(second: float) -> dict[str, Any]:
        return next(chunk for chunk in chunks if chunk["start_s"] <= second < chunk["end_s"])

    def words(second: float, what: str) -> str:
        return at(second)["inputs"][what]["words"]

    assert [at(second)["prompt"] for second in (0, 6, 10, 13, 20)] == [
        "faces the camera, happy", "faces the camera, surprised", "turns to the left, neutral",
        "turns to the back, neutral", "faces the camera, angry",
    ], "snap is early: each prompt holds at the very second that it was written for"  # fmt: skip
    assert [words(second, "guidance") for second in (0, 6, 10, 20)] == [
        "text 1, sound 1", "text 2, sound 1", "text 1, sound 1", "text 1.5, sound 2",
    ]  # fmt: skip
    assert "happy expression" in words(0, "anchors")
    assert "happy expression" not in words(20, "anchors")
    digests = {at(second)["inputs"]["anchors"]["digest"] for second in (0, 6, 12, 20)}
    assert len(digests) == 4, "strengths and hiding count too"


def shortened(prompt: Prompt, seconds: float) -> Prompt:
    """The continued video with parts of another length."""
    made = json.loads(json.dumps(prompt))
    for node in made.values():
        if node["class_type"] == SAMPLER:
            node["inputs"].update(seconds=seconds, steps=2)
    return made


def test_a_video_goes_on_from_a_video_and_from_a_picture(host: Host) -> None:
    entry = host.queue(shortened(shipped("gloria_continue"), 3.0))
    whole = pictures(film(entry, host, "continued"))
    assert whole.shape == (96, 384, 288, 3), "two parts of 3 s, six times as large"
    steps = [apart(whole[index], whole[index - 1]) for index in range(1, 96)]
    assert steps[47] < 1.25 * max(steps[48:]), "the joint is a step of the turn, and no cut"
    picture = pictures(film(entry, host, "continue-from-picture"))
    assert picture.shape == (48, 512, 384, 3)
    small, last = picture[0, 4::8, 4::8], whole[47, 3::6, 3::6]
    assert apart(small, last) < 8, "it begins with the first video's last picture"
    assert entry["outputs"]["30"]["images"][0]["filename"].startswith("continued")
