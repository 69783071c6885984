"""A film to which finished segments are added, packet by packet, and which plays at every moment."""

import io
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import merge
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

import av
from av.packet import Packet
from av.stream import Stream

from ..errors import MediaError
from ..whole import written_whole
from .boxes import Run, Sample, fragment, iter_boxes
from .container import audio_stream, open_media, video_stream
from .film_sound import SoundPacket, SoundPackets
from .segment import SegmentHeader, iter_packets, num_frames_in, read_header

_FRAMES_AT_ONCE = 64
"""A fragment holds at most as many; so long a piece of film is held in memory."""
_FINEST_TICKS = 10_000
"""Ticks a second of the pictures' clock, at least."""
_HEAD = "frag_keyframe+delay_moov+default_base_moof"
"""Has the library write a header for fragments that knows where the sound begins."""


@dataclass(slots=True)
class _Track:
    """Where each packet of a track lies in the file: 21 bytes for each, 2 MB for an hour of pictures."""

    ticks: int
    """Ticks a second of its clock."""
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    """In ticks of the film; the first packets of a sound may begin before 0."""
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    keys: "array[int]" = field(default_factory=lambda: array("b"))
    last_duration: int = 0

    def add(self, start: int, samples: Sequence[Sample], places: Sequence[int]) -> None:
        """Note packets of a fragment."""
        for sample, place in zip(samples, places, strict=True):
            self.starts.append(start)
            self.places.append(place)
            self.sizes.append(len(sample.data))
            self.keys.append(sample.is_key)
            start += sample.duration
            self.last_duration = sample.duration

    def packets(self, file: BinaryIO, stream: Stream, end_s: Fraction) -> Iterator[Packet]:
        """Yield the packets for another file; the last one ends with the film."""
        clock, end = Fraction(1, self.ticks), int(end_s * self.ticks)
        for number, start in enumerate(self.starts):
            file.seek(self.places[number])
            packet = Packet(file.read(self.sizes[number]))
            is_last = number + 1 == len(self.starts)
            duration = self.last_duration if is_last else self.starts[number + 1] - start
            packet.stream, packet.time_base = stream, clock
            packet.pts = packet.dts = start
            packet.duration = max(1, min(duration, end - start)) if is_last else duration
            packet.is_keyframe = bool(self.keys[number])
            yield packet


