"""The sound of a film that the real host has made: the user's own packets, in time to the sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from gloria_core.media import probe, read_audio
from tests.host.workflows import Prompt, changed, files_of, minute, node_of, run_of

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

SECONDS = 3.0
FPS = 16
KINDS = {
    "speech.m4a": ("aac", 44100),
    "speech.mp4": ("aac", 48000),
    "speech.mp3": ("libmp3lame", 44100),
    "speech.flac": ("flac", 44100),
    "speech.ogg": ("libopus", 48000),
    "speech.webm": ("libopus", 48000),
    "speech.wav": ("pcm_s16le", 44100),
}
"""Names of files by their codec and sample rate; the .mp4 has pictures too."""
COPIED = [name for name in KINDS if not name.endswith(".wav")]


def clicks(seconds: float, rate: int) -> Tensor:
    """Clicks at uneven times, (2, samples), so that a shift is measured to the sample."""
    wave = torch.zeros(2, round(seconds * rate))
    for time_s in (0.1, 0.25, 0.6, 0.7, 1.15, 1.3, 1.8, 2.05, 2.5, 2.7, 3.3):
        place = round(time_s * rate)
        wave[:, place : place + 24] = torch.hann_window(24) * 0.8
    return wave


def lag(heard: Tensor, original: Tensor) -> int:
    """Samples by which one sound comes later than another."""
    length = min(heard.shape[1], original.shape[1])
    spectra = [torch.fft.rfft(wave[0, :length], 2 * length) for wave in (heard, original)]
    peak = int(torch.fft.irfft(spectra[0] * spectra[1].conj()).argmax())
    return peak if peak < length else peak - 2 * length


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.fixture(scope="module")
def sounds(_one_host: Host) -> Path:
    """The host's input folder, with a file of each kind; each is four seconds long."""
    folder = _one_host.base / "input"
    folder.mkdir(exist_ok=True)
    for name, (codec, rate) in KINDS.items():
        with av.open(str(folder / name), "w") as container:
            video = container.add_stream("libx264", rate=10) if name.endswith(".mp4") else None
            stream = container.add_stream(codec, rate=rate, layout="stereo")
            if video is not None:
                video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
                for _ in range(40):
                    picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
                    container.mux(video.encode(picture))
                container.mux(video.encode(None))
            frame = av.AudioFrame.from_ndarray(clicks(4, rate).numpy(), "fltp", "stereo")
            frame.sample_rate, frame.pts = rate, 0
            resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=rate)
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(part))
    return folder


def film(name: str, run: str = "", **inputs: Any) -> Prompt:
    run = run or f"sound-{name.replace('.', '-')}"
    quick = {"seconds": SECONDS, "steps": 1, "run": run, "filename_prefix": f"sound/{run}", **inputs}
    return changed(minute(**quick), "GloriaLoadSpeech", audio=name)


def made(host: Host, prompt: Prompt) -> Path:
    return files_of(host.queue(prompt), host.base / "output", ".mp4")[-1]


@pytest.mark.parametrize("name", KINDS)
def test_the_film_has_the_users_own_sound_in_its_place(host: Host, sounds: Path, name: str) -> None:
    source = sounds / name
    entry = host.queue(film(name))
    out = files_of(entry, host.base / "output", ".mp4")[-1]
    told = " ".join(line for shown in entry["outputs"].values() for line in shown.get("gloria_plan", []))
    own, found = packets(source), packets(out)
    heard, rate = read_audio(out)
    original, _ = read_audio(source)
    assert probe(out).duration_s == pytest.approx(SECONDS, abs=1e-3)
    assert rate == KINDS[name][1]
    assert abs(heard.shape[1] / rate - SECONDS) < 0.12, "a packet may reach over the end"
    assert lag(heard, original) == 0
    if name in COPIED:
        assert len(found) > 20 if name != "speech.flac" else len(found) > 5
        assert found == own[: len(found)]
        whole = round((SECONDS - 0.1) * rate)  # behind it a decoder may miss what follows
        assert torch.equal(heard[:, :whole], original[:, :whole])
        assert "encoded to AAC" not in told
    else:
        assert probe(out).audio_codec == "aac"
        assert f"{name} is encoded to AAC" in told


