"""The generator with the real transformer: what is computed how often, and that the cache changes nothing."""

import pytest
import torch
from torch import Tensor

from gloria_core.anchors.build import build_anchor_set, make_anchor
from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.model import AnchorCache, GloriaDiT, initialise
from gloria_core.sampling.chunks import Chunk, plan
from gloria_core.sampling.denoise import ChunkConditions, chunk_sampler
from gloria_core.sampling.guidance import Guidance
from gloria_core.sampling.long_video import FinishedChunk, generate
from gloria_core.sampling.schedule import flow_sigmas
from gloria_core.sampling.solver import heun

CONFIG = ModelConfig(
    in_channels=4,
    out_channels=4,
    dim=24,
    ffn_dim=32,
    num_heads=2,
    num_layers=2,
    text_dim=8,
    text_length=4,
    freq_dim=16,
    chunk_latents=6,
    anchors=AnchorConfig(mode="cached"),
    audio=AudioConfig(kind="mel", feature_dim=5, dim=8),
)
CHUNKS = plan(45, 6, 3, anchor_spacing=CONFIG.anchors.smallest_spacing)


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network() -> GloriaDiT:
    dit = GloriaDiT(CONFIG)
    generator = torch.Generator().manual_seed(0)
    initialise(dit, generator)
    with torch.no_grad():
        for parameter in dit.parameters():  # no weight is zero, so that every path is seen
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return dit.eval()


def video(network: GloriaDiT, cache: AnchorCache | None) -> list[FinishedChunk]:
    anchors = build_anchor_set(
        [
            make_anchor("global", "", noise(1, 4, 1, 4, 4, seed=1)),
            make_anchor("view", "back", noise(1, 4, 1, 4, 4, seed=2)),
            make_anchor("expression", "happy", noise(1, 4, 1, 2, 2, seed=3)),
        ],
        CONFIG,
    )

    def conditions(chunk: Chunk) -> ChunkConditions:
        return ChunkConditions(
            context=noise(1, 3, 8, seed=10 + chunk.index),
            negative_context=torch.zeros(1, 3, 8),
            audio=noise(1, chunk.num_latents, 8, 5, seed=20 + chunk.index),
            anchors=anchors,
            guidance=Guidance(text_scale=3.0, audio_scale=2.0),
        )

    sampler = chunk_sampler(network, solver=heun, sigmas=flow_sigmas(3, 3.0), cache=cache)
    return list(generate(CHUNKS, sampler=sampler, conditions=conditions, shape=(1, 4, 4, 4), seed=7))


def test_anchors_are_encoded_once_a_video_and_prefixes_once_a_chunk(network: GloriaDiT) -> None:
    cache = AnchorCache()
    finished = video(network, cache)
    assert len(finished) == 3
    assert cache.anchors_encoded == 3
    assert cache.prefixes_encoded == 2  # the first chunk has none


def test_the_cache_changes_no_latent(network: GloriaDiT) -> None:
    for kept, anew in zip(video(network, AnchorCache()), video(network, None), strict=True):
        torch.testing.assert_close(kept.latents, anew.latents, atol=1e-5, rtol=1e-4)


def test_two_runs_are_bit_identical(network: GloriaDiT) -> None:
    for one, other in zip(video(network, AnchorCache()), video(network, AnchorCache()), strict=True):
        assert torch.equal(one.latents, other.latents)


def test_no_gradient_is_recorded(network: GloriaDiT) -> None:
    assert all(piece.latents.grad_fn is None for piece in video(network, AnchorCache()))
