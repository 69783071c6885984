"""A model of every family, sampled by stock nodes, gives what the host's own loader and model give."""

from __future__ import annotations

from typing import Any

import comfy.sample
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from comfy_extras.nodes_wan import (
    Wan22ImageToVideoLatent,
    WanFirstLastFrameToVideo,
    WanImageToVideo,
)
from tiny_wan import clip_output, draw, ours, picture, stock, text, tiny, wan_vae
from torch import Tensor

SIDE = 64
FRAMES = 9
TOLERANCE = 1e-4


def empty(channels: int, stride: int) -> dict[str, Tensor]:
    return {"samples": torch.zeros(1, channels, (FRAMES - 1) // 4 + 1, SIDE // stride, SIDE // stride)}


def inputs(kind: str) -> tuple[Any, Any, dict[str, Tensor]]:
    """The conditionings and the latent that the family's stock node makes."""
    if kind == "t2v":
        return text(1), text(2), empty(16, 8)
    if kind == "ti2v_5b":
        latent = Wan22ImageToVideoLatent.execute(wan_vae("wan2.2"), SIDE, SIDE, FRAMES, 1, picture(SIDE, 3)).args[0]
        return text(1), text(2), latent
    vae, size = wan_vae("wan2.1"), (SIDE, SIDE, FRAMES, 1)
    if kind == "flf2v":
        pictures = {"start_image": picture(SIDE, 3), "end_image": picture(SIDE, 4)}
        seen = {"clip_vision_start_image": clip_output(5), "clip_vision_end_image": clip_output(6)}
        return WanFirstLastFrameToVideo.execute(text(1), text(2), vae, *size, **pictures, **seen).args
    seen = {"clip_vision_output": clip_output(5)} if kind == "i2v" else {}
    return WanImageToVideo.execute(text(1), text(2), vae, *size, start_image=picture(SIDE, 3), **seen).args


def run(patcher: Any, kind: str, *, sampler: str = "euler", batch: int = 1) -> Tensor:
    positive, negative, latent = inputs(kind)
    samples = latent["samples"].expand(batch, -1, -1, -1, -1).contiguous()
    noise = torch.cat([draw(*samples[:1].shape, seed=9 + clip) for clip in range(batch)])
    return comfy.sample.sample(
        patcher,
        noise,
        3,
        3.0,
        sampler,
        "simple",
        positive,
        negative,
        samples,
        noise_mask=latent.get("noise_mask"),
        seed=7,
        disable_pbar=True,
    )


@pytest.mark.parametrize("kind", ["t2v", "i2v", "flf2v", "i2v_a14b", "ti2v_5b"])
def test_stock_sampling_gives_what_the_hosts_own_model_gives(kind: str) -> None:
    config = tiny(kind)
    theirs = stock(config)
    assert type(theirs.model).__name__ == ("WAN22" if kind == "ti2v_5b" else "WAN21")
    expected, made = run(theirs, kind), run(ours(config), kind)
    assert expected.std() > 0.3
    assert (made - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("sampler", ["uni_pc", "dpmpp_2m"])
@pytest.mark.parametrize("kind", ["i2v", "ti2v_5b"])
def test_other_samplers_and_another_shift(kind: str, sampler: str) -> None:
    config = tiny(kind)
    shifted = [ModelSamplingSD3().patch(patcher, 5.0)[0] for patcher in (stock(config), ours(config))]
    expected, made = (run(patcher, kind, sampler=sampler) for patcher in shifted)
    assert (made - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("kind", ["i2v", "ti2v_5b"])
def test_two_clips_at_once(kind: str) -> None:
    config = tiny(kind)
    assert (run(ours(config), kind, batch=2) - run(stock(config), kind, batch=2)).abs().max() < TOLERANCE


def conditioned(patcher: Any, latent: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    positive, negative = ([[rows, {**known, **options}] for rows, known in text(seed)] for seed in (1, 2))
    noise = draw(*latent.shape, seed=9)
    return comfy.sample.sample(
        patcher, noise, 3, 3.0, "euler", "simple", positive, negative, latent, noise_mask=mask, seed=7,
        disable_pbar=True,
    )  # fmt: skip


def test_an_image_model_without_an_image_or_with_part_of_the_latent_held() -> None:
    config = tiny("i2v_a14b")
    latent = draw(1, 16, 3, 8, 8, seed=4)
    mask = torch.ones(1, 1, 3, 8, 8)
    mask[:, :, 1, :4] = 0.0
    for held in (None, mask):
        expected, made = (conditioned(patcher, latent, held) for patcher in (stock(config), ours(config)))
        assert (made - expected).abs().max() < TOLERANCE


def test_a_latent_that_is_held_in_part_has_timesteps_of_its_own_in_the_5b() -> None:
    config = tiny("ti2v_5b")
    latent = draw(1, 48, 3, 4, 4, seed=4)
    mask = torch.ones(1, 1, 3, 4, 4)
    mask[:, :, 1, :2] = 0.0
    expected, made = (conditioned(patcher, latent, mask) for patcher in (stock(config), ours(config)))
    assert (made - expected).abs().max() < TOLERANCE


def test_one_picture_for_a_model_of_two() -> None:
    """CLIP tokens of a first picture alone take the first half of the learned positions."""
    config = tiny("flf2v")
    latent = torch.zeros(1, 16, 3, 8, 8)
    seen = clip_output(5)
    expected, made = (
        conditioned(patcher, latent, clip_vision_output=seen) for patcher in (stock(config), ours(config))
    )
    assert (made - expected).abs().max() < TOLERANCE


def test_without_clip_the_image_branch_is_skipped() -> None:
    """The host's own model runs the text through it: a silent error (wan.md, trap 7)."""
    config = tiny("i2v")
    latent = torch.zeros(1, 16, 3, 8, 8)
    made = conditioned(ours(config), latent)
    blank = clip_output(5)
    blank.penultimate_hidden_states = torch.zeros(1, 257, 1280)
    assert torch.isfinite(made).all()
    assert (made - conditioned(stock(config), latent)).abs().max() > 1e-2
    assert (made - conditioned(ours(config), latent, clip_vision_output=blank)).abs().max() > 1e-3


def test_reference_frames_behind_the_video() -> None:
    config = tiny("t2v")
    latent, behind = torch.zeros(1, 16, 3, 8, 8), draw(1, 16, 1, 8, 8, seed=8)
    expected, made = (conditioned(patcher, latent, time_dim_concat=behind) for patcher in (stock(config), ours(config)))
    assert (expected - conditioned(stock(config), latent)).abs().max() > 1e-3
    assert (made - expected).abs().max() < TOLERANCE