class GrowingFilm:
    """An MP4 in fragments, each written at once. Not safe for use by two threads at once.

    A film that is there already stays until ``show``, so that there is always one that plays.

    Args:
        path: the film.
        fps: frames a second.
        sound: what is heard, or None.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, fps: Fraction, sound: SoundPackets | None) -> None:
        self.path, self._fps, self._sound = path, fps, sound
        self._hidden = path.with_name(path.name + ".partial")
        self._file = self._hidden  # where the film lies now
        ticks = fps.numerator * -(-_FINEST_TICKS // fps.numerator)
        self._ticks_a_frame = int(ticks / fps)
        self._tracks = [_Track(ticks)] if sound is None else [_Track(ticks), _Track(sound.rate)]
        self._first: SegmentHeader | None = None
        self._num_frames = self._num_fragments = self._size = 0
        self._hidden.open("wb").close()

    def append(self, segment: Path) -> None:
        """Copy a segment's frames and the sound that belongs to them to the film's end.

        Raises:
            MediaError: the segment cannot be read, or does not fit behind the others.
            OSError: the disk is full. The film then ends as before, but this object is of no more use.
        """
        header = read_header(segment)
        if self._first is not None and header.settings != self._first.settings:
            raise MediaError(
                f"{segment} was encoded with other settings, or by another encoder, than the film's first segment, so "
                "that they cannot be put together; delete it, and it is made again."
            )
        with self._added() as file:
            if self._first is None:
                self._size += _write_all(file, self._head(segment))
                self._first = header
            packets = iter_packets(segment)
            while batch := list(islice(packets, _FRAMES_AT_ONCE)):
                self._add(file, [Sample(data, self._ticks_a_frame, is_key) for data, is_key in batch])

    def show(self) -> None:
        """Put the film in the place of an older one; where a player holds that one, the next call tries again."""
        if self._file == self._hidden and self._first is not None:
            with suppress(PermissionError):
                os.replace(self._hidden, self.path)
                self._file = self.path

    def write_to(self, target: Path) -> None:
        """Copy the film's packets to an ordinary MP4 whose index comes first, whole or not at all.

        Raises:
            MediaError: the disk refuses.
            av.FFmpegError: so does the library.
        """
        with written_whole(target, kind=MediaError) as partial:
            options = {"movflags": "faststart", **self._options()}
            with (
                self._file.open("rb") as file,
                av.open(str(partial.absolute()), "w", format="mp4", options=options) as container,
            ):
                streams: list[Stream] = []
                with open_media(self._file) as made:
                    found = (video_stream(made), audio_stream(made))
                    streams += [container.add_stream_from_template(one, opaque=True) for one in found if one]
                for packet in self._packets(file, streams):
                    container.mux_one(packet)
            self._check(partial, target)

    def delete(self) -> None:
        """Remove the film, unless a player holds it."""
        for path in (self._hidden, self.path):
            with suppress(PermissionError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the film as it is."""
        self.show()
        if self._first is None:
            self._hidden.unlink(missing_ok=True)

    @contextmanager
    def _added(self) -> Iterator[BinaryIO]:
        """Open the film to add to it; whatever goes wrong, it is cut to what it was."""
        before = self._size
        with self._file.open("r+b", buffering=0) as file:
            file.seek(before)
            try:
                yield file
            except BaseException:
                file.truncate(before)
                raise

    def _add(self, file: BinaryIO, frames: Sequence[Sample]) -> None:
        """Write a fragment."""
        start = self._num_frames * self._ticks_a_frame
        self._num_frames += len(frames)
        runs, starts = [Run(1, start, frames)], [start]
        if self._sound is not None and (heard := self._sound.until(self._num_frames / self._fps)):
            runs.append(Run(2, heard[0].start - self._sound.first.start, _samples(heard)))
            starts.append(heard[0].start)
        self._num_fragments += 1
        data, places = fragment(self._num_fragments, runs)
        for track, run, first, found in zip(self._tracks, runs, starts, places, strict=False):
            track.add(first, run.samples, [self._size + place for place in found])
        # Players refuse a whole film that ends in half an index: it passes for padding until all is there.
        size = _write_all(file, data[:4] + b"free" + data[8:])
        file.seek(self._size + 4)
        _write_all(file, data[4:8])
        self._size += size
        file.seek(self._size)

    def _head(self, segment: Path) -> bytes:
        """Return the boxes that come before all fragments."""
        made = io.BytesIO()
        options = {"movflags": _HEAD, **self._options()}
        with open_media(segment) as container, av.open(made, "w", format="mp4", options=options) as film:
            stream = video_stream(container)
            assert stream is not None  # its header has been read
            streams: list[Stream] = [film.add_stream_from_template(stream, opaque=True)]
            packets = [next(data for data, _ in iter_packets(segment))]
            starts, durations = [0], [self._ticks_a_frame]
            if self._sound is not None:
                first = self._sound.first
                streams.append(self._sound.add_stream(film))
                packets.append(first.data)
                starts.append(first.start)
                durations.append(first.duration)
            for number, (target, track) in enumerate(zip(streams, self._tracks, strict=True)):
                packet = Packet(packets[number])
                packet.stream, packet.time_base, packet.is_keyframe = target, Fraction(1, track.ticks), True
                packet.pts = packet.dts = starts[number]
                packet.duration = durations[number]
                film.mux_one(packet)
        boxes = iter_boxes(made, made.getbuffer().nbytes)
        return b"".join(made.getvalue()[at : at + length] for kind, at, length in boxes if kind in (b"ftyp", b"moov"))

    def _options(self) -> dict[str, str]:
        return {"video_track_timescale": str(self._tracks[0].ticks), "strict": "-2"}  # some sounds are new in MP4

    def _packets(self, file: BinaryIO, streams: Sequence[Stream]) -> Iterator[Packet]:
        """Yield all packets in the order of their times."""
        end_s = self._num_frames / self._fps
        tracks = (track.packets(file, stream, end_s) for track, stream in zip(self._tracks, streams, strict=True))
        return merge(*tracks, key=lambda packet: (packet.dts or 0) * packet.time_base)

    def _check(self, partial: Path, target: Path) -> None:
        try:
            written = num_frames_in(partial)
        except MediaError:
            written = 0
        if written != self._num_frames:  # some versions of the library close a file on a full disk without a word
            raise MediaError(
                f"{target} could not be written to its end: the disk is full. Free some space or choose another folder."
            )


def _samples(packets: Sequence[SoundPacket]) -> list[Sample]:
    """Return packets each of which lasts until the next one begins."""
    lengths = [after.start - before.start for before, after in pairwise(packets)]
    return [
        Sample(packet.data, length, True)
        for packet, length in zip(packets, [*lengths, packets[-1].duration], strict=True)
    ]


def _write_all(file: BinaryIO, data: bytes) -> int:
    """Write all of it; a raw file may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)
