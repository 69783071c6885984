"""The sound of a film as packets: the user's own where MP4 can hold them, otherwise encoded once."""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from torch import Tensor

from ..errors import MediaError
from .container import audio_stream, open_media, probe, video_stream
from .soundtrack import Sound, Soundtrack

SoundFit = Literal["hold", "stop", "loop"]
"""What happens where the sound is shorter than the film: silence, a film of the sound's length, or the sound again."""

_COPIED = {"aac", "mp3", "mp3float", "flac", "opus", "libopus", "alac", "ac3"}
"""Decoders whose packets an MP4 file may hold."""
_EVEN = {"aac", "mp3", "mp3float", "alac", "ac3"}
"""Those among them whose packets are equally long, so that they can be counted where the file's clock is coarse."""
_OPUS = {"opus", "libopus"}
"""Those whose packets tell how long they are."""
_OPUS_RATE = 48000
_OPUS_TENTHS_MS = (100, 200, 400, 600) * 3 + (100, 200) * 2 + (25, 50, 100, 200) * 4
"""Lengths of a frame, by the bandwidth that a packet's first byte names. Source: RFC 6716, table 2."""
_GAP_S = 0.05
"""A packet that is further than this from the end of the one before begins where its file says it does."""
_BLOCK = 1024
"""Samples of an AAC packet."""


@dataclass(frozen=True, slots=True, eq=False)
class FilmSound:
    """What a film sounds like; it starts with the first frame and is cut where the film ends.

    Raises:
        MediaError: an unknown fit.
    """

    source: Sound
    """A waveform (channels, samples) with its sample rate, or the path of a file that has a sound track."""
    fit: SoundFit = "hold"
    """What happens where the sound is shorter than the film. Whoever plans the film's length minds "stop"."""

    def __post_init__(self) -> None:
        if self.fit not in get_args(SoundFit):
            raise MediaError(f"The sound's fit is {self.fit!r}; it must be one of: {', '.join(get_args(SoundFit))}.")

    @property
    def duration_s(self) -> float:
        """Length in seconds: of a file as its header says it, 0 where it does not.

        Raises:
            MediaError: the file is missing or is no media file.
        """
        if isinstance(self.source, tuple):
            return float(self.source[0].shape[-1] / self.source[1])
        return probe(self.source).duration_s

    @property
    def is_copied(self) -> bool:
        """Whether the film gets the very packets of the user's file.

        Raises:
            MediaError: the sound is missing, cannot be read, or has no length.
        """
        packets = SoundPackets(self)
        packets.close()
        return packets.is_copied


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """A piece of encoded sound. Times are in samples; the first packets may begin before the film does."""

    data: bytes
    start: int
    duration: int

    @property
    def stop(self) -> int:
        """Where the next packet begins, if there is no gap."""
        return self.start + self.duration


class SoundPackets:
    """Hands out a film's sound packet by packet, in memory that does not grow with its length.

    Raises:
        MediaError: the sound is missing, cannot be read, or has no length.
    """

    def __init__(self, sound: FilmSound) -> None:
        self._open = ExitStack()
        self._name = _name(sound.source)
        try:
            found = self._copied(sound)
            self.is_copied = found is not None
            """Whether the packets are the user's own."""
            self._template, self._packets = found or self._encoded(sound)
            first = next(self._packets, None)
            if first is None:
                raise MediaError(f"{self._name} has 0 seconds of sound; give one that can be heard.")
        except BaseException:
            self._open.close()
            raise
        self.rate = self._template.sample_rate
        """Samples a second."""
        self.first = first
        """The first packet, which tells where the others are counted from."""
        self._next: SoundPacket | None = first

    def add_stream(self, container: OutputContainer) -> AudioStream:
        """Add a stream for these packets to a file that is being made."""
        return _add_stream(container, self._template)

    def until(self, end_s: Fraction) -> list[SoundPacket]:
        """Return the packets that have not been handed out and begin before a moment of the film.

        Raises:
            MediaError: the file that the sound comes from cannot be read any more.
        """
        found = []
        try:
            while self._next is not None and self._next.start < end_s * self.rate:
                found.append(self._next)
                self._next = next(self._packets, None)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{self._name} can no longer be read: {error}. See that it is where it was.") from error
        return found

    def close(self) -> None:
        """Close the file that the sound comes from, if it is one."""
        self._open.close()

    def _copied(self, sound: FilmSound) -> "tuple[_Template, Iterator[SoundPacket]] | None":
        """Return the packets of a file that MP4 can hold, or None."""
        if isinstance(sound.source, tuple) or sound.fit == "loop":
            return None
        with open_media(sound.source) as container:
            stream = audio_stream(container)
            origin_s = _origin_s(container, stream) if stream is not None and _may_be_copied(stream) else None
        if origin_s is None:
            return None
        container = self._open.enter_context(open_media(sound.source))
        stream = audio_stream(container)
        assert stream is not None  # it had one a moment ago
        template = _Template(stream, stream.rate)
        packets = _stored(container, stream, origin_s)
        return (template, packets) if _fits_mp4(template) else None

    def _encoded(self, sound: FilmSound) -> "tuple[_Template, Iterator[SoundPacket]]":
        if isinstance(sound.source, tuple) and isinstance(sound.source[0], Tensor) and sound.source[0].shape[-1] == 0:
            raise MediaError("The sound has 0 seconds; give one that can be heard.")
        self._open.close()  # what cannot be copied is opened anew
        track = Soundtrack(sound.source, loop=sound.fit == "loop")
        self._open.callback(track.close)
        if track.is_empty:
            raise MediaError(f"{self._name} has 0 seconds of sound; give one that can be heard.")
        return _Template(track, track.rate), _made(track)


