"""The loss: noise levels, what the network sees, and what it is graded on."""

from dataclasses import replace

import pytest
import torch
from tiny_task import TinyTask

from gloria_core.errors import ConfigError
from gloria_core.train.config import ObjectiveConfig, SigmaConfig
from gloria_core.train.objective import LOWEST_HELD_OUT, Draw, clip_losses, draw, held_out_draw, loss_bins, sample_sigma
from gloria_core.types import Anchor, AnchorRole, AnchorSet, TrainBatch


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _losses(batch: TrainBatch, drawn: Draw) -> torch.Tensor:
    return clip_losses(TinyTask().modules(), batch, drawn)


def test_stratified_noise_levels_fill_every_part_of_the_range() -> None:
    sigma = sample_sigma(ObjectiveConfig(), 16, _generator())
    assert torch.equal((sigma * 16).long().sort().values, torch.arange(16))
    assert not torch.equal(sigma, sigma.sort().values)


def test_a_mixture_gives_each_distribution_its_share() -> None:
    config = ObjectiveConfig(sigmas=(SigmaConfig(high=0.25, weight=3.0), SigmaConfig(low=0.5, weight=1.0)))
    sigma = sample_sigma(config, 400, _generator())
    assert int((sigma < 0.25).sum()) == 300
    assert int((sigma >= 0.5).sum()) == 100


def test_unstratified_noise_levels_follow_the_distribution_too() -> None:
    sigma = sample_sigma(ObjectiveConfig(stratified=False), 4000, _generator())
    assert abs(float(sigma.mean()) - 0.5) < 0.02
    assert float(sigma.min()) >= 0.0
    assert float(sigma.max()) < 1.0


def test_logit_normal_and_shift_have_the_median_of_their_formulas() -> None:
    config = ObjectiveConfig(sigmas=(SigmaConfig(kind="logit_normal", mean=-1.0),))
    assert float(sample_sigma(config, 2001, _generator()).median()) == pytest.approx(0.26894, abs=2e-3)
    shifted = ObjectiveConfig(sigmas=(SigmaConfig(shift=3.0),))
    assert float(sample_sigma(shifted, 2001, _generator()).median()) == pytest.approx(0.75, abs=2e-3)


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    batch, config = TinyTask().batch(0, 0, 1), ObjectiveConfig()
    one, same, other = (draw(batch, config, _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.noise, same.noise)
    assert torch.equal(one.sigma, same.sigma)
    assert not torch.equal(one.noise, other.noise)


def test_the_network_sees_noised_clips_behind_a_clean_prefix() -> None:
    modules, batch = TinyTask().modules(), TinyTask(num_prefix=1).batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(text_dropout=0.0, audio_dropout=0.0), _generator())
    clip_losses(modules, batch, drawn)
    seen, sigma = modules["dit"].seen, drawn.sigma.view(-1, 1, 1, 1, 1)
    expected = (1 - sigma) * batch.latents + sigma * drawn.noise
    assert torch.equal(seen["x"][:, :, :1], batch.latents[:, :, :1])
    torch.testing.assert_close(seen["x"][:, :, 1:], expected[:, :, 1:])
    torch.testing.assert_close(seen["timestep"], drawn.sigma * 1000)
    assert torch.equal(seen["context"], modules["text_encoder"](batch.words))
    assert torch.equal(seen["audio"], batch.audio)


def test_the_loss_is_the_squared_error_against_noise_minus_clean() -> None:
    batch = TinyTask(num_prefix=0).batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(), _generator())
    modules = TinyTask().modules()
    torch.nn.init.zeros_(modules["dit"].head.weight)
    torch.nn.init.zeros_(modules["dit"].head.bias)
    expected = (drawn.noise - batch.latents).square().mean((1, 2, 3, 4))
    torch.testing.assert_close(clip_losses(modules, batch, drawn), expected)


def test_the_prefix_is_not_in_the_loss() -> None:
    batch = TinyTask(num_prefix=2).batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(), _generator())
    latents, noise = batch.latents.requires_grad_(), drawn.noise.requires_grad_()
    dit = torch.nn.Identity()  # so that the clip reaches the loss only through its target and the network's output
    dit.forward = lambda x, *_args, **_kwargs: x.detach() * 0.5
    modules = {**TinyTask().modules(), "dit": dit}
    clip_losses(modules, replace(batch, latents=latents), replace(drawn, noise=noise)).sum().backward()
    for gradient in (latents.grad, noise.grad):
        assert float(gradient[:, :, :2].abs().max()) == 0.0
        assert float(gradient[:, :, 2:].abs().min()) > 0.0


