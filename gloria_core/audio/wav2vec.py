"""wav2vec 2.0 hidden states, 50 a second, on the output clock. The encoder itself is the host's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import AudioError
from ..types import AudioFeatures
from .clock import check_clock, frame_centres_s

_RATE = 16000
_STRIDE = 320
_FIELD = 400
"""Samples that one hidden state sees. Source: the seven convolutions of wav2vec 2.0 (kernels 10 3 3 3 3 2 2)."""


def hidden_of(output: Mapping[str, Any], layer: int | None = None) -> Tensor:
    """Pick the hidden states (1, frames, A) out of the host's audio encoder output.

    Args:
        output: ``encoded_audio`` (1, frames, A), ``encoded_audio_all_layers``, a sequence of such tensors (the
            embedding first, the last layer last), and ``audio_samples``.
        layer: which of the layers; None takes the encoder's final output.

    Raises:
        AudioError: the layer does not exist, or nothing is there.
    """
    if layer is None:
        name, hidden = "encoded_audio", output.get("encoded_audio")
    else:
        layers = output.get("encoded_audio_all_layers") or ()
        if not -len(layers) <= layer < len(layers):
            raise AudioError(f"The audio encoder gave {len(layers)} layers; there is no layer {layer}.")
        name, hidden = "encoded_audio_all_layers", layers[layer]
    if not isinstance(hidden, Tensor):
        raise AudioError(f"The audio encoder's output has no {name!r}; connect the output of an audio encoder node.")
    return hidden


def from_encoder_output(hidden: Tensor, audio_samples: int, *, fps: float, num_frames: int) -> AudioFeatures:
    """Put wav2vec 2.0 hidden states on the output clock.

    Hidden state j sees samples 320 j .. 320 j + 399 and is centred at (320 j + 200) / 16000 s. Pixel frame f reads
    the states at its own centre, (f + 0.5) / fps, by linear interpolation; the first and the last state reach to the
    ends of the sound. Frames whose centre lies behind the end are zeros, as is the padding.

    Args:
        hidden: (1, frames, A), 50 a second, of the whole sound.
        audio_samples: length of that sound at 16 kHz.
        fps: frames a second of the output video.
        num_frames: frames F to return.

    Returns:
        Features (F, A), on the states' device and in their dtype.

    Raises:
        AudioError: the states do not belong to that many samples (another kind of encoder), or the clock is impossible.
    """
    check_clock(fps, num_frames)
    if hidden.ndim != 3 or hidden.shape[0] != 1:
        raise AudioError(
            f"The encoded audio has the shape {tuple(hidden.shape)}; give one sound: (1, frames, features)."
        )
    count = hidden.shape[1]
    expected = max((audio_samples - _FIELD) // _STRIDE + 1, 0)
    if count == 0:
        raise AudioError(f"The sound has {audio_samples} samples at 16 kHz; wav2vec2 needs at least {_FIELD} (25 ms).")
    if abs(count - expected) > 1:
        raise AudioError(
            f"The encoder gave {count} rows for {audio_samples} samples; wav2vec2 gives {expected}. "
            "Load a wav2vec2 encoder: this model was trained with one."
        )
    centres = frame_centres_s(fps, num_frames)
    place = ((centres * _RATE - _FIELD / 2) / _STRIDE).clamp(0, count - 1)  # (F,), in states
    left = place.floor().long().clamp_max(max(count - 2, 0))
    right = (left + 1).clamp_max(count - 1)
    share = (place - left).to(hidden)[:, None]
    left, right = left.to(hidden.device), right.to(hidden.device)
    rows = torch.lerp(hidden[0, left], hidden[0, right], share)  # (F, A)
    heard = (centres * _RATE < audio_samples).to(hidden.device)
    return AudioFeatures(torch.where(heard[:, None], rows, torch.zeros_like(rows)), fps)
