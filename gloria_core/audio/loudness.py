"""Loudness after ITU-R BS.1770-4, of one channel: what MultiTalk's weights expect their speech to be brought to.

Written here because torchaudio's measure clips the filtered sound at full scale, which hides the loudness of loud
recordings (-3.28 in place of -3.01 LUFS for a full-scale tone of 997 Hz).
"""

import math

import torch
import torchaudio
from torch import Tensor

_BLOCK_S = 0.4
"""Blocks that are measured; each begins a quarter of its length after the one before."""
_ABSOLUTE_GATE = -70.0
_RELATIVE_GATE = -10.0
_OFFSET = -0.691


def loudness(sound: Tensor, sample_rate: int) -> float:
    """Return the integrated loudness in LUFS, or minus infinity for silence.

    Args:
        sound: (samples,), full scale 1; what is shorter than a block of 0.4 s is measured as one block.
        sample_rate: in Hz.
    """
    size = round(_BLOCK_S * sample_rate)
    weighted = _k_weighted(sound, sample_rate)
    weighted = torch.nn.functional.pad(weighted, (0, max(size - weighted.shape[0], 0)))
    sums = torch.nn.functional.pad(weighted.square().cumsum(0), (1, 0))
    blocks = (weighted.shape[0] - size) * 4 // size + 1
    starts = (torch.arange(blocks) * size / 4).round().long()
    power = (sums[starts + size] - sums[starts]) / size  # (blocks,)
    level = _lufs(power)
    loud = power[level > _ABSOLUTE_GATE]
    if loud.numel() == 0:
        return -math.inf
    gate = float(_lufs(loud.mean())) + _RELATIVE_GATE
    return float(_lufs(power[(level > _ABSOLUTE_GATE) & (level > gate)].mean()))


def normalised_loudness(sound: Tensor, sample_rate: int, target: float = -23.0) -> Tensor:
    """Bring a sound (samples,) to a loudness in LUFS; silence stays as it is.

    Args:
        sound: full scale 1.
        sample_rate: in Hz.
        target: -23 is the level of broadcasts (EBU R 128) and of MultiTalk's training.
    """
    level = loudness(sound, sample_rate)
    return sound if math.isinf(level) else sound * 10 ** ((target - level) / 20)


def _lufs(power: Tensor) -> Tensor:
    return _OFFSET + 10 * power.log10()


def _k_weighted(sound: Tensor, sample_rate: int) -> Tensor:
    """Filter as the head and the ear do: a high shelf of 4 dB at 1500 Hz, and a high pass at 38 Hz."""
    exact = sound.double()
    for a, b in (_shelf(sample_rate), _high_pass(sample_rate)):
        exact = torchaudio.functional.lfilter(exact, exact.new_tensor(a), exact.new_tensor(b), clamp=False)
    return exact


Biquad = tuple[list[float], list[float]]
"""Coefficients of the output and of the input."""


def _shelf(sample_rate: int, gain_db: float = 4.0, hz: float = 1500.0, quality: float = math.sqrt(0.5)) -> Biquad:
    """Source: R. Bristow-Johnson, Audio EQ Cookbook, high shelf; the numbers fit the tables of BS.1770 at any rate."""
    gain = 10 ** (gain_db / 40)
    turn = 2 * math.pi * hz / sample_rate
    cosine, alpha = math.cos(turn), 2 * math.sqrt(gain) * math.sin(turn) / (2 * quality)
    above, below = gain + 1, gain - 1
    b = [
        gain * (above + below * cosine + alpha),
        -2 * gain * (below + above * cosine),
        gain * (above + below * cosine - alpha),
    ]
    a = [above - below * cosine + alpha, 2 * (below - above * cosine), above - below * cosine - alpha]
    return a, b


def _high_pass(sample_rate: int, hz: float = 38.0, quality: float = 0.5) -> Biquad:
    """Source: R. Bristow-Johnson, Audio EQ Cookbook, high pass."""
    turn = 2 * math.pi * hz / sample_rate
    cosine, alpha = math.cos(turn), math.sin(turn) / (2 * quality)
    b = [(1 + cosine) / 2, -1 - cosine, (1 + cosine) / 2]
    return [1 + alpha, -2 * cosine, 1 - alpha], b
