"""What public audio branches hear: hidden states of wav2vec 2.0 and Whisper, put on the clock of the video.

The networks are the host's or those of ``transformers``; both name their parts alike, and these functions use the parts
by those names. A sound is encoded as a whole, so that a chunk hears what the whole video hears there.

The authors of MultiTalk and HuMo make 25 rows a second, of which row n is frame n of their videos; at another frame
rate, frame f reads that timeline at its own time f / fps, between two rows. Source: peers.md section B.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AudioError
from ..types import AudioFeatures
from .clock import check_clock
from .loudness import normalised_loudness
from .prepare import SAMPLE_RATE, mono
from .wav2vec import from_encoder_output
from .windows import WAV2VEC_RATE

TRAINED_RATE = 25
"""Rows a second that MultiTalk and HuMo were trained with."""
_SHORTEST = 400
"""Samples that wav2vec 2.0 needs for one row."""
_BLOCK = 30 * SAMPLE_RATE
"""Samples whose convolutions are held in memory at once, and the longest sound that Whisper takes."""
_ROW_SAMPLES = SAMPLE_RATE // TRAINED_RATE
"""Samples of one of these rows, which are made from two of the encoder's."""
_GROUPS = (slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 32), slice(32, 33))
"""Whisper-large's states whose means HuMo hears."""

Whisper = Callable[[Tensor], Sequence[Tensor]]
"""Encodes a sound (samples,) of at most 30 s to Whisper's states, the embedding first, each (1, 1500, C)."""


@torch.no_grad()
def row_features(
    network: nn.Module, waveform: Tensor, sample_rate: int, *, fps: float, device: torch.device | None = None
) -> AudioFeatures:
    """Return what FantasyTalking hears: the last state of wav2vec2-base-960h, 50 rows a second.

    Args:
        network: a wav2vec 2.0 network.
        waveform: (channels, samples), full scale 1, of the whole video.
        sample_rate: in Hz.
        fps: frame rate of the video, by which the windows find their rows.
        device: where the network runs; None is where its weights are.

    Returns:
        Rows (L, C), float32 on the CPU, ``rows_per_second`` 50. L is as the network has it: 1 for the first 25 ms of
        sound, and 1 more for every further 20 ms.

    Raises:
        AudioError: the sound is empty or shorter than 25 ms, or the network is no wav2vec 2.0.
    """
    check_clock(fps, 1)
    sound = mono(waveform, sample_rate)
    sound = (sound - sound.mean()) / (sound.var(correction=0) + 1e-7).sqrt()
    states = _transformed(network, _convolved(network, sound, device))
    return AudioFeatures(states[-1][0], fps, rows_per_second=WAV2VEC_RATE)


@torch.no_grad()
def state_features(
    network: Any,  # noqa: ANN401 - transformers' own
    waveform: Tensor,
    sample_rate: int,
    *,
    fps: float,
    num_frames: int,
    device: torch.device | None = None,
) -> AudioFeatures:
    """Return what Gloria hears: the last state of wav2vec 2.0, as the host's audio encoder gives it, for each frame.

    The host evens out the loudness for the large models alone, as they were trained.

    Args:
        network: the wav2vec 2.0 of ``transformers``.
        waveform: (channels, samples), full scale 1, of the whole video.
        sample_rate: in Hz.
        fps: frames a second of the output video.
        num_frames: frames F to return.
        device: where the network runs; None is where its weights are.

    Returns:
        Rows (F, C), float32 on the CPU; see `wav2vec.from_encoder_output`.

    Raises:
        AudioError: the sound is empty or shorter than 25 ms, the clock is impossible, or the network is no wav2vec 2.0.
    """
    sound = mono(waveform, sample_rate)
    if network.config.do_stable_layer_norm:
        sound = (sound - sound.mean()) / (sound.var() + 1e-7).sqrt()
    states = _transformed(network, _convolved(network, sound, device))
    return from_encoder_output(states[-1], sound.shape[0], fps=fps, num_frames=num_frames)


