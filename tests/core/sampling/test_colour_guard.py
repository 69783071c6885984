"""A guard against walking colours: what it holds, what it leaves alone, and that it can be taken up again."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gloria_core.errors import ConfigError, GloriaError
from gloria_core.sampling.colour_guard import MEMORY, RAMP_LATENTS, WINDOW, ColourGuard

SHAPE, PREFIX, NEW = (1, 6, 9, 8, 10), 4, 5
LARGEST = (1 - MEMORY) * WINDOW


def scene(seed: int = 0, num: int = SHAPE[2]) -> Tensor:
    """A still picture, the same at all times, of mean about 0 and spread about 1."""
    still = torch.randn(*SHAPE[:2], 1, *SHAPE[3:], generator=torch.Generator().manual_seed(seed))
    return still.expand(-1, -1, num, -1, -1).clone()


def walk(guard: ColourGuard, num_chunks: int, step: float, stretch: float = 1.0) -> list[Tensor]:
    """Chunks that go on from the colours of their prefix, each a step further off in every channel."""
    chunks = [guard(0, scene(), 0)]
    towards = torch.tensor([1.0, -1, 1, -1, 1, -1]).view(1, 6, 1, 1, 1)
    for index in range(1, num_chunks):
        prefix = chunks[-1][:, :, -PREFIX:]
        new = prefix[:, :, -1:].expand(-1, -1, NEW, -1, -1) * stretch + step * towards
        chunks.append(guard(index, torch.cat([prefix, new], dim=2), PREFIX))
    return chunks


def offset(chunk: Tensor) -> float:
    """Largest distance of a channel's mean in the last latent from the scene's."""
    return float((chunk[:, :, -1].mean((2, 3)) - scene()[:, :, -1].mean((2, 3))).abs().max())


def spread(chunk: Tensor) -> float:
    return float(chunk[:, :, -1].std() / scene()[:, :, -1].std())


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_walk_of_colours_is_bounded(strength: float) -> None:
    free, held = walk(ColourGuard(0), 30, 0.03), walk(ColourGuard(strength), 30, 0.03)
    assert offset(free[-1]) == pytest.approx(29 * 0.03, abs=1e-3)
    assert offset(held[-1]) < 0.15
    assert offset(held[-1]) == pytest.approx(offset(held[-5]), abs=0.01)  # it has settled


def test_it_settles_where_the_docstring_says() -> None:
    for strength, steps in ((1.0, 2.3), (0.5, 3.3)):
        assert offset(walk(ColourGuard(strength), 40, 0.02)[-1]) == pytest.approx(steps * 0.02, rel=0.25)


@pytest.mark.parametrize("stretch", [1.03, 0.97])
def test_growing_and_fading_contrast_is_bounded(stretch: float) -> None:
    free, held = (walk(ColourGuard(strength), 30, 0.0, stretch) for strength in (0, 1))
    assert abs(spread(free[-1]) - 1) > 0.5
    assert abs(spread(held[-1]) - 1) < 0.1


def test_a_static_scene_stays_as_it_is() -> None:
    guard = ColourGuard(1)
    for index in range(10):
        torch.testing.assert_close(guard(index, scene(), PREFIX if index else 0), scene(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_strength_every_bit_stays_and_nothing_is_kept(dtype: torch.dtype) -> None:
    guard = ColourGuard(0)
    for index in range(3):
        latents = scene(index).to(dtype)
        assert guard(index, latents, PREFIX) is latents
    assert guard.state() == {}


def test_a_commanded_change_is_kept_and_so_is_the_way_back() -> None:
    """The back of a character has other colours; anchors bring them, whatever the prefix is."""
    guard = ColourGuard(1)
    changes = [0.0, 0.0, 0.8, 0.8, 0.8, 0.8, 0.0, 0.0, 0.0]
    made = [guard(i, scene() + change, PREFIX if i else 0) for i, change in enumerate(changes)]
    kept = [float((chunk - scene())[:, :, -1].mean()) for chunk in made]
    assert all(value > 0.8 - 1.1 * LARGEST for value in kept[2:6])
    assert all(abs(value) < 0.01 for value in kept[6:])


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_no_chunk_is_corrected_by_more_than_the_limit(strength: float) -> None:
    guard = ColourGuard(strength)
    guard(0, scene(), 0)
    own = scene().flatten(2).std(dim=2, correction=0).max()
    for index in range(1, 8):
        latents = scene() + 5.0
        change = (guard(index, latents, PREFIX) - latents).mean((3, 4)).abs()
        assert change.max() <= LARGEST * own * 1.001


def test_the_seam_shows_no_step() -> None:
    guard, chunk = ColourGuard(1), scene()
    guard(0, chunk, 0)
    own = float(scene().flatten(2).std(dim=2).max())
    for index in range(1, 12):
        prefix = chunk[:, :, -PREFIX:]
        raw = torch.cat([prefix, prefix[:, :, -1:].expand(-1, -1, NEW, -1, -1) + 0.05], dim=2)
        chunk = guard(index, raw, PREFIX)
        assert torch.equal(chunk[:, :, :PREFIX], prefix)
        means, before = (x.mean((3, 4)).diff(dim=2).abs() for x in (chunk, raw))
        assert (means - before).max() <= LARGEST * own / (RAMP_LATENTS + 1) * 1.001


def spoiled(index: int) -> Tensor:
    return scene(index) * (1 + 0.02 * index) + 0.03 * index


@pytest.mark.parametrize("between", [lambda state: state, lambda state: {k: v.clone() for k, v in state.items()}])
def test_a_resumed_guard_makes_the_same_bits(between: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    whole = ColourGuard(0.7)
    expected = [whole(i, spoiled(i), PREFIX if i else 0) for i in range(8)]
    guard, state = ColourGuard(0.7), {}
    for index in range(8):
        guard = ColourGuard(0.7)
        guard.load(state)
        assert torch.equal(guard(index, spoiled(index), PREFIX if index else 0), expected[index])
        state = between(guard.state())
    assert not torch.equal(expected[-1], spoiled(7))
    assert all(value.dtype == torch.float32 and value.shape == SHAPE[:2] for value in state.values())
    assert len(state) == 4


def test_another_attempt_at_a_chunk_counts_once() -> None:
    guard = ColourGuard(1)
    guard(0, scene(), 0)
    before = guard.state()
    first = guard(1, spoiled(3), PREFIX)
    guard.load(before)
    assert torch.equal(guard(1, spoiled(3), PREFIX), first)


def test_a_given_state_is_not_changed_from_outside() -> None:
    guard = ColourGuard(1)
    guard(0, scene(), 0)
    guard.state()["mean"] += 9
    assert guard.state()["mean"].abs().max() < 1


def test_latents_keep_their_type() -> None:
    guard = ColourGuard(1)
    assert guard(0, scene().bfloat16(), 0).dtype == torch.bfloat16
    assert guard(1, spoiled(2).bfloat16(), PREFIX).dtype == torch.bfloat16


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_other_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match=r"from 0 \(off\) to 1"):
        ColourGuard(strength)


def test_states_and_latents_that_do_not_fit_are_refused() -> None:
    guard = ColourGuard(1)
    with pytest.raises(GloriaError, match="it needs mean, spread"):
        guard.load({"mean": torch.zeros(1, 6)})
    guard(0, scene(), 0)
    with pytest.raises(GloriaError, match="chunk 1 has"):
        guard(1, scene()[:, :3], PREFIX)
