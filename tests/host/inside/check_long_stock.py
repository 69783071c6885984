"""One chunk of the long sampler is what the stock nodes make on the host's own Wan model, for every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_extras import nodes_wan
from gloria_pack.gloria_core.types import EXPRESSIONS, Anchor, AnchorRole, AnchorSet
from gloria_pack.nodes.anchors import ApplyAnchors
from gloria_pack.nodes.host.guider import sampler_named, sigmas_for
from gloria_pack.nodes.sockets import EncodedAnchors
from tiny_wan import SilentProgress, clip_output, draw, make, ours, picture, stock, text, tiny, wan_vae
from torch import Tensor

import nodes as stock_nodes

TOLERANCE = 1e-4
FRAMES = 13
Image = dict[str, Any]


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.inference_mode():
        return wan_vae("wan2.1")


@pytest.fixture(scope="module")
def large_vae() -> Any:
    with torch.inference_mode():
        return wan_vae("wan2.2")


def empty(channels: int = 16) -> dict[str, Tensor]:
    return {"samples": torch.zeros(1, channels, 4, 4, 4)}


def ksampler(model: Any, positive: Any, negative: Any, latent: Any, sampler: str = "euler", steps: int = 3) -> Tensor:
    return stock_nodes.KSampler().sample(model, 7, steps, 3.0, sampler, "simple", positive, negative, latent)[0][
        "samples"
    ]


def assert_same(made: Tensor, expected: Tensor) -> None:
    assert made.shape == expected.shape
    assert expected.std() > 0.3, "this would compare nothing"
    assert (made - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc"])
def test_text_to_video(tmp_path: Path, vae: Any, sampler: str) -> None:
    config = tiny("t2v")
    expected = ksampler(stock(config), text(1), text(2), empty(), sampler)
    mine = ours(config)
    made = make(tmp_path, mine, vae, sampler=sampler_named(sampler), sigmas=sigmas_for(mine, sampler, "simple", 3))
    assert_same(made, expected)


def test_image_to_video_with_clip(tmp_path: Path, vae: Any) -> None:
    config, image, seen = tiny("i2v"), picture(32, seed=3), clip_output(4)
    given = nodes_wan.WanImageToVideo.execute(text(1), text(2), vae, 32, 32, FRAMES, 1, image, seen).args
    expected = ksampler(stock(config), *given)
    assert_same(make(tmp_path, ours(config), vae, start_image=image, clip_start=seen), expected)


def test_image_to_video_without_clip_features_skips_the_branch(tmp_path: Path, vae: Any) -> None:
    """The host's own model runs it over the text then: the stock nodes on our model are the measure."""
    mine, image = ours(tiny("i2v")), picture(32, seed=3)
    given = nodes_wan.WanImageToVideo.execute(text(1), text(2), vae, 32, 32, FRAMES, 1, image).args
    assert_same(make(tmp_path, mine, vae, start_image=image), ksampler(mine, *given))


def test_first_and_last_picture(tmp_path: Path, vae: Any) -> None:
    config = tiny("flf2v")
    first, last, seen = picture(32, seed=3), picture(32, seed=4), (clip_output(5), clip_output(6))
    node = nodes_wan.WanFirstLastFrameToVideo
    given = node.execute(
        text(1), text(2), vae, 32, 32, FRAMES, 1,
        start_image=first, end_image=last, clip_vision_start_image=seen[0], clip_vision_end_image=seen[1],
    ).args  # fmt: skip
    pictures = {"start_image": first, "end_image": last, "clip_start": seen[0], "clip_end": seen[1]}
    assert_same(make(tmp_path, ours(config), vae, **pictures), ksampler(stock(config), *given))


def test_image_channels_without_a_picture(tmp_path: Path, vae: Any) -> None:
    config = tiny("i2v_a14b")
    assert_same(make(tmp_path, ours(config), vae), ksampler(stock(config), text(1), text(2), empty()))


@pytest.mark.parametrize("has_start", [True, False])
def test_the_5b(tmp_path: Path, large_vae: Any, has_start: bool) -> None:
    config, image = tiny("ti2v_5b"), picture(64, seed=3) if has_start else None
    [latent] = nodes_wan.Wan22ImageToVideoLatent.execute(large_vae, 64, 64, FRAMES, 1, image).args
    expected = ksampler(stock(config), text(1), text(2), latent)
    assert_same(make(tmp_path, ours(config), large_vae, start_image=image), expected)


