"""The MODEL under stock samplers: anchors, sound, masks and chunks mean what they mean in the core."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.patcher_extension
import pytest
import torch
from gloria_pack.gloria_core.audio import windows
from gloria_pack.gloria_core.errors import AudioError, CheckpointError
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.denoise import ChunkConditions, chunk_sampler
from gloria_pack.gloria_core.sampling.guidance import Guidance
from gloria_pack.gloria_core.sampling.long_video import ChunkJob, PrefixMode
from gloria_pack.gloria_core.sampling.schedule import flow_sigmas
from gloria_pack.gloria_core.sampling.solver import euler
from gloria_pack.gloria_core.types import AnchorSet, AudioFeatures
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


@pytest.fixture(params=["joint", "cached"])
def patcher(request: pytest.FixtureRequest) -> Any:
    config = tiny(request.param)
    return host_model.build_patcher(weights(config), config)


def test_anchors_and_sound_reach_the_model(patcher: Any) -> None:
    anchors = character()
    full = sample(patcher, *both(anchors))
    assert full.shape == (1, C, 4, 8, 6)
    assert torch.isfinite(full).all()
    without_anchors = sample(patcher, with_audio(text(1), SOUND), text(2))
    without_sound = sample(patcher, with_anchors(text(1), anchors), with_anchors(text(2), anchors))
    assert (full - without_anchors).abs().mean() > 1e-3
    assert (full - without_sound).abs().mean() > 1e-3


def test_the_order_of_anchors_means_nothing(patcher: Any) -> None:
    anchors = character()
    turned = AnchorSet(anchors.anchors[::-1])
    assert torch.allclose(sample(patcher, *both(anchors)), sample(patcher, *both(turned)), atol=1e-4)


def test_a_batch_is_its_clips(patcher: Any) -> None:
    conds = both(character())
    noise = draw(2, C, 4, 8, 6, seed=9)

    together = sample(patcher, *conds, noise=noise)
    apart = [sample(patcher, *conds, noise=clip) for clip in (noise[:1], noise[1:])]
    assert torch.allclose(together, torch.cat(apart), atol=1e-4)


def test_positive_and_negative_may_run_apart(patcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conds = both(character())
    sizes: list[int] = []

    def count(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sizes.append(x.shape[0])
        return executor(x, *args, **kwargs)

    watched = patcher.clone()
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, count)
    together = sample(watched, *conds)
    assert sizes == [2] * STEPS
    sizes.clear()
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *a, **k: 0)
    assert torch.allclose(together, sample(watched, *conds), atol=1e-4)
    assert sizes == [1] * (2 * STEPS)


def test_a_masked_prefix_is_held(patcher: Any) -> None:
    latent = torch.zeros(1, C, 4, 8, 6)
    latent[:, :, :2] = draw(1, C, 2, 8, 6, seed=4)
    mask = torch.ones(1, 1, 4, 1, 1)
    mask[:, :, :2] = 0
    noise = draw(1, C, 4, 8, 6, seed=7)
    made = sample(patcher, *both(character()), noise=noise, latent=latent, noise_mask=mask)
    assert torch.allclose(made[:, :, :2], latent[:, :, :2], atol=1e-6)
    assert (made[:, :, 2:] - noise[:, :, 2:]).abs().mean() > 0.1


def test_a_mask_in_the_middle_gives_frames_their_own_timestep(patcher: Any) -> None:
    seen: list[Tensor] = []

    def watch(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(timestep)
        return executor(x, timestep, *args, **kwargs)

    watched = patcher.clone()
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, watch)
    mask = torch.ones(1, 1, 4, 8, 6)
    mask[:, :, 2] = 0
    sample(watched, *both(character()), cfg=1.0, noise_mask=mask)
    assert seen[0].shape == (1, 4)
    assert seen[0][0, 2] == 0
    assert seen[0][0, 0] > 900


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.8, 1.0), (1.5, 2.5)])
@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_chunk_is_what_the_core_makes(mode: str, scales: tuple[float, float]) -> None:
    config = tiny(mode)
    state = weights(config)
    guidance = Guidance(text_scale=scales[0], audio_scale=scales[1])
    anchors, chunk = character(), plan(60, 6, 2)[1]
    noise, prefix = draw(1, C, 6, 8, 6, seed=11), draw(1, C, 2, 8, 6, seed=12)

    patcher = host_model.build_patcher(state, config)
    sigmas = sigmas_for(patcher, "euler", "simple", STEPS)
    positive = with_audio(with_anchors(text(1), anchors), SOUND, chunk.latents.start)
    prompts = ChunkPrompts(positive, with_anchors(text(2), anchors))
    steps: list[int] = []
    ours = HostChunkSampler(patcher, sampler_named("euler"), sigmas, guidance, lambda c, step, *_: steps.append(step))
    made = ours(ChunkJob(chunk, noise, prefix, PrefixMode.HELD, prompts, 5))
    assert steps == list(range(STEPS))

    dit = GloriaDiT(config)
    dit.load_state_dict(state)
    conditions = ChunkConditions(
        context=text(1)[0][0],
        negative_context=text(2)[0][0],
        audio=windows(SOUND, chunk.latents.start, chunk.num_latents).unsqueeze(0),
        anchors=anchors,
        guidance=guidance,
    )
    core = chunk_sampler(dit.eval(), solver=euler, sigmas=sigmas)
    expected = core(ChunkJob(chunk, noise, prefix, PrefixMode.HELD, conditions, 5))
    assert torch.allclose(made, expected, atol=2e-4)
    assert torch.allclose(made[:, :, :2], prefix, atol=1e-5)


def test_anchors_are_computed_once_for_a_run_and_once_for_a_whole_video() -> None:
    config = tiny("cached")
    patcher = host_model.build_patcher(weights(config), config)
    anchors = character()
    caches: list[Any] = []

    def watch(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        caches.append(args[5][host_model.CACHE])
        return executor(*args, **kwargs)

    patcher.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, watch)
    sample(patcher, *both(anchors))
    assert len({id(cache) for cache in caches}) == 1
    assert caches[0].anchors_encoded == len(anchors)
    first = caches[-1]
    sample(patcher, *both(anchors))
    assert caches[-1] is not first

    sampler = HostChunkSampler(
        patcher, sampler_named("euler"), sigmas_for(patcher, "euler", "simple", STEPS), Guidance(), lambda *a: None
    )
    for chunk in plan(60, 6, 2)[:3]:
        prefix = draw(1, C, 2, 8, 6, seed=chunk.index) if chunk.index else None
        positive = with_audio(with_anchors(text(chunk.index), anchors), SOUND, chunk.latents.start)
        sampler(ChunkJob(chunk, draw(1, C, 6, 8, 6, seed=1), prefix, PrefixMode.HELD, ChunkPrompts(positive, None), 5))
    assert sampler.cache.anchors_encoded == len(anchors)
    assert sampler.cache.prefixes_encoded == 2


def test_the_shift_is_the_checkpoints_until_model_sampling_sd3_sets_another(patcher: Any) -> None:
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    config = tiny(shift=3.0)
    own = host_model.build_patcher(weights(config), config)
    assert torch.allclose(sigmas_for(own, "euler", "simple", 8), flow_sigmas(8, 3.0), atol=1e-6)
    shifted = ModelSamplingSD3().patch(patcher, 2.0)[0]
    assert float(shifted.get_model_object("model_sampling").shift) == 2.0
    conds = both(character())
    assert (sample(shifted, *conds) - sample(patcher, *conds)).abs().mean() > 1e-3


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "uni_pc", "res_multistep", "euler_ancestral"])
def test_other_samplers_run(patcher: Any, name: str) -> None:
    made = sample(patcher, *both(character()), sampler=name, cfg=1.5, steps=4)
    assert torch.isfinite(made).all()


def test_a_stop_leaves_the_model_as_it_was(patcher: Any) -> None:
    def stop(*_args: Any) -> None:
        raise comfy.model_management.InterruptProcessingException

    conds = both(character())
    plain = sample(patcher, *conds)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patcher, *conds, callback=stop)
    assert host_model.CACHE not in patcher.model_options["transformer_options"]
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)


def test_sound_that_does_not_fit_is_refused(patcher: Any) -> None:
    wrong = with_audio(text(1), AudioFeatures(torch.zeros(10, 7), 16.0))
    with pytest.raises(AudioError, match="7 numbers a row"):
        sample(patcher, wrong, text(2))
    config = tiny(audio=None)
    deaf = host_model.build_patcher(weights(config), config)
    with pytest.raises(AudioError, match="no audio branch"):
        sample(deaf, with_audio(text(1), SOUND), text(2))


def test_weights_that_do_not_fit_are_named() -> None:
    config = tiny()
    state = weights(config)
    lost = {name: value for name, value in state.items() if name != "blocks.1.ffn.0.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing \(blocks\.1\.ffn\.0\.weight\)"):
        host_model.build_patcher(lost, config)
    with pytest.raises(CheckpointError, match=r"1 not known to the model \(extra\.weight\)"):
        host_model.build_patcher({**state, "extra.weight": torch.zeros(1)}, config)
    with pytest.raises(CheckpointError, match=r"head\.head\.bias"):
        host_model.build_patcher({**state, "head.head.bias": torch.zeros(3)}, config)


def test_other_models_are_refused() -> None:
    class Other:
        model = torch.nn.Linear(1, 1)

    with pytest.raises(CheckpointError, match="not a Gloria model"):
        host_model.model_config(Other())


def test_noise_levels_that_do_not_begin_with_noise_are_refused(patcher: Any) -> None:
    with pytest.raises(ValueError, match="must go from 1 to 0"):
        HostChunkSampler(patcher, sampler_named("euler"), torch.tensor([0.5, 0.0]), Guidance(), lambda *a: None)
