"""The few boxes of an MP4 file that are read or written here. Source: ISO/IEC 14496-12."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

_BASE_IS_MOOF = 0x020000
_HAS_OFFSET, _HAS_DURATIONS, _HAS_SIZES, _HAS_FLAGS = 0x1, 0x100, 0x200, 0x400
_STANDS_ALONE, _LEANS_ON_OTHERS = 0x02000000, 0x01010000
"""Flags of a sample that can be decoded by itself, and of one that cannot."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One packet of a track."""

    data: bytes
    duration: int
    """In ticks of the track's clock."""
    is_key: bool


@dataclass(frozen=True, slots=True)
class Run:
    """Packets of one track that follow each other."""

    track: int
    """The track's number in the file, from 1."""
    start: int
    """When the first one begins, in ticks from the track's first packet."""
    samples: Sequence[Sample]


def iter_boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, place and length of each box at the top of a file; one that is cut is longer than what is there."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        yield kind, place, length
        if length < 8:
            return
        place += length


def fragment(number: int, runs: Sequence[Run]) -> tuple[bytes, list[list[int]]]:
    """Return a fragment, to be put at a file's end, and where in it the data of each run's packets lie.

    Args:
        number: how many fragments come before, and one.
        runs: at most one for each track.
    """
    sizes = [sum(len(sample.data) for sample in run.samples) for run in runs]
    before = len(_index(number, runs, [0] * len(runs))) + 8  # the length does not depend on the offsets
    firsts = [before + passed for passed in accumulate(sizes, initial=0)][: len(runs)]
    data = [sample.data for run in runs for sample in run.samples]
    places = [
        list(accumulate((len(sample.data) for sample in run.samples), initial=first))[:-1]
        for run, first in zip(runs, firsts, strict=True)
    ]
    return _index(number, runs, firsts) + _box(b"mdat", *data), places


def _index(number: int, runs: Sequence[Run], firsts: Sequence[int]) -> bytes:
    tracks = (_track(run, first) for run, first in zip(runs, firsts, strict=True))
    return _box(b"moof", _box(b"mfhd", struct.pack(">II", 0, number)), *tracks)


def _track(run: Run, first: int) -> bytes:
    flags = _HAS_OFFSET | _HAS_DURATIONS | _HAS_SIZES | _HAS_FLAGS
    rows = (
        struct.pack(">III", one.duration, len(one.data), _STANDS_ALONE if one.is_key else _LEANS_ON_OTHERS)
        for one in run.samples
    )
    return _box(
        b"traf",
        _box(b"tfhd", struct.pack(">II", _BASE_IS_MOOF, run.track)),
        _box(b"tfdt", struct.pack(">IQ", 1 << 24, run.start)),
        _box(b"trun", struct.pack(">IIi", flags, len(run.samples), first), *rows),
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body
