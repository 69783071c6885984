"""Segments: whole or not there, told from what is none, and fit to follow each other."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from gloria_core.errors import MediaError
from gloria_core.media import FilmWriter, exact_rate, iter_frames, num_frames_in
from gloria_core.media.segment import iter_packets, read_header

Film = Callable[..., NDArray[np.uint8]]
Shoot = Callable[..., Path]


def test_a_segment_is_a_playable_file_that_begins_anew_and_shows_frames_in_the_order_stored(
    tmp_path: Path, moving: Film, shoot: Shoot
) -> None:
    shoot(tmp_path, [40])
    segment = tmp_path / "0.mp4"
    pictures = np.concatenate(list(iter_frames(segment)))
    assert np.abs(pictures.astype(int) - moving(40)).mean() < 12
    assert num_frames_in(segment) == 40
    packets = list(iter_packets(segment))
    assert packets[0][1], "it begins with a key frame"
    assert [number for number, (_, is_key) in enumerate(packets) if is_key][1:] == [32], "one every two seconds"
    with av.open(str(segment)) as container:
        stream = container.streams.video[0]
        assert not stream.codec_context.has_b_frames
        assert (stream.pix_fmt, stream.codec_context.colorspace, stream.codec_context.color_range) == ("yuv420p", 1, 1)
        assert [packet.pts * packet.time_base for packet in container.demux(stream) if packet.size] == [
            Fraction(number, 16) for number in range(40)
        ]
    assert segment.read_bytes().index(b"moov") < segment.read_bytes().index(b"mdat"), "a page plays it while it comes"


def test_equal_settings_give_equal_headers_whatever_is_shown(tmp_path: Path, shoot: Shoot) -> None:
    shoot(tmp_path, [1, 17, 33])
    first, *others = (read_header(tmp_path / f"{number}.mp4").settings for number in range(3))
    assert first
    assert others == [first, first]


@pytest.mark.parametrize("fps", [16, 23.976, 24, 25, 29.97, Fraction(30000, 1001), 12.5, 60])
@pytest.mark.parametrize("length", [1, 7])
def test_the_header_tells_rate_and_length_exactly(
    tmp_path: Path, shoot: Shoot, fps: float | Fraction, length: int
) -> None:
    shoot(tmp_path, [length], None, fps)
    header = read_header(tmp_path / "0.mp4")
    assert (header.fps, header.num_frames, header.size) == (exact_rate(fps), length, (64, 48))


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (24, Fraction(24)),
        (16.0, Fraction(16)),
        (12.5, Fraction(25, 2)),
        (Fraction(123457, 4321), Fraction(123457, 4321)),
    ],
)
def test_rates_are_exact(fps: float | Fraction, rate: Fraction) -> None:
    assert exact_rate(fps) == rate


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan"), Fraction(10_000_001, 1_000_003)])
def test_rates_that_are_none_are_refused(fps: float | Fraction) -> None:
    with pytest.raises(MediaError, match="fps is"):
        exact_rate(fps)


def test_a_segment_cut_anywhere_is_told_from_a_whole_one(tmp_path: Path, shoot: Shoot) -> None:
    shoot(tmp_path, [9])
    data = (tmp_path / "0.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    for length in [*range(0, len(data), 97), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(MediaError, match=r"cut.mp4"):
            num_frames_in(cut)
    cut.write_bytes(data)
    assert num_frames_in(cut) == 9


def test_what_is_no_segment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello " * 99)
    with pytest.raises(MediaError, match=r"text.mp4 is not a sound or video file"):
        num_frames_in(tmp_path / "text.mp4")
    with pytest.raises(MediaError, match=r"There is no file .*none.mp4"):
        num_frames_in(tmp_path / "none.mp4")


@pytest.mark.parametrize(
    ("size", "fps", "message"),
    [
        ((64, 32), 16, r"64 x 48 px at 16 frames a second; the film has 64 x 32 px at 16"),
        ((64, 48), 24, r"64 x 48 px at 16 frames a second; the film has 64 x 48 px at 24"),
    ],
)
def test_a_segment_of_another_size_or_rate_is_not_taken(
    tmp_path: Path, shoot: Shoot, size: tuple[int, int], fps: float, message: str
) -> None:
    shoot(tmp_path, [5])
    with FilmWriter(tmp_path / "other.mp4", fps, size) as writer:
        with pytest.raises(MediaError, match=message):
            writer.append(tmp_path / "0.mp4")
        assert writer.num_frames == 0


def test_a_cut_segment_is_not_taken(tmp_path: Path, shoot: Shoot) -> None:
    shoot(tmp_path, [20])
    data = (tmp_path / "0.mp4").read_bytes()
    (tmp_path / "0.mp4").write_bytes(data[: len(data) * 2 // 3])
    with (
        FilmWriter(tmp_path / "other.mp4", 16, (64, 48)) as writer,
        pytest.raises(MediaError, match=r"0.mp4 is no whole"),
    ):
        writer.append(tmp_path / "0.mp4")


def _encode(path: Path, frames: NDArray[np.uint8], **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bf": "0", "profile": "baseline"}, "encoded with other settings, or by another encoder"),
        ({"bf": "3", "b-adapt": "0"}, "not stored in the order shown|encoded with other settings"),
    ],
)
def test_a_segment_of_another_encoder_is_said_not_to_fit(
    tmp_path: Path, moving: Film, shoot: Shoot, options: dict[str, str], message: str
) -> None:
    shoot(tmp_path, [8])
    _encode(tmp_path / "strange.mp4", moving(20), **options)

    def put_together() -> None:
        with FilmWriter(tmp_path / "other.mp4", 16, (64, 48)) as writer:
            writer.append(tmp_path / "0.mp4")
            writer.append(tmp_path / "strange.mp4")
            writer.flush()

    with pytest.raises(MediaError, match=message):
        put_together()
    assert len(np.concatenate(list(iter_frames(tmp_path / "other.mp4")))) == 8, "what fitted is kept"


def test_frames_stored_out_of_order_are_found_even_in_the_first_segment(tmp_path: Path, moving: Film) -> None:
    _encode(tmp_path / "strange.mp4", moving(20), bf="3", **{"b-adapt": "0"})
    writer = FilmWriter(tmp_path / "other.mp4", 16, (64, 48))
    writer.append(tmp_path / "strange.mp4")
    for ask in (writer.flush, lambda: writer.finish(tmp_path / "out.mp4"), lambda: writer.begin(tmp_path / "1.mp4")):
        with pytest.raises(MediaError, match="not stored in the order shown"):
            ask()
    writer.close()
    assert {path.name for path in tmp_path.iterdir()} == {"strange.mp4"}
