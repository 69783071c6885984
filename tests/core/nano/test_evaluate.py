"""The measures are right on the renderer's own pictures, and at chance on pictures of somebody else."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gloria_core.nano import evaluate, recognise
from gloria_core.nano.bundle import WEIGHTS_FILE, load_bundle, training_record
from gloria_core.nano.characters import COLOURS, SHAPES, Characters
from gloria_core.nano.recognise import (
    correlation,
    nearest,
    with_cheek,
    with_logo,
    with_mood,
    with_opening,
)
from gloria_core.nano.render import Poses, render
from gloria_core.types import EXPRESSIONS

N = 24


@pytest.fixture(scope="module")
def who() -> Characters:
    return Characters.random(N, torch.Generator().manual_seed(5))


def poses(yaw: float, emotion: int = 0, mouth: float = 0.0) -> Poses:
    return Poses.still(torch.full((N, 1), yaw), torch.full((N, 1), emotion), torch.full((N, 1), mouth))


def seen(who: Characters, pose: Poses) -> torch.Tensor:
    """The truth as the codec would give it back."""
    codec = load_bundle().codec
    return codec.decode(codec.encode(render(who, pose)))[:, :, 0]


def test_the_back_logo_is_read_from_true_pictures_only(who: Characters) -> None:
    options = [with_logo(s, c) for s in range(len(SHAPES)) for c in range(len(COLOURS))]
    pose = poses(torch.pi)
    found = nearest(seen(who, pose), who, pose, options, recognise.TORSO)
    assert (found % len(COLOURS) == who.back_colour).float().mean() > 0.95
    assert (found // len(COLOURS) == who.back_shape).float().mean() > 0.9
    front = nearest(seen(who, poses(0.0)), who, pose, options, recognise.TORSO)
    assert (front % len(COLOURS) == who.back_colour).float().mean() < 0.5


def test_expressions_cheeks_and_mouths_are_read(who: Characters) -> None:
    for emotion in (1, 5):
        pose = poses(0.0, emotion)
        picture = seen(who, pose)
        moods = [with_mood(e) for e in range(len(EXPRESSIONS))]
        assert (nearest(picture, who, pose, moods, recognise.HEAD) == emotion).float().mean() > 0.95
        cheeks = nearest(picture, who, pose, [with_cheek(c) for c in range(len(COLOURS))], recognise.HEAD)
        assert (cheeks == who.cheek[:, emotion]).float().mean() > 0.95
    openings = [with_opening(float(o)) for o in recognise.OPENINGS]
    for index in (0, 3, 5):
        pose = poses(0.0, 0, float(recognise.OPENINGS[index]))
        found = nearest(seen(who, pose), who, pose, openings, recognise.HEAD)
        assert (found - index).abs().float().mean() < 0.5


def test_correlation_is_pearsons() -> None:
    a = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert correlation(a, 2 * a + 1) == pytest.approx(1.0)
    assert correlation(a, -a) == pytest.approx(-1.0)


def test_a_mouth_that_moves_late_has_a_positive_lag(who: Characters) -> None:
    few = who.index(slice(0, 4))
    spoken = torch.rand(4, 45, generator=torch.Generator().manual_seed(1))
    still = torch.zeros(4, 45)
    truth, late = (Poses.still(still, still.long(), mouth) for mouth in (spoken, spoken.roll(2, 1)))
    stage = SimpleNamespace(cast=SimpleNamespace(who=few))
    told = evaluate._mouth(stage, truth, render(few, late))  # type: ignore[arg-type]
    assert told["mouth lag (frames)"] == 2
    assert told["mouth correlation"] < 0.5
    on_time = evaluate._mouth(stage, truth, render(few, truth))  # type: ignore[arg-type]
    assert on_time["mouth lag (frames)"] == 0
    assert on_time["mouth correlation"] > 0.95
    assert on_time["mouth amplitude"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_small_evaluation_of_the_shipped_weights_runs_to_its_end(tmp_path: Path) -> None:
    request = evaluate.Request(weights=WEIGHTS_FILE, num=2, seeds=1, chunks=4, out=tmp_path)
    results = evaluate.evaluate(request)
    assert (tmp_path / "table.md").read_text(encoding="utf-8").count("\n") > 20
    assert len(list(tmp_path.glob("*.png"))) == len(evaluate.MEASURES)
    assert 0 <= results["turn to the back"]["back logo colour"] <= 1


def test_the_shipped_weights_say_how_they_were_trained() -> None:
    legs = training_record()
    assert all(leg["clips"] > 0 for leg in legs)
