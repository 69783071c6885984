"""What cannot be prevented: processes are killed, disks are full, folders are not there. What is finished stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gloria_core.errors import MediaError
from gloria_core.media import FilmSound, FilmWriter, growing_film, iter_frames, probe, read_audio
from gloria_core.media.growing_film import GrowingFilm

Film = Callable[..., NDArray[np.uint8]]
Shoot = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np, torch
from gloria_core.media import FilmSound, FilmWriter
from gloria_core.media.growing_film import GrowingFilm

folder, moment = Path(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
sound = FilmSound((torch.rand(1, 480000) - 0.5, 16000))
writer = FilmWriter(folder / "film.mp4", 16, (64, 48), sound)

def stop():
    print("now", flush=True)
    time.sleep(60)

def segment(number, frames):
    writer.begin(folder / f"{number}.mp4")
    for _ in range(frames // 8):
        writer.write(rng.integers(0, 255, (8, 48, 64, 3), dtype=np.uint8))

segment(0, 40)
writer.end()
segment(1, 24)
writer.end()
writer.flush()
if moment == "between":
    stop()
if moment == "writing":
    print("now", flush=True)
    for number in range(2, 9999):
        segment(number, 16)
        writer.end()
segment(2, 160)
if moment == "inside":
    stop()
writer.end()
if moment == "finish":
    writer.flush()
    GrowingFilm._check = lambda *args: stop()
    writer.finish(folder / "out.mp4")
"""


def decoded(path: Path) -> NDArray[np.uint8]:
    return np.concatenate(list(iter_frames(path)))


def killed(folder: Path, moment: str, after_s: float) -> None:
    """Run the program and kill it some time after it has come to a moment."""
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), moment], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child:
        assert child.stdout.readline().strip() == b"now"
        time.sleep(after_s)
        child.kill()
    assert child.returncode != 0


@pytest.mark.parametrize(
    ("moment", "after_s", "finished"),
    [("between", 0.0, 2), ("inside", 0.2, 2), ("finish", 0.0, 3), ("writing", 0.3, None)],
)
def test_a_killed_process_leaves_every_finished_segment_and_a_film_of_them(
    tmp_path: Path, moment: str, after_s: float, finished: int | None
) -> None:
    killed(tmp_path, moment, after_s)
    segments = sorted((path for path in tmp_path.glob("*.mp4") if path.stem.isdigit()), key=lambda path: int(path.stem))
    pictures = np.concatenate([decoded(segment) for segment in segments])
    assert not (tmp_path / "out.mp4").exists()
    film = tmp_path / "film.mp4"
    shown = decoded(film)
    if finished is not None:
        assert len(segments) == finished
        assert np.array_equal(shown, pictures)
    else:  # it may have died after a segment got its name and before that was copied
        assert len(segments) >= 2
        assert len(pictures) - len(shown) in (0, 16, -16)
        length = min(len(shown), len(pictures))
        assert np.array_equal(shown[:length], pictures[:length])
    heard, rate = read_audio(film)
    assert heard.shape[1] / rate == pytest.approx(len(shown) / 16, abs=0.1)
    with FilmWriter(film, 16, (64, 48)) as writer:  # the run goes on, over whatever the killed one left
        for segment in segments:
            writer.append(segment)
        writer.finish(tmp_path / "out.mp4")
    assert np.array_equal(decoded(tmp_path / "out.mp4"), pictures)


