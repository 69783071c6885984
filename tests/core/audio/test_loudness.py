"""Loudness after BS.1770; the standard's own tone and torchaudio's measure (where it does not clip) are the oracles."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio
from torch import Tensor

from gloria_core.audio.loudness import loudness, normalised_loudness


def tone(hz: float, seconds: float, rate: int, level: float = 1.0) -> Tensor:
    return level * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * rate)) / rate)


def speech(rate: int) -> Tensor:
    """Loud and soft parts and pauses, so that both gates matter."""
    noise = torch.randn(12 * rate, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.1, 0.0, 0.05, 0.0001, 0.08, 0.002]).repeat_interleave(2 * rate)
    return noise * level


@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_standards_tone(rate: int) -> None:
    """A full-scale tone of 997 Hz in one channel is -3.01 LUFS."""
    assert loudness(tone(997, 3, rate), rate) == pytest.approx(-3.01, abs=0.06)
    assert loudness(tone(997, 3, rate, 0.01), rate) == pytest.approx(-43.01, abs=0.06)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_same_as_torchaudio_where_that_does_not_clip(rate: int) -> None:
    oracle = float(torchaudio.functional.loudness(speech(rate)[None], rate))
    assert loudness(speech(rate), rate) == pytest.approx(oracle, abs=0.02)


def test_pauses_do_not_count() -> None:
    sound = tone(300, 4, 16000, 0.2)
    with_pauses = torch.cat([sound, torch.zeros(16 * 16000), sound])
    assert loudness(with_pauses, 16000) == pytest.approx(loudness(sound, 16000), abs=0.3)


@pytest.mark.parametrize("level", [9.0, 0.02])
def test_sounds_are_brought_to_the_target(level: float) -> None:
    assert loudness(normalised_loudness(speech(16000) * level, 16000), 16000) == pytest.approx(-23, abs=0.01)


def test_silence_and_a_blink_of_sound() -> None:
    silence = torch.zeros(16000)
    assert loudness(silence, 16000) == -math.inf
    assert torch.equal(normalised_loudness(silence, 16000), silence)
    assert math.isfinite(loudness(tone(300, 0.05, 16000, 0.5), 16000))
