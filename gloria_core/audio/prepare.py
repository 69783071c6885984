"""Every sound on common ground: mono, 16 kHz, at one speaking level."""

import math
from collections.abc import Iterator
from fractions import Fraction

import torch
import torchaudio
from torch import Tensor

from ..errors import AudioError

SAMPLE_RATE = 16000
"""Rate in Hz of all analysis."""
HOP = 160
"""Samples from one short-time window to the next: 10 ms."""
WINDOW = 400
"""Samples in one short-time window: 25 ms."""
SPEECH_LEVEL = 0.1
"""RMS (full scale 1) that the loud tenth of the speaking time is brought to: -20 dB."""
_LOUDEST_GAIN = 100.0
"""At most +40 dB, so that the hiss of a silent recording is not taken for speech."""
_LOUDEST = 1e6
"""Largest sample that is taken for sound: well above 16-bit numbers that somebody forgot to scale."""
_PIECE, _MARGIN = 1 << 22, 64
"""Samples that are resampled at once, and on each side of them: the filter reaches 6 samples of the lower rate."""
_LONGEST_RATIO = 2000
"""Largest denominator of a resampling ratio: exact for every usual rate, and under 1 ms an hour for odd ones."""


def prepare(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mix to mono, resample, and bring to the speaking level.

    The level is measured over the whole waveform, so a video's features do not depend on how it is cut into chunks:
    pass the whole sound each time, and choose the part by its frames.

    Args:
        waveform: (channels, samples), any sample rate, full scale 1.
        sample_rate: in Hz.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        AudioError: the waveform has no samples, is no waveform, or holds numbers that are not finite.
    """
    sound = mono(waveform, sample_rate)
    return sound * speaking_gain(sound)


def mono(waveform: Tensor, sample_rate: int) -> Tensor:
    """Mix to mono and resample, at the loudness that the sound has.

    Args:
        waveform: (channels, samples), any sample rate, full scale 1.
        sample_rate: in Hz.

    Returns:
        (samples,) float32 at 16 kHz.

    Raises:
        AudioError: the waveform has no samples, is no waveform, or holds numbers that are not finite.
    """
    if waveform.ndim != 2 or not waveform.is_floating_point():
        raise AudioError(
            f"The sound is {waveform.dtype} of shape {tuple(waveform.shape)}; give floats of shape (channels, samples)."
        )
    if waveform.numel() == 0:
        raise AudioError("The sound is 0 s long; load a file with speech in it.")
    if sample_rate < 1:
        raise AudioError(f"The sample rate is {sample_rate} Hz; it must be positive, such as 44100 or 48000.")
    heard = waveform.detach().float().cpu()
    mixed = heard[0] if len(heard) == 1 else heard.mean(0)  # (samples,)
    peak = float(torch.stack(mixed.aminmax()).abs().max())
    if not peak <= _LOUDEST:  # nor where it is no number
        raise AudioError(
            f"The sound is damaged: it holds numbers that are not finite (NaN or infinity) or as large as {peak:.3g}, "
            "where 1 is full scale; export the file again."
        )
    return _resample(mixed, sample_rate)


def _resample(sound: Tensor, sample_rate: int) -> Tensor:
    ratio = Fraction(sample_rate, SAMPLE_RATE).limit_denominator(_LONGEST_RATIO)
    if ratio == 1:
        return sound
    if ratio.numerator == 0 or ratio > _LONGEST_RATIO:
        raise AudioError(f"The sample rate is {sample_rate} Hz; use one between 1 kHz and 1 MHz, such as 48000.")
    return torch.cat(list(_resampled_pieces(sound, ratio)))


def _resampled_pieces(sound: Tensor, ratio: Fraction) -> Iterator[Tensor]:
    """Yield a sound (samples,) at another rate, piece by piece: the filter takes many times a piece's memory.

    Each piece is resampled with more on both sides than the filter sees, and the surplus is cut off.
    """
    old, new = ratio.numerator, ratio.denominator
    size, margin = (-(-least // old) * old for least in (_PIECE, _MARGIN * math.ceil(ratio)))
    for start in range(0, sound.shape[0], size):
        first = max(0, start - margin)
        piece = torchaudio.functional.resample(sound[first : start + size + margin], old, new)
        skipped, is_last = (start - first) // old * new, start + size >= sound.shape[0]
        yield piece[skipped:] if is_last else piece[skipped : skipped + size // old * new]


def speaking_gain(sound: Tensor) -> float:
    """Return the factor that brings speech (samples,) at 16 kHz to SPEECH_LEVEL; 1 for digital silence."""
    missing = max(HOP - sound.shape[0], 0)
    blocks = torch.nn.functional.pad(sound, (0, missing)).unfold(0, HOP, HOP)  # (blocks, HOP)
    levels = blocks.square().mean(1).sqrt()
    peak = float(levels.max())
    if peak == 0:
        return 1.0
    speaking = levels[levels > 0.03 * peak].sort().values
    level = float(speaking[math.floor(0.9 * (speaking.shape[0] - 1))])
    return min(SPEECH_LEVEL / level, _LOUDEST_GAIN)
