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
_FLOOR = 1e-7
"""Added to a band's mean square before the logarithm: -70 dB, 50 dB below speech."""


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
    -11.011, -10.695, -11.213, -11.939, -12.195, -12.447, -13.011, -13.763, -14.179, -14.553,
    -14.674, -14.685, -14.781, -14.838, -14.961, -15.029, -15.057, -14.960, -14.697, -14.557,
    -14.607, -14.678, -14.622, -14.805, -15.030, -15.226, -15.540, -15.559, -15.458, -15.577,
    -15.485, -15.552,
)  # fmt: skip
"""Of each band over the bundled training speech at 16 frames a second, pauses included."""
_STD = (
    3.815, 4.096, 3.787, 3.378, 3.297, 3.277, 3.062, 2.715, 2.451, 2.128, 1.964, 1.957, 1.882,
    1.829, 1.669, 1.526, 1.460, 1.498, 1.687, 1.765, 1.626, 1.550, 1.669, 1.567, 1.368, 1.252,
    0.982, 0.943, 1.053, 0.923, 1.178, 1.163,
)  # fmt: skip
