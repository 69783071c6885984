"""Parts of the long sampler that a workflow cannot reach."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gloria_pack.gloria_core.errors import MediaError, PlanError
from gloria_pack.gloria_core.media import iter_frames
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.long_video import FinishedChunk
from gloria_pack.nodes import sample
from gloria_pack.nodes.host import long_video
from gloria_pack.nodes.host.nano import load_nano
from gloria_pack.nodes.host.progress import VideoProgress
from gloria_pack.nodes.sample_inputs import long_sampler_inputs
from safetensors.torch import load_file


def finished(index: int = 1) -> FinishedChunk:
    chunk = plan(60, 6, 2)[index]
    return FinishedChunk(chunk, torch.ones(1, 4, 4, 2, 2), chunk.new_latents.start, chunk.frames, 77, 0.1)


def test_latents_are_written_whole(tmp_path: Path) -> None:
    long_video.save_latents(tmp_path / "deep" / "folder", finished(), "happy")
    [file] = (tmp_path / "deep" / "folder").iterdir()
    assert file.name == "chunk_0001.latent"
    assert torch.equal(load_file(file)["latent_tensor"], finished().latents)


def test_a_write_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(MediaError, match="Free some disk space"):
            long_video.save_latents(tmp_path, finished(), "happy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a file in the place of a folder is told otherwise there")
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(MediaError, match="could not be written"):
        long_video.save_latents(tmp_path / "taken", finished(), "happy")


SINCE_THE_FIRST_RELEASE = ["model_low_noise", "boundary", "clip_vision_output", "end_image", "clip_vision_end_image"]


def widgets() -> dict[str, Any]:
    """What a saved workflow of the first release holds."""
    known = {one.id: one.default for one in long_sampler_inputs() if getattr(one, "default", None) is not None}
    return {name: value for name, value in known.items() if name not in SINCE_THE_FIRST_RELEASE}


def test_inputs_that_came_later_stand_last() -> None:
    names = [one.id for one in long_sampler_inputs()]
    assert names[-len(SINCE_THE_FIRST_RELEASE) :] == SINCE_THE_FIRST_RELEASE
    assert all(one.optional for one in long_sampler_inputs()[-len(SINCE_THE_FIRST_RELEASE) :])


def test_every_input_reaches_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folder_paths.output_directory", str(tmp_path))
    model, _, vae = load_nano("as trained")
    given = {**widgets(), "model": model, "vae": vae, "anchors": "anchors", "positive": [], "seconds": 2.0}
    old = sample._request(given, "8")
    assert (old.low_noise, old.boundary, old.clip_start, old.end_image, old.clip_end) == (None, 0.0, None, None, None)
    assert old.prompts.conditioning == {"": []}
    assert (old.seconds, old.chunk_latents, old.prefix_latents, len(old.sigmas)) == (2.0, 0, 4, 9)
    later = dict(zip(SINCE_THE_FIRST_RELEASE, ["low", 0.875, "clip", "end", "clip of the end"], strict=True))
    new = sample._request({**given, **later}, "8")
    assert [new.low_noise, new.boundary, new.clip_start, new.end_image, new.clip_end] == list(later.values())


@pytest.mark.parametrize("layout", ["plain", "strip"])
def test_a_video_needs_no_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    monkeypatch.setattr("folder_paths.output_directory", str(tmp_path))
    monkeypatch.setattr(VideoProgress, "_send", lambda self, data: None)  # there is no server to tell
    model, clip, vae = load_nano("as trained")
    text = clip.encode_from_tokens_scheduled(clip.tokenize("faces the camera, happy"))
    given = {**widgets(), "model": model, "vae": vae, "positive": text, "seconds": 1.0, "steps": 1, "layout": layout}
    with pytest.raises(PlanError, match="no global anchor to take the size from; set width and height"):
        long_video.make_video(sample._request(given, "8"))
    made = long_video.make_video(sample._request({**given, "width": 48, "height": 64}, "8"))
    assert sum(len(frames) for frames in iter_frames(made.path)) == 16
