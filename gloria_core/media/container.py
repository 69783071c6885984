"""Opening media files of any container, and what their headers say."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from ..errors import MediaError

_TEXT_FORMATS = {"tty", "webvtt", "srt", "ass", "txt", "concat"}
"""Demuxers with which the library would take a text file for a film or a list of films."""
_PICTURE_FORMATS = ("image2", "_pipe", "gif", "apng")
"""Name parts of demuxers whose files are pictures: they have no clock and no sound."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a media file holds, as its header says it. Durations are in seconds, 0 where unknown."""

    path: Path
    has_video: bool
    width: int
    height: int
    fps: float
    num_frames: int
    """Pixel frames; worked out from the duration where the header does not count them."""
    has_audio: bool
    sample_rate: int
    channels: int
    duration_s: float
    video_codec: str
    audio_codec: str


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the first moving picture of a file that can be decoded; the cover picture of a song is not one."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and _is_known(stream):
            return stream
    return None


def audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the first sound track of a file that can be decoded, or None."""
    return next((stream for stream in container.streams.audio if _is_known(stream)), None)


def _is_known(stream: Stream) -> bool:
    """Whether the library can decode a stream: cut headers and new codecs leave it without the means."""
    return getattr(stream, "codec_context", None) is not None


@contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """Open a file for reading and close it at the end of the block.

    Raises:
        MediaError: the file is missing, is a folder, may not be read, or is no media file; also for what the media
            library raises in the block.
    """
    file = Path(path)
    if not file.exists():
        raise MediaError(f"There is no file {file}; check its folder and the spelling of its name.")
    if file.is_dir():
        raise MediaError(f"{file} is a folder; give one sound or video file.")
    if file.stat().st_size == 0:
        raise MediaError(f"{file} is empty (0 bytes); copy or export it again.")
    try:
        container = av.open(str(file.absolute()), metadata_errors="replace")
    except PermissionError as error:
        raise MediaError(
            f"{file} may not be read by this user; change its permissions or copy it elsewhere."
        ) from error
    except (av.FFmpegError, OSError) as error:
        raise _not_media(file) from error
    with container:
        if container.format.name in _TEXT_FORMATS:
            raise _not_media(file)
        try:
            yield container
        except av.FFmpegError as error:
            raise MediaError(f"{file} could not be read to its end: {error}. Copy or export it again.") from error


def _not_media(file: Path) -> MediaError:
    return MediaError(
        f"{file} is not a sound or video file that can be read; "
        "give a file such as .wav, .flac, .mp3, .m4a, .ogg, .mp4, .mov, .mkv or .webm."
    )


def is_picture(container: InputContainer) -> bool:
    """Whether the file is a still or animated picture rather than a film."""
    return any(part in container.format.name for part in _PICTURE_FORMATS)


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Read a file's header; no frame is decoded.

    Args:
        path: a sound or video file of any container.

    Returns:
        What the file holds; numbers of a missing stream are 0 and its codec is an empty string.

    Raises:
        MediaError: the file is missing, is a folder, is no media file, or holds neither sound nor pictures.
    """
    with open_media(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        if video is None and audio is None:
            raise MediaError(
                f"{Path(path)} holds neither sound nor moving pictures that can be read (it may be cut): give another "
                "sound or video file, or copy this one again."
            )
        duration_s = container.duration / av.time_base if container.duration else 0.0
        shown_s = (
            float(video.duration * video.time_base) if video and video.duration and video.time_base else duration_s
        )
        rate = float(video.average_rate or video.guessed_rate or 0) if video else 0.0
        return MediaInfo(
            path=Path(path),
            has_video=video is not None,
            width=video.width if video else 0,
            height=video.height if video else 0,
            fps=rate,
            num_frames=(video.frames or round(shown_s * rate)) if video else 0,
            has_audio=audio is not None,
            sample_rate=audio.rate or 0 if audio else 0,
            channels=audio.channels if audio else 0,
            duration_s=duration_s,
            video_codec=video.codec.name if video else "",
            audio_codec=audio.codec.name if audio else "",
        )
