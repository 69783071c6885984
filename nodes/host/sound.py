"""Sound for the host: files to AUDIO, and AUDIO to what a model hears."""

import math
from pathlib import Path
from typing import Any

import comfy.model_patcher
import torch
from torch import Tensor

from ...gloria_core.audio import (
    from_encoder_output,
    group_features,
    hidden_of,
    layer_features,
    mel_features,
    row_features,
)
from ...gloria_core.config import AudioConfig
from ...gloria_core.errors import AudioError
from ...gloria_core.media import read_audio
from ...gloria_core.nano.speech import DEMO_FILE
from ...gloria_core.types import AudioFeatures
from ..sockets import EncodedAudio
from .encoders import FileEncoder, wav2vec, whisper
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
    encoder: Any = None,  # noqa: ANN401 - the host's AUDIO_ENCODER or a FileEncoder
) -> EncodedAudio:
    """Encode the host's AUDIO for a model, as its audio branch was trained to hear.

    Args:
        patcher: the model that will listen.
        waveform: (B, channels, samples), full scale 1; the first of the batch is used.
        sample_rate: in Hz.
        fps: frames a second of the video; 0 takes the model's own.
        offset_s: seconds by which the lips come later than the sound.
        encoder: the AUDIO_ENCODER that the model's branch was trained with; None where it needs none.

    Raises:
        AudioError: the sound is empty, the model is deaf, or it needs an encoder that is not there.
    """
    config = model_config(patcher)
    if config.audio is None:
        raise AudioError(
            f"The model {config.name!r} was made without ears: load an audio branch before it, or leave the Audio "
            "Encoder out."
        )
    if waveform.ndim != 3 or waveform.shape[-1] == 0:
        raise AudioError(
            f"The sound has the shape {tuple(waveform.shape)}, which is 0 s long; load a file with speech in it."
        )
    rate = fps or config.fps
    heard = _moved(waveform[0].float(), round(offset_s * sample_rate))
    features = _features(config.audio, encoder, heard, sample_rate, rate)
    if features.frames.shape[1] != config.audio.feature_dim:
        raise AudioError(
            f"The audio encoder gives {features.frames.shape[1]} numbers a row; this model hears "
            f"{config.audio.feature_dim}: it was trained with {_ENCODERS.get(config.audio.kind, 'another encoder')}."
        )
    return EncodedAudio(features, waveform[0], sample_rate)


_ENCODERS = {
    "wav2vec2": "wav2vec2",
    "wav2vec2-rows": "wav2vec2-base-960h",
    "wav2vec2-layers": "chinese-wav2vec2-base",
    "whisper-groups": "whisper-large-v3",
}
"""The published encoder for each kind of features."""


def _features(audio: AudioConfig, encoder: Any, waveform: Tensor, sample_rate: int, fps: float) -> AudioFeatures:  # noqa: ANN401
    num_frames = max(1, math.ceil(waveform.shape[-1] / sample_rate * fps))
    if audio.kind == "mel":
        return mel_features(waveform, sample_rate, fps=fps, num_frames=num_frames)
    wanted = _ENCODERS[audio.kind]
    if audio.kind == "whisper-groups":
        states = whisper(encoder, wanted)
        return group_features(states, waveform, sample_rate, fps=fps, num_frames=num_frames)
    if audio.kind == "wav2vec2":
        return _through_encoder(encoder, waveform, sample_rate, fps, num_frames)
    network, device = wav2vec(encoder, wanted)
    if audio.kind == "wav2vec2-rows":
        return row_features(network, waveform, sample_rate, fps=fps, device=device)
    return layer_features(network, waveform, sample_rate, fps=fps, num_frames=num_frames, device=device)


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
    if isinstance(encoder, FileEncoder):
        raise AudioError(
            "This model listens through wav2vec2 of the host: connect an Audio Encoder Loader with the file to "
            "'audio_encoder', and leave 'encoder_file' as it was."
        )
    heard = encoder.encode_audio(waveform.unsqueeze(0), sample_rate)
    return from_encoder_output(hidden_of(heard), heard["audio_samples"], fps=fps, num_frames=num_frames)
