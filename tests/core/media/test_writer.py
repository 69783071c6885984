"""The streaming writer: right pictures, sound in step, and no broken file whatever happens."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloria_core.errors import MediaError
from gloria_core.media import VideoWriter, iter_frames, probe, read_audio, write_audio
from gloria_core.media.encoder import Mp4Encoder

Film = Callable[..., NDArray[np.uint8]]
Sweep = Callable[..., Tensor]


def decoded(path: Path) -> NDArray[np.uint8]:
    return np.concatenate(list(iter_frames(path)))


def delay(heard: Tensor, original: Tensor) -> int:
    """Samples by which ``heard`` comes later than ``original``, by cross-correlation of the first channels."""
    length = min(heard.shape[1], original.shape[1])
    spectra = [torch.fft.rfft(wave[0, :length], 2 * length) for wave in (heard, original)]
    peak = int(torch.fft.irfft(spectra[0] * spectra[1].conj()).argmax())
    return peak if peak < length else peak - 2 * length


def test_frames_come_back_in_number_order_and_colour(tmp_path: Path, film: Film) -> None:
    path = tmp_path / "out.mp4"
    frames = film(40)
    frames[:, :, 32:] = (200, 40, 90)
    with VideoWriter(path, 16, (64, 48)) as writer:
        for start in range(0, 40, 7):
            writer.write(frames[start : start + 7])
        assert writer.num_frames == 40
    info = probe(path)
    assert (info.width, info.height, info.fps, info.num_frames, info.video_codec) == (64, 48, 16, 40, "h264")
    assert not info.has_audio
    assert np.abs(decoded(path).astype(int) - frames).mean(axis=(1, 2, 3)).max() < 4
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.skipif(av.library_versions["libavformat"] < (62, 12, 0), reason="this FFmpeg cannot write hybrid files")
def test_a_finished_file_is_an_ordinary_mp4_that_hd_players_show_in_true_colours(talkie: Path) -> None:
    boxes = talkie.read_bytes()
    assert boxes[4:8] == b"ftyp"
    assert b"moov" in boxes
    assert b"moof" not in boxes[: boxes.index(b"mdat")]
    assert b"colrnclx\x00\x01\x00\x01\x00\x01" in boxes


@pytest.mark.parametrize(
    ("fps", "sample_rate", "channels"),
    [(16, 16000, 1), (24, 48000, 2), (25, 44100, 2), (23.976, 22050, 1), (30, 11025, 1), (16, 96000, 3)],
)
def test_sound_is_in_step_to_the_sample_and_as_long_as_the_video(
    tmp_path: Path, film: Film, sweep: Sweep, fps: float, sample_rate: int, channels: int
) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, fps, (64, 48), audio=(sweep(5, sample_rate, channels), sample_rate)) as writer:
        for start in range(0, 60, 20):
            writer.write(film(20, first=start))
    info = probe(path)
    assert info.channels == min(channels, 2) if channels < 3 else info.channels == 1
    assert info.duration_s == pytest.approx(60 / fps, abs=0.002)
    heard, rate = read_audio(path, sample_rate=16000)
    original = sweep(5, 48000)[:, ::3]
    assert abs(delay(heard, original)) <= 1
    assert 0 <= heard.shape[1] / rate - 60 / fps < 0.066  # at most one AAC packet more
    assert heard[0, 4000:8000].square().mean() == pytest.approx(0.08, rel=0.2)


def test_sound_is_taken_from_a_file(tmp_path: Path, film: Film, sweep: Sweep) -> None:
    write_audio(tmp_path / "in.flac", sweep(5, 48000, 2), 48000)
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 16, (64, 48), audio=tmp_path / "in.flac") as writer:
        writer.write(film(32))
    heard, rate = read_audio(path)
    assert (rate, heard.shape[0]) == (48000, 2)
    assert abs(delay(heard, sweep(5, 48000))) <= 1


def test_silence_follows_a_short_sound(tmp_path: Path, film: Film, sweep: Sweep) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 16, (64, 48), audio=(sweep(0.5), 16000)) as writer:
        writer.write(film(32))
    heard, _ = read_audio(path)
    assert heard.shape[1] >= 2 * 16000
    assert heard[0, 12000:].abs().max() < 0.01
    assert heard[0, 2000:7000].abs().max() > 0.3


def test_a_tensor_is_taken_and_the_callers_buffer_may_be_reused(tmp_path: Path, film: Film) -> None:
    path = tmp_path / "out.mp4"
    buffer = torch.empty(4, 48, 64, 3, dtype=torch.uint8)
    with VideoWriter(path, 16, (64, 48)) as writer:
        for start in range(0, 24, 4):
            buffer.copy_(torch.from_numpy(film(4, first=start)))
            writer.write(buffer)
    assert np.abs(decoded(path)[:, 8, 8, 0].astype(int) - film(24)[:, 8, 8, 0]).max() < 4


def test_finishing_early_keeps_what_is_there(tmp_path: Path, film: Film, sweep: Sweep) -> None:
    path = tmp_path / "out.mp4"

    def interrupted() -> None:
        with VideoWriter(path, 16, (64, 48), audio=(sweep(5), 16000)) as writer:
            writer.write(film(20))
            try:
                raise KeyboardInterrupt
            finally:
                writer.finish()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert len(decoded(path)) == 20
    assert probe(path).duration_s == pytest.approx(1.25, abs=0.01)


def test_an_error_leaves_nothing_behind_and_the_old_file_alone(tmp_path: Path, film: Film) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    before = threading.active_count()
    seen: list[str] = []

    def failing() -> None:
        with VideoWriter(path, 16, (64, 48)) as writer:
            writer.write(film(20))
            seen.extend(sorted(file.name for file in tmp_path.iterdir()))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        failing()
    assert seen == ["out.mp4", "out.partial.mp4"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"old"
    assert threading.active_count() == before


def test_a_file_without_frames_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No frame"), VideoWriter(tmp_path / "out.mp4", 16, (64, 48)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 20 kB."""
    resource = pytest.importorskip("resource", reason="this system has no limit on file sizes to test with")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def noise(num_frames: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (num_frames, 48, 64, 3), dtype=np.uint8)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_said_and_nothing_stays(tmp_path: Path) -> None:
    written = []

    def write_on() -> None:
        with VideoWriter(tmp_path / "out.mp4", 16, (64, 48)) as writer:
            for _ in range(200):
                writer.write(noise(8))
                written.append(writer.num_frames)

    with pytest.raises(MediaError, match=r"disk is full.*Free some space"):
        write_on()
    assert len(written) < 200, "the failure reached the caller while it was writing"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_fills_with_the_last_bytes_is_said_too(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 16, (64, 48))
    writer.write(noise(10))
    with pytest.raises(MediaError, match="disk is full"):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_encoder_that_dies_does_not_hang_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*args: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Mp4Encoder, "add", die)

    def write_on(count: int) -> None:
        with VideoWriter(tmp_path / "out.mp4", 16, (64, 48)) as writer:
            for _ in range(count):
                writer.write(noise(8))

    for count in (1, 20):
        with pytest.raises(MediaError, match="encoder died"):
            write_on(count)
        assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path) -> None:
    program = """
import os, sys, time
import numpy as np, torch
from gloria_core.media import VideoWriter
writer = VideoWriter(sys.argv[1], 16, (64, 48), audio=(torch.rand(1, 480000) - 0.5, 16000))
rng = np.random.default_rng(0)
while writer.partial_path.stat().st_size < 60_000:
    writer.write(rng.integers(0, 255, (16, 48, 64, 3), dtype=np.uint8))
os._exit(9)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out.mp4")], cwd=root, timeout=60, check=False)
    assert done.returncode == 9
    partial = tmp_path / "out.partial.mp4"
    pictures, (sound, rate) = decoded(partial), read_audio(partial)
    assert len(pictures) >= 16
    assert sound.shape[1] / rate == pytest.approx(len(pictures) / 16, abs=2.1)


def test_the_queue_is_bounded(tmp_path: Path, film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = Mp4Encoder.add
    monkeypatch.setattr(Mp4Encoder, "add", lambda *args: (gate.wait(10), real(*args))[1])
    path = tmp_path / "out.mp4"
    with VideoWriter(path, 16, (64, 48)) as writer:
        caller = threading.Thread(target=lambda: [writer.write(film(8)) for _ in range(20)])
        caller.start()
        time.sleep(0.3)
        waiting = writer.num_frames
        gate.set()
        caller.join()
    assert waiting <= 5 * 8
    assert len(decoded(path)) == 160


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 48, 66, 3), np.uint8), r"takes uint8 \(n, 48, 64, 3\)"),
        (np.zeros((2, 48, 64, 3), np.float32), "float32"),
        (np.zeros((48, 64, 3), np.uint8), r"\(48, 64, 3\)"),
    ],
)
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, frames: NDArray[Any], message: str) -> None:
    with pytest.raises(MediaError, match=message), VideoWriter(tmp_path / "out.mp4", 16, (64, 48)) as writer:
        writer.write(frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "fps", "size", "message"),
    [
        ("out.mp4", 16, (65, 48), "width is 65 px.*use 64 or 66"),
        ("out.mp4", 16, (64, 47), "height is 47 px.*use 46 or 48"),
        ("out.mp4", 16, (0, 48), "width is 0 px"),
        ("out.mp4", 0, (64, 48), "fps is 0"),
        ("out.avi", 16, (64, 48), "must end in .mp4"),
        ("missing/out.mp4", 16, (64, 48), "no folder"),
    ],
)
def test_an_impossible_file_is_refused_at_once(
    tmp_path: Path, name: str, fps: float, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(MediaError, match=message):
        VideoWriter(tmp_path / name, fps, size)
    assert list(tmp_path.iterdir()) == []


def test_a_sound_that_is_none_is_refused_before_a_file_is_made(tmp_path: Path, mute: Path) -> None:
    text = tmp_path / "speech.wav"
    text.write_text("hello")
    for sound, message in [
        (text, "not a sound"),
        (mute, "no sound track"),
        (tmp_path / "nowhere.wav", "no file"),
        ((torch.zeros(5), 16000), "channels, samples"),
        ((torch.zeros(1, 5), 0), "sample rate is 0"),
    ]:
        with pytest.raises(MediaError, match=message):
            VideoWriter(tmp_path / "out.mp4", 16, (64, 48), audio=sound)
    assert not list(tmp_path.glob("out*"))


def test_a_finished_writer_takes_no_more(tmp_path: Path, film: Film) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", 16, (64, 48))
    writer.write(film(4))
    writer.finish()
    writer.finish()
    writer.abort()
    with pytest.raises(MediaError, match="is finished"):
        writer.write(film(4))
    assert len(decoded(tmp_path / "out.mp4")) == 4