@torch.no_grad()
def layer_features(
    network: nn.Module,
    waveform: Tensor,
    sample_rate: int,
    *,
    fps: float,
    num_frames: int,
    device: torch.device | None = None,
) -> AudioFeatures:
    """Return what MultiTalk and InfiniteTalk hear: every layer of chinese-wav2vec2-base, side by side.

    The sound is brought to -23 LUFS. What the convolutions give is put on the trained rate *before* the transformer.
    The authors stretch it end to end; of a sound that is no whole number of rows long the rest, under 40 ms, is left
    out, because it would be spread over the whole length and move the end by as much.

    Args:
        network: a wav2vec 2.0 network.
        waveform: (channels, samples), full scale 1, of the whole video.
        sample_rate: in Hz.
        fps: frames a second of the output video.
        num_frames: frames F to return.
        device: where the network runs; None is where its weights are.

    Returns:
        Rows (F, layers * C), the first layer first, float32 on the CPU.

    Raises:
        AudioError: the sound is empty or shorter than 40 ms, the clock is impossible, or the network is no wav2vec 2.0.
    """
    check_clock(fps, num_frames)
    sound = normalised_loudness(mono(waveform, sample_rate), SAMPLE_RATE)
    number = _trained_rows(sound)
    convolved = _stretched(_convolved(network, sound[: number * _ROW_SAMPLES], device)[0], number)
    states = _transformed(network, convolved[None])
    rows = torch.cat([state[0] for state in states], dim=1)  # (N, layers * C)
    return AudioFeatures(_on_frames(rows, fps, num_frames), fps)


@torch.no_grad()
def group_features(
    whisper: Whisper, waveform: Tensor, sample_rate: int, *, fps: float, num_frames: int
) -> AudioFeatures:
    """Return what HuMo hears: means over groups of Whisper-large-v3's states, side by side.

    A row is the mean of Whisper's two in its 40 ms. The authors stretch them end to end, which reads the first of the
    two where a sound begins and the second where it ends; the mean is never further from that than half a row, 10 ms.

    Args:
        whisper: encodes half a minute; longer sounds are cut into pieces, as the authors do.
        waveform: (channels, samples), full scale 1, of the whole video.
        sample_rate: in Hz.
        fps: frames a second of the output video.
        num_frames: frames F to return.

    Returns:
        Rows (F, 5 * C), float32 on the CPU.

    Raises:
        AudioError: the sound is empty or shorter than 40 ms, the clock is impossible, or the encoder has not 33 states.
    """
    check_clock(fps, num_frames)
    sound = mono(waveform, sample_rate)
    number = _trained_rows(sound)
    rows = torch.cat([_grouped(whisper(piece)) for piece in sound.split(_BLOCK)])  # (50 a second, 5 * C)
    rows = rows[: 2 * number].unflatten(0, (number, 2)).mean(1)
    return AudioFeatures(_on_frames(rows, fps, num_frames), fps)


def _grouped(states: Sequence[Tensor]) -> Tensor:
    if len(states) != _GROUPS[-1].stop:
        raise AudioError(
            f"The audio encoder has {len(states)} states; HuMo hears the {_GROUPS[-1].stop} of Whisper-large-v3: load "
            "that one."
        )
    means = [torch.stack([state[0].float() for state in states[group]]).mean(0) for group in _GROUPS]
    return torch.cat(means, dim=1).cpu()


def _trained_rows(sound: Tensor) -> int:
    """Return how many rows the authors make of a sound (samples,)."""
    number = sound.shape[0] // _ROW_SAMPLES
    if number == 0:
        raise AudioError(
            f"The sound is {sound.shape[0] / SAMPLE_RATE:.3f} s long; load one of at least 0.04 s with speech in it."
        )
    return number


def _stretched(rows: Tensor, number: int) -> Tensor:
    """Interpolate rows (N, C) to a number of them, the first and the last onto each other."""
    return _read(rows, torch.linspace(0, rows.shape[0] - 1, number, dtype=torch.float64))


def _on_frames(rows: Tensor, fps: float, num_frames: int) -> Tensor:
    """Read rows (N, A) of the trained rate at the times of frames; the last row reaches to the end."""
    places = torch.arange(num_frames, dtype=torch.float64) * TRAINED_RATE / fps
    return _read(rows, places.clamp(max=rows.shape[0] - 1))


def _read(rows: Tensor, places: Tensor) -> Tensor:
    """Read rows (N, A) at places (M,) between them."""
    left = places.floor().long()
    share = (places - left).to(rows.device, rows.dtype)[:, None]
    left = left.to(rows.device)
    return torch.lerp(rows[left], rows[(left + 1).clamp(max=rows.shape[0] - 1)], share)


