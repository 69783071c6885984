"""Log-mel bands on the output clock: what gloria-nano hears."""

from functools import lru_cache

import torch
import torchaudio
from torch import Tensor

from ..types import AudioFeatures
from .clock import FFT, check_clock, frame_means
from .prepare import SAMPLE_RATE, prepare

MEL_BANDS = 32
"""Width A of one row."""
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 7600.0
_FLOOR = 1e-8
"""Added to a band's mean square before the logarithm: -80 dB, 60 dB below speech, where a quiet room hisses."""


def mel_features(
    waveform: Tensor, sample_rate: int, *, fps: float, num_frames: int, start_frame: int = 0
) -> AudioFeatures:
    """Return 32 normalised log-mel bands for each pixel frame.

    Row f is the mean over the frame's interval [f / fps, (f + 1) / fps) of log-mel spectra 10 ms apart (see ``clock``).
    Loudness is normalised over the whole waveform, so always pass the whole sound, and ask for a part of the video by
    ``start_frame``: it equals the same rows of the whole. Where the sound has ended, there is digital silence.

    Args:
        waveform: (channels, samples), any sample rate, full scale 1.
        sample_rate: in Hz.
        fps: frames a second of the output video.
        num_frames: frames F to return.
        start_frame: the first of them.

    Returns:
        Features (F, 32), about mean 0 and standard deviation 1 on speech; ``padding`` is the row of digital silence.

    Raises:
        AudioError: the waveform is empty or no waveform, or the clock is impossible.
    """
    check_clock(fps, num_frames, start_frame)
    rows = frame_means(prepare(waveform, sample_rate), _log_mel, fps, num_frames, start_frame)  # (F, A)
    return AudioFeatures(_normalise(rows), fps, padding=silence_row())


def silence_row() -> Tensor:
    """Return the normalised features (A,) of digital silence."""
    return _normalise(_log_mel(torch.zeros(1, FFT // 2 + 1)))[0]


def _log_mel(power: Tensor) -> Tensor:
    return (power @ _filters() + _FLOOR).log()


@lru_cache(maxsize=1)
def _filters() -> Tensor:
    """Triangular filters (FFT / 2 + 1, A). Source: torchaudio, HTK scale."""
    return torchaudio.functional.melscale_fbanks(FFT // 2 + 1, _LOWEST_HZ, _HIGHEST_HZ, MEL_BANDS, SAMPLE_RATE)


def _normalise(rows: Tensor) -> Tensor:
    return (rows - torch.tensor(_MEAN)) / torch.tensor(_STD)


_MEAN = (
    -11.65, -11.33, -11.89, -12.66, -12.95, -13.25, -13.9, -14.79, -15.31, -15.76, -15.87, -15.89, -16.02, -16.1,
    -16.25, -16.31, -16.31, -16.14, -15.79, -15.6, -15.63, -15.71, -15.67, -15.91, -16.19, -16.48, -16.97, -17.03,
    -16.88, -17.06, -16.99, -17.19,
)  # fmt: skip
"""Of each band over the bundled training speech at 16 frames a second, pauses included."""
_STD = (
    4.63, 4.91, 4.62, 4.22, 4.14, 4.11, 3.9, 3.53, 3.25, 2.92, 2.75, 2.74, 2.66, 2.59, 2.42, 2.28, 2.21, 2.25, 2.47,
    2.56, 2.42, 2.35, 2.46, 2.34, 2.12, 1.97, 1.62, 1.61, 1.76, 1.59, 1.85, 1.85,
)  # fmt: skip