def test_the_output_on_the_prefix_gets_no_gradient() -> None:
    batch = TinyTask(num_prefix=2).batch(0, 0, 1)
    output = torch.randn(batch.latents.shape, generator=_generator()).requires_grad_()
    dit = torch.nn.Identity()
    dit.forward = lambda *_args, **_kwargs: output
    drawn = draw(batch, ObjectiveConfig(), _generator())
    clip_losses({**TinyTask().modules(), "dit": dit}, batch, drawn).sum().backward()
    assert float(output.grad[:, :, :2].abs().max()) == 0.0
    assert float(output.grad[:, :, 2:].abs().min()) > 0.0


def test_weights_scale_the_error_and_their_prefix_part_is_left_out() -> None:
    batch = TinyTask(num_prefix=1).batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(), _generator())
    weight = torch.full((8, 1, 3, 1, 1), 2.0)
    weight[:, :, 0] = 100.0
    torch.testing.assert_close(_losses(replace(batch, weight=weight), drawn), 2 * _losses(batch, drawn))
    torch.testing.assert_close(
        _losses(replace(batch, weight=torch.full((1, 1, 1, 1, 1), 3.0)), drawn), 3 * _losses(batch, drawn)
    )


def test_dropout_takes_the_words_and_the_sound_of_whole_clips() -> None:
    modules, batch = TinyTask().modules(), TinyTask(batch_size=64).batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(text_dropout=0.5, audio_dropout=0.25), _generator())
    clip_losses(modules, batch, drawn)
    seen, empty = modules["dit"].seen, modules["text_encoder"].weight[0]
    assert 16 < int(drawn.keep_text.sum()) < 48
    assert torch.equal(seen["context"][~drawn.keep_text], empty.expand(int((~drawn.keep_text).sum()), 3, -1))
    assert torch.equal(seen["audio"][drawn.keep_audio], batch.audio[drawn.keep_audio])
    assert float(seen["audio"][~drawn.keep_audio].abs().max()) == 0.0


def test_ready_context_is_dropped_to_zeros() -> None:
    context = torch.ones(8, 3, 8)
    batch = replace(TinyTask().batch(0, 0, 1), words=None, context=context)
    modules = TinyTask().modules()
    drawn = draw(batch, ObjectiveConfig(text_dropout=1.0), _generator())
    clip_losses(modules, batch, drawn)
    assert float(modules["dit"].seen["context"].abs().max()) == 0.0


def test_anchors_change_the_output_and_add_nothing_to_the_loss_of_their_own() -> None:
    batch = TinyTask().batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(), _generator())
    anchors = AnchorSet((Anchor(AnchorRole.VIEW, "back", torch.ones(4, 4, 1, 2, 2)),))
    zeros = AnchorSet((Anchor(AnchorRole.VIEW, "back", torch.zeros(4, 4, 1, 2, 2)),))
    plain = _losses(batch, drawn)
    torch.testing.assert_close(_losses(replace(batch, anchors=zeros), drawn), plain)
    assert not torch.allclose(_losses(replace(batch, anchors=anchors), drawn), plain)


def test_held_out_levels_are_even_and_nothing_is_dropped() -> None:
    batch = TinyTask().batch(0, 0, 1)
    drawn = held_out_draw(batch, _generator())
    assert bool(drawn.keep_text.all())
    assert bool(drawn.keep_audio.all())
    torch.testing.assert_close(drawn.sigma.sort().values.diff(), torch.full((7,), 0.9 / 8))
    assert drawn.sigma.min() >= LOWEST_HELD_OUT


def test_bins_sum_losses_by_noise_level() -> None:
    sums = loss_bins(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 0.1, 1.0]))
    assert sums.tolist() == [[3.0, 0.0, 0.0, 4.0], [2.0, 0.0, 0.0, 1.0]]


def test_a_batch_that_leaves_nothing_to_learn_or_has_no_text_is_told() -> None:
    batch = TinyTask(num_prefix=3).batch(0, 0, 1)
    drawn = draw(batch, ObjectiveConfig(), _generator())
    with pytest.raises(ConfigError, match="prefix of 3 in clips of 3"):
        _losses(batch, drawn)
    with pytest.raises(ConfigError, match="either words or context"):
        _losses(replace(batch, num_prefix=0, words=None), drawn)