@dataclass(frozen=True, slots=True)
class _Template:
    """What the header of a file that holds the packets is made from."""

    source: AudioStream | Soundtrack
    sample_rate: int


def _add_stream(container: OutputContainer, template: _Template) -> AudioStream:
    source = template.source
    if isinstance(source, Soundtrack):
        stream = container.add_stream("aac", rate=source.rate, layout=source.layout)
        assert isinstance(stream, AudioStream)  # the codec decides the class
        stream.bit_rate = _bit_rate(source)
        return stream
    return container.add_stream_from_template(source, opaque=True)


def _bit_rate(track: Soundtrack) -> int:
    return track.channels * (64000 if track.rate < 32000 else 96000)


def _made(track: Soundtrack) -> Iterator[SoundPacket]:
    """Encode without end."""
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, AudioCodecContext)  # the codec decides the class
    encoder.sample_rate, encoder.layout, encoder.format = track.rate, track.layout, "fltp"
    encoder.time_base = Fraction(1, track.rate)
    encoder.bit_rate = _bit_rate(track)
    place = 0
    while True:
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(track.take(_BLOCK)), format="fltp", layout=track.layout)
        frame.sample_rate, frame.time_base, frame.pts = track.rate, encoder.time_base, place
        place += _BLOCK
        for packet in encoder.encode(frame):
            assert packet.pts is not None  # this encoder counts them
            yield SoundPacket(bytes(packet), packet.pts, _BLOCK)


def _may_be_copied(stream: AudioStream) -> bool:
    """Whether MP4 can hold a stream's packets, and their times are known to the sample."""
    codec = stream.codec_context
    if codec.name not in _COPIED or not stream.rate or not stream.time_base:
        return False
    if codec.name == "aac" and not codec.extradata:  # as broadcast: each packet has a header that MP4 does not take
        return False
    counted = codec.name in _OPUS or (codec.name in _EVEN and codec.frame_size > 0)
    return counted or not _is_coarse(stream)


def _is_coarse(stream: AudioStream) -> bool:
    """Whether a file's clock cannot tell one sample from the next, as that of Matroska and WebM."""
    return stream.time_base is not None and stream.time_base * stream.rate > 1


def _fits_mp4(template: _Template) -> bool:
    """Whether the library agrees that an MP4 file may hold such sound."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4", options={"strict": "-2"}) as container:
            _add_stream(container, template)
            container.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _origin_s(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """Return the instant, in seconds of the file's clock, that is the film's beginning; None where there is no sound.

    In a video it is the first picture; a sound without pictures begins with the first sample that is to be heard,
    which may lie inside its first packets.
    """
    video = video_stream(container)
    begins = Fraction(video.start_time * video.time_base) if video and video.start_time and video.time_base else None
    first_s, length = None, 0
    try:
        for packet in container.demux(stream):
            if packet.size and first_s is None and packet.pts is not None and stream.time_base is not None:
                first_s = packet.pts * stream.time_base
            length += _length(packet, stream)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                if video:
                    return begins or Fraction(0)
                if _is_coarse(stream) and first_s is not None:  # counted, because the clock would round it
                    return first_s + Fraction(length - frame.samples, stream.rate)
                return Fraction(0) if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
    except (av.error.InvalidDataError, av.error.EOFError):
        pass
    return None


def _length(packet: Packet, stream: AudioStream) -> int:
    """Return how many samples a packet holds: counted where that can be done, otherwise as the file says it."""
    codec = stream.codec_context
    if codec.name in _EVEN and codec.frame_size > 0:
        return codec.frame_size if packet.size else 0
    if codec.name in _OPUS:
        return _opus_length(bytes(packet)[:2])
    assert stream.time_base is not None  # asked before
    return round((packet.duration or 0) * stream.time_base * stream.rate)


def _opus_length(head: bytes) -> int:
    """Return the samples of an Opus packet by its first two bytes. Source: RFC 6716, section 3.1."""
    if not head:
        return 0
    frames = (1, 2, 2, head[1] & 63 if len(head) > 1 else 0)[head[0] & 3]
    return frames * _OPUS_TENTHS_MS[head[0] >> 3] * _OPUS_RATE // 10000


def _stored(container: InputContainer, stream: AudioStream, origin_s: Fraction) -> Iterator[SoundPacket]:
    """Yield a file's packets, as far as it goes."""
    assert stream.time_base is not None  # asked before
    rate, place = stream.rate, None
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.pts is None:
                continue
            told = round((packet.pts * stream.time_base - origin_s) * rate)
            duration = _length(packet, stream)
            if duration <= 0:
                continue
            start = told if place is None or told - place > _GAP_S * rate else place
            place = start + duration
            yield SoundPacket(bytes(packet), start, duration)
    except (av.error.InvalidDataError, av.error.EOFError):
        return


def _name(source: Sound) -> str:
    return "The sound" if isinstance(source, tuple) else str(Path(os.fspath(source)))
