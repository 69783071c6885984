"""Everything that can be wrong with a long video: a sentence says what to do, before any chunk is sampled.

Each case is a change of one API JSON that works. Nothing may be left on the disk, and the server stays as it was.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pytest

from gloria_core.nano.speech import DEMO_FILE
from launch.client import PromptError
from tests.host import tiny_encoders
from tests.host.workflows import Prompt, changed, minute, streams
from tests.host.wrong_videos import QUICK, SAMPLER, SCHEDULE, SPEECH, WRONG, anchors, going_on

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host


def wav_header(seconds: int, rate: int) -> bytes:
    """The start of a WAV file of one channel with eight bits."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(rate)
    head, size = bytearray(made.getvalue()), seconds * rate
    head[4:8], head[40:44] = (36 + size).to_bytes(4, "little"), size.to_bytes(4, "little")
    return bytes(head)


def wav(seconds: float, rate: int, channels: int, width: int) -> bytes:
    """A WAV file with a soft tone."""
    count = round(seconds * rate)
    tone = 0.3 * np.sin(np.arange(count) * (2 * np.pi * 220 / rate))
    data = np.repeat(tone[:, None], channels, axis=1)
    samples = (data * 127 + 128).astype(np.uint8) if width == 1 else (data * 32767).astype("<i2")
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return made.getvalue()


@pytest.fixture(scope="module")
def studio(_one_host: Host) -> Host:
    """The host, with the files that the cases name."""
    inputs = _one_host.base / "input"
    whole = wav(2.0, 16000, 1, 2)
    files = {
        "letter.wav": b"Dear reader, this is no sound.\n" * 20,
        "nothing.wav": wav(0.0, 16000, 1, 2),
        "cut.wav": whole[:30],
        "empty.mp3": b"",
        "picture.mp4": b"\0" * 4000,
        "short.wav": whole,
        "mono.wav": whole,
        "stereo 44.1.wav": wav(2.0, 44100, 2, 2),
        "surround.wav": wav(2.0, 48000, 6, 2),
        "eight bits.wav": wav(2.0, 8000, 1, 1),
        "cut.mp3": DEMO_FILE.read_bytes()[:3000],
    }
    for name, data in files.items():
        (inputs / name).write_bytes(data)
    tiny_encoders.write_vae(_one_host.base / "models" / "vae" / "wan_2.1_vae.safetensors", 3, wan22=False)
    _one_host.queue(minute(**QUICK, run="before"))
    return _one_host


def everything(host: Host) -> set[Path]:
    return set((host.base / "output").rglob("*"))


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_before_anything_is_made(studio: Host, case: str) -> None:
    make, expected = WRONG[case]
    before = everything(studio)
    with pytest.raises(PromptError) as problem:
        studio.queue(make())
    told = str(problem.value)
    assert expected in told
    assert not [event for event, _ in studio.events if event in ("gloria.progress", "gloria.chunk")], "it was sampled"
    assert everything(studio) == before, "something was left behind"
    assert "Traceback" not in told


def with_alpha(slot: str) -> Prompt:
    """The small video with a transparent picture in a slot of the character or of the sampler."""
    made = minute(**QUICK)
    made["46"] = {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 48, "height": 64}}
    made["47"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["2", 0], "alpha": ["46", 0]}}
    kind = SAMPLER if slot == "start_image" else "GloriaAnchorSetBuilder"
    taken = {"anchors": None} if slot == "happy" else {}
    return changed(made, kind, **taken, **{slot: ["47", 0]})


def at_rate(fps: float) -> Prompt:
    return changed(minute(**QUICK, fps=fps), "GloriaAudioEncoder", fps=fps)


RIGHT: dict[str, Callable[[], Prompt]] = {
    "one channel": lambda: changed(minute(**QUICK), SPEECH, audio="mono.wav"),
    "two channels at 44.1 kHz": lambda: changed(minute(**QUICK), SPEECH, audio="stereo 44.1.wav"),
    "six channels": lambda: changed(minute(**QUICK), SPEECH, audio="surround.wav"),
    "eight bits at 8 kHz": lambda: changed(minute(**QUICK), SPEECH, audio="eight bits.wav"),
    "the model's own rate": lambda: at_rate(0.0),
    "a broadcast rate": lambda: at_rate(23.976),
    "a large rate": lambda: at_rate(120.0),
    "a transparent start image": lambda: with_alpha("start_image"),
    "a transparent anchor": lambda: with_alpha("happy"),
    "a transparent global anchor": lambda: with_alpha("global_image"),
    "a strength of 0": lambda: changed(anchors("0:00 all, happy*0"), SAMPLER, **QUICK),
    "no anchor at all": lambda: changed(anchors("0:00 none"), SAMPLER, **QUICK),
    "a prompt without a time": lambda: changed(minute(**QUICK), SCHEDULE, schedule="happy"),
    "a run in Chinese": lambda: minute(**QUICK, run="\u9ed1\u732b-\u00e9t\u00e9"),
    "a file in Hindi": lambda: minute(**QUICK, filename_prefix="test/\u0939\u093f\u0928\u094d\u0926\u0940"),
    "a long file name": lambda: minute(**QUICK, filename_prefix="test/" + "long" * 45),
    "a video from pictures to go on from": lambda: going_on(48, 64, 20, **QUICK),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_unusual_works(studio: Host, case: str) -> None:
    entry = studio.queue(RIGHT[case]())
    shown = entry["outputs"]["8"]["gloria_video"][0]
    made = streams(studio.base / "output" / shown["subfolder"] / shown["filename"])
    rate = {"a broadcast rate": 24000 / 1001, "a large rate": 120.0}.get(case, 16.0)
    assert made["rate"] == pytest.approx(rate)
    assert made["frames"] == round(0.5 * rate) or case in ("a strength of 0", "no anchor at all")


def test_a_run_of_another_script_is_found_under_its_name(studio: Host) -> None:
    name = "\u9ed1\u732b"
    studio.queue(minute(**QUICK, run=name))
    assert (studio.base / "output" / "gloria_runs" / name / "run.json").is_file()
    assert studio.client.get(f"/gloria/runs/{quote(name)}")["state"] == "finished"


@pytest.mark.slow
def test_five_hours_of_sound_under_a_short_video(studio: Host) -> None:
    path = studio.base / "input" / "five hours.wav"
    with path.open("wb") as file:
        file.write(wav_header(5 * 3600, 4000))
        file.truncate(44 + 5 * 3600 * 4000)  # no room is taken on most disks
    try:
        assert studio.queue(changed(minute(**QUICK), SPEECH, audio="five hours.wav"))["status"]["completed"]
    finally:
        path.unlink()
