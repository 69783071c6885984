from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gloria_core.errors import MediaError
from gloria_core.media import FilmSound, write_audio
from gloria_core.media.peaks import sound_peaks

RATE = 16000


def beep(seconds: float, loudness: float) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    return loudness * torch.sin(2 * torch.pi * 440 * time)


def test_each_part_has_its_loudest_sample() -> None:
    wave = torch.cat([beep(0.5, 0.25), torch.zeros(RATE // 2), beep(1.0, 0.8)])[None]
    assert sound_peaks(FilmSound((wave, RATE)), 2.0, 4) == [25, 0, 80, 80]


@pytest.mark.parametrize(("fit", "expected"), [("hold", [80, 80, 0, 0]), ("loop", [80, 80, 80, 80])])
def test_a_sound_that_is_shorter_than_the_film(fit: str, expected: list[int]) -> None:
    assert sound_peaks(FilmSound((beep(1.0, 0.8)[None], RATE), fit), 2.0, 4) == expected


def test_a_sound_that_is_longer_than_the_film_and_a_loud_one() -> None:
    wave = torch.cat([beep(1.0, 3.0), beep(1.0, 0.1)])[None]
    assert sound_peaks(FilmSound((wave, RATE)), 1.0, 2) == [100, 100]


def test_a_film_shorter_than_its_parts_and_a_sound_of_nothing() -> None:
    assert len(sound_peaks(FilmSound((beep(1.0, 0.5)[None], RATE)), 0.001, 50)) == 50
    assert sound_peaks(FilmSound((torch.zeros(1, RATE), RATE)), 1.0, 3) == [0, 0, 0]


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "said.flac"
    write_audio(file, torch.cat([beep(0.5, 0.5), torch.zeros(RATE // 2)])[None], RATE)
    assert sound_peaks(FilmSound(file), 1.0, 2) == [50, 0]
    with pytest.raises(MediaError):
        sound_peaks(FilmSound(tmp_path / "gone.flac"), 1.0, 2)
