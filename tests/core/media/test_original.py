"""A waveform and the file that it was read from are one until either of them changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from gloria_core.media import OriginalSound, read_audio, write_audio

Sweep = Callable[..., Tensor]


@pytest.fixture
def song(tmp_path: Path, sweep: Sweep) -> Path:
    write_audio(tmp_path / "song.flac", sweep(1, 16000, 2), 16000)
    return tmp_path / "song.flac"


def test_a_waveform_is_known_by_every_sample_and_its_rate(song: Path) -> None:
    waveform, rate = read_audio(song)
    original = OriginalSound.read_from(song, waveform, rate)
    assert original.sounds_like(waveform.clone(), rate)
    assert original.sounds_like(waveform.T.contiguous().T, rate), "strides do not count"
    moved = waveform.clone()
    moved[1, 777] += 1e-4
    for other in (moved, waveform[:, 1:], waveform[:, :-1], waveform[:1], waveform * 1.0001):
        assert not original.sounds_like(other, rate)
    assert not original.sounds_like(waveform, rate + 1)


def test_a_file_is_known_by_its_size_and_time(song: Path, sweep: Sweep) -> None:
    original = OriginalSound.read_from(song, *read_audio(song))
    assert original.is_there()
    later = original.modified_ns + 1_000_000_000
    os.utime(song, ns=(later, later))
    assert not original.is_there()
    os.utime(song, ns=(original.modified_ns, original.modified_ns))
    assert original.is_there()
    with song.open("ab") as file:
        file.write(b"more")
    assert not original.is_there()
    song.unlink()
    assert not original.is_there()


def test_another_place_does_not_make_another_waveform(song: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.flac"
    copy.write_bytes(song.read_bytes())
    one, other = (OriginalSound.read_from(path, *read_audio(path)) for path in (song, copy))
    assert (one.waveform, one.num_bytes) == (other.waveform, other.num_bytes)


def test_a_file_that_is_gone_cannot_be_an_original(song: Path) -> None:
    waveform, rate = read_audio(song)
    song.unlink()
    with pytest.raises(FileNotFoundError):
        OriginalSound.read_from(song, waveform, rate)
