"""Direction over time inside the host: strengths, hidings, guidance and prefix noise mean what the core means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import comfy.patcher_extension
import pytest
import torch
from comfy.ldm.modules import attention as host_kernels
from gloria_pack.gloria_core.audio import windows
from gloria_pack.gloria_core.errors import ConfigError
from gloria_pack.gloria_core.model import AnchorCache, GloriaDiT
from gloria_pack.gloria_core.sampling.anchor_schedule import parse_anchor_schedule
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.denoise import ChunkConditions, chunk_sampler
from gloria_pack.gloria_core.sampling.guidance import Guidance
from gloria_pack.gloria_core.sampling.long_video import ChunkJob, PrefixMode
from gloria_pack.gloria_core.sampling.solver import euler
from gloria_pack.gloria_core.types import AnchorSet
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host.guider import (
    ChunkPrompts,
    HostChunkSampler,
    sampler_named,
    sigmas_for,
    with_anchors,
    with_audio,
)
from tiny_gloria import SOUND, STEPS, C, both, character, draw, sample, text, tiny, weights
from torch import Tensor

CHUNK = plan(60, 6, 2)[1]
NOISE, PREFIX = draw(1, C, 6, 8, 6, seed=11), draw(1, C, 2, 8, 6, seed=12)
BIASED = {"back": {"strength": 3.0}, "front": {"hidden": (range(0, 3),)}, "angry": {"strength": 0.4}}
BIASED["left"] = {"strength": 2.0, "hidden": (range(2, 4), range(5, 6))}


def biased(**changes: dict[str, Any]) -> AnchorSet:
    return AnchorSet(tuple(replace(a, **(changes or BIASED).get(a.slot, {})) for a in character()))


@pytest.fixture(params=["joint", "cached"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def patcher_of(mode: str) -> Any:
    config = tiny(mode)
    return host_model.build_patcher(weights(config), config)


def sampler_of(patcher: Any, guidance: Guidance | None = None) -> HostChunkSampler:
    sigmas = sigmas_for(patcher, "euler", "simple", STEPS)
    return HostChunkSampler(patcher, sampler_named("euler"), sigmas, guidance or Guidance(), lambda *a: None)


def prompts(anchors: AnchorSet, **more: Any) -> ChunkPrompts:
    positive = with_audio(with_anchors(text(1), anchors), SOUND, CHUNK.latents.start)
    return ChunkPrompts(positive, with_anchors(text(2), anchors), **more)


def job(conditions: Any, mode: PrefixMode = PrefixMode.HELD) -> ChunkJob[Any]:
    return ChunkJob(CHUNK, NOISE, PREFIX, mode, conditions, 5)


def in_the_core(mode: str, anchors: AnchorSet, **more: Any) -> Tensor:
    config = tiny(mode)
    dit = GloriaDiT(config)
    dit.load_state_dict(weights(config))
    conditions = ChunkConditions(
        context=text(1)[0][0],
        negative_context=text(2)[0][0],
        audio=windows(SOUND, CHUNK.latents.start, CHUNK.num_latents).unsqueeze(0),
        anchors=anchors,
        **more,
    )
    sigmas = sigmas_for(patcher_of(mode), "euler", "simple", STEPS)
    return chunk_sampler(dit.eval(), solver=euler, sigmas=sigmas, cache=AnchorCache())(job(conditions))


def test_strengths_and_hidings_reach_the_network(mode: str) -> None:
    guidance = Guidance(text_scale=1.5, audio_scale=2.0)
    made = sampler_of(patcher_of(mode), guidance)(job(prompts(biased())))
    plain = sampler_of(patcher_of(mode), guidance)(job(prompts(character())))
    assert (made - plain).abs().mean() > 1e-3
    assert torch.allclose(made, in_the_core(mode, biased(), guidance=guidance), atol=1e-4)


def test_a_stock_sampler_heeds_them_in_a_batch(mode: str) -> None:
    patcher, conds = patcher_of(mode), both(biased())
    noise = draw(2, C, 4, 8, 6, seed=9)
    together = sample(patcher, *conds, noise=noise)
    apart = [sample(patcher, *conds, noise=clip) for clip in (noise[:1], noise[1:])]
    assert torch.allclose(together, torch.cat(apart), atol=1e-4)
    assert (together - sample(patcher, *both(character()), noise=noise)).abs().mean() > 1e-3


@pytest.mark.parametrize("kernel", ["attention_basic", "attention_split", "attention_sub_quad"])
def test_every_kernel_of_the_host_computes_the_bias(mode: str, kernel: str) -> None:
    precise: list[bool] = []

    def instead(_func: Any, *args: Any, **kwargs: Any) -> Tensor:
        precise.append(not kwargs["low_precision_attention"])
        kwargs.pop("transformer_options")
        return getattr(host_kernels, kernel)(*args, **kwargs)

    patcher = patcher_of(mode)
    expected = sample(patcher, *both(biased()))
    other = patcher.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = instead
    assert torch.allclose(sample(other, *both(biased())), expected, atol=1e-4)
    assert all(precise)
    assert len(precise) >= STEPS * 3


def test_a_replaced_block_keeps_the_bias(mode: str) -> None:
    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        calls.append(1)
        out: dict[str, Tensor] = extra["original_block"](args)
        return out

    calls: list[int] = []
    patcher = patcher_of(mode)
    patched = patcher.clone()
    patched.set_model_patch_replace(block, "dit", "double_block", 1)
    assert torch.allclose(sample(patched, *both(biased())), sample(patcher, *both(biased())), atol=1e-5)
    assert calls


def test_a_schedule_converts_and_encodes_each_picture_once() -> None:
    """Sets change from chunk to chunk; the latents, and what is kept of them, stay."""
    patcher = patcher_of("cached")
    anchors = character()
    cues = "0:00 global, front*2 / 0:01.5 all / 0:02 views, -back, left*0.5"
    schedule = parse_anchor_schedule(f"{cues} / 0:01-0:02 hide front")
    seen: list[Tensor] = []
    original = patcher.model.process_latent_in

    def count(latent: Tensor) -> Tensor:
        if latent.ndim == 5 and latent.shape[2] == 1:
            seen.append(latent)
        return original(latent)

    patcher.model.process_latent_in = count
    sampler = sampler_of(patcher, Guidance(text_scale=2.0))
    chunks = plan(60, 6, 2)
    used = set()
    for chunk in chunks:
        part = schedule.for_chunk(anchors, chunk, 16.0)
        used.add(tuple((a.name, a.strength, a.hidden) for a in part))
        positive = with_audio(with_anchors(text(chunk.index), part), SOUND, chunk.latents.start)
        given = ChunkPrompts(positive, with_anchors(text(2), part))
        prefix = draw(1, C, 2, 8, 6, seed=chunk.index) if chunk.index else None
        sampler(ChunkJob(chunk, NOISE, prefix, PrefixMode.HELD, given, 5))
    del patcher.model.process_latent_in
    assert len(used) >= 3
    assert len(seen) == len(anchors)
    assert sampler.cache.anchors_encoded == len(anchors)
    assert sampler.cache.prefixes_encoded == len(chunks) - 1


@pytest.mark.parametrize("sigma", [0.0, 0.08])
def test_a_noised_prefix_is_what_the_core_shows(mode: str, sigma: float) -> None:
    guidance = Guidance(text_scale=1.5)
    made = sampler_of(patcher_of(mode), guidance)(job(prompts(biased(), prefix_noise=sigma)))
    expected = in_the_core(mode, biased(), guidance=guidance, prefix_noise=sigma)
    assert torch.allclose(made, expected, atol=1e-4)
    assert torch.allclose(made[:, :, :2], PREFIX, atol=1e-5)
    clean = sampler_of(patcher_of(mode), guidance)(job(prompts(biased())))
    assert torch.equal(made, clean) == (sigma == 0.0)


def test_the_noised_prefix_stands_before_every_step(mode: str) -> None:
    shown: list[Tensor] = []

    def watch(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shown.append(x[:1, :, :2].clone())
        assert kwargs["gloria_prefix_timestep"] == pytest.approx(80.0)
        out: Tensor = executor(x, *args, **kwargs)
        return out

    patcher = patcher_of(mode)
    patcher.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, watch)
    sampler_of(patcher)(job(prompts(character(), prefix_noise=0.08)))
    assert len(shown) == STEPS
    for prefix in shown:
        assert torch.allclose(prefix, 0.92 * PREFIX + 0.08 * NOISE[:, :, :2], atol=1e-5)


def test_a_prefix_of_noise_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="it must be from 0"):
        prompts(character(), prefix_noise=1.0)


def test_a_chunk_may_bring_its_own_guidance(mode: str) -> None:
    own = Guidance(text_scale=2.0, audio_scale=3.0)
    sampler = sampler_of(patcher_of(mode), Guidance())
    given = prompts(character(), guidance=own).with_options({"more": 1})
    made = sampler(job(given))
    assert torch.allclose(made, in_the_core(mode, character(), guidance=own), atol=2e-4)
    plain = sampler(job(prompts(character())))
    assert torch.allclose(plain, in_the_core(mode, character()), atol=1e-4)
    assert (made - plain).abs().mean() > 1e-3