def _convolved(network: nn.Module, sound: Tensor, device: torch.device | None) -> Tensor:
    """Return what wav2vec's convolutions give (1, N, C), block by block: a whole hour at once would fill any memory.

    The first layer of the base models norms each channel over the whole sound, so its mean and spread are found first.
    """
    if sound.shape[0] < _SHORTEST:
        raise AudioError(
            f"The sound has {sound.shape[0]} samples at 16 kHz; wav2vec2 needs at least {_SHORTEST} (25 ms)."
        )
    layers = _parts(network)
    device = device or next(network.parameters()).device
    first = layers[0].conv
    statistics = None
    if isinstance(getattr(layers[0], "layer_norm", None), nn.GroupNorm):
        statistics = _statistics(first(piece.to(device)[None, None]) for piece in _pieces(sound, layers[:1]))
    made = []
    for piece in _pieces(sound, layers):
        x = first(piece.to(device)[None, None])  # (1, C, samples)
        x = nn.functional.gelu(_normed(x, layers[0], statistics))
        for layer in layers[1:]:
            x = nn.functional.gelu(_normed(layer.conv(x), layer, None))
        made.append(x.transpose(1, 2))
    return torch.cat(made, dim=1)


def _parts(network: nn.Module) -> Sequence[Any]:
    """Return wav2vec's convolution layers, or raise AudioError."""
    parts = [getattr(network, name, None) for name in ("feature_extractor", "feature_projection", "encoder")]
    layers = getattr(parts[0], "conv_layers", None)
    if layers is None or not all(isinstance(part, nn.Module) for part in parts):
        raise AudioError(
            f"The audio encoder is a {type(network).__name__}; this model listens through wav2vec2: load a wav2vec2 "
            "file."
        )
    return list(layers)


def _pieces(sound: Tensor, layers: Sequence[Any]) -> Iterable[Tensor]:
    """Cut a sound so that what the layers make of the pieces, one after the other, is what they make of the whole."""
    field, stride = 1, 1
    for layer in layers:
        field += (layer.conv.kernel_size[0] - 1) * stride
        stride *= layer.conv.stride[0]
    rows = (sound.shape[0] - field) // stride + 1
    step = max(_BLOCK // stride, 1)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield sound[start * stride : (stop - 1) * stride + field]


def _statistics(pieces: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and variance (1, C, 1) over the time of pieces (1, C, n), in float64 on the CPU."""
    number, total, squares = 0, torch.zeros(()), torch.zeros(())
    for piece in pieces:
        length = piece.shape[2]
        number += length
        total = total + length * piece.mean(2, keepdim=True).cpu().double()
        squares = squares + length * piece.square().mean(2, keepdim=True).cpu().double()
    mean = total / number
    return mean, (squares / number - mean.square()).clamp_min(0)


def _normed(x: Tensor, layer: Any, statistics: tuple[Tensor, Tensor] | None) -> Tensor:  # noqa: ANN401 - host's or other
    norm = getattr(layer, "layer_norm", None)
    if norm is None:
        return x
    if statistics is None:
        return norm(x.transpose(1, 2)).transpose(1, 2)
    mean, variance = (value.to(x) for value in statistics)
    normed = (x - mean) * (variance + norm.eps).rsqrt()
    return normed * norm.weight.to(x)[:, None] + norm.bias.to(x)[:, None]


def _transformed(network: Any, rows: Tensor) -> list[Tensor]:  # noqa: ANN401 - the host's or transformers' own
    """Run wav2vec's transformer over (1, N, C); return what each of its layers gives (1, N, A), float32 on the CPU."""
    states: list[Tensor] = []

    def keep(_layer: nn.Module, _given: object, made: Any) -> None:  # noqa: ANN401 - a tensor, or a tuple of one
        states.append((made[0] if isinstance(made, tuple) else made).float().cpu())

    hooks = [layer.register_forward_hook(keep) for layer in network.encoder.layers]
    try:
        projected = network.feature_projection(rows)
        last = network.encoder(projected[0] if isinstance(projected, tuple) else projected)[0]
    finally:
        for hook in hooks:
            hook.remove()
    return [*states[:-1], last.float().cpu()]  # the large models norm the last state once more
