"""A long sound is resampled piece by piece, and no seam can be found."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torchaudio

from gloria_core.audio import prepare


@pytest.mark.parametrize("sample_rate", [7999, 8000, 11025, 22050, 44100, 48000, 192000])
@pytest.mark.parametrize("num_samples", [3, 49_999, 50_000, 150_000, 200_001])
def test_pieces_are_those_of_the_whole(sample_rate: int, num_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_PIECE", 50_000)
    sound = torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    ratio = Fraction(sample_rate, 16000).limit_denominator(2000)
    whole = torchaudio.functional.resample(sound, ratio.numerator, ratio.denominator)
    torch.testing.assert_close(prepare.mono(sound[None], sample_rate), whole, rtol=0, atol=3e-6)
