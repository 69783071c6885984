"""Sound for the host: files to AUDIO, AUDIO to what a model hears, and what the film is given of it."""

import logging
import math
from collections.abc import Mapping
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
from ...gloria_core.media import FilmSound, OriginalSound, SoundFit, read_audio
from ...gloria_core.nano.speech import DEMO_FILE
from ...gloria_core.runs.digest import digest_of
from ...gloria_core.types import AudioFeatures
from ..sockets import EncodedAudio
from .encoders import FileEncoder, wav2vec, whisper
from .model import model_config
from .paths import input_path

_log = logging.getLogger(__name__)

BUNDLED = "bundled speech"
"""Stands for the speech that comes with the pack."""
ORIGINAL = "gloria_original"
"""Where the host's AUDIO tells which file it was read from: an ``OriginalSound``. Other nodes make AUDIO without it."""
_LONGEST_OFFSET_S = 10.0


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
    late_s = _offset_s(offset_s, offset_frames, rate)
    heard = _moved(waveform[0].float().mean(0, keepdim=True), round(late_s * sample_rate))
    features = _features(config.audio, encoder, heard, sample_rate, rate)
    if features.frames.shape[1] != config.audio.feature_dim:
        raise AudioError(
            f"The audio encoder gives {features.frames.shape[1]} numbers a row; this model hears "
            f"{config.audio.feature_dim}: it was trained with {_ENCODERS.get(config.audio.kind, 'another encoder')}."
        )
    if original is not None and not original.sounds_like(waveform[0], sample_rate):
        original = None
    return EncodedAudio(features, waveform[0], sample_rate, original)


def film_sound(audio: EncodedAudio, fit: SoundFit) -> FilmSound:
    """Return what a film sounds like: the user's own file where the sound is still its, otherwise the waveform.

    A sound that is repeated is always the waveform: no packet of a file ends just where its sound does.
    """
    original = audio.original if fit != "loop" else None
    if original is not None and not original.is_there():
        _log.warning(
            "Gloria: %s was changed or removed since it was loaded; the film's sound is encoded from what was read. "
            "Queue again to load it anew.",
            original.path,
        )
        original = None
    return FilmSound((audio.waveform, audio.sample_rate) if original is None else original.path, fit)


def sound_notes(sound: FilmSound | None) -> list[str]:
    """Say where a file's sound cannot go into the film as it is."""
    if sound is None or isinstance(sound.source, tuple) or sound.is_copied:
        return []
    return [
        f"The sound of {Path(sound.source).name} is encoded to AAC, because an MP4 file cannot hold it as it is; AAC, "
        "MP3, FLAC and Opus go into the film bit for bit."
    ]


def film_sound_digest(audio: EncodedAudio, sound: FilmSound) -> str:
    """Return the digest of a film's sound by its content: the same on every machine, wherever the file lies."""
    size = audio.original.num_bytes if audio.original is not None and not isinstance(sound.source, tuple) else 0
    return digest_of(audio.waveform, audio.sample_rate, sound.fit, *([size] if size else []))


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


def _offset_s(seconds: float, frames: int, fps: float) -> float:
    """Add up the two sync offsets; AudioError where they are longer than anybody means."""
    total_s = seconds + frames / fps
    if not abs(total_s) <= _LONGEST_OFFSET_S:  # nor where it is no number
        raise AudioError(
            f"The lips would come {abs(total_s):.2f} s {'later' if total_s > 0 else 'earlier'} than the sound "
            f"({seconds:g} s and {frames} frames at {fps:g} a second); they can be moved by at most "
            f"{_LONGEST_OFFSET_S:g} s: lower 'sync_offset' or 'sync_frames', or trim the sound."
        )
    return total_s


def _moved(waveform: Tensor, samples: int) -> Tensor:
    """Delay (channels, samples) by putting silence before it, or hasten it by cutting its start."""
    if samples > 0:
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
