"""Probing, sounds and pictures of files of many kinds, good and bad."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gloria_core.errors import MediaError
from gloria_core.media import iter_frames, probe, read_audio, write_audio

Film = Callable[..., NDArray[np.uint8]]
Sweep = Callable[..., Tensor]
READERS = (probe, read_audio, lambda path: list(iter_frames(path)))


@pytest.mark.parametrize(("ending", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.06), (".m4a", 0.02)])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_waveform_survives_a_file(tmp_path: Path, sweep: Sweep, ending: str, tolerance: float, channels: int) -> None:
    path, original = tmp_path / f"tone{ending}", sweep(1, 16000, channels)
    write_audio(path, original, 16000, bit_rate=96000)
    heard, rate = read_audio(path, sample_rate=16000)
    assert rate == 16000
    assert heard.dtype == torch.float32
    assert heard.shape[0] == channels
    assert heard.shape[1] >= 16000
    assert (heard[:, :15000] - original[:, :15000]).square().mean().sqrt() < tolerance


def test_sound_is_cut_and_resampled_on_request(tmp_path: Path, sweep: Sweep) -> None:
    write_audio(tmp_path / "tone.flac", sweep(2, 44100), 44100)
    assert read_audio(tmp_path / "tone.flac", max_seconds=0.5)[0].shape == (1, 22050)
    heard, rate = read_audio(tmp_path / "tone.flac", sample_rate=16000)
    assert (heard.shape[1], rate) == (32000, 16000)


def test_a_film_is_described(talkie: Path, mute: Path) -> None:
    info = probe(talkie)
    assert (info.has_video, info.width, info.height, info.fps, info.num_frames) == (True, 64, 48, 16, 32)
    assert (info.has_audio, info.sample_rate, info.channels, info.audio_codec) == (True, 16000, 1, "aac")
    assert info.duration_s == pytest.approx(2, abs=0.01)
    assert not probe(mute).has_audio


def test_a_song_is_described(tmp_path: Path, sweep: Sweep) -> None:
    write_audio(tmp_path / "tone.ogg", sweep(1), 16000)
    info = probe(tmp_path / "tone.ogg")
    assert (info.has_video, info.has_audio, info.num_frames, info.audio_codec) == (False, True, 0, "opus")


def test_frames_come_in_batches(talkie: Path, film: Film) -> None:
    batches = list(iter_frames(talkie, batch_size=12))
    assert [batch.shape for batch in batches] == [(12, 48, 64, 3), (12, 48, 64, 3), (8, 48, 64, 3)]
    assert np.abs(np.concatenate(batches)[:, 5, 5, 0].astype(int) - film(32)[:, 5, 5, 0]).max() < 4


def test_a_phones_rotation_is_applied(tmp_path: Path, film: Film, write_film: Callable[..., Path]) -> None:
    frames = film(4)
    frames[:, :24, :32] = (220, 30, 30)  # red at the top left
    path = write_film(tmp_path / "phone.mp4", frames)
    data = bytearray(path.read_bytes())
    one, minus_one, zero = (value.to_bytes(4, "big", signed=True) for value in (0x10000, -0x10000, 0))
    matrix = data.rindex(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[matrix : matrix + 20] = zero + one + zero + minus_one + zero  # to be turned by 90 degrees clockwise
    path.write_bytes(bytes(data))
    picture = next(iter_frames(path))[0]
    assert picture.shape == (64, 48, 3)
    assert picture[8, -8, 0] > 150, "the top left corner has come to the top right"
    assert picture[8, 8, 0] < 100


def test_a_track_that_starts_late_is_preceded_by_silence(tmp_path: Path, sweep: Sweep) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10, options={"tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("flac", rate=16000, layout="mono")
        for number in range(20):
            picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")
            picture.pts = number
            container.mux(video.encode(picture))
        pcm = (sweep(1) * 32767).to(torch.int16).numpy()
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm), "s16", "mono")
        sound.sample_rate, sound.pts = 16000, 8000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    heard, rate = read_audio(path)
    assert rate == 16000
    assert heard[0, :7900].abs().max() == 0
    assert (heard[0, 8100:20000] - sweep(1)[0, 100:12000]).abs().max() < 0.05


def test_damage_in_the_middle_keeps_the_rest_in_its_place(tmp_path: Path, sweep: Sweep) -> None:
    write_audio(tmp_path / "tone.m4a", sweep(3), 16000)
    data = bytearray((tmp_path / "tone.m4a").read_bytes())
    third = len(data) // 3
    data[third : third + 400] = b"\xff" * 400
    (tmp_path / "tone.m4a").write_bytes(bytes(data))
    heard, _ = read_audio(tmp_path / "tone.m4a")
    tail = slice(40000, 46000)
    assert (heard[0, tail] - sweep(3)[0, tail]).abs().max() < 0.1


def test_a_cut_file_gives_what_is_there(tmp_path: Path, sweep: Sweep) -> None:
    write_audio(tmp_path / "tone.ogg", sweep(4), 16000)
    data = (tmp_path / "tone.ogg").read_bytes()
    (tmp_path / "cut.ogg").write_bytes(data[: len(data) * 2 // 3])
    heard, rate = read_audio(tmp_path / "cut.ogg")
    assert 0.5 < heard.shape[1] / rate < 4


def test_no_cut_or_broken_header_is_more_than_a_bad_file(tmp_path: Path, talkie: Path) -> None:
    """Where the library loses a stream's codec, or finds names that are no UTF-8."""
    data, path, refused, dice = talkie.read_bytes(), tmp_path / "cut.mp4", 0, random.Random(4)
    broken = [data[:length] for length in range(1, len(data), max(1, len(data) // 400))]
    for kind in (b"avcC", b"esds", b"mp4a", b"avc1", b"Lavf", b"VideoHandler"):
        place = data.find(kind)
        broken += [data[:place] + b"\xff" + data[place + 1 :], data[: place + 1] + b"\xc8\xb1" + data[place + 3 :]]
    for _ in range(300):
        mixed = bytearray(data)
        for _ in range(dice.randint(1, 6)):
            mixed[dice.randrange(len(mixed))] = dice.randrange(256)
        broken.append(bytes(mixed))
    for part in broken:
        path.write_bytes(part)
        try:
            info = probe(path)
            assert info.has_video or info.has_audio
        except MediaError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("name", ["speech.wav", "speech.mp3", "speech.txt", "speech.mp4", "speech"])
def test_a_text_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is not a sound.\n" * 200)
    for reader in READERS:
        with pytest.raises(MediaError, match=rf"{name} is not a sound or video file.*give a file such as"):
            reader(path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    for path, message in [
        (tmp_path / "nowhere.wav", "There is no file .*nowhere.wav"),
        (tmp_path, "is a folder"),
        (tmp_path / "empty.wav", "is empty"),
    ]:
        for reader in READERS:
            with pytest.raises(MediaError, match=message):
                reader(path)


def test_a_silent_film_and_a_song_say_what_is_missing(tmp_path: Path, mute: Path, sweep: Sweep) -> None:
    with pytest.raises(MediaError, match=r"mute.mp4 has no sound track"):
        read_audio(mute)
    write_audio(tmp_path / "tone.wav", sweep(1), 16000)
    with pytest.raises(MediaError, match="no moving pictures"):
        list(iter_frames(tmp_path / "tone.wav"))
    Image.new("RGB", (64, 48)).save(tmp_path / "still.png")
    with pytest.raises(MediaError, match="no moving pictures"):
        list(iter_frames(tmp_path / "still.png"))
    with pytest.raises(MediaError, match="no sound track"):
        read_audio(tmp_path / "still.png")


def test_a_sound_of_no_length_is_refused(tmp_path: Path, sweep: Sweep) -> None:
    write_audio(tmp_path / "tone.wav", sweep(1), 16000)
    data = (tmp_path / "tone.wav").read_bytes()
    start = data.index(b"data")
    (tmp_path / "none.wav").write_bytes(data[:start] + b"data\0\0\0\0")
    with pytest.raises(MediaError, match="0 seconds"):
        read_audio(tmp_path / "none.wav")


@pytest.mark.parametrize(
    ("name", "shape", "rate", "message"),
    [
        ("tone.aiff", (1, 5), 16000, r"ends in '.aiff'"),
        ("tone.wav", (5,), 16000, "shape"),
        ("tone.wav", (1, 0), 16000, "shape"),
        ("tone.ogg", (1, 5), 44100, "44100 Hz"),
        ("nowhere/tone.wav", (1, 5), 16000, "could not be written"),
    ],
)
def test_a_sound_that_cannot_be_written_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], rate: int, message: str
) -> None:
    with pytest.raises(MediaError, match=message):
        write_audio(tmp_path / name, torch.zeros(shape), rate)
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_batch_is_refused(talkie: Path) -> None:
    with pytest.raises(MediaError, match="batch_size is 0"):
        list(iter_frames(talkie, batch_size=0))


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("5.1", 6), ("7.1", 8), ("hexadecagonal", 16)])
def test_any_number_of_channels_is_read(tmp_path: Path, layout: str, channels: int) -> None:
    path = tmp_path / "many.wav"
    wanted = np.arange(800 * channels, dtype=np.int16).reshape(1, -1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout=layout)
        frame = av.AudioFrame.from_ndarray(wanted, "s16", layout)
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    heard, rate = read_audio(path)
    assert (rate, heard.is_contiguous()) == (8000, True)
    assert np.array_equal((heard * 32768).numpy(), wanted.reshape(-1, channels).T)


def test_long_sounds_are_gathered_without_a_seam(tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    write_audio(tmp_path / "tone.flac", sweep(3, 16000, 2), 16000)
    whole, _ = read_audio(tmp_path / "tone.flac")
    assert whole.shape == (2, 48000)
    for piece in (1, 20_000, 30_001):
        monkeypatch.setattr("gloria_core.media.sound._PIECE", piece)
        assert torch.equal(read_audio(tmp_path / "tone.flac")[0], whole)
        assert torch.equal(read_audio(tmp_path / "tone.flac", max_seconds=1.3)[0], whole[:, :20800])
