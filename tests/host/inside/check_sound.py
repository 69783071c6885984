"""Sound on its way into the model: through mel bands, or through the host's own wav2vec2."""

from __future__ import annotations

from typing import Any

import comfy.audio_encoders.audio_encoders
import pytest
import torch
from gloria_pack.gloria_core.config import AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import AudioError
from gloria_pack.nodes.host import sound

RATE = 24_000


class Patcher:
    """As much of a MODEL as the encoding of sound looks at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, audio: AudioConfig | None) -> None:
        config = ModelConfig(name="probe", audio=audio, fps=16.0)
        monkeypatch.setattr(sound, "model_config", lambda patcher: config)


def voice(seconds: float, channels: int = 2) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    tone = torch.sin(2 * torch.pi * 220 * time) * (time > seconds / 2)
    return tone.expand(1, channels, -1)


@pytest.fixture
def wav2vec2() -> Any:
    """The host's wav2vec2 in its true structure, two small layers of random weights."""
    settings = {"embed_dim": 32, "num_heads": 2, "num_layers": 2, "conv_norm": True, "conv_bias": True}
    encoder = comfy.audio_encoders.audio_encoders.AudioEncoderModel(
        {"model_type": "wav2vec2", **settings, "do_normalize": True, "do_stable_layer_norm": True}
    )
    generator = torch.Generator().manual_seed(0)
    state = encoder.get_sd()
    encoder.load_sd({k: _drawn(v.shape, generator) for k, v in state.items()})
    return encoder


def _drawn(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    fan_in = max(1, torch.Size(shape[1:]).numel())
    return torch.randn(shape, generator=generator) * (2.0 / fan_in) ** 0.5


def test_mel_features_follow_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Patcher(monkeypatch, AudioConfig(kind="mel", feature_dim=32))
    made = sound.encode_sound(model, voice(3.0), RATE, fps=0.0, offset_s=0.0)
    assert made.features.fps == 16.0
    assert made.features.frames.shape[0] == 48
    assert made.waveform.shape == (2, 3 * RATE)
    quiet, loud = made.features.frames[:20], made.features.frames[28:]
    assert (loud.mean(0) - quiet.mean(0)).abs().max() > 0.01


def test_a_frame_rate_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Patcher(monkeypatch, AudioConfig(kind="mel", feature_dim=32))
    made = sound.encode_sound(model, voice(3.0), RATE, fps=25.0, offset_s=0.0)
    assert (made.features.fps, made.features.frames.shape[0]) == (25.0, 75)


@pytest.mark.parametrize("offset_frames", [4, -4])
def test_the_sync_offset_moves_what_is_heard_and_not_the_sound(
    monkeypatch: pytest.MonkeyPatch, offset_frames: int
) -> None:
    model = Patcher(monkeypatch, AudioConfig(kind="mel", feature_dim=32))
    plain = sound.encode_sound(model, voice(3.0), RATE, fps=0.0, offset_s=0.0)
    moved = sound.encode_sound(model, voice(3.0), RATE, fps=0.0, offset_s=offset_frames / 16)
    assert torch.equal(moved.waveform, plain.waveform)
    expected = plain.features.frames[20:40]
    shifted = moved.features.frames[20 + offset_frames : 40 + offset_frames]
    assert torch.allclose(shifted, expected, atol=0.2)
    assert not torch.allclose(moved.features.frames[20:40], expected, atol=0.2)


def test_wav2vec2_features_stand_on_the_frames(monkeypatch: pytest.MonkeyPatch, wav2vec2: Any) -> None:
    model = Patcher(monkeypatch, AudioConfig(kind="wav2vec2", feature_dim=32))
    made = sound.encode_sound(model, voice(3.0), RATE, fps=0.0, offset_s=0.0, encoder=wav2vec2)
    assert made.features.frames.shape == (48, 32)
    assert torch.isfinite(made.features.frames).all()
    quiet, loud = made.features.frames[4:20], made.features.frames[28:44]
    assert (loud.mean(0) - quiet.mean(0)).abs().max() > 0.01


def test_a_model_that_needs_an_encoder_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Patcher(monkeypatch, AudioConfig(kind="wav2vec2", feature_dim=32))
    with pytest.raises(AudioError, match="wav2vec2"):
        sound.encode_sound(model, voice(1.0), RATE, fps=0.0, offset_s=0.0)


def test_a_deaf_model_and_an_empty_sound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match="without ears"):
        sound.encode_sound(Patcher(monkeypatch, None), voice(1.0), RATE, fps=0.0, offset_s=0.0)
    model = Patcher(monkeypatch, AudioConfig(kind="mel", feature_dim=32))
    with pytest.raises(AudioError, match="0 s long"):
        sound.encode_sound(model, torch.zeros(1, 1, 0), RATE, fps=0.0, offset_s=0.0)
    with pytest.raises(AudioError, match="sync offset"):
        sound.encode_sound(model, voice(1.0), RATE, fps=0.0, offset_s=-5.0)
