"""The user's own file on its way into the film, and the sync offset in frames."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import comfy_extras.nodes_audio
import folder_paths
import pytest
import torch
from gloria_pack.gloria_core.config import AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import AudioError
from gloria_pack.gloria_core.media import write_audio
from gloria_pack.gloria_core.runs.sound import film_sound, film_sound_digest, sound_notes
from gloria_pack.nodes.audio import AudioEncoder
from gloria_pack.nodes.host import sound
from gloria_pack.nodes.sockets import EncodedAudio

RATE = 24_000


@pytest.fixture(autouse=True)
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the input folder, and a model that hears mel bands at 16 frames a second."""
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    config = ModelConfig(name="probe", audio=AudioConfig(kind="mel", feature_dim=32), fps=16.0)
    monkeypatch.setattr(sound, "model_config", lambda patcher: config)
    time = torch.arange(3 * RATE) / RATE
    tone = 0.3 * torch.sin(2 * torch.pi * 220 * time) * (time > 1.5)
    write_audio(tmp_path / "speech.flac", tone.expand(2, -1), RATE)
    return tmp_path / "speech.flac"


def encode(audio: dict[str, Any] | None, offset_s: float = 0.0, **more: Any) -> EncodedAudio:
    made: EncodedAudio = AudioEncoder.execute(None, audio, 0.0, offset_s, **more).result[0]
    return made


def test_the_film_is_given_the_file(speech: Path) -> None:
    made = encode(sound.load_sound("speech.flac"))
    for fit in ("hold", "stop"):
        film = film_sound(made, fit)
        assert (film.source, film.fit, film.is_copied) == (speech, fit, True)
        assert sound_notes(film) == []
    assert isinstance(film_sound(made, "loop").source, tuple), "no packet ends where the sound does"


def test_what_other_nodes_change_has_no_file() -> None:
    audio = sound.load_sound("speech.flac")
    [trimmed] = comfy_extras.nodes_audio.TrimAudioDuration().trim(audio, 0.5, 1.0)
    louder = {**audio, "waveform": audio["waveform"] * 2}
    slower = {**audio, "sample_rate": RATE // 2}
    cut = {**audio, "waveform": audio["waveform"][..., RATE:]}
    for other in (trimmed, louder, slower, cut, {k: v for k, v in audio.items() if k != sound.ORIGINAL}):
        made = encode(other)
        assert made.original is None
        assert isinstance(film_sound(made, "hold").source, tuple)
    same = {**audio, "waveform": audio["waveform"].clone()}
    assert encode(same).original is audio[sound.ORIGINAL]
    audio["waveform"][0, 0, 5] += 0.1  # a node that works in place
    assert encode(audio).original is None


def test_a_file_that_changed_since_is_left_out(speech: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = encode(sound.load_sound("speech.flac"))
    os.utime(speech, ns=(1, 1))
    film = film_sound(made, "hold")
    assert isinstance(film.source, tuple)
    assert "changed or removed" in caplog.text
    anew = encode(sound.load_sound("speech.flac"))
    assert film_sound_digest(made, film) != film_sound_digest(anew, film_sound(anew, "hold"))


def test_the_digest_is_of_the_content(speech: Path) -> None:
    def digest(name: str, fit: Any = "hold") -> str:
        made = encode(sound.load_sound(name))
        return film_sound_digest(made, film_sound(made, fit))

    before = digest("speech.flac")
    (speech.parent / "elsewhere").mkdir()
    (speech.parent / "elsewhere" / "copy.flac").write_bytes(speech.read_bytes())
    assert digest("elsewhere/copy.flac") == before, "neither name nor time counts"
    write_audio(speech.parent / "speech.wav", sound.load_sound("speech.flac")["waveform"][0], RATE)
    assert torch.equal(sound.load_sound("speech.wav")["waveform"], sound.load_sound("speech.flac")["waveform"])
    assert digest("speech.wav") != before, "another file makes another film"
    assert len({digest("speech.flac", fit) for fit in ("hold", "stop", "loop")}) == 3


def test_a_sound_that_must_be_encoded_is_told_of(speech: Path) -> None:
    write_audio(speech.parent / "speech.wav", torch.rand(1, RATE), RATE)
    [note] = sound_notes(film_sound(encode(sound.load_sound("speech.wav")), "hold"))
    assert "speech.wav is encoded to AAC" in note
    stock = {"waveform": torch.rand(1, 1, RATE), "sample_rate": RATE}
    assert sound_notes(film_sound(encode(stock), "hold")) == []
    assert sound_notes(None) == []


@pytest.mark.parametrize("frames", [1, -1, 7])
@pytest.mark.parametrize("fps", [0.0, 23.976, 60.0])
def test_frames_move_lips_by_whole_rows(frames: int, fps: float) -> None:
    audio = sound.load_sound("speech.flac")
    rate = fps or 16.0
    plain, moved = (
        AudioEncoder.execute(None, audio, fps, 0.0, sync_frames=count).result[0].features.frames
        for count in (0, frames)
    )
    start, num = round(rate), round(rate)
    wanted = plain[start : start + num]
    apart = {lag: (moved[start + lag :][:num] - wanted).abs().mean() for lag in range(-9, 10)}
    assert min(apart, key=lambda lag: float(apart[lag])) == frames
    assert apart[frames] < apart[0] / 3


def test_frames_and_seconds_add_up() -> None:
    audio = sound.load_sound("speech.flac")
    together, alone = encode(audio, 0.25, sync_frames=-4), encode(audio)
    assert torch.equal(together.features.frames, alone.features.frames)
    assert together.original is audio[sound.ORIGINAL], "the film's own sound is not moved"


@pytest.mark.parametrize(
    ("offset_s", "frames", "message"),
    [
        (10.0, 1, r"10\.06 s later.*10 s and 1 frames at 16"),
        (-4.0, -100, r"10\.25 s earlier"),
        (0.0, -48, "longer than"),
    ],
)
def test_offsets_that_nobody_means_are_refused(offset_s: float, frames: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        encode(sound.load_sound("speech.flac"), offset_s, sync_frames=frames)


def test_nothing_to_hear_is_said_so() -> None:
    with pytest.raises(AudioError, match="video without a sound track"):
        encode(None)
    for shape in ((1, 0, 100), (1, 2, 0), (0, 2, 100)):
        with pytest.raises(AudioError, match="0 s long"):
            encode({"waveform": torch.zeros(shape), "sample_rate": RATE})
