"""The absolute clock: short-time spectra every 10 ms, and their means over the pixel frames of the output video.

Frame f is on screen from f / fps to (f + 1) / fps seconds, and hears exactly that interval; its centre, at
(f + 0.5) / fps, is where point-like features are read. Spectrum h is centred at h * 10 ms and stands for the 10 ms
around that instant; one that an edge of the interval cuts counts with the share that lies inside. Time 0 is the first
sample of the sound.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import AudioError
from .prepare import HOP, SAMPLE_RATE, WINDOW

FFT = 512
"""Points of the Fourier transform: bins of 31.25 Hz."""
_HOPS_PER_SECOND = SAMPLE_RATE // HOP
_BLOCK_HOPS = 8192
"""Spectra held at once (82 s), so that memory is flat in length."""


def check_clock(fps: float, num_frames: int, start_frame: int = 0) -> None:
    """Raise AudioError where there is no such clock."""
    if not 0 < fps <= 1000:
        raise AudioError(f"fps is {fps:g}; it must be above 0 and at most 1000, such as 16 or 24.")
    if num_frames < 1:
        raise AudioError(f"num_frames is {num_frames}; the video must have at least 1 frame.")
    if start_frame < 0:
        raise AudioError(f"start_frame is {start_frame}; frames are counted from 0 at the start of the video.")


def frame_centres_s(fps: float, num_frames: int, start_frame: int = 0) -> Tensor:
    """Return the centres (F,) of pixel frames in seconds, float64."""
    return (torch.arange(start_frame, start_frame + num_frames, dtype=torch.float64) + 0.5) / fps


def frame_means(
    sound: Tensor, describe: Callable[[Tensor], Tensor], fps: float, num_frames: int, start_frame: int = 0
) -> Tensor:
    """Describe the short-time spectra and average them over each frame's interval.

    Args:
        sound: (samples,) at 16 kHz; before and after it there is digital silence.
        describe: maps power spectra (hops, FFT / 2 + 1) to rows (hops, A), each from its own spectrum alone.
        fps: frames a second.
        num_frames: frames F to return.
        start_frame: the first of them.

    Returns:
        (F, A), float32.
    """
    return torch.cat([_block_means(sound, describe, fps, block) for block in _blocks(fps, num_frames, start_frame)])


def _blocks(fps: float, num_frames: int, start_frame: int) -> Iterator[range]:
    size = max(1, math.floor(_BLOCK_HOPS * fps / _HOPS_PER_SECOND))
    end = start_frame + num_frames
    for first in range(start_frame, end, size):
        yield range(first, min(first + size, end))


def _block_means(sound: Tensor, describe: Callable[[Tensor], Tensor], fps: float, block: range) -> Tensor:
    frames = torch.arange(block.start, block.stop, dtype=torch.float64)
    edges = torch.stack([frames, frames + 1]) * (_HOPS_PER_SECOND / fps) + 0.5  # (2, F), spectrum h fills [h, h + 1)
    width = math.ceil(_HOPS_PER_SECOND / fps) + 1
    places = edges[0].floor()[:, None] + torch.arange(width, dtype=torch.float64)  # (F, width)
    overlap = torch.minimum(places + 1, edges[1][:, None]) - torch.maximum(places, edges[0][:, None])
    weights = overlap.clamp_min(0) * (fps / _HOPS_PER_SECOND)  # (F, width), rows sum to 1
    first = int(places[0, 0])
    rows = describe(_power(sound, first, int(places[-1, -1]) + 1 - first))  # (hops, A)
    return (rows[places.long() - first] * weights.float()[..., None]).sum(1)


def _power(sound: Tensor, first: int, count: int) -> Tensor:
    """Return power spectra (count, FFT / 2 + 1) in units of mean square, spectrum ``first`` at first * 10 ms."""
    start = first * HOP - WINDOW // 2
    stop = start + (count - 1) * HOP + WINDOW
    inside = sound[min(max(start, 0), sound.shape[0]) : max(min(stop, sound.shape[0]), 0)]
    before = min(max(-start, 0), stop - start)
    padded = torch.nn.functional.pad(inside, (before, stop - start - before - inside.shape[0]))
    window = torch.hann_window(WINDOW)
    spectra = torch.fft.rfft(padded.unfold(0, WINDOW, HOP) * window, n=FFT)  # (count, FFT / 2 + 1)
    return spectra.abs().square() * (2.0 / (FFT * float(window.square().sum())))
