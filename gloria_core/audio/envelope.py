"""How far a mouth is open while somebody speaks: the speech envelope, which drives the mouths of the nano world."""

import torch
from torch import Tensor

from .clock import FFT, check_clock, frame_means
from .prepare import SAMPLE_RATE, SPEECH_LEVEL, prepare

_LOWEST_HZ, _HIGHEST_HZ = 150.0, 4000.0
"""The band of vowels: hum lies below it, and the hiss of s and f, spoken with a nearly closed mouth, above."""
_EXPONENT = 0.6
"""Compression: syllables spoken softly still move the mouth."""
_CLOSED = 0.12
"""Compressed level at and below which the mouth is shut."""


def mouth_opening(waveform: Tensor, sample_rate: int, fps: float, num_frames: int, start_frame: int = 0) -> Tensor:
    """Return how far the mouth is open in each pixel frame.

    The RMS between 150 and 4000 Hz over the frame's interval, compressed. The absolute clock and the loudness are
    those of ``mel_features``: pass the whole sound, and choose the part by ``start_frame``.

    Args:
        waveform: (channels, samples), any sample rate, full scale 1.
        sample_rate: in Hz.
        fps: frames a second of the output video.
        num_frames: frames F to return.
        start_frame: the first of them.

    Returns:
        (F,) in 0..1: 0 in silence, about 1 at the loudest twentieth of speech.

    Raises:
        AudioError: the waveform is empty or no waveform, or the clock is impossible.
    """
    check_clock(fps, num_frames, start_frame)
    rms = frame_means(prepare(waveform, sample_rate), _speech_power, fps, num_frames, start_frame)[:, 0].sqrt()  # (F,)
    level = (rms / SPEECH_LEVEL).pow(_EXPONENT)
    return ((level - _CLOSED) / (1 - _CLOSED)).clamp(0, 1)


def _speech_power(power: Tensor) -> Tensor:
    hz = torch.arange(FFT // 2 + 1) * (SAMPLE_RATE / FFT)
    band = (hz >= _LOWEST_HZ) & (hz <= _HIGHEST_HZ)
    return power[:, band].sum(1, keepdim=True)
