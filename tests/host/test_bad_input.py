"""Wrong input is answered with a sentence that says what to do, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from launch.client import PromptError
from tests.host.workflows import changed, clip, minute

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host


def refused(host: Host, prompt: dict[str, Any]) -> str:
    """The message of a prompt that must fail."""
    before = set((host.base / "output").rglob("*"))
    with pytest.raises(PromptError) as problem:
        host.queue(prompt)
    after = {path for path in (host.base / "output").rglob("*") if path.is_file()}
    assert not {path for path in after - before if path.suffix != ".png"}, "something was left behind"
    return str(problem.value)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"seconds": 0.0}, "must be longer than 0 s"),
        ({"seconds": 0.01}, "make it at least"),
        ({"width": 50}, "The width is 50; it must be a multiple of 16: use 48 or 64"),
        ({"height": 8}, "use 16"),
        ({"fps": 24.0}, "set 'fps' to the same number"),
        ({"text_guidance": 2.0, "negative": None}, "connect one to 'negative'"),
        ({"prompts": None}, "Connect either 'prompts' or 'positive'"),
        ({"chunk_latents": 4}, "no room beside its prefix"),
        ({"chunk_latents": 400}, "too long"),
        ({"filename_prefix": "../../away", "run": "away"}, "leads out of the output folder"),
        ({"fps": 23.976}, "set 'fps' to the same number"),
        ({"overlap_latents": 9}, "no room beside its prefix"),
        ({"prefix_noise": 0.95, "overlap_latents": 64}, "no room"),
        ({"sampler_name": "magic"}, "There is no sampler called 'magic'"),
        ({"layout": "mosaic"}, "There is no layout called 'mosaic'"),
    ],
)
def test_the_long_sampler(host: Host, inputs: dict[str, Any], expected: str) -> None:
    assert expected in refused(host, minute(**inputs))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("", "The prompt schedule is empty"),
        ("0:05 happy", "the first prompt begins at 0:05"),
        ("0:00 happy\n0:00 sad", "line 2"),
        ("0:00 happy\nsoon sad", "does not begin with a time"),
    ],
)
def test_the_prompt_schedule(host: Host, schedule: str, expected: str) -> None:
    assert expected in refused(host, changed(minute(), "GloriaPromptSchedule", schedule=schedule))


def test_a_sound_file_that_is_not_there_or_is_none(host: Host) -> None:
    (host.base / "input" / "letter.wav").write_text("Dear reader, this is no sound.\n" * 20)
    assert "There is no file 'gone.wav'" in refused(host, changed(minute(), "GloriaLoadSpeech", audio="gone.wav"))
    told = refused(host, changed(minute(), "GloriaLoadSpeech", audio="letter.wav"))
    assert "is not a sound or video file" in told
    outside = refused(host, changed(minute(), "GloriaLoadSpeech", audio="../custom_nodes/gloria/LICENSE"))
    assert "There is no file" in outside


def test_a_sound_of_no_length(host: Host) -> None:
    prompt = changed(minute(), "GloriaAudioEncoder", audio=["50", 0])
    prompt["50"] = {"class_type": "EmptyAudio", "inputs": {"duration": 0.0, "sample_rate": 44100, "channels": 2}}
    if "EmptyAudio" not in host.client.get("/object_info"):
        pytest.skip("this host has no Empty Audio node")
    assert "0 s long" in refused(host, prompt)


def test_two_pictures_in_one_slot(host: Host) -> None:
    prompt = changed(minute(), "GloriaAnchorSetBuilder", left=["2", 0])
    assert "Two pictures were given for the left view anchor" in refused(host, prompt)


def test_a_missing_global_picture(host: Host) -> None:
    prompt = changed(minute(), "GloriaAnchorSetBuilder", global_image=None)
    assert "global_image" in refused(host, prompt)


def test_a_character_nobody_knows(host: Host) -> None:
    assert "There is no character called 'Nemo'" in refused(
        host, changed(minute(), "GloriaNanoCharacter", character="Nemo")
    )


def test_a_start_image_of_another_size(host: Host) -> None:
    prompt = minute(start_image=["51", 0])
    prompt["51"] = {
        "class_type": "ImageScale",
        "inputs": {"image": ["2", 0], "upscale_method": "bicubic", "width": 96, "height": 96, "crop": "disabled"},
    }
    assert "The start image is 96 x 96; the video is 48 x 64" in refused(host, prompt)


def test_a_model_of_another_kind(host: Host) -> None:
    prompt = changed(minute(), "GloriaNano", attention="telepathic")
    assert "telepathic" in refused(host, prompt)


@pytest.mark.parametrize("kind", ["cut", "text", "foreign", "gone"])
def test_a_weights_file_that_is_none(host: Host, kind: str) -> None:
    import torch
    from safetensors.torch import save_file

    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / "whole.safetensors"
    save_file({"some.weight": torch.zeros(1000)}, whole)
    contents = {
        "cut": whole.read_bytes()[:600],
        "text": b"not weights at all, just a letter to a friend",
        "foreign": whole.read_bytes(),
    }
    name = f"{kind}.safetensors"
    if kind in contents:
        (folder / name).write_bytes(contents[kind])
    prompt = clip(model=["52", 0])
    prompt["52"] = {"class_type": "GloriaLoadDiT", "inputs": {"weights": name, "attention": "as trained"}}
    told = refused(host, prompt)
    assert name in told
    assert "Traceback" not in told


def test_an_unknown_word_is_a_warning_that_names_it(host: Host) -> None:
    host.queue(changed(minute(seconds=0.5), "GloriaPromptSchedule", schedule="0:00 faces the zebracamera, happy"))
    assert "does not know 'zebracamera'" in host.log()


def test_a_cue_that_is_never_seen_is_a_warning(host: Host) -> None:
    host.queue(changed(minute(seconds=0.5), "GloriaPromptSchedule", schedule="0:00 happy\n0:59 sad"))
    assert 'The prompt at 0:59 ("sad") is never seen' in host.log()


def test_a_name_that_leads_away_is_refused_before_anything_is_made(host: Host) -> None:
    refused(host, minute(filename_prefix="../../away", run="away"))
    assert not (host.base / "output" / "gloria_runs" / "away").exists()
