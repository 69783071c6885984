"""Sound for the host: files to AUDIO, AUDIO to what a model hears, and what the film is given of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_patcher
from torch import Tensor

from ...gloria_core.audio import (
    from_encoder_output,
    group_features,
    hidden_of,
    layer_features,
    mel_features,
    moved_sound,
    row_features,
    sync_offset_s,
)
from ...gloria_core.config import AudioConfig
from ...gloria_core.errors import AudioError
from ...gloria_core.media import OriginalSound, read_audio
from ...gloria_core.nano.speech import DEMO_FILE
from ...gloria_core.types import AudioFeatures
from ..sockets import EncodedAudio
from .encoders import FileEncoder, wav2vec, whisper
from .model import model_config
from .paths import input_path

BUNDLED = "bundled speech"
"""Stands for the speech that comes with the pack."""
ORIGINAL = "gloria_original"
"""Where the host's AUDIO tells which file it was read from: an ``OriginalSound``. Other nodes make AUDIO without it."""


def sound_path(name: str) -> Path:
    """Return the path of the bundled speech, or of a file in the input folder; MediaError where there is none."""
    return DEMO_FILE if name == BUNDLED else input_path(name)


def load_sound(name: str) -> dict[str, Any]:
    """Return the host's AUDIO of a file, which also tells where it comes from.

    Raises:
        MediaError: the file is missing, is no media file, or has no sound in it.
    """
    path = sound_path(name)
    waveform, sample_rate = read_audio(path)
    original = OriginalSound.read_from(path, waveform, sample_rate)
    return {"waveform": waveform.unsqueeze(0), "sample_rate": sample_rate, ORIGINAL: original}


def fingerprint(name: str) -> str:
    """Return a text that changes when the file does."""
    stat = sound_path(name).stat()
    return f"{name}:{stat.st_mtime_ns}:{stat.st_size}"


def parts_of(audio: Mapping[str, Any] | None) -> tuple[Tensor, int, OriginalSound | None]:
    """Return waveform (B, channels, samples), sample rate in Hz and file of the host's AUDIO.

    Raises:
        AudioError: there is none, as where a video without sound was taken apart.
    """
    if audio is None:
        raise AudioError(
            "Nothing can be heard: what is connected to 'audio' has no sound, such as a video without a sound track. "
            "Load speech, or leave the Audio Encoder out."
        )
    return audio["waveform"], audio["sample_rate"], audio.get(ORIGINAL)


def encode_sound(
    patcher: comfy.model_patcher.ModelPatcher,
    waveform: Tensor,
    sample_rate: int,
    *,
    fps: float,
    offset_s: float,
    offset_frames: int = 0,
    encoder: Any = None,  # noqa: ANN401 - the host's AUDIO_ENCODER or a FileEncoder
    original: OriginalSound | None = None,
) -> EncodedAudio:
    """Encode the host's AUDIO for a model, as its audio branch was trained to hear.

    Args:
        patcher: the model that will listen.
        waveform: (B, channels, samples), full scale 1; the first of the batch is used.
        sample_rate: in Hz.
        fps: frames a second of the video; 0 takes the model's own.
        offset_s: seconds by which the lips come later than the sound.
        offset_frames: frames of the video by which they come later still.
        encoder: the AUDIO_ENCODER that the model's branch was trained with; None where it needs none.
        original: the file that the AUDIO says it was read from; it is forgotten where the waveform is another by now.

    Raises:
        AudioError: the sound is empty, the offset too long, the model deaf, or an encoder that it needs not there.
    """
    config = model_config(patcher)
    if config.audio is None:
        raise AudioError(
            f"The model {config.name!r} was made without ears: load an audio branch before it, or leave the Audio "
            "Encoder out."
        )
    if waveform.ndim != 3 or waveform.numel() == 0:
        raise AudioError(
            f"The sound has the shape {tuple(waveform.shape)}, which is 0 s long; load a file with speech in it."
        )
    rate = fps or config.fps
    late_s = sync_offset_s(offset_s, offset_frames, rate)
    heard = moved_sound(waveform[0], sample_rate, late_s)
    features = features_of(config.audio, encoder, heard, sample_rate, rate)
    if features.frames.shape[1] != config.audio.feature_dim:
        raise AudioError(
            f"The audio encoder gives {features.frames.shape[1]} numbers a row; this model hears "
            f"{config.audio.feature_dim}: it was trained with {_ENCODERS.get(config.audio.kind, 'another encoder')}."
        )
    if original is not None and not original.sounds_like(waveform[0], sample_rate):
        original = None
    return EncodedAudio(features, waveform[0], sample_rate, original)


_ENCODERS = {
    "wav2vec2": "wav2vec2",
    "wav2vec2-rows": "wav2vec2-base-960h",
    "wav2vec2-layers": "chinese-wav2vec2-base",
    "whisper-groups": "whisper-large-v3",
}
"""The published encoder for each kind of features."""


def features_of(
    audio: AudioConfig,
    encoder: Any,  # noqa: ANN401 - AUDIO_ENCODER or FileEncoder
    waveform: Tensor,
    sample_rate: int,
    fps: float,
) -> AudioFeatures:
    """Return a sound (channels, samples) as an audio branch was trained to hear it; see `encode_sound`."""
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