@pytest.mark.parametrize(("sampler", "scheduler"), [("euler", "simple"), ("dpmpp_2m", "beta"), ("uni_pc", "simple")])
@pytest.mark.parametrize("kind", ["i2v_a14b", "t2v"])
def test_two_experts_are_two_advanced_samplers(
    tmp_path: Path, vae: Any, kind: str, sampler: str, scheduler: str
) -> None:
    config, image, steps = tiny(kind), picture(32, seed=3), 6
    models = stock(config, seed=0), stock(config, seed=1)
    given: Any = (text(1), text(2), empty())
    if kind == "i2v_a14b":
        given = nodes_wan.WanImageToVideo.execute(text(1), text(2), vae, 32, 32, FRAMES, 1, image).args
    high = ours(config, seed=0)
    sigmas = sigmas_for(high, sampler, scheduler, steps)
    split = int((sigmas[:-1] >= (0.9 if kind == "i2v_a14b" else 0.875)).sum())
    assert 0 < split < steps

    advanced = stock_nodes.KSamplerAdvanced().sample
    common = (7, steps, 3.0, sampler, scheduler, given[0], given[1])
    [half] = advanced(models[0], "enable", *common, given[2], 0, split, "enable")
    [whole] = advanced(models[1], "disable", *common, half, split, 10000, "disable")
    made = make(
        tmp_path,
        high,
        vae,
        low_noise=ours(config, seed=1),
        sampler=sampler_named(sampler),
        sigmas=sigmas,
        start_image=image if kind == "i2v_a14b" else None,
    )
    assert_same(made, whole["samples"])
    assert SilentProgress.told == [(0, step) for step in (*range(1, steps + 1), steps)]


def anchors(channels: int) -> EncodedAnchors:
    slots = [(AnchorRole.GLOBAL, "", 4, 4), (AnchorRole.EXPRESSION, EXPRESSIONS[2], 2, 4)]
    made = [Anchor(r, s, draw(1, channels, 1, h, w, seed=20 + i)) for i, (r, s, h, w) in enumerate(slots)]
    return EncodedAnchors((), AnchorSet(tuple(made)))


@pytest.mark.parametrize("kind", ["i2v", "ti2v_5b"])
def test_anchors_on_conditionings_reach_the_stock_sampler_and_the_long_one_alike(
    tmp_path: Path, vae: Any, large_vae: Any, kind: str
) -> None:
    config = tiny(kind)
    mine, image, seen, who = ours(config), picture(64, seed=3), clip_output(4), anchors(config.out_channels)
    pictures: Image = {"start_image": image}
    if kind == "i2v":
        image = picture(32, seed=3)
        given = nodes_wan.WanImageToVideo.execute(text(1), text(2), vae, 32, 32, FRAMES, 1, image, seen).args
        pictures = {"start_image": image, "clip_start": seen}
    else:
        [latent] = nodes_wan.Wan22ImageToVideoLatent.execute(large_vae, 64, 64, FRAMES, 1, image).args
        given = (text(1), text(2), latent)
    positive, negative = ApplyAnchors.execute(given[0], given[1], who).args

    entered: list[Tensor] = []
    layer = mine.model.diffusion_model.patch_embedding
    hook = layer.register_forward_pre_hook(lambda _layer, args: entered.append(args[0]))
    single = ksampler(mine, positive, negative, given[2])
    hook.remove()
    alone = [x for x in entered if x.shape[2] == 1]
    assert {x.shape[-2:] for x in alone} == {(4, 4), (2, 4)}
    c = config.out_channels
    for x in alone:
        assert x.shape[1] == config.in_channels
        if config.has_image_channels:
            assert torch.equal(x[:, :c], x[:, c + 4 :])
            assert (x[:, c : c + 4] == 1).all()
    assert (single - ksampler(mine, *given)).abs().mean() > 1e-2
    video = make(tmp_path, mine, vae if kind == "i2v" else large_vae, anchors=who, **pictures)
    assert_same(video, single)
