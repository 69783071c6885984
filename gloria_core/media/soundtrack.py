"""The sound of a video that is being written, handed out in step with its frames."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction

import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from torch import Tensor

from ..errors import MediaError
from .container import audio_stream, open_media
from .sound import Samples, iter_blocks

Sound = tuple[Tensor, int] | str | os.PathLike[str]
"""A waveform (channels, samples) with its sample rate, or the path of a file that has a sound track."""

_AAC_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
_OTHER_RATE = 48000
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
"""Usual numbers of channels; 5.1 is mixed to stereo, any other number to mono."""


class Soundtrack:
    """A source of samples that never ends. Held in memory: about a second.

    Args:
        sound: where the samples come from.
        loop: begin anew where the sound ends, with no gap; otherwise silence follows it.

    Raises:
        MediaError: the sound is missing or cannot be read.
    """

    def __init__(self, sound: Sound, *, loop: bool = False) -> None:
        self._open = ExitStack()
        if isinstance(sound, tuple):
            rate, self.channels, source = self._from_waveform(*sound)
        else:
            rate, self.channels, source = self._from_file(sound)
        self.rate = rate
        self._source = self._repeated(sound, source) if loop else source
        self._held: Samples = np.zeros((self.channels, 0), np.float32)

    @property
    def layout(self) -> str:
        """Name of the channel layout: ``mono`` or ``stereo``."""
        return "mono" if self.channels == 1 else "stereo"

    @property
    def is_empty(self) -> bool:
        """Whether the sound has no sample at all."""
        if self._held.shape[1] == 0:
            block = next(self._source, None)
            self._held = self._held if block is None else block
        return self._held.shape[1] == 0

    def take(self, count: int) -> Samples:
        """Return the next ``count`` samples (channels, count), none of them beyond full scale."""
        blocks, missing = [self._held], count - self._held.shape[1]
        while missing > 0:
            block = next(self._source, None)
            if block is None:
                block = np.zeros((self.channels, missing), np.float32)
            blocks.append(block)
            missing -= block.shape[1]
        joined = np.concatenate(blocks, axis=1)
        self._held = joined[:, count:]
        return np.nan_to_num(joined[:, :count], copy=False).clip(-1, 1)

    def close(self) -> None:
        """Close the file that the sound comes from, if it is one."""
        self._open.close()

    def _repeated(self, sound: Sound, source: Iterator[Samples]) -> Iterator[Samples]:
        """Play a source again and again; where its length is no whole number of samples, it is not rounded twice."""
        turns, place, late = 0, 0, 0
        length = Fraction(sound[0].shape[-1] * self.rate, sound[1]) if isinstance(sound, tuple) else None
        while True:
            begun = place
            for block in _moved(source, late):
                place += block.shape[1]
                yield block
            if place == begun:  # a sound of no length would be repeated for ever
                return
            turns += 1
            late = 0 if length is None else place - round(turns * length)
            self._open.close()  # what was open is read to its end
            source = (self._from_waveform(*sound) if isinstance(sound, tuple) else self._from_file(sound))[2]

    def _from_file(self, path: str | os.PathLike[str]) -> tuple[int, int, Iterator[Samples]]:
        container = self._open.enter_context(open_media(path))
        stream = audio_stream(container)
        if stream is None:
            self._open.close()
            raise MediaError(f"{path} has no sound track; give a file with sound, or write the video without.")
        rate, channels = _aac_rate(stream.rate), min(stream.channels, 2)
        return rate, channels, iter_blocks(container, stream, rate, layout="mono" if channels == 1 else "stereo")

    @staticmethod
    def _from_waveform(waveform: Tensor, sample_rate: int) -> tuple[int, int, Iterator[Samples]]:
        if waveform.ndim != 2 or waveform.shape[0] < 1 or not waveform.is_floating_point():
            raise MediaError(
                f"The sound is {waveform.dtype} of shape {tuple(waveform.shape)}; give floats (channels, samples)."
            )
        if sample_rate < 1:
            raise MediaError(f"The sound's sample rate is {sample_rate} Hz; it must be positive, such as 48000.")
        if waveform.shape[0] not in _LAYOUTS:
            waveform = waveform.mean(0, keepdim=True)
        rate, channels = _aac_rate(sample_rate), min(waveform.shape[0], 2)
        return rate, channels, _iter_waveform(waveform.detach(), sample_rate, rate)


def _aac_rate(rate: int) -> int:
    return rate if rate in _AAC_RATES else _OTHER_RATE


def _iter_waveform(waveform: Tensor, sample_rate: int, rate: int) -> Iterator[Samples]:
    layout = _LAYOUTS[waveform.shape[0]]
    resampler = AudioResampler(format="fltp", layout="mono" if layout == "mono" else "stereo", rate=rate)
    for start in range(0, waveform.shape[1], sample_rate):
        part = torch.nan_to_num(waveform[:, start : start + sample_rate].cpu().float()).clamp(-1, 1)
        frame = AudioFrame.from_ndarray(part.contiguous().numpy(), "fltp", layout)
        frame.sample_rate = sample_rate
        frame.pts = start
        yield from (np.asarray(f.to_ndarray(), np.float32) for f in resampler.resample(frame))
    if waveform.shape[1]:
        yield from (np.asarray(f.to_ndarray(), np.float32) for f in resampler.resample(None))


def _moved(source: Iterator[Samples], late: int) -> Iterator[Samples]:
    """Leave out a few samples at the start, or put silence before it where ``late`` is below 0."""
    for block in source:
        skipped = min(max(late, 0), block.shape[1])
        before = np.zeros((block.shape[0], max(-late, 0)), np.float32)
        yield np.concatenate([before, block[:, skipped:]], axis=1)
        late = max(late, 0) - skipped
