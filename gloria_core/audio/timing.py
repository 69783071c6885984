"""A sound's features on the clock of a whole video: repeated where it loops, behind what is not shown."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import AudioError
from ..types import AudioFeatures

_LONGEST_OFFSET_S = 10.0
_AHEAD_S = 1.0
"""A looped sound goes on for so long behind the video: no window looks further ahead, and so the last chunk of a video
hears what it would hear in a longer one."""


def on_video_clock(
    features: AudioFeatures, *, num_frames: int, skipped_frames: int = 0, period_s: float | None = None
) -> AudioFeatures:
    """Return what a model hears along a video.

    Args:
        features: of the sound, from its own start.
        num_frames: pixel frames of the video, the skipped ones included.
        skipped_frames: frames at the start that belong to another video; the sound begins behind them.
        period_s: seconds after which the sound begins again; None plays it once.
    """
    rate = features.rows_per_second or features.fps
    rows, padding = features.frames, features.padding
    if period_s is not None:
        rows = _repeated(rows, math.ceil((num_frames / features.fps + _AHEAD_S) * rate), period_s * rate)
    if skipped_frames:
        row = torch.zeros_like(rows[0]) if padding is None else padding.to(rows)
        rows = torch.cat([row.expand(round(skipped_frames / features.fps * rate), *row.shape), rows])
    return features if rows is features.frames else replace(features, frames=rows)


def _repeated(rows: Tensor, number: int, period: float) -> Tensor:
    """Play rows again and again; what a sync offset has moved behind the end is heard as the next turn begins.

    Args:
        rows: (N, A); more than a period where lips come later than the sound.
        number: rows to return.
        period: rows after which the sound begins again; it need not be whole.
    """
    late = max(math.floor(len(rows) - period + 1e-6), 0)
    places = torch.arange(number, dtype=torch.float64)
    within = places % period
    within = torch.where((places >= period) & (within < late), within + period, within)
    return rows[within.round().long().clamp(max=len(rows) - 1)]


def sync_offset_s(seconds: float, frames: int, fps: float) -> float:
    """Add up the two sync offsets; AudioError where they are longer than anybody means."""
    total_s = seconds + frames / fps
    if not abs(total_s) <= _LONGEST_OFFSET_S:  # nor where it is no number
        raise AudioError(
            f"The lips would come {abs(total_s):.2f} s {'later' if total_s > 0 else 'earlier'} than the sound "
            f"({seconds:g} s and {frames} frames at {fps:g} a second); they can be moved by at most "
            f"{_LONGEST_OFFSET_S:g} s: lower 'sync_offset' or 'sync_frames', or trim the sound."
        )
    return total_s


def moved_sound(waveform: Tensor, sample_rate: int, late_s: float) -> Tensor:
    """Return a sound (1, samples), mixed to mono, as the mouth is to follow it.

    Args:
        waveform: (channels, samples).
        sample_rate: in Hz.
        late_s: seconds of silence put before it, or, below 0, cut from its start.

    Raises:
        AudioError: nothing is left of it.
    """
    return _moved(waveform.float().mean(0, keepdim=True), round(late_s * sample_rate))


def _moved(waveform: Tensor, samples: int) -> Tensor:
    """Delay (channels, samples) by putting silence before it, or hasten it by cutting its start."""
    if samples > 0:
        return torch.nn.functional.pad(waveform, (samples, 0))
    if -samples >= waveform.shape[-1]:
        raise AudioError("The sync offset is longer than the sound; use a value between -1 and 1 s.")
    return waveform[:, -samples:]
