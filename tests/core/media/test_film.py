"""Films put together from segments: the same pictures at the right times, and tidy behaviour of the writer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gloria_core.errors import MediaError
from gloria_core.media import FilmWriter, exact_rate, iter_frames, probe
from gloria_core.media.segment import SegmentEncoder, iter_packets

Film = Callable[..., NDArray[np.uint8]]
Shoot = Callable[..., Path]


def decoded(path: Path) -> NDArray[np.uint8]:
    return np.concatenate(list(iter_frames(path)))


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("fps", [16, 23.976, Fraction(30000, 1001), 12.5])
def test_a_film_shows_exactly_its_segments_each_frame_at_its_time(
    tmp_path: Path, shoot: Shoot, fps: float | Fraction
) -> None:
    out = shoot(tmp_path, [1, 70, 33], None, fps)
    pictures = np.concatenate([decoded(tmp_path / f"{number}.mp4") for number in range(3)])
    rate = exact_rate(fps)
    for film in (out, tmp_path / "growing.mp4"):
        assert np.array_equal(decoded(film), pictures), "no frame is encoded twice"
        assert times(film) == [number / rate for number in range(104)]
    info = probe(out)
    assert (info.num_frames, info.width, info.height, info.video_codec) == (104, 64, 48, "h264")
    assert info.duration_s == pytest.approx(float(104 / rate), abs=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {"0.mp4", "1.mp4", "2.mp4", "growing.mp4", "out.mp4"}


def test_no_packet_changes_on_its_way_into_the_film(tmp_path: Path, shoot: Shoot) -> None:
    out = shoot(tmp_path, [5, 40])
    packets = [packet for number in range(2) for packet in iter_packets(tmp_path / f"{number}.mp4")]
    assert list(iter_packets(out)) == packets


def test_an_hour_at_a_broadcast_rate_ends_at_its_exact_time(tmp_path: Path, moving: Film) -> None:
    with FilmWriter(tmp_path / "film.mp4", 29.97, (16, 16)) as writer:
        writer.begin(tmp_path / "0.mp4")
        for _ in range(4):
            writer.write(moving(250, (16, 16)))
        writer.end()
        writer.flush()
        for _ in range(107):
            writer.append(tmp_path / "0.mp4")
        assert writer.num_frames == 108_000
        writer.finish(tmp_path / "out.mp4")
    found = times(tmp_path / "out.mp4")
    assert len(found) == 108_000
    assert found[-1] == 107_999 * Fraction(1001, 30000)
    assert probe(tmp_path / "out.mp4").fps == pytest.approx(30000 / 1001, abs=1e-9)


def test_a_finished_film_is_an_ordinary_mp4_that_can_be_wound(tmp_path: Path, shoot: Shoot) -> None:
    out = shoot(tmp_path, [60, 60])
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert b"colrnclx\x00\x01\x00\x01\x00\x01" in data
    pictures = decoded(out)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        for number in (3, 59, 60, 75, 119):
            container.seek(round(number / 16 / stream.time_base), stream=stream)
            frame = next(frame for frame in container.decode(stream) if frame.time >= number / 16 - 1e-6)
            assert np.array_equal(frame.to_ndarray(format="rgb24"), pictures[number])


def test_a_resumed_film_takes_finished_segments_as_they_are(tmp_path: Path, moving: Film, shoot: Shoot) -> None:
    before = decoded(shoot(tmp_path, [20, 30]))
    old = [(tmp_path / f"{number}.mp4").read_bytes() for number in range(2)]
    encoded: list[Path] = []
    with FilmWriter(tmp_path / "film.mp4", 16, (64, 48), on_segment=encoded.append) as writer:
        writer.append(tmp_path / "0.mp4")
        writer.append(tmp_path / "1.mp4")
        writer.begin(tmp_path / "2.mp4")
        writer.write(moving(10, seed=2))
        writer.end()
        assert writer.num_frames == 60
        out = writer.finish(tmp_path / "out.mp4")
    assert encoded == [tmp_path / "2.mp4"]
    assert [(tmp_path / f"{number}.mp4").read_bytes() for number in range(2)] == old
    assert np.array_equal(decoded(out), np.concatenate([before, decoded(tmp_path / "2.mp4")]))


def test_the_old_film_stays_until_the_new_one_has_something_new(tmp_path: Path, moving: Film, shoot: Shoot) -> None:
    shoot(tmp_path, [20, 30])
    film = tmp_path / "film.mp4"
    film.write_bytes((tmp_path / "growing.mp4").read_bytes())
    with FilmWriter(film, 16, (64, 48)) as writer:
        assert len(decoded(film)) == 50
        writer.append(tmp_path / "0.mp4")
        time.sleep(0.2)
        assert len(decoded(film)) == 50
        writer.begin(tmp_path / "new.mp4")
        writer.write(moving(5))
        writer.end()
        writer.flush()
        assert len(decoded(film)) == 25


def test_a_dropped_segment_leaves_no_trace(tmp_path: Path, moving: Film) -> None:
    with FilmWriter(tmp_path / "film.mp4", 16, (64, 48)) as writer:
        writer.drop()
        writer.begin(tmp_path / "0.mp4")
        writer.write(moving(20))
        writer.drop()
        assert writer.num_frames == 0
        writer.begin(tmp_path / "0.mp4")
        writer.write(moving(7, seed=1))
        writer.end()
        writer.begin(tmp_path / "empty.mp4")
        writer.end()
        assert writer.num_frames == 7
        writer.finish(tmp_path / "out.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"0.mp4", "out.mp4"}
    assert np.abs(decoded(tmp_path / "out.mp4").astype(int) - moving(7, seed=1)).mean() < 12


def test_a_segment_has_its_name_only_when_it_is_whole_and_is_told_of_then(tmp_path: Path, moving: Film) -> None:
    segment = tmp_path / "0.mp4"
    told: list[tuple[Path, int]] = []
    with FilmWriter(
        tmp_path / "film.mp4", 16, (64, 48), on_segment=lambda path: told.append((path, len(decoded(path))))
    ) as writer:
        writer.begin(segment)
        writer.write(moving(16))
        writer.flush()
        assert not segment.exists()
        assert told == []
        writer.end()
        writer.flush()
        assert told == [(segment, 16)]
        assert len(decoded(tmp_path / "film.mp4")) == 16


def test_leaving_by_an_error_keeps_what_is_finished(tmp_path: Path, moving: Film) -> None:
    before = threading.active_count()

    def failing() -> None:
        with FilmWriter(tmp_path / "film.mp4", 16, (64, 48)) as writer:
            writer.begin(tmp_path / "0.mp4")
            writer.write(moving(20))
            writer.end()
            writer.begin(tmp_path / "1.mp4")
            writer.write(moving(20))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        failing()
    assert {path.name for path in tmp_path.iterdir()} == {"0.mp4", "film.mp4"}
    assert np.array_equal(decoded(tmp_path / "film.mp4"), decoded(tmp_path / "0.mp4"))
    assert threading.active_count() == before


def test_the_callers_buffer_may_be_reused(tmp_path: Path, moving: Film) -> None:
    frames = moving(24)
    buffer = np.empty_like(frames[:4])
    with FilmWriter(tmp_path / "film.mp4", 16, (64, 48), crf=5) as writer:
        writer.begin(tmp_path / "0.mp4")
        for start in range(0, 24, 4):
            buffer[:] = frames[start : start + 4]
            writer.write(buffer)
        writer.end()
    assert np.abs(decoded(tmp_path / "0.mp4").astype(int) - frames).mean() < 12


def test_calls_out_of_turn_are_refused(tmp_path: Path, moving: Film) -> None:
    film = tmp_path / "film.mp4"
    with FilmWriter(film, 16, (64, 48)) as writer:
        for ask, message in [
            (lambda: writer.write(moving(1)), "begin one first"),
            (writer.end, "begin one first"),
            (lambda: writer.finish(tmp_path / "out.mp4"), "No frame"),
            (lambda: writer.begin(tmp_path / "0.avi"), "must end in .mp4"),
            (lambda: writer.begin(tmp_path / "nowhere" / "0.mp4"), "no folder"),
        ]:
            with pytest.raises(MediaError, match=message):
                ask()
        writer.begin(tmp_path / "0.mp4")
        for ask, message in [
            (lambda: writer.begin(tmp_path / "1.mp4"), "0.mp4 is not ended"),
            (lambda: writer.append(tmp_path / "1.mp4"), "0.mp4 is not ended"),
            (lambda: writer.finish(tmp_path / "out.mp4"), "0.mp4 is not ended"),
            (lambda: writer.write(moving(2)[:, :32]), r"takes uint8 \(n, 48, 64, 3\)"),
            (lambda: writer.write(moving(2).astype(np.float32)), "float32"),
        ]:
            with pytest.raises(MediaError, match=message):
                ask()
        writer.write(moving(3))
        writer.end()
        writer.finish(tmp_path / "out.mp4")
        with pytest.raises(MediaError, match="is closed"):
            writer.begin(tmp_path / "1.mp4")
        writer.close()
    assert len(decoded(tmp_path / "out.mp4")) == 3


@pytest.mark.parametrize(
    ("name", "fps", "size", "crf", "message"),
    [
        ("film.mp4", 16, (65, 48), 18, "width is 65 px.*use 64 or 66"),
        ("film.mp4", 16, (64, 0), 18, "height is 0 px"),
        ("film.mp4", 0, (64, 48), 18, "fps is 0"),
        ("film.mp4", 16, (64, 48), 52, "crf is 52"),
        ("film.avi", 16, (64, 48), 18, "must end in .mp4"),
        ("missing/film.mp4", 16, (64, 48), 18, "no folder"),
    ],
)
def test_an_impossible_film_is_refused_at_once(
    tmp_path: Path, name: str, fps: float, size: tuple[int, int], crf: int, message: str
) -> None:
    with pytest.raises(MediaError, match=message):
        FilmWriter(tmp_path / name, fps, size, crf=crf)
    assert list(tmp_path.iterdir()) == []


def test_the_queue_is_bounded_over_thousands_of_frames(
    tmp_path: Path, moving: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = 0, 0
    lock = threading.Lock()
    real = SegmentEncoder.add
    gate = threading.Event()

    def add(encoder: SegmentEncoder, frames: NDArray[np.uint8]) -> None:
        nonlocal alive, most
        gate.wait(10)
        with lock:
            most = max(most, alive)
            alive -= len(frames)
        real(encoder, frames)

    monkeypatch.setattr(SegmentEncoder, "add", add)
    frames = moving(40, (32, 32))

    def write_all() -> None:
        nonlocal alive
        for number in range(50):
            writer.begin(tmp_path / f"{number}.mp4")
            for start in range(0, 40, 8):
                writer.write(frames[start : start + 8])
                with lock:
                    alive += 8
            writer.end()

    with FilmWriter(tmp_path / "film.mp4", 16, (32, 32)) as writer:
        caller = threading.Thread(target=write_all)
        caller.start()
        time.sleep(0.3)
        waiting = writer.num_frames
        gate.set()
        caller.join()
        assert writer.num_frames == 2000
        writer.finish(tmp_path / "out.mp4")
    assert waiting <= 5 * 8
    assert most <= 6 * 8
    assert probe(tmp_path / "out.mp4").num_frames == 2000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("count", [1, 20])
def test_an_encoder_that_dies_does_not_hang_the_caller(
    tmp_path: Path, moving: Film, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def die(*args: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SegmentEncoder, "add", die)

    def write_on() -> None:
        with FilmWriter(tmp_path / "film.mp4", 16, (64, 48)) as writer:
            writer.begin(tmp_path / "0.mp4")
            for _ in range(count):
                writer.write(moving(8))
            writer.end()

    with pytest.raises(MediaError, match="encoder died"):
        write_on()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_film_is_an_ordinary_mp4_that_hd_players_show_in_true_colours(talkie: Path) -> None:
    boxes = talkie.read_bytes()
    assert boxes[4:8] == b"ftyp"
    assert b"moov" in boxes
    assert b"moof" not in boxes[: boxes.index(b"mdat")]
    assert b"colrnclx\x00\x01\x00\x01\x00\x01" in boxes
