"""Sound files: a whole waveform in, a whole waveform out."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray
from torch import Tensor

from ..errors import MediaError
from .container import audio_stream, open_media, video_stream

Samples = NDArray[np.float32]

_GAP_S = 0.05
"""Holes of the track's clock that are longer than this are filled with silence."""
_PIECE = 1 << 24
"""Numbers that are gathered before they are put together (64 MiB): memory of this size is the system's when freed."""
_CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".ogg": "libopus", ".opus": "libopus", ".m4a": "aac"}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


def read_audio(
    path: str | os.PathLike[str], *, sample_rate: int | None = None, max_seconds: float | None = None
) -> tuple[Tensor, int]:
    """Read the first sound track of a file, in step with the pictures where the file has any.

    Sample 0 is the instant of the first picture: a track that starts later is preceded by silence, and what sounds
    before the first picture is dropped. Damaged packets become silence, so that what follows stays in its place.

    Args:
        path: a sound or video file of any container.
        sample_rate: resample to this rate in Hz; None keeps the file's own.
        max_seconds: stop after this many seconds; None reads all.

    Returns:
        The waveform (channels, samples), float32, full scale 1, and its sample rate in Hz.

    Raises:
        MediaError: the file is missing, is no media file, or has no sound in it.
    """
    file = Path(path)
    with open_media(file) as container:
        stream = audio_stream(container)
        if stream is None:
            raise MediaError(f"{file} has no sound track; give a file with speech in it, or add the sound to it first.")
        rate = sample_rate or stream.rate
        limit = round(max_seconds * rate) if max_seconds is not None else None
        waveform = _whole(iter_blocks(container, stream, rate), limit)
    if waveform is None:
        raise MediaError(f"{file} has a sound track of 0 seconds; give a file with speech in it.")
    return torch.from_numpy(waveform[:, :limit]).contiguous(), rate


def _whole(blocks: Iterator[Samples], limit: int | None) -> Samples | None:
    """Put blocks (channels, n) together until there are enough samples; None where there are none.

    They are gathered in large pieces, each given back to the system as soon as it is copied: never is a long sound held
    twice.
    """
    pieces: deque[Samples] = deque()
    held: list[Samples] = []
    length = since = 0
    for block in blocks:
        held.append(block)
        length += block.shape[1]
        since += block.size
        if since >= _PIECE:
            pieces.append(np.concatenate(held, axis=1))
            held, since = [], 0
        if limit is not None and length >= limit:
            break
    pieces.extend(held)
    held.clear()
    if length == 0:
        return None
    whole, place = np.empty((pieces[0].shape[0], length), np.float32), 0
    while pieces:
        piece = pieces.popleft()
        whole[:, place : place + piece.shape[1]] = piece
        place += piece.shape[1]
    return whole


def iter_blocks(
    container: InputContainer, stream: AudioStream, rate: int, *, layout: str | None = None
) -> Iterator[Samples]:
    """Decode a sound track to blocks (channels, n), float32, at ``rate``; sample 0 is the first picture's instant."""
    resampler = AudioResampler(format="flt", layout=layout, rate=rate)  # the library counts 8 planes wrongly
    video = video_stream(container)
    origin_s = float(video.start_time * video.time_base) if video and video.start_time and video.time_base else 0.0
    started = video is not None  # a lone sound track starts with its own first sample
    length = 0
    for frame in _decode(container, stream):
        if frame.time is not None and not started:
            origin_s, started = frame.time, True
        blocks = _arrays(resampler.resample(frame))
        gap = round((frame.time - origin_s) * rate) - length if frame.time is not None else 0
        if gap < 0 and length == 0:
            blocks = _drop(blocks, -gap)
        elif gap > _GAP_S * rate or (length == 0 and gap > 0):
            blocks.insert(0, np.zeros((_channels(resampler, frame), gap), np.float32))
        for block in blocks:
            length += block.shape[1]
            yield block
    if length:
        yield from _arrays(resampler.resample(None))


def _arrays(frames: list[AudioFrame]) -> list[Samples]:
    """Return interleaved frames as (channels, n)."""
    return [np.asarray(frame.to_ndarray(), np.float32).reshape(-1, frame.layout.nb_channels).T for frame in frames]


def _channels(resampler: AudioResampler, frame: AudioFrame) -> int:
    return resampler.layout.nb_channels if resampler.layout is not None else frame.layout.nb_channels


def _drop(blocks: list[Samples], count: int) -> list[Samples]:
    joined = np.concatenate(blocks, axis=1) if blocks else np.zeros((1, 0), np.float32)
    return [joined[:, count:]] if joined.shape[1] > count else []


def _decode(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Yield decoded frames, stepping over packets that are damaged and ending where the file is cut."""
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            yield from frames
    except (av.error.InvalidDataError, av.error.EOFError):
        return


def write_audio(
    path: str | os.PathLike[str], waveform: Tensor, sample_rate: int, *, bit_rate: int | None = None
) -> None:
    """Write a waveform to a sound file: .wav, .flac, .ogg (Opus) or .m4a (AAC), by the name's ending.

    Args:
        path: the file; one that exists is replaced.
        waveform: (channels, samples), 1 or 2 channels, full scale 1; louder samples are clipped.
        sample_rate: in Hz.
        bit_rate: bits a second for Opus and AAC; None takes the encoder's own.

    Raises:
        MediaError: an unknown ending, a waveform of the wrong shape, or a file that cannot be written.
    """
    file = Path(path)
    codec = _CODECS.get(file.suffix.lower())
    if codec is None:
        raise MediaError(f"{file} ends in {file.suffix!r}; sound is written to {', '.join(sorted(_CODECS))}.")
    if waveform.ndim != 2 or waveform.shape[0] not in (1, 2) or waveform.shape[1] == 0:
        raise MediaError(
            f"A waveform of shape {tuple(waveform.shape)} cannot be written; use (1 or 2 channels, samples)."
        )
    if codec == "libopus" and sample_rate not in _OPUS_RATES:
        raise MediaError(f"Opus does not know {sample_rate} Hz; use one of {_OPUS_RATES}, or write to .flac.")
    pcm = (waveform.detach().cpu().float().clamp(-1, 1) * 32767).round().to(torch.int16).numpy()
    layout = "mono" if waveform.shape[0] == 1 else "stereo"
    try:
        with av.open(str(file), "w") as container:
            stream = container.add_stream(codec, rate=sample_rate, layout=layout)
            assert isinstance(stream, AudioStream)  # the codec decides the class
            if bit_rate is not None:
                stream.bit_rate = bit_rate
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(pcm.T.reshape(1, -1)), format="s16", layout=layout)
            frame.sample_rate = sample_rate
            frame.pts = 0
            for part in (frame, None):
                container.mux(stream.encode(part))
    except (av.FFmpegError, OSError) as error:
        file.unlink(missing_ok=True)
        raise MediaError(f"{file} could not be written: {error}.") from error