def test_a_part_that_goes_on_begins_with_the_beginning_of_its_sound(host: Host, sounds: Path) -> None:
    prompt = film("speech.m4a", "sound-onward")
    first = made(host, prompt)
    (sounds / "first.mp4").write_bytes(first.read_bytes())
    sampler = next(identity for identity, node in prompt.items() if "Sampler" in node["class_type"])
    prompt["90"] = {"class_type": "LoadVideo", "inputs": {"file": "first.mp4"}}
    prompt[sampler]["inputs"] |= {"continue_from": ["90", 0], "start_image": None, "run": "sound-onward-2"}
    del prompt[sampler]["inputs"]["start_image"]
    second = made(host, prompt)
    assert probe(second).num_frames == SECONDS * FPS
    found = packets(second)
    assert found == packets(sounds / "speech.m4a")[: len(found)]
    assert lag(read_audio(second)[0], read_audio(sounds / "speech.m4a")[0]) == 0


@pytest.mark.parametrize(("fit", "length_s"), [("stop", 4.0), ("hold", 5.0), ("loop", 5.0)])
def test_a_shorter_sound(host: Host, sounds: Path, fit: str, length_s: float) -> None:
    [choice] = [one for one in ("stop", "hold", "loop") if one == fit]
    options = host.client.get("/object_info/GloriaChunkedLongSampler")["GloriaChunkedLongSampler"]["input"]
    [spec] = [group["sound_end"] for group in options.values() if isinstance(group, dict) and "sound_end" in group]
    [word] = [value for value in spec[1].get("options", spec[0]) if choice in value]
    out = made(host, film("speech.flac", f"sound-{fit}", seconds=5.0, sound_end=word))
    info = probe(out)
    assert info.duration_s == pytest.approx(length_s, abs=1 / FPS)
    heard, rate = read_audio(out)
    original, _ = read_audio(sounds / "speech.flac")
    late = heard[:, round(4.05 * rate) :]
    if fit == "loop":
        assert lag(heard[:, 4 * rate :], original[:, : heard.shape[1] - 4 * rate]) == 0
    else:
        assert info.audio_codec == "flac"
        assert torch.count_nonzero(late.abs() > 1e-3) == 0


def test_a_sound_that_was_trimmed_is_what_is_heard(host: Host, sounds: Path) -> None:
    prompt = film("speech.m4a", "sound-trimmed", seconds=2.0)
    encoder = node_of(prompt, "GloriaAudioEncoder")["inputs"]
    trimmed = {"audio": encoder["audio"], "start_index": 0.5, "duration": 3.0}
    prompt["91"] = {"class_type": "TrimAudioDuration", "inputs": trimmed}
    encoder["audio"] = ["91", 0]
    heard, rate = read_audio(made(host, prompt))
    original, _ = read_audio(sounds / "speech.m4a")
    assert lag(heard, original[:, round(0.5 * rate) :]) == 0


def test_another_file_of_the_same_sound_makes_another_film_and_samples_nothing(host: Host, sounds: Path) -> None:
    first = host.queue(film("speech.flac", "sound-swapped"))
    as_flac = files_of(first, host.base / "output", ".mp4")[-1]
    again = host.queue(film("speech.wav", "sound-swapped"))
    as_wav = files_of(again, host.base / "output", ".mp4")[-1]
    assert (probe(as_flac).audio_codec, probe(as_wav).audio_codec) == ("flac", "aac")
    assert len(list((run_of(again, host.base / "output") / "chunks").glob("*.take-2.*"))) == 0


def test_frames_of_offset_move_the_lips_and_not_the_sound(host: Host, sounds: Path) -> None:
    plain = made(host, film("speech.m4a", "sound-offset"))
    moved = made(host, changed(film("speech.m4a", "sound-offset"), "GloriaAudioEncoder", sync_frames=3))
    assert packets(plain) == packets(moved)
    assert plain.read_bytes() != moved.read_bytes(), "the pictures are others"
