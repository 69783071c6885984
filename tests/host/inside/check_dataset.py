"""The host's VAE, CLIP and audio encoder as the encoder of a dataset."""

from __future__ import annotations

from typing import Any

import comfy.audio_encoders.audio_encoders
import numpy as np
import pytest
import torch
from gloria_pack.gloria_core.audio import from_encoder_output
from gloria_pack.gloria_core.nano.encoders import NanoEncoder
from gloria_pack.nodes.host.dataset import HostEncoder, sizes_for
from gloria_pack.nodes.host.nano import load_nano
from numpy.typing import NDArray
from tiny_wan import ours, tiny, wan_vae


def frames(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)


@pytest.fixture(scope="module")
def nano() -> tuple[Any, Any, Any]:
    """Model, CLIP and VAE."""
    with torch.inference_mode():
        return load_nano("as trained")


@pytest.fixture(scope="module")
def wav2vec2() -> Any:
    """The host's wav2vec2 in its true structure, two small layers of random weights."""
    settings = {"embed_dim": 32, "num_heads": 2, "num_layers": 2, "conv_norm": True, "conv_bias": True}
    encoder = comfy.audio_encoders.audio_encoders.AudioEncoderModel(
        {"model_type": "wav2vec2", **settings, "do_normalize": True, "do_stable_layer_norm": True}
    )
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for name, value in encoder.get_sd().items():
        fan_in = max(1, torch.Size(value.shape[1:]).numel())
        drawn[name] = torch.randn(value.shape, generator=generator) * (2.0 / fan_in) ** 0.5
    encoder.load_sd(drawn)
    return encoder


@pytest.mark.parametrize(("kind", "codec", "stride"), [("t2v", "wan2.1", 8), ("ti2v_5b", "wan2.2", 16)])
def test_latents_are_normalised_as_the_model_wants_them(nano: Any, kind: str, codec: str, stride: int) -> None:
    patcher, vae = ours(tiny(kind)), wan_vae(codec)
    encoder = HostEncoder(patcher, vae, nano[1])
    assert (encoder.codec, encoder.stride_px, encoder.grid_px) == (codec, stride, 2 * stride)
    shown = frames(5, 64)
    made = encoder.encode_video(shown)
    raw = vae.encode(torch.from_numpy(shown).float() / 255)
    assert made.shape == (1, raw.shape[1], 2, 64 // stride, 64 // stride)
    assert torch.allclose(made, patcher.model.process_latent_in(raw), atol=1e-5)
    assert not torch.allclose(made, raw, atol=1e-2)
    still = encoder.encode_video(shown[:1])
    assert torch.allclose(still, made[:, :, :1], atol=1e-4)  # a film's first latent is its first frame's


def test_nano_is_encoded_as_the_core_does_it(nano: Any) -> None:
    model, clip, vae = nano
    host, core = HostEncoder(model, vae, clip), NanoEncoder()
    shown = frames(5, 48)
    assert torch.allclose(host.encode_video(shown), core.encode_video(shown), atol=1e-4)
    [text] = host.encode_text(["faces left, happy"])
    assert torch.allclose(text, core.encode_text(["faces left, happy"])[0], atol=1e-5)
    sound = torch.sin(torch.arange(32000) * 0.1)[None]
    assert torch.equal(host.encode_audio(sound, 16000, 16.0).frames, core.encode_audio(sound, 16000, 16.0).frames)
    assert (host.audio_kind, host.grid_px) == (core.audio_kind, core.grid_px)


def test_ids_tell_weights_and_loras_apart(nano: Any) -> None:
    model, clip, vae = nano
    encoder, again = HostEncoder(model, vae, clip), HostEncoder(*(model, vae, clip))
    assert (encoder.video_id, encoder.text_id, encoder.audio_id) == (again.video_id, again.text_id, again.audio_id)
    patched = clip.clone()
    name = next(name for name, _ in patched.cond_stage_model.named_parameters())
    patched.patcher.add_patches({name: ("diff", (torch.ones(1),))}, 0.5)
    assert HostEncoder(model, vae, patched).text_id != encoder.text_id
    other = HostEncoder(ours(tiny("t2v")), wan_vae("wan2.1"), clip)
    assert other.video_id != encoder.video_id
    assert other.text_id == encoder.text_id


def test_a_deaf_model_hears_for_ears_to_come_where_an_encoder_is_connected(nano: Any, wav2vec2: Any) -> None:
    patcher, vae = ours(tiny("t2v")), wan_vae("wan2.1")
    deaf = HostEncoder(patcher, vae, nano[1])
    assert (deaf.audio_id, deaf.audio_kind) == ("", "")
    encoder = HostEncoder(patcher, vae, nano[1], wav2vec2)
    assert encoder.audio_kind == "wav2vec2"
    assert encoder.audio_id
    sound = torch.sin(torch.arange(32000) * 0.1)[None]
    made = encoder.encode_audio(sound, 16000, 16.0)
    heard = wav2vec2.encode_audio(sound[None], 16000)
    expected = from_encoder_output(heard["encoded_audio"], heard["audio_samples"], fps=16.0, num_frames=32)
    assert torch.allclose(made.frames, expected.frames, atol=1e-5)


def test_sizes_follow_the_model() -> None:
    sizes = sizes_for(ours(tiny("ti2v_5b", fps=24.0)), "", 0.0, 129, 17)
    assert (sizes.fps, sizes.areas) == (24.0, (1280 * 704,))
