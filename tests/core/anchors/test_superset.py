import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.anchors.superset import AnchorFrame, draw_anchor_frame
from gloria_core.errors import ConfigError

CLIP = range(40, 73)


def draws(probability: float, candidates: list[int] | None = None, count: int = 2000) -> list[AnchorFrame]:
    generator = torch.Generator().manual_seed(3)
    return [draw_anchor_frame(200, CLIP, probability, generator, candidates=candidates) for _ in range(count)]


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.75, 1.0])
def test_share_from_outside_is_as_set(probability: float) -> None:
    share = sum(draw.is_outside for draw in draws(probability)) / 2000
    assert share == pytest.approx(probability, abs=0.04)


def test_every_frame_of_both_sides_can_be_drawn() -> None:
    made = draws(0.5, count=8000)
    assert {draw.frame for draw in made if not draw.is_outside} == set(CLIP)
    assert {draw.frame for draw in made if draw.is_outside} == set(range(200)) - set(CLIP)


@given(
    num_frames=st.integers(1, 300),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    probability=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    candidates=st.none() | st.lists(st.integers(-10, 400), max_size=8),
)
def test_draws_tell_the_truth(
    num_frames: int, ends: tuple[float, float], probability: float, seed: int, candidates: list[int] | None
) -> None:
    first, last = sorted(int(end * (num_frames - 1)) for end in ends)
    clip = range(first, last + 1)
    usable = set(range(num_frames)) & set(range(num_frames) if candidates is None else candidates)
    generator = torch.Generator().manual_seed(seed)
    if not usable:
        with pytest.raises(ConfigError, match="no frame"):
            draw_anchor_frame(num_frames, clip, probability, generator, candidates=candidates)
        return
    draw = draw_anchor_frame(num_frames, clip, probability, generator, candidates=candidates)
    assert draw.frame in usable
    assert draw.is_outside == (draw.frame not in clip)


def test_where_one_side_has_no_frame_the_other_is_taken() -> None:
    assert {draw.frame for draw in draws(0.0, [10, 150])} == {10, 150}
    assert all(draw.is_outside for draw in draws(0.0, [10, 150]))
    assert {draw.frame for draw in draws(1.0, [41, 50])} == {41, 50}
    assert not any(draw.is_outside for draw in draws(1.0, [41, 50]))
    whole = draw_anchor_frame(33, range(33), 1.0, torch.Generator().manual_seed(1))
    assert not whole.is_outside


def test_settings_change_no_later_draw() -> None:
    def after(probability: float, candidates: list[int] | None) -> float:
        generator = torch.Generator().manual_seed(9)
        draw_anchor_frame(200, CLIP, probability, generator, candidates=candidates)
        return float(torch.rand(1, generator=generator))

    assert after(0.0, None) == after(1.0, None) == after(0.5, [50])


@pytest.mark.parametrize(
    ("num_frames", "clip", "probability", "words"),
    [
        (200, CLIP, 1.5, "1.5"),
        (200, CLIP, float("nan"), "nan"),
        (60, CLIP, 0.5, "40..73"),
        (200, range(50, 50), 0.5, "non-empty"),
        (200, range(-1, 5), 0.5, "non-empty"),
        (200, range(0, 10, 2), 0.5, "part of it"),
    ],
)
def test_impossible_draws_are_refused(num_frames: int, clip: range, probability: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        draw_anchor_frame(num_frames, clip, probability, torch.Generator())
