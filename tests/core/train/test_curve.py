"""The losses of a training: in order, once each, and few enough for a page."""

import pytest

from gloria_core.train.curve import loss_curve, thinned


def event(kind: str, step: int, loss: float | None = None, stage: str = "") -> dict[str, object]:
    return {"event": kind, "step": step, "stage": stage, **({} if loss is None else {"loss": loss})}


def test_stages_follow_each_other() -> None:
    first = [event("start", 0, stage="1-a"), event("train", 10, 0.5, "1-a"), event("held_out", 10, 0.6, "1-a")]
    second = [event("start", 0, stage="2-b"), event("train", 5, 0.4, "2-b"), event("checkpoint", 5, stage="2-b")]
    curve = loss_curve([*first, *second, {"event": "exported", "file": "x"}])
    assert curve.trained == [(10, 0.5), (15, 0.4)]
    assert curve.held_out == [(10, 0.6)]
    assert curve.checkpoints == [15]
    assert curve.stages == [("1-a", 0.0), ("2-b", 10.0)]


def test_steps_that_were_lost_and_made_again_are_there_once() -> None:
    lost = [event("train", 1, 0.9), event("checkpoint", 1), event("train", 2, 0.8), event("train", 3, 0.7)]
    again = [event("resume", 1), event("train", 2, 0.81)]
    assert loss_curve([*lost, *again]).trained == [(1, 0.9), (2, 0.81)]


def test_a_loss_that_is_no_number_is_left_out() -> None:
    assert loss_curve([event("train", 1, 0.9), {"event": "train", "step": 2, "loss": None}]).trained == [(1, 0.9)]


@pytest.mark.parametrize("count", [0, 1, 5, 8, 9, 1000])
def test_points_are_thinned_to_groups_that_keep_mean_and_extremes(count: int) -> None:
    points = [(float(step), float(step % 7 + 1)) for step in range(count)]
    groups = thinned(points, 8)
    assert len(groups) <= 8
    if count <= 8:
        assert groups == [[step, loss, loss, loss] for step, loss in points]
    else:
        assert groups[0][0] < groups[-1][0]
        assert min(low for _, _, low, _ in groups) == 1
        assert max(high for *_, high in groups) == max(loss for _, loss in points)


def test_groups_that_are_full_stay_as_they_are() -> None:
    points = [(float(step), 1.0 / (step + 1)) for step in range(100)]
    assert thinned(points[:90], 60)[:45] == thinned(points, 60)[:45]
