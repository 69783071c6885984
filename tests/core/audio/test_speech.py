"""What public audio branches hear; ``transformers`` and the authors' own sequence of steps are the oracles.

The networks are random and tiny, of the true structure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gloria_core.audio import group_features, layer_features, row_features, speech
from gloria_core.audio.encoders import open_encoder
from gloria_core.audio.loudness import normalised_loudness
from gloria_core.errors import AudioError

pytestmark = pytest.mark.slow  # transformers takes seconds to import

RATE = 16000


def voice(seconds: float, rate: int = RATE) -> Tensor:
    time = torch.arange(round(seconds * rate)) / rate
    tone = sum(torch.sin(2 * torch.pi * 140 * n * time) / n for n in range(1, 9))
    noise = torch.randn(time.shape, generator=torch.Generator().manual_seed(0))
    return (0.2 * torch.sin(2 * torch.pi * 1.5 * time).square() * tone + 0.01 * noise)[None]


@pytest.fixture(scope="module")
def wav2vec() -> Any:
    """A base model: its first convolution is normed over the whole sound."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model  # slow to import, for this file alone

    torch.manual_seed(0)
    tiny = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=1, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    return Wav2Vec2Model(tiny).eval()


@pytest.fixture(scope="module")
def whisper() -> Any:
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(0)
    tiny = WhisperConfig(
        d_model=64, encoder_layers=32, encoder_attention_heads=1, encoder_ffn_dim=32, num_mel_bins=128,
        decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=32, vocab_size=64, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    return WhisperModel(tiny).eval()


def stretched(x: Tensor, number: int) -> Tensor:
    """Rows (1, N, C) to another number, end to end."""
    places = torch.linspace(0, x.shape[1] - 1, number, dtype=torch.float64)
    left = places.floor().long().clamp(max=x.shape[1] - 1)
    share = (places - left)[:, None]
    return ((1 - share) * x[:, left] + share * x[:, (left + 1).clamp(max=x.shape[1] - 1)]).float()


@torch.no_grad()
def fantasytalking_rows(network: Any, sound: Tensor) -> Tensor:
    """The authors' steps: the processor, the whole network, its last state."""
    from transformers import Wav2Vec2FeatureExtractor

    processor = Wav2Vec2FeatureExtractor(do_normalize=True)
    values = processor(sound[0].numpy(), sampling_rate=RATE, return_tensors="pt").input_values
    return network(values).last_hidden_state[0]


@torch.no_grad()
def multitalk_rows(network: Any, sound: Tensor) -> Tensor:
    """The authors' steps after the loudness: convolutions, interpolation, the rest of the network, every layer."""
    number = int(sound.shape[1] / RATE * 25)
    hook = network.feature_extractor.register_forward_hook(
        lambda module, given, out: stretched(out.transpose(1, 2), number).transpose(1, 2)
    )
    made = network(sound, output_hidden_states=True)
    hook.remove()
    return torch.stack(made.hidden_states[1:], dim=2)[0].flatten(1)


@torch.no_grad()
def whisper_rows(network: Any, sound: Tensor) -> Tensor:
    """The authors' steps: pieces of 30 s, every state, means of groups side by side; 50 rows a second."""
    from transformers import WhisperFeatureExtractor

    processor = WhisperFeatureExtractor(feature_size=128)
    pieces = []
    for piece in sound[0].split(480_000):
        mel = processor(piece.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
        pieces.append(torch.stack(network.encoder(mel, output_hidden_states=True).hidden_states, dim=2))
    states = torch.cat(pieces, dim=1)  # (1, 2n, 33, C)
    groups = [states[:, :, 8 * i : 8 * i + 8].mean(2) for i in range(4)] + [states[:, :, 32]]
    return torch.cat(groups, dim=2)[0]


def humo_rows(network: Any, sound: Tensor) -> Tensor:
    """The authors' last step: half as many rows, end to end."""
    number = sound.shape[1] // 640
    return stretched(whisper_rows(network, sound)[None, : 2 * number], number)[0]


@pytest.mark.parametrize("seconds", [0.025, 1.0, 3.51])
def test_fantasytalking_hears_the_last_state(wav2vec: Any, seconds: float) -> None:
    sound = voice(seconds)
    features = row_features(wav2vec, sound, RATE, fps=23)
    assert (features.rows_per_second, features.fps) == (50.0, 23)
    torch.testing.assert_close(features.frames, fantasytalking_rows(wav2vec, sound), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seconds", [0.04, 1.0, 3.51])
def test_multitalk_hears_every_layer(wav2vec: Any, seconds: float) -> None:
    sound = voice(seconds)
    whole = normalised_loudness(sound[0], RATE)[None, : sound.shape[1] // 640 * 640]  # a whole number of rows long
    expected = multitalk_rows(wav2vec, whole)
    features = layer_features(wav2vec, sound, RATE, fps=25, num_frames=len(expected))
    assert features.frames.shape[1] == 3 * 64
    torch.testing.assert_close(features.frames, expected, atol=1e-5, rtol=0)


def test_long_sounds_are_convolved_in_blocks_without_a_seam(wav2vec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer's norm goes over the whole sound, so the blocks are not independent."""
    sound = voice(4.3)
    whole = row_features(wav2vec, sound, RATE, fps=23).frames
    monkeypatch.setattr(speech, "_BLOCK", RATE)
    torch.testing.assert_close(row_features(wav2vec, sound, RATE, fps=23).frames, whole, atol=1e-5, rtol=0)


def test_the_large_models_norms_are_taken_as_they_are() -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    tiny = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, feat_extract_norm="layer", conv_bias=True,
        do_stable_layer_norm=True,
    )  # fmt: skip
    network = Wav2Vec2Model(tiny).eval()
    sound = voice(1.0)
    rows = row_features(network, sound, RATE, fps=23).frames
    torch.testing.assert_close(rows, fantasytalking_rows(network, sound), atol=1e-5, rtol=0)


def test_humo_hears_groups_of_states(whisper: Any, tmp_path: Path) -> None:
    """As the authors do in the middle; at the ends, where their stretch is off, no further than half a row."""
    whisper.save_pretrained(tmp_path / "whisper")
    states = open_encoder(tmp_path / "whisper")
    sound = voice(31.72)  # more than one piece, and an odd number of rows
    expected = humo_rows(whisper, sound)
    features = group_features(states, sound, RATE, fps=25, num_frames=len(expected))  # type: ignore[arg-type]
    middle = len(expected) // 2
    torch.testing.assert_close(features.frames[middle], expected[middle], atol=1e-5, rtol=0)
    finer = group_features(states, sound, RATE, fps=50, num_frames=2 * len(expected))  # type: ignore[arg-type]
    torch.testing.assert_close(finer.frames[::2], features.frames, atol=1e-6, rtol=0)
    pairs = whisper_rows(whisper, sound)[: 2 * len(expected)].unflatten(0, (-1, 2))
    furthest = (pairs[:, 1] - pairs[:, 0]).abs() / 2
    assert ((features.frames - expected).abs() <= furthest + 1e-5).all()
    torch.testing.assert_close(features.frames, pairs.mean(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("fps", [16.0, 24.0, 29.97])
def test_other_frame_rates_read_the_same_timeline(wav2vec: Any, fps: float) -> None:
    sound = voice(4.0)
    trained = layer_features(wav2vec, sound, RATE, fps=25, num_frames=100).frames
    rows = layer_features(wav2vec, sound, RATE, fps=fps, num_frames=int(4 * fps)).frames
    for frame in (0, 7, 41):
        place = frame * 25 / fps
        low, share = int(place), place - int(place)
        expected = (1 - share) * trained[low] + share * trained[low + 1]
        torch.testing.assert_close(rows[frame], expected, atol=1e-4, rtol=0)


def test_frames_behind_the_sound_repeat_its_end(wav2vec: Any) -> None:
    rows = layer_features(wav2vec, voice(1.0), RATE, fps=25, num_frames=30).frames
    assert torch.equal(rows[25:], rows[24:25].expand(5, -1))


def test_any_sample_rate_and_channels(wav2vec: Any) -> None:
    plain = row_features(wav2vec, voice(1.0), RATE, fps=23).frames
    stereo = torchaudio_resampled(voice(1.0)).expand(2, -1)
    assert (row_features(wav2vec, stereo, 48000, fps=23).frames - plain).abs().mean() < 0.1


def torchaudio_resampled(sound: Tensor) -> Tensor:
    import torchaudio

    return torchaudio.functional.resample(sound, RATE, 48000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: row_features(net, torch.zeros(1, 399), RATE, fps=23), "399 samples"),
        (lambda net: row_features(net, torch.zeros(1, 0), RATE, fps=23), "0 s long"),
        (lambda net: layer_features(net, torch.zeros(1, 639), RATE, fps=25, num_frames=1), "0.04 s"),
        (lambda net: row_features(torch.nn.Linear(2, 2), voice(1), RATE, fps=23), "wav2vec2"),
        (lambda net: row_features(net, voice(1), RATE, fps=0), "fps is 0"),
        (
            lambda net: group_features(lambda s: [torch.zeros(1, 1500, 2)] * 5, voice(1), RATE, fps=25, num_frames=1),
            "Whisper-large-v3",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused(wav2vec: Any, call: Callable[[Any], object], message: str) -> None:
    with pytest.raises(AudioError, match=message):
        call(wav2vec)


# Encoders out of files.


def old_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weight-normed convolution as most published files spell it."""
    spelled = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in spelled.items():
        weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
    return weights


@pytest.mark.parametrize("spelling", ["folder", "file", "old names", "in a recogniser, fp16"])
def test_wav2vec_out_of_a_file(wav2vec: Any, tmp_path: Path, spelling: str) -> None:
    weights = {name: tensor.clone() for name, tensor in wav2vec.state_dict().items()}
    path = tmp_path / "encoder.safetensors"
    if spelling == "folder":
        path = tmp_path / "encoder"
        wav2vec.save_pretrained(path)
    elif spelling == "file":
        save_file(weights, path)
    elif spelling == "old names":
        save_file(old_names(weights), path)
    else:
        weights = {f"wav2vec2.{name}": tensor.half() for name, tensor in weights.items() if "masked" not in name}
        save_file({**weights, "lm_head.weight": torch.zeros(3, 64)}, path)
    network = open_encoder(path)
    sound = voice(0.5)
    rows = row_features(network, sound, RATE, fps=23).frames  # type: ignore[arg-type]
    tolerance = 0.02 if "fp16" in spelling else 1e-6
    torch.testing.assert_close(rows, row_features(wav2vec, sound, RATE, fps=23).frames, atol=tolerance, rtol=0)


def test_whisper_out_of_one_file(whisper: Any, tmp_path: Path) -> None:
    weights = {n: t.clone() for n, t in whisper.state_dict().items() if n.startswith("encoder.")}
    save_file(weights, tmp_path / "whisper.safetensors")
    states = open_encoder(tmp_path / "whisper.safetensors")
    sound = voice(1.0)
    made = group_features(states, sound, RATE, fps=25, num_frames=25).frames  # type: ignore[arg-type]
    wanted = whisper_rows(whisper, sound)[:50].unflatten(0, (25, 2)).mean(1)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)


def test_what_is_no_encoder_is_refused(wav2vec: Any, tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in wav2vec.state_dict().items()}
    del weights["encoder.layers.1.layer_norm.bias"]
    save_file(weights, tmp_path / "short.safetensors")
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "random.safetensors").write_bytes(bytes(range(256)))
    (tmp_path / "folder").mkdir()
    for name, message in {
        "short.safetensors": "lacks 1 weights .encoder.layers.1",
        "other.safetensors": "no audio encoder that this pack knows",
        "random.safetensors": "was cut or is not safetensors",
        "missing.safetensors": "no .safetensors file",
        "folder": "no config.json",
    }.items():
        with pytest.raises(AudioError, match=message):
            open_encoder(tmp_path / name)


def test_without_transformers_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(AudioError, match="pip install transformers"):
        open_encoder(tmp_path)
