"""Frames and sound into one MP4 stream, step by step and in step."""

import errno
import os
import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .segment import add_video_stream, to_video_frame
from .soundtrack import Soundtrack

_HYBRID_SINCE = (62, 12, 0)
"""First libavformat whose hybrid files were found to be whole; those of FFmpeg 7.1 and 8.0 lose frames."""
_HYBRID = "hybrid_fragmented"
"""Fragments while it is written, so that a cut file plays; an ordinary, seekable MP4 once it is closed."""
_FRAGMENTS = "frag_keyframe+default_base_moof"
"""Fragments that stay. Players know them; a few editing programs want them remuxed."""


class Mp4Encoder:
    """Encodes into a file. Not safe for use by two threads at once.

    Args:
        path: the file to make or to replace.
        fps: frames a second.
        size: width and height in pixels, both even.
        soundtrack: where the sound comes from, or None.
        crf: x264's quality, 0 (lossless) to 51.
    """

    def __init__(
        self, path: Path, fps: Fraction, size: tuple[int, int], soundtrack: Soundtrack | None, crf: int
    ) -> None:
        hybrid = av.library_versions["libavformat"] >= _HYBRID_SINCE
        flags = f"delay_moov+{_HYBRID if hybrid else _FRAGMENTS}"
        self._path = path
        self._fps = fps
        self._container = av.open(str(path.absolute()), "w", format="mp4", options={"movflags": flags})
        self._video = add_video_stream(self._container, fps, size, crf)
        self._soundtrack = soundtrack
        self._audio = _audio_stream(self._container, soundtrack) if soundtrack else None
        self._reformatter = VideoReformatter()
        self._num_frames = 0
        self._num_samples = 0

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Encode frames (n, H, W, 3) and the sound that belongs to them."""
        for pixels in frames:
            frame = to_video_frame(pixels, self._reformatter)
            frame.pts = self._num_frames
            frame.time_base = 1 / self._fps
            self._container.mux(self._video.encode(frame))
            self._num_frames += 1
            self._add_sound()

    def close(self) -> None:
        """Write what the encoders still hold, and close the file."""
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))
        self._container.close()
        if not _is_whole(self._path):  # some versions of the library close a file on a full disk without a word
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def discard(self) -> None:
        """Let go of the file, whatever state it is in."""
        with suppress(av.FFmpegError, OSError):  # it may be the full disk that is being run from
            self._container.close()

    def _add_sound(self) -> None:
        if self._audio is None or self._soundtrack is None:
            return
        until = round(self._num_frames / self._fps * self._soundtrack.rate)
        samples = self._soundtrack.take(until - self._num_samples)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._soundtrack.layout)
        frame.sample_rate = self._soundtrack.rate
        frame.time_base = Fraction(1, self._soundtrack.rate)
        frame.pts = self._num_samples
        self._container.mux(self._audio.encode(frame))
        self._num_samples = until


def _is_whole(path: Path) -> bool:
    """Whether an MP4's boxes fill the file to its last byte and end with an index."""
    size, place, kind = path.stat().st_size, 0, b""
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if length < 8:
                return False
            place += length
    return place == size and kind in (b"moov", b"mfra")


def _audio_stream(container: av.container.OutputContainer, soundtrack: Soundtrack) -> AudioStream:
    stream = container.add_stream("aac", rate=soundtrack.rate, layout=soundtrack.layout)
    assert isinstance(stream, AudioStream)  # the codec decides the class
    stream.bit_rate = soundtrack.channels * (64000 if soundtrack.rate < 32000 else 96000)
    return stream
