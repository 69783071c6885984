"""Commands become motion that anybody who saw the last frame could continue."""

from math import pi

import pytest
import torch

from gloria_core.nano.captions import WORDS, caption, words
from gloria_core.nano.timeline import (
    Command,
    Commands,
    State,
    camera_drift,
    chunk_frames,
    num_frames,
    random_commands,
    random_state,
    run,
    wrap,
)
from gloria_core.types import EXPRESSIONS, VIEWS

QUARTER = pi / 2


def at(yaw: float, emotion: str = "neutral") -> State:
    return State(torch.tensor([yaw]), torch.tensor([EXPRESSIONS.index(emotion)]))


def told(*views: str, emotion: str = "neutral") -> Commands:
    return Commands.of([Command(view, emotion) for view in views])


def test_frames_of_chunks_follow_on() -> None:
    assert chunk_frames(0) == range(33)
    assert [chunk_frames(k) for k in (1, 2)] == [range(33, 53), range(53, 73)]
    motion = run(at(0.0), told("front", "left", "back"))
    assert motion.yaw.shape == (1, num_frames(3)) == (1, 73)
    assert motion.emotion.shape == (1, 73, 8)


def test_continuing_equals_one_long_run() -> None:
    generator = torch.Generator().manual_seed(3)
    state = random_state(20, generator)
    commands = random_commands(state, 6, generator)
    whole = run(state, commands)
    first = run(state, Commands(commands.view[:, :2], commands.emotion[:, :2]))
    rest = run(first.state, Commands(commands.view[:, 2:], commands.emotion[:, 2:]), from_start=False)
    assert torch.equal(whole.yaw, torch.cat([first.yaw, rest.yaw], 1))
    assert torch.equal(whole.emotion, torch.cat([first.emotion, rest.emotion], 1))


def test_quarter_turn_lasts_one_chunk_and_half_turn_two() -> None:
    quarter = run(at(0.0), told("left"), from_start=False).yaw[0]
    assert quarter[-1] == pytest.approx(-QUARTER)
    assert quarter[-2] != pytest.approx(-QUARTER)
    half = run(at(0.0), told("back", "back"), from_start=False).yaw[0]
    assert half[19].abs() < 2.2
    assert half[-1].abs() == pytest.approx(pi, abs=1e-5)


@pytest.mark.parametrize(("start", "view", "through"), [(0.0, "back", -QUARTER), (pi, "front", -QUARTER)])
def test_half_turns_go_through_the_left(start: float, view: str, through: float) -> None:
    yaw = run(at(start), told(view, view), from_start=False).yaw[0]
    assert (wrap(yaw - through).abs() < 0.06).any()
    assert (wrap(yaw + through).abs() > 1).all()


def test_half_turn_from_side_to_side_goes_through_the_front() -> None:
    for start, view in ((QUARTER, "left"), (-QUARTER, "right")):
        yaw = run(at(start), told(view, view), from_start=False).yaw[0]
        assert yaw.abs().max() <= QUARTER + 1e-5
        assert yaw[-1] == pytest.approx(-start)


def test_turns_take_the_shortest_way_at_bounded_speed() -> None:
    generator = torch.Generator().manual_seed(0)
    state = random_state(200, generator)
    yaw = run(state, random_commands(state, 8, generator)).yaw
    assert wrap(yaw[:, 1:] - yaw[:, :-1]).abs().max() < 5.5 * pi / 180
    assert yaw.abs().max() <= pi + 1e-5
    back_to_right = run(at(pi), told("right"), from_start=False).yaw[0]
    assert (back_to_right[:-1] > QUARTER).all()


def test_emotion_fades_over_the_first_eight_frames() -> None:
    motion = run(at(0.0, "sad"), told("front", "front", emotion="happy"))
    happy = motion.emotion[0, :, EXPRESSIONS.index("happy")]
    assert happy[0] == 0
    assert (happy[1:9] > happy[:8]).all()
    assert (happy[8:] == 1).all()
    torch.testing.assert_close(motion.emotion.sum(-1), torch.ones(1, 53))


def test_about_two_chunks_in_five_turn() -> None:
    generator = torch.Generator().manual_seed(1)
    state = random_state(600, generator)
    commands = random_commands(state, 8, generator)
    yaw = run(state, commands).yaw
    turns = torch.stack(
        [(yaw[:, frames[-1]] - yaw[:, max(frames[0] - 1, 0)]).abs() > 0.05 for frames in map(chunk_frames, range(8))]
    )
    assert 0.33 < turns.float().mean() < 0.47
    assert set(commands.view.unique().tolist()) == set(range(4))
    settled = wrap(run(state, commands).state.yaw)
    assert settled.shape == (600,)


def test_camera_drifts_slowly_within_its_reach() -> None:
    drift = camera_drift(50, 200, torch.Generator().manual_seed(0))
    assert drift.shape == (50, 200, 2)
    assert 1 < drift.abs().max() <= 1.5
    assert drift.diff(dim=1).abs().max() < 0.25


def test_every_caption_names_view_and_emotion_in_known_words() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = {}
    for view in VIEWS:
        for emotion in EXPRESSIONS:
            for previous in (None, view, "front"):
                for text in (caption(view, emotion, previous), caption(view, emotion, previous, generator)):
                    assert set(words(text)) <= set(WORDS)
                    assert seen.setdefault(frozenset(words(text)), (view, emotion)) == (view, emotion)
    assert caption("back", "happy") == "turns to the back, happy"
    assert list(WORDS) == sorted(set(WORDS))


def test_unknown_command_names_the_choices() -> None:
    with pytest.raises(ValueError, match="'up'; use one of: front, back, left, right"):
        Command("up", "happy")
