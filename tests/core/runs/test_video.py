"""A video's size, length and chunks; its end; and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gloria_core.config import ModelConfig
from gloria_core.errors import GloriaError
from gloria_core.runs.names import next_video, run_name
from gloria_core.runs.tail import check_tail, num_tail_frames, tail_pictures
from gloria_core.runs.video import VideoWish, check_guidance, check_picture, check_sound, plan_video
from gloria_core.sampling.guidance import Guidance
from gloria_core.sampling.prompts import parse
from gloria_core.types import Anchor, AnchorRole, AudioFeatures

CONFIG = ModelConfig(name="probe", fps=16.0, chunk_latents=9)
MAIN = Anchor(AnchorRole.GLOBAL, "", torch.zeros(1, 16, 1, 4, 6))
WISH: dict[str, Any] = {
    "seconds": 4.0, "fps": 0.0, "width": 0, "height": 0, "chunk_latents": 0, "prefix_latents": 4,
}  # fmt: skip


def planned(**wish: Any) -> Any:
    return plan_video(VideoWish(**WISH | wish), CONFIG, stride=8, main=MAIN)


def test_what_is_open_is_taken_from_model_and_anchor() -> None:
    video = planned()
    assert (video.fps, video.size, video.shape) == (16.0, (48, 32), (1, 16, 4, 6))
    assert (video.num_frames, video.skipped_frames) == (64, 0)
    assert {chunk.num_latents for chunk in video.chunks} == {9}


def test_what_is_given_counts() -> None:
    video = planned(fps=10.0, width=64, height=80, chunk_latents=7, prefix_latents=2)
    assert (video.fps, video.size, video.num_frames) == (10.0, (64, 80), 40)
    assert video.chunks[1].num_prefix == 2


def test_a_video_stops_with_its_sound_where_it_is_to() -> None:
    assert planned(sound_s=1.5).num_frames == 64
    assert planned(sound_s=1.5, sound_fit="stop").num_frames == 24
    assert planned(sound_s=9.0, sound_fit="stop").num_frames == 64


def test_a_continued_video_begins_with_frames_that_are_not_shown() -> None:
    video = planned(goes_on=True)
    assert video.skipped_frames == 13
    assert video.num_frames == 64 + 13


def test_a_video_with_an_end_picture_ends_with_a_whole_latent() -> None:
    assert planned(has_end=True).chunks[-1].frames.stop == 65


@pytest.mark.parametrize(("wish", "message"), [({"width": 50}, "use 48 or 64"), ({"height": 8}, "use 16 or more")])
def test_sizes_off_the_grid_are_refused(wish: dict[str, int], message: str) -> None:
    with pytest.raises(GloriaError, match=message):
        planned(**wish)
    with pytest.raises(GloriaError, match="no global anchor"):
        plan_video(VideoWish(**WISH), CONFIG, stride=8, main=None)


def test_guidance_needs_a_negative_prompt() -> None:
    cues = parse("0:00 a / 0:02 [text 3] b")
    check_guidance(Guidance(), cues, has_audio=False, has_negative=True)
    with pytest.raises(GloriaError, match="text guidance is 3"):
        check_guidance(Guidance(), cues, has_audio=False, has_negative=False)
    check_guidance(Guidance(), cues[:1], has_audio=False, has_negative=False)


def test_sounds_and_pictures_must_fit() -> None:
    check_sound(AudioFeatures(torch.zeros(4, 2), 16.0), 16.0)
    with pytest.raises(GloriaError, match="encoded for 16 frames a second, but the video is made at 24"):
        check_sound(AudioFeatures(torch.zeros(4, 2), 16.0), 24.0)
    assert check_picture("start", torch.zeros(3, 32, 48, 4), (48, 32)).shape == (1, 32, 48, 3)
    with pytest.raises(GloriaError, match="start image is 48 x 32; the video is 32 x 48"):
        check_picture("start", torch.zeros(1, 32, 48, 3), (32, 48))


def test_the_end_of_a_video() -> None:
    assert (num_tail_frames(4, held=False), num_tail_frames(4, held=True)) == (13, 13 + 64)
    frames = torch.arange(40.0).view(-1, 1, 1, 1).expand(40, 2, 4, 3)
    assert torch.equal(check_tail(frames, (4, 2), 4, held=False), frames[-13:])
    assert torch.equal(check_tail(frames, (4, 2), 4, held=True), frames)
    assert torch.equal(tail_pictures(frames, 4, 3), frames[-25:])
    assert torch.equal(tail_pictures(frames, 4), frames[-37:]), "as many whole latents as there are"
    seen = np.full((13, 2, 4, 3), 255, np.uint8)
    assert torch.equal(tail_pictures(seen, 4), torch.ones(13, 2, 4, 3))
    with pytest.raises(GloriaError, match="has 12 pictures"):
        tail_pictures(frames[:12], 4)
    with pytest.raises(GloriaError, match="is 4 x 2; this one is 2 x 4"):
        check_tail(frames, (2, 4), 4, held=True)


def test_names_of_runs_and_numbers_of_videos(tmp_path: Path) -> None:
    assert run_name("", "gloria/my video") == "gloria_my_video"
    assert run_name(" film ", "x") == "film"
    assert next_video(tmp_path, "a/film") == tmp_path / "a" / "film_00001_.mp4"
    (tmp_path / "a" / "film_00007_.mp4").touch()
    (tmp_path / "a" / "film_2_00009_.mp4").touch()
    assert next_video(tmp_path, "a/film") == tmp_path / "a" / "film_00008_.mp4"


@pytest.mark.parametrize("prefix", ["../film", "/film", "a/../../film", "", "a/"])
def test_videos_never_leave_the_output_folder(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(GloriaError, match="leads out of the output folder"):
        next_video(tmp_path, prefix)