def test_the_film_plays_at_every_moment_while_a_segment_is_copied(
    tmp_path: Path, shoot: Shoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoot(tmp_path, [10, 10])
    film, seen = tmp_path / "film.mp4", []
    sound = FilmSound((torch.rand(1, 48000) - 0.5, 16000))

    def write_slowly(file: BinaryIO, data: bytes) -> int:
        for start in range(0, len(data), 37):
            file.write(data[start : start + 37])
            if film.exists():
                seen.append(len(decoded(film)))
        return len(data)

    monkeypatch.setattr(growing_film, "_write_all", write_slowly)
    with FilmWriter(film, 16, (64, 48), sound) as writer:
        writer.append(tmp_path / "0.mp4")
        writer.append(tmp_path / "1.mp4")
    assert len(seen) > 20
    assert seen == sorted(seen)
    assert set(seen) == {10, 20}


def _noise(num_frames: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (num_frames, 48, 64, 3), dtype=np.uint8)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = hasattr(os, "geteuid") and os.geteuid() == 0
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("only a superuser can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder: Path, writer: FilmWriter) -> None:
    for number in range(99):
        writer.begin(folder / f"{number}.mp4")
        writer.write(_noise(16))
        writer.end()


def test_a_full_disk_is_said_and_keeps_what_is_finished(small_disk: Path) -> None:
    with pytest.raises(MediaError, match=r"disk is full.*Free some space"):  # noqa: SIM117 - the film ends first
        with FilmWriter(small_disk / "film.mp4", 16, (64, 48)) as writer:
            _fill(small_disk, writer)
    segments = sorted(path for path in small_disk.glob("*.mp4") if path.stem.isdigit())
    assert segments
    assert not list(small_disk.glob("*.partial"))
    assert all(len(decoded(segment)) == 16 for segment in segments)
    assert len(decoded(small_disk / "film.mp4")) in (16 * len(segments), 16 * (len(segments) - 1))


def test_a_disk_that_fills_while_the_film_is_finished_is_said(small_disk: Path) -> None:
    writer = FilmWriter(small_disk / "film.mp4", 16, (64, 48))
    writer.begin(small_disk / "0.mp4")
    writer.write(_noise(24))
    writer.end()
    writer.flush()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - 20_000))
    with pytest.raises(MediaError, match=r"out.mp4.*(No space left|disk is full).*[Ff]ree some space"):
        writer.finish(small_disk / "out.mp4")
    assert {path.name for path in small_disk.iterdir()} == {"0.mp4", "film.mp4", "ballast"}
    (small_disk / "ballast").unlink()
    writer.finish(small_disk / "out.mp4")
    assert len(decoded(small_disk / "out.mp4")) == 24


def test_a_folder_that_can_only_be_read_is_said(small_disk: Path) -> None:
    with FilmWriter(small_disk / "film.mp4", 16, (64, 48)) as writer:
        writer.begin(small_disk / "0.mp4")
        writer.write(_noise(8))
        writer.end()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MediaError, match=r"film.mp4 could not be written: the folder can only be read"):
        FilmWriter(small_disk / "film.mp4", 16, (64, 48))
    assert len(decoded(small_disk / "film.mp4")) == 8


def test_a_folder_that_is_gone_is_said_and_later_calls_say_it_too(tmp_path: Path, moving: Film) -> None:
    folder = tmp_path / "segments"
    folder.mkdir()
    writer = FilmWriter(tmp_path / "film.mp4", 16, (64, 48))
    writer.begin(folder / "0.mp4")
    folder.rmdir()
    folder.write_text("a file in its place")
    writer.write(moving(8))
    for _ in range(2):
        with pytest.raises(MediaError, match=r"0.mp4 could not be written"):
            writer.flush()
    writer.drop()
    writer.close()
    assert {path.name for path in tmp_path.iterdir()} == {"segments"}


def test_a_disk_that_fills_under_the_growing_film_leaves_it_as_it_was(
    tmp_path: Path, shoot: Shoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoot(tmp_path, [10, 90])
    real, calls = GrowingFilm._add, []

    def add(film: GrowingFilm, *args: object) -> None:
        real(film, *args)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 2:  # the second segment consists of two fragments, this is the first one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(GrowingFilm, "_add", add)
    writer = FilmWriter(tmp_path / "film.mp4", 16, (64, 48))
    writer.append(tmp_path / "0.mp4")
    writer.append(tmp_path / "1.mp4")
    with pytest.raises(MediaError, match="disk is full"):
        writer.flush()
    writer.close()
    assert len(decoded(tmp_path / "film.mp4")) == 10
    assert probe(tmp_path / "1.mp4").num_frames == 90


def test_a_sound_that_vanishes_is_said_by_name(tmp_path: Path, shoot: Shoot, monkeypatch: pytest.MonkeyPatch) -> None:
    shoot(tmp_path, [10])
    writer = FilmWriter(tmp_path / "film.mp4", 16, (64, 48), FilmSound((torch.rand(1, 9999) - 0.5, 16000)))

    def torn() -> Iterator[None]:
        raise OSError(errno.EIO, "the stick was pulled out")
        yield

    assert writer._sound is not None
    monkeypatch.setattr(writer._sound, "_packets", torn())
    writer.append(tmp_path / "0.mp4")
    with pytest.raises(MediaError, match=r"The sound can no longer be read.*stick"):
        writer.flush()
    writer.close()
