"""Sound for the host: files to AUDIO, and AUDIO to what a model hears."""

import math
from pathlib import Path
from typing import Any

import comfy.model_patcher
import torch
from torch import Tensor

from ...gloria_core.audio import from_encoder_output, hidden_of, mel_features
from ...gloria_core.errors import AudioError
from ...gloria_core.media import read_audio
from ...gloria_core.nano.speech import DEMO_FILE
from ...gloria_core.types import AudioFeatures
from ..sockets import EncodedAudio
from .model import model_config
from .paths import input_path

BUNDLED = "bundled speech"
"""Stands for the speech that comes with the pack."""


def sound_path(name: str) -> Path:
    """Return the path of the bundled speech, or of a file in the input folder; MediaError where there is none."""
    return DEMO_FILE if name == BUNDLED else input_path(name)


def load_sound(name: str) -> dict[str, Any]:
    """Return the host's AUDIO of a file.

    Raises:
        MediaError: the file is missing, is no media file, or has no sound in it.
    """
    waveform, sample_rate = read_audio(sound_path(name))
    return {"waveform": waveform.unsqueeze(0), "sample_rate": sample_rate}


def fingerprint(name: str) -> str:
    """Return a text that changes when the file does."""
    stat = sound_path(name).stat()
    return f"{name}:{stat.st_mtime_ns}:{stat.st_size}"


def encode_sound(
    patcher: comfy.model_patcher.ModelPatcher,
    waveform: Tensor,
    sample_rate: int,
    *,
    fps: float,
    offset_s: float,
    encoder: Any = None,  # noqa: ANN401 - the host's AUDIO_ENCODER
) -> EncodedAudio:
    """Encode the host's AUDIO for a model.

    Args:
        patcher: the model that will listen.
        waveform: (B, channels, samples), full scale 1; the first of the batch is used.
        sample_rate: in Hz.
        fps: frames a second of the video; 0 takes the model's own.
        offset_s: seconds by which the lips come later than the sound.
        encoder: a wav2vec2 AUDIO_ENCODER, for models that were trained with one.

    Raises:
        AudioError: the sound is empty, the model is deaf, or it needs an encoder that is not there.
    """
    config = model_config(patcher)
    if config.audio is None:
        raise AudioError(f"The model {config.name!r} was made without ears: leave the Audio Encoder out.")
    if waveform.ndim != 3 or waveform.shape[-1] == 0:
        raise AudioError(
            f"The sound has the shape {tuple(waveform.shape)}, which is 0 s long; load a file with speech in it."
        )
    rate = fps or config.fps
    heard = _moved(waveform[0].float(), round(offset_s * sample_rate))
    num_frames = max(1, math.ceil(heard.shape[-1] / sample_rate * rate))
    if config.audio.kind == "mel":
        features = mel_features(heard, sample_rate, fps=rate, num_frames=num_frames)
    else:
        features = _through_encoder(encoder, heard, sample_rate, rate, num_frames)
    return EncodedAudio(features, waveform[0], sample_rate)


def _moved(waveform: Tensor, samples: int) -> Tensor:
    """Delay (channels, samples) by putting silence before it, or hasten it by cutting its start."""
    if samples >= 0:
        return torch.nn.functional.pad(waveform, (samples, 0))
    if -samples >= waveform.shape[-1]:
        raise AudioError("The sync offset is longer than the sound; use a value between -1 and 1 s.")
    return waveform[:, -samples:]


def _through_encoder(encoder: Any, waveform: Tensor, sample_rate: int, fps: float, num_frames: int) -> AudioFeatures:  # noqa: ANN401
    if encoder is None:
        raise AudioError(
            "This model listens through wav2vec2: connect an Audio Encoder Loader with a wav2vec2 file to "
            "'audio_encoder'."
        )
    heard = encoder.encode_audio(waveform.unsqueeze(0), sample_rate)
    return from_encoder_output(hidden_of(heard), heard["audio_samples"], fps=fps, num_frames=num_frames)
