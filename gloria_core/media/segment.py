"""A finished chunk as a small video of its own, from which longer films are put together without encoding again."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ..errors import MediaError
from .boxes import iter_boxes
from .container import open_media, video_stream

_BT709, _VIDEO_RANGE = 1, 1
"""Codes of ITU-T H.273 for the colours of HD video, and the library's for 16..235."""
_NTSC_OFF = 0.005
"""A rate this near to 1000/1001 of a whole number is that one, written with a few digits."""


def exact_rate(fps: float | Fraction) -> Fraction:
    """Return frames a second as a fraction: 23.976, 29.97 and their like become 24000/1001, 30000/1001.

    A fraction is taken as it is.

    Raises:
        MediaError: the rate is not above 0 and at most 1000, or its fraction has a denominator above a million.
    """
    if not 0 < fps <= 1000:
        raise MediaError(f"fps is {float(fps):g}; it must be above 0 and at most 1000, such as 16 or 24.")
    if isinstance(fps, Fraction):
        if fps.denominator > 1_000_000:
            raise MediaError(f"fps is {fps}; give a plainer fraction, such as {fps.limit_denominator(1001)}.")
        return fps
    broadcast = Fraction(round(fps) * 1000, 1001)
    if fps != round(fps) and round(fps) >= 10 and abs(fps - broadcast) < _NTSC_OFF:
        return broadcast
    return Fraction(fps).limit_denominator(1001)


def check_picture(size: tuple[int, int], crf: int) -> None:
    """Refuse what H.264 cannot be: MediaError for odd or missing sides, or a quality that is none."""
    if not 0 <= crf <= 51:
        raise MediaError(f"crf is {crf}; it goes from 0 (lossless) to 51.")
    for side, length in zip(("width", "height"), size, strict=True):
        if length < 2 or length % 2:
            raise MediaError(
                f"The {side} is {length} px; H.264 takes even sides: "
                f"use {max(2, length // 2 * 2)} or {max(4, length // 2 * 2 + 2)}."
            )


def encoder_name() -> str:
    """Return the H.264 encoder to use: x264 where it is built in, any other otherwise.

    Raises:
        MediaError: the media library was built without H.264.
    """
    for name in ("libx264", "h264_videotoolbox", "h264_mf", "libopenh264"):
        if name in av.codecs_available:
            return name
    raise MediaError("The installed PyAV cannot write H.264; install its ordinary package with: pip install av.")


def add_video_stream(
    container: av.container.OutputContainer, fps: Fraction, size: tuple[int, int], crf: int
) -> VideoStream:
    """Add an H.264 stream to a file: yuv420p, BT.709, a key frame every two seconds, no frame shown out of order."""
    name = encoder_name()
    options = {"crf": str(crf), "preset": "veryfast", "threads": "2"} if name == "libx264" else {}
    stream = container.add_stream(name, rate=fps, options=options)
    assert isinstance(stream, VideoStream)  # the codec decides the class
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.gop_size = max(1, round(2 * fps))
    codec.max_b_frames = 0  # decoded in the order shown: packets of one segment follow those of another as they are
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _VIDEO_RANGE
    return stream


def to_video_frame(pixels: NDArray[np.uint8], reformatter: VideoReformatter) -> VideoFrame:
    """Return a picture (H, W, 3) in the colours of HD video."""
    frame = VideoFrame.from_ndarray(pixels, format="rgb24")
    return reformatter.reformat(frame, format="yuv420p", dst_colorspace=_BT709, dst_color_range=_VIDEO_RANGE)


class SegmentEncoder:
    """Encodes frames into a small MP4 without sound. Not safe for use by two threads at once.

    Args:
        path: the file to make or to replace.
        fps: frames a second.
        size: width and height in pixels, both even.
        crf: x264's quality, 0 (lossless) to 51.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, fps: Fraction, size: tuple[int, int], crf: int) -> None:
        self.num_frames = 0
        self._path, self._fps = path, fps
        path.open("wb").close()  # says at once where no file can be made
        options = {"movflags": "faststart"}  # a page plays it while it comes
        self._container = av.open(str(path.absolute()), "w", format="mp4", options=options)
        self._video = add_video_stream(self._container, fps, size, crf)
        self._reformatter = VideoReformatter()

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Encode frames (n, H, W, 3)."""
        for pixels in frames:
            frame = to_video_frame(pixels, self._reformatter)
            frame.pts, frame.time_base = self.num_frames, 1 / self._fps
            self._container.mux(self._video.encode(frame))
            self.num_frames += 1

    def close(self) -> None:
        """Write what the encoder still holds, close the file, and force it to the disk.

        Raises:
            OSError: the disk is full; also where the media library says nothing of it.
        """
        self._container.mux(self._video.encode(None))
        self._container.close()
        try:
            whole = num_frames_in(self._path) == self.num_frames
        except MediaError:
            whole = False
        if not whole:  # some versions of the library close a file on a full disk without a word
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Let go of the file and delete it, whatever state it is in."""
        with suppress(av.FFmpegError, OSError):  # it may be the full disk that is being run from
            self._container.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment's header says."""

    num_frames: int
    size: tuple[int, int]
    """Width and height in pixels."""
    fps: Fraction
    settings: bytes
    """The settings of its encoder, which a decoder reads once for a whole film."""


def read_header(segment: Path) -> SegmentHeader:
    """Read a segment's header, and see that the file is there to its last byte.

    Raises:
        MediaError: the file is missing, cut, or no segment.
    """
    with open_media(segment) as container:
        stream = video_stream(container)
        codec = stream.codec_context if stream is not None and _is_whole(segment) else None  # None in some cut files
        if stream is None or codec is None or codec.codec.name != "h264" or not stream.average_rate:
            raise MediaError(
                f"{segment} is no whole video segment (cut, or not H.264 in MP4); delete it, and it is made again."
            )
        size = (stream.width, stream.height)
        return SegmentHeader(stream.frames, size, Fraction(stream.average_rate), bytes(codec.extradata or b""))


def num_frames_in(segment: Path) -> int:
    """Return how many frames a segment holds; no frame is decoded.

    Raises:
        MediaError: the file is missing, cut, or no segment.
    """
    return read_header(segment).num_frames


def iter_packets(segment: Path) -> Iterator[tuple[bytes, bool]]:
    """Yield the encoded frames of a segment, and whether each can be decoded by itself.

    Raises:
        MediaError: the file cannot be read, or its frames are not stored in the order in which they are shown.
    """
    with open_media(segment) as container:
        stream = video_stream(container)
        for packet in container.demux(stream) if stream is not None else ():
            if packet.size == 0:
                continue  # the library's sign of the end
            if packet.pts != packet.dts:
                raise MediaError(
                    f"The frames of {segment} are not stored in the order shown, so that it cannot be part of a "
                    "film; delete it, and it is made again."
                )
            yield bytes(packet), packet.is_keyframe


def _is_whole(path: Path) -> bool:
    """Whether an MP4's boxes fill the file to its last byte, an index among them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        boxes = list(iter_boxes(file, size))
    return bool(boxes) and sum(boxes[-1][1:]) == size and b"moov" in {kind for kind, _, _ in boxes}
