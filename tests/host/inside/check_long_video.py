"""Parts of the long sampler that a workflow cannot reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from gloria_pack.gloria_core.errors import GloriaError, PlanError
from gloria_pack.gloria_core.media import iter_frames
from gloria_pack.gloria_core.runs.old_takes import REMOVE
from gloria_pack.nodes import sample
from gloria_pack.nodes.host import long_video, progress, watch
from gloria_pack.nodes.host.nano import load_nano
from gloria_pack.nodes.sample_inputs import BRIDGE, long_sampler_inputs

SINCE_THE_FIRST_RELEASE = [
    "model_low_noise", "boundary", "clip_vision_output", "end_image", "clip_vision_end_image", "run", "reroll",
    "after_reroll", "prefix_noise", "colour_guard", "drift_threshold", "drift_tries", "snap", "sound_end",
    "continue_from", "clip_vision", "old_takes",
]  # fmt: skip


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
    old = sample._request(given, "8", wants_images=False)
    assert (old.low_noise, old.boundary, old.clip_start, old.end_image, old.clip_end) == (None, 0.0, None, None, None)
    assert old.prompts.conditioning == {"": []}
    assert (old.seconds, old.chunk_latents, old.prefix_latents, len(old.sigmas)) == (2.0, 0, 4, 9)
    values = [
        "low",
        0.875,
        "clip",
        "end",
        "clip of the end",
        "film",
        "2",
        BRIDGE,
        0.1,
        0.5,
        0.7,
        3,
        "late",
        "loop",
        "v",
        "encoder",
        REMOVE,
    ]
    later = dict(zip(SINCE_THE_FIRST_RELEASE, values, strict=True))
    new = sample._request({**given, **later}, "8", wants_images=True)
    assert [new.low_noise, new.boundary, new.clip_start, new.end_image, new.clip_end] == list(later.values())[:5]
    assert (old.run, old.reroll, old.bridges, old.wants_images) == ("", "", False, False)
    assert (new.run, new.reroll, new.bridges, new.wants_images) == ("film", "2", True, True)
    assert (new.prefix_noise, new.colour_guard, new.drift_threshold, new.drift_tries) == (0.1, 0.5, 0.7, 3)
    assert (new.snap, new.sound_fit, new.continue_from) == ("late", "loop", "v")
    assert (old.prefix_noise, old.colour_guard, old.drift_threshold) == (0, 0, 0)
    assert (old.snap, old.sound_fit) == ("nearest", "hold")
    assert (old.clip_vision, old.removes_old) == (None, False)
    assert (new.clip_vision, new.removes_old) == ("encoder", True)


@pytest.mark.parametrize("layout", ["plain", "strip"])
def test_a_video_needs_no_anchors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    monkeypatch.setattr("folder_paths.output_directory", str(tmp_path))
    monkeypatch.setattr(progress, "PromptServer", MagicMock())  # there is no server to tell
    monkeypatch.setattr(watch, "PromptServer", MagicMock())
    model, clip, vae = load_nano("as trained")
    text = clip.encode_from_tokens_scheduled(clip.tokenize("faces the camera, happy"))
    given = {**widgets(), "model": model, "vae": vae, "positive": text, "seconds": 1.0, "steps": 1, "layout": layout}
    with pytest.raises(PlanError, match="no global anchor to take the size from; set width and height"):
        long_video.make_video(sample._request(given, "8", wants_images=False))
    made = long_video.make_video(sample._request({**given, "width": 48, "height": 64}, "8", wants_images=True))
    assert sum(len(frames) for frames in iter_frames(made.path)) == 16
    assert made.images is not None
    assert made.images.shape == (16, 64, 48, 3)
    assert torch.equal(made.images[-1:], made.last_frame)


def test_pictures_that_would_not_fit_are_refused_with_their_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clip, vae = load_nano("as trained")
    text = clip.encode_from_tokens_scheduled(clip.tokenize("faces the camera, happy"))
    given = {**widgets(), "model": model, "vae": vae, "positive": text, "seconds": 36000.0, "width": 480, "height": 640}
    with pytest.raises(GloriaError, match=r"take 4246\.7 GB of memory .* Disconnect 'images'"):
        long_video.make_video(sample._request(given, "8", wants_images=True))


def test_the_last_picture_of_a_guess_is_drawn_where_previews_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    import latent_preview

    model, _, _ = load_nano("as trained")
    guess = torch.zeros(1, 64, 3, 8, 6)
    guess[:, :, -1] = 3.0
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.NoPreviews)
    assert progress.step_previewer(model)(guess) is None
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    look = progress.step_previewer(model)
    drawn, first = look(guess), look(guess[:, :, :1])
    assert drawn is not None
    assert first is not None
    assert drawn.size == (6, 8)
    assert drawn.tobytes() != first.tobytes()
