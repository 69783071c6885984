from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gloria_core.errors import AudioError, ConfigError, GloriaError
from gloria_core.sampling.chunks import Chunk, plan
from gloria_core.sampling.denoise import ChunkConditions, bind, chunk_sampler
from gloria_core.sampling.guidance import Guidance
from gloria_core.sampling.long_video import ChunkJob, PrefixMode
from gloria_core.sampling.schedule import flow_sigmas
from gloria_core.sampling.solver import SOLVERS, Step, euler
from gloria_core.types import Anchor, AnchorRole, AnchorSet

SHAPE = (2, 3, 5, 4, 6)
Maker = Callable[..., Any]


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(SHAPE, generator=generator)


@pytest.fixture
def prefix(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 3, 2, 4, 6, generator=generator)


def conditions(**changes: Any) -> ChunkConditions:
    given: dict[str, Any] = {
        "context": torch.full((1, 7, 8), 0.5),
        "negative_context": torch.full((1, 7, 8), -0.5),
        "audio": torch.full((1, 5, 8, 4), 0.25),
    }
    return ChunkConditions(**{**given, **changes})


def job(
    noise: Tensor, prefix: Tensor | None, mode: PrefixMode = PrefixMode.HELD, **changes: Any
) -> ChunkJob[ChunkConditions]:
    return ChunkJob(plan(1, 5, 2)[0], noise, prefix, mode, conditions(**changes), 1)


def test_prefix_is_clean_in_every_pass_and_in_every_guess(x: Tensor, prefix: Tensor, make_denoiser: Maker) -> None:
    network = make_denoiser()
    denoise = bind(network, conditions(), prefix=prefix)
    for sigma in (1.0, 0.3):
        x0 = denoise(x, sigma)
        assert x0.shape == SHAPE
        assert torch.equal(x0[:, :, :2], prefix)
        assert torch.equal(network.calls[-1].x[:, :, :2], prefix)
        assert torch.equal(network.calls[-1].x[:, :, 2:], x[:, :, 2:])
        assert network.calls[-1].num_prefix == 2
        assert network.calls[-1].timestep.tolist() == pytest.approx([1000 * sigma] * 2)


def test_guess_follows_from_the_velocity(x: Tensor, make_denoiser: Maker) -> None:
    network = make_denoiser(mean=0.1)
    x0 = bind(network, conditions(audio=None))(x, 0.4)
    velocity = network(x, torch.full((2,), 400.0), torch.full((2, 7, 8), 0.5))
    torch.testing.assert_close(x0, x - 0.4 * velocity)


def test_branches_are_shown_what_they_stand_for(x: Tensor, make_denoiser: Maker) -> None:
    network = make_denoiser()
    anchors = AnchorSet(())
    bind(network, conditions(anchors=anchors, guidance=Guidance(text_scale=3.0, audio_scale=2.0)))(x, 0.5)
    shown = [(float(call.context.mean()), float(call.audio.mean())) for call in network.calls]
    assert shown == [(-0.5, 0.0), (0.5, 0.0), (0.5, 0.25)]
    assert all(call.anchors is anchors for call in network.calls)
    assert all(call.context.shape == (2, 7, 8) and call.audio.shape == (2, 5, 8, 4) for call in network.calls)


def test_guided_guess_equals_the_formula(x: Tensor, make_denoiser: Maker) -> None:
    def alone(**changes: Any) -> Tensor:
        return bind(make_denoiser(), conditions(**changes))(x, 0.5)

    negative = alone(context=torch.full((1, 7, 8), -0.5), audio=torch.zeros(1, 5, 8, 4))
    text, full = alone(audio=torch.zeros(1, 5, 8, 4)), alone()
    guided = alone(guidance=Guidance(text_scale=3.0, audio_scale=2.0))
    torch.testing.assert_close(guided, negative + 3 * (text - negative) + 2 * (full - text))


def test_passes_may_run_side_by_side(x: Tensor, prefix: Tensor, make_denoiser: Maker) -> None:
    guided = conditions(guidance=Guidance(text_scale=3.0, audio_scale=2.0))
    one_by_one, network = bind(make_denoiser(), guided, prefix=prefix), make_denoiser()
    found = bind(network, guided, prefix=prefix, together=True)(x, 0.5)
    assert [call.x.shape[0] for call in network.calls] == [3 * SHAPE[0]]
    torch.testing.assert_close(found, one_by_one(x, 0.5))


def test_anchors_of_several_characters_run_pass_by_pass(x: Tensor, make_denoiser: Maker) -> None:
    anchors = AnchorSet((Anchor(AnchorRole.GLOBAL, "", torch.zeros(2, 3, 1, 4, 6)),))
    network = make_denoiser()
    guidance = Guidance(text_scale=3.0, audio_scale=2.0)
    bind(network, conditions(anchors=anchors, guidance=guidance), together=True)(x, 0.5)
    assert [call.x.shape[0] for call in network.calls] == [2, 2, 2]


