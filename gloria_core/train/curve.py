"""A training's losses over its steps, for a plot and for a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

Event = Mapping[str, Any]
Point = tuple[float, float]
"""A step, counted over all stages, and a loss."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a training's losses were; stages follow each other."""

    trained: list[Point] = field(default_factory=list)
    held_out: list[Point] = field(default_factory=list)
    checkpoints: list[float] = field(default_factory=list)
    """Steps."""
    stages: list[tuple[str, float]] = field(default_factory=list)
    """The stages' folders, and the step that each begins at."""


def loss_curve(events: Sequence[Event]) -> Curve:
    """Return the losses of a job.

    Steps that were lost with a process, and made again from its last checkpoint, are there once.

    Args:
        events: as `status.job_events` gives them.
    """
    kept = _kept(events)
    starts = _starts(kept)
    placed = [(starts[_stage(event)] + float(event["step"]), event) for event in kept]

    def series(kind: str) -> list[Point]:
        return [(step, float(event["loss"])) for step, event in placed if event["event"] == kind and event.get("loss")]

    checkpoints = [step for step, event in placed if event["event"] == "checkpoint"]
    return Curve(series("train"), series("held_out"), checkpoints, list(starts.items()))


def thinned(points: Sequence[Point], most: int) -> list[list[float]]:
    """Return points in groups, so few that a page can draw them.

    Groups are equally large, by a power of two: while a training goes on, those that are full stay as they are.

    Args:
        points: in the order of their steps.
        most: groups, 1 or more.

    Returns:
        Mean step, mean loss, lowest and highest loss of each group, rounded to five digits.
    """
    size = 1
    while math.ceil(len(points) / size) > most:
        size *= 2
    rest = iter(points)
    groups = [list(islice(rest, size)) for _ in range(0, len(points), size)]
    return [_told(group) for group in groups]


def _told(group: Sequence[Point]) -> list[float]:
    steps, losses = [step for step, _ in group], [loss for _, loss in group]
    numbers = (sum(steps) / len(group), sum(losses) / len(group), min(losses), max(losses))
    return [round(numbers[0], 1), *(float(f"{loss:.5g}") for loss in numbers[1:])]


def _kept(events: Sequence[Event]) -> list[Event]:
    kept: list[Event] = []
    for event in events:
        if "step" not in event:
            continue
        if event["event"] == "resume":
            kept = [one for one in kept if _stage(one) != _stage(event) or one["step"] <= event["step"]]
        kept.append(event)
    return kept


def _starts(events: Sequence[Event]) -> dict[str, float]:
    lengths: dict[str, float] = {}
    for event in events:
        lengths[_stage(event)] = max(lengths.get(_stage(event), 0.0), float(event["step"]))
    starts, before = {}, 0.0
    for stage, length in lengths.items():
        starts[stage] = before
        before += length
    return starts


def _stage(event: Event) -> str:
    return str(event.get("stage", ""))
