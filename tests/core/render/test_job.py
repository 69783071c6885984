"""The job file: what is accepted, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from gloria_core.errors import GloriaError
from gloria_core.render.job import RenderJob, read_job
from gloria_core.runs.reroll import BRIDGE

LEAST = {"version": 1, "model": "nano", "prompts": "0:00 faces the camera, happy"}


def written(folder: Path, text: str) -> Path:
    path = folder / "job.json"
    path.write_text(text, encoding="utf-8")
    return path


def job(folder: Path, **settings: Any) -> RenderJob:
    return read_job(written(folder, json.dumps(LEAST | settings)))


def test_the_least_job(tmp_path: Path) -> None:
    read = job(tmp_path)
    assert (read.seconds, read.steps, read.overlap_latents, read.sampler_name) == (10.0, 8, 4, "euler")
    assert read.run_name == "gloria_video"
    assert read.output == str(tmp_path / "output")


def test_paths_are_relative_to_the_job(tmp_path: Path) -> None:
    for name in ("a.png", "voice.wav"):
        (tmp_path / name).touch()
    read = job(tmp_path, anchors={"global": "a.png"}, audio="voice.wav", start_image="global", output="../films")
    assert read.anchors == {"global": str(tmp_path / "a.png")}
    assert read.audio == str(tmp_path / "voice.wav")
    assert read.start_image == "global"
    assert read.output == str(tmp_path.parent / "films")


def test_words_stand_for_what_is_bundled(tmp_path: Path) -> None:
    read = job(tmp_path, anchors={"character": 12}, audio="bundled speech", after_reroll=BRIDGE)
    assert read.anchors == {"character": 12}
    assert read.audio == "bundled speech"


def test_a_folder_of_weights(tmp_path: Path) -> None:
    (tmp_path / "wan").mkdir()
    (tmp_path / "l.safetensors").touch()
    read = job(tmp_path, model={"diffusers": "wan", "shift": 8, "loras": [{"file": "l.safetensors", "strength": 0.5}]})
    assert read.model.diffusers == str(tmp_path / "wan")
    assert read.model.loras[0].file == str(tmp_path / "l.safetensors")
    assert read.model.shift == 8.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 2}, "version is 2; this version of Gloria reads 1"),
        ({"version": "1"}, "version is '1'; it must be a whole number"),
        ({"sedonds": 3}, "no setting sedonds; did you mean seconds?"),
        ({"model": "wan"}, "model is 'wan'; it must be \"nano\" or"),
        ({"model": {}}, 'it must be "nano" or'),
        ({"model": {"diffusers": "nowhere"}}, "model.diffusers is 'nowhere', and there is no folder"),
        ({"model": {"diffusers": ".", "dtyp": "bf16"}}, "no setting model.dtyp; did you mean model.dtype?"),
        ({"model": {"diffusers": ".", "dtype": "int8"}}, "model.dtype is 'int8'; it must be one of"),
        ({"model": {"diffusers": ".", "device": "tpu"}}, "model.device is 'tpu'"),
        ({"model": {"diffusers": ".", "shift": -1}}, "model.shift is -1.0"),
        ({"model": {"diffusers": ".", "loras": [{"file": "x"}]}}, "model.loras.file is 'x', and there is no file"),
        ({"prompts": ""}, "prompt schedule is empty"),
        ({"prompts": "0:00 a\n0:00 b"}, "does not come after"),
        ({"prompts": ["a"]}, "prompts is ['a']; it must be text"),
        ({"anchors": {"hapy": "x.png"}}, "no anchor 'hapy' (did you mean \"happy\"?)"),
        ({"anchors": {"global": "x.png"}}, "anchors.global is 'x.png', and there is no file"),
        ({"anchors": {"global": 3}}, "anchors.global is 3; it must be a text"),
        ({"anchors": {"global": True}}, "anchors.global is True"),
        ({"anchors": {"character": "Mira", "left": "x.png"}}, "no anchor 'left'"),
        ({"anchors": []}, "anchors is []"),
        ({"anchor_schedule": "0:00 everything"}, 'no anchor'),
        ({"audio": "voice.wav"}, "audio is 'voice.wav', and there is no file"),
        ({"audio": 3}, "audio is 3"),
        ({"start_image": "x.png"}, "start_image is 'x.png', and there is no file"),
        ({"start_image": "global"}, "there is no global anchor"),
        ({"continue_from": "x.mp4"}, "continue_from is 'x.mp4', and there is no file"),
        ({"start_image": "a", "continue_from": "b"}, "Both start_image and continue_from"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": -1}, "seconds is -1.0; it must be from 0 to 36000"),
        ({"seconds": "ten"}, "seconds is 'ten'; it must be a number"),
        ({"seconds": True}, "seconds is True; it must be a number"),
        ({"fps": 121}, "fps is 121.0; it must be from 0 to 120"),
        ({"width": 1.5}, "width is 1.5; it must be a whole number"),
        ({"height": 20000}, "height is 20000"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"steps": 0}, "steps is 0; it must be from 1 to 1000"),
        ({"text_guidance": 31}, "text_guidance is 31.0"),
        ({"audio_guidance": -1}, "audio_guidance is -1.0"),
        ({"sampler_name": "uni_pc"}, "sampler_name is 'uni_pc'; it must be one of: euler, heun, dpmpp_2m"),
        ({"scheduler": "karras"}, "scheduler is 'karras'; it must be one of: simple"),
        ({"chunk_latents": 1025}, "chunk_latents is 1025"),
        ({"overlap_latents": 0}, "overlap_latents is 0"),
        ({"layout": "grid"}, "layout is 'grid'; it must be one of: plain, strip"),
        ({"enlarge_to": 5000}, "enlarge_to is 5000"),
        ({"boundary": 1.1}, "boundary is 1.1"),
        ({"prefix_noise": 0.96}, "prefix_noise is 0.96"),
        ({"colour_guard": 2}, "colour_guard is 2.0"),
        ({"drift_threshold": 1.5}, "drift_threshold is 1.5"),
        ({"drift_tries": 21}, "drift_tries is 21"),
        ({"snap": "far"}, "snap is 'far'; it must be one of: nearest, early, late"),
        ({"sound_end": "fade"}, "sound_end is 'fade'"),
        ({"sync_offset": 11}, "sync_offset is 11.0"),
        ({"run": "../there"}, "The run is called '../there'"),
        ({"reroll": "x"}, "Re-roll, line 1"),
        ({"after_reroll": "bridge"}, "after_reroll is 'bridge'; it must be one of"),
        ({"keep_latents": 1}, "keep_latents is 1; it must be true or false"),
        ({"output": 5}, "output is 5"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GloriaError) as refused:
        job(tmp_path, **settings)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[1]", "holds no table"),
        ('{"version": 1, "version": 1}', "'version' is given twice"),
        ('{"version": 1, "model": "nano", "prompts": "a", "seconds": NaN}', "the number NaN, which is none"),
        ('{"version": 1, "model": "nano", "prompts": "a", "seconds": 1e999}', "seconds is inf"),
        ('{"version": 1, "model": "nano"}', "The setting prompts is missing"),
        ('{"model": "nano", "prompts": "a"}', "The setting version is missing"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_files_that_are_no_jobs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GloriaError) as refused:
        read_job(written(tmp_path, text))
    assert message in str(refused.value)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(GloriaError, match="cannot be read"):
        read_job(tmp_path / "none.json")
    (tmp_path / "job.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GloriaError, match="is not JSON"):
        read_job(tmp_path / "job.json")


GUIDE = Path(__file__).resolve().parents[3] / "docs" / "render.md"


def test_the_guides_job_is_one(tmp_path: Path) -> None:
    [example] = re.findall(r"```json\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert read_job(written(tmp_path, example)).run_name == "my-film"


def test_the_settings_are_documented() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    missing = [each.name for each in fields(RenderJob) if f"`{each.name}`" not in guide]
    assert not missing