def test_neutral_guidance_is_one_pass(x: Tensor, make_denoiser: Maker) -> None:
    network = make_denoiser()
    bind(network, conditions(negative_context=None))(x, 0.5)
    assert len(network.calls) == 1


def test_network_runs_in_the_contexts_dtype_and_solver_in_its_own(x: Tensor, make_denoiser: Maker) -> None:
    network = make_denoiser()
    x0 = bind(network, conditions(context=torch.zeros(1, 7, 8, dtype=torch.bfloat16), audio=None))(x, 0.5)
    assert network.calls[0].x.dtype == torch.bfloat16
    assert x0.dtype == torch.float32


def test_missing_negative_prompt_is_told_before_sampling(make_denoiser: Maker) -> None:
    with pytest.raises(ConfigError, match=r"scale is 4.0.*negative prompt"):
        bind(make_denoiser(), conditions(negative_context=None, guidance=Guidance(text_scale=4.0)))


def test_windows_must_cover_the_chunk(x: Tensor, make_denoiser: Maker) -> None:
    with pytest.raises(AudioError, match=r"5 latent frames.*windows for 3"):
        bind(make_denoiser(), conditions(audio=torch.zeros(1, 3, 8, 4)))(x, 0.5)


def test_batches_that_do_not_match_are_refused(x: Tensor, make_denoiser: Maker) -> None:
    with pytest.raises(GloriaError, match="batch of 3"):
        bind(make_denoiser(), conditions(context=torch.zeros(3, 7, 8)))(x, 0.5)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_sampler_keeps_the_prefix_and_finds_the_world(
    name: str, x: Tensor, prefix: Tensor, make_denoiser: Maker, cache: Any
) -> None:
    network = make_denoiser(mean=2.0, std=1e-3)
    sample = chunk_sampler(network, solver=SOLVERS[name], sigmas=flow_sigmas(8, 3.0), cache=cache)
    made = sample(job(x, prefix))
    assert torch.equal(made[:, :, :2], prefix)
    torch.testing.assert_close(made[:, :, 2:], torch.full_like(made[:, :, 2:], 2.75), atol=0.02, rtol=0)
    assert cache.chunks_started == 1
    assert all(call.cache is cache for call in network.calls)
    assert not made.requires_grad


def test_sampler_tells_steps_with_their_chunk(x: Tensor, make_denoiser: Maker) -> None:
    told: list[tuple[Chunk, Step]] = []
    task = job(x, None)
    sample = chunk_sampler(
        make_denoiser(),
        solver=euler,
        sigmas=flow_sigmas(3, 1.0),
        on_step=lambda chunk, step: told.append((chunk, step)),
    )
    sample(task)
    assert [(chunk, step.index) for chunk, step in told] == [(task.chunk, 0), (task.chunk, 1), (task.chunk, 2)]


def test_sampler_needs_levels_from_one_to_zero(make_denoiser: Maker) -> None:
    with pytest.raises(ConfigError, match=r"from 0\.8 to 0"):
        chunk_sampler(make_denoiser(), solver=euler, sigmas=torch.tensor([0.8, 0.4, 0.0]))


def test_given_prefixes_are_refused_in_words(x: Tensor, prefix: Tensor, make_denoiser: Maker) -> None:
    sample = chunk_sampler(make_denoiser(), solver=euler, sigmas=flow_sigmas(2, 1.0))
    with pytest.raises(ConfigError, match="extra channels"):
        sample(job(x, prefix, PrefixMode.GIVEN))


def test_a_noised_prefix_is_shown_at_its_own_timestep_and_stays_clean(
    x: Tensor, prefix: Tensor, make_denoiser: Maker
) -> None:
    network = make_denoiser()
    made = chunk_sampler(network, solver=euler, sigmas=flow_sigmas(3, 1.0))(job(x, prefix, prefix_noise=0.1))
    assert torch.equal(made[:, :, :2], prefix)
    assert len(network.calls) == 3
    for call in network.calls:
        torch.testing.assert_close(call.x[:, :, :2], 0.9 * prefix + 0.1 * x[:, :, :2])
        assert (call.num_prefix, call.prefix_timestep) == (2, pytest.approx(100.0))


def test_a_prefix_without_noise_is_shown_as_it_is(x: Tensor, prefix: Tensor, make_denoiser: Maker) -> None:
    network = make_denoiser()
    bind(network, conditions(), prefix=prefix, noise=x)(x, 0.5)
    assert torch.equal(network.calls[0].x[:, :, :2], prefix)
    assert network.calls[0].prefix_timestep == 0.0


@pytest.mark.parametrize("sigma", [-0.1, 1.0, float("nan")])
def test_a_prefix_of_noise_alone_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="it must be from 0"):
        conditions(prefix_noise=sigma)


def test_a_noised_prefix_needs_the_chunks_noise(prefix: Tensor, make_denoiser: Maker) -> None:
    with pytest.raises(ConfigError, match=r"noise level of 0\.1; give the chunk's noise"):
        bind(make_denoiser(), conditions(prefix_noise=0.1), prefix=prefix)
