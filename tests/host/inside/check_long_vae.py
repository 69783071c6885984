"""Wan's two VAEs with a context in place of their features: how near that comes, in decoding and in encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gloria_pack.nodes.host.vae import encode_picture, encode_tail, grid_px, to_bytes
from gloria_pack.nodes.host.vae_stream import StreamDecoder
from tiny_wan import draw, picture, wan_vae
from torch import Tensor

PIECES = (4, 9, 1, 12)
CODECS = {"wan2.1": 8, "wan2.2": 16}


@pytest.fixture(scope="module", params=list(CODECS))
def vae(request: pytest.FixtureRequest) -> Any:
    with torch.inference_mode():
        return wan_vae(request.param)


@pytest.fixture(scope="module")
def latents(vae: Any) -> Tensor:
    return draw(1, vae.latent_channels, sum(PIECES), 2, 4, seed=3)


@pytest.fixture(scope="module")
def whole(vae: Any, latents: Tensor) -> Tensor:
    with torch.inference_mode():
        return vae.decode(latents)[0]


def streamed(decoder: StreamDecoder, latents: Tensor) -> np.ndarray:
    return np.concatenate([decoder(piece) for piece in latents.split(PIECES, dim=2)])


def test_a_stream_equals_an_unbroken_decoding_if_it_looks_back_far_enough(
    vae: Any, latents: Tensor, whole: Tensor
) -> None:
    frames = streamed(StreamDecoder(vae, context=40), latents)
    expected = to_bytes(whole)
    assert frames.shape == expected.shape
    assert np.abs(frames.astype(int) - expected.astype(int)).max() <= 1


def test_a_longer_context_comes_nearer(vae: Any, latents: Tensor, whole: Tensor) -> None:
    expected, spread = whole.numpy(), float(whole.std())

    def error(context: int) -> float:
        frames = streamed(StreamDecoder(vae, context=context), latents) / 255.0
        assert frames.shape == expected.shape, "each frame comes once, whatever the context"
        return float(np.sqrt(np.square(frames - expected).mean())) / spread

    one, usual, long = error(1), error(8), error(16)
    assert one > 2 * usual > 4 * long
    assert usual < 0.35
    assert long < 0.03


def test_looking_ahead_takes_nothing(vae: Any, latents: Tensor) -> None:
    first, second = latents[:, :, :4], latents[:, :, 4:7]
    decoder = StreamDecoder(vae, context=8)
    assert np.array_equal(decoder(first), to_bytes(vae.decode(first)[0]))
    seen = decoder.ahead(second)
    assert seen.shape[0] == 12
    decoder.ahead(-second)
    assert np.array_equal(decoder(second), to_bytes(seen))


def test_a_tail_is_nearly_the_last_latents_of_the_whole_video(vae: Any) -> None:
    video = torch.nn.functional.interpolate(draw(1, 3, 16, 4, 4, seed=8), (101, 64, 64), mode="trilinear")
    video = (video[0].movedim(0, -1) / 4 + 0.5).clamp(0, 1)
    whole = vae.encode(video)[:, :, -4:]

    def error(tail: Tensor) -> float:
        assert tail.shape == whole.shape
        return float((tail - whole).square().mean().sqrt() / whole.std())

    none, some = error(encode_tail(vae, video, 4, 0)), error(encode_tail(vae, video, 4, 8))
    usual = error(encode_tail(vae, video, 4))
    assert none > 3 * some > 9 * usual
    assert usual < 0.01


def test_one_picture_is_the_first_latent_of_any_clip_that_begins_with_it(vae: Any) -> None:
    """Why anchors and a held start image may be encoded apart."""
    image = picture(64, seed=5)
    clip = torch.cat([image, torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(6))])
    assert torch.allclose(encode_picture(vae, image), vae.encode(clip)[:, :, :1], atol=1e-5)
    assert grid_px(vae) == 2 * CODECS["wan2.2" if vae.latent_channels == 48 else "wan2.1"]
