"""Direction of the nano world: one command a chunk, turned into yaw and emotion of every frame.

Bookkeeping: frame 0 of a video stands alone (the causal first latent) and shows the start state. Chunk 0 makes the
frames 0..33 (9 latents), chunk k >= 1 the 20 frames 33 + 20 (k - 1) .. 33 + 20 k (5 latents); ranges are half-open.
Turning is a pure function of the present yaw and the target: who has seen the last frames can go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from ..types import EXPRESSIONS, VIEWS
from .render import view_yaw

FPS = 16.0
FIRST_CHUNK_FRAMES, CHUNK_FRAMES = 33, 20
TURN_SPEED = 5.4 * pi / 180
"""Radians a frame; with the easing, 90 degrees take 20 frames and 180 degrees 37."""
CROSS_FADE_FRAMES = 8
"""Frames over which the emotion changes, from the start of the chunk."""

_EASE = 0.35  # share of the remaining way in one frame, near the target
_SLOWEST = 1.5 * pi / 180
_TIE = 0.5 * pi / 180


@dataclass(frozen=True, slots=True)
class Command:
    """What a character is told for one chunk: a view of VIEWS and an emotion of EXPRESSIONS."""

    view: str
    emotion: str

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise ValueError(f"There is no view called {self.view!r}; use one of: {', '.join(VIEWS)}.")
        if self.emotion not in EXPRESSIONS:
            raise ValueError(f"There is no emotion called {self.emotion!r}; use one of: {', '.join(EXPRESSIONS)}.")


@dataclass(frozen=True, slots=True, eq=False)
class Commands:
    """Commands of N characters for several chunks, as indices."""

    view: Tensor
    """(N, chunks) into VIEWS."""
    emotion: Tensor
    """(N, chunks) into EXPRESSIONS."""

    @staticmethod
    def of(commands: list[Command] | tuple[Command, ...]) -> Commands:
        """One character's list as a batch of one."""
        views = torch.tensor([[VIEWS.index(command.view) for command in commands]])
        return Commands(views, torch.tensor([[EXPRESSIONS.index(command.emotion) for command in commands]]))

    def at(self, character: int, chunk: int) -> Command:
        """One command in words."""
        return Command(VIEWS[int(self.view[character, chunk])], EXPRESSIONS[int(self.emotion[character, chunk])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How often random characters do what; each is a probability."""

    front: float = 0.5
    """To begin at the front rather than in any of the four views."""
    turn: float = 0.33
    """Of a new view in a chunk once the last turn is over (half turns last two chunks: about 40 % of chunks turn)."""
    home: float = 0.4
    """Of the front among new views, where the character is not there already."""
    emotion: float = 0.5
    """Of a new emotion in a chunk."""


USUAL = Habits()


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Where N characters stand between two chunks."""

    yaw: Tensor
    """(N,) radians in the last frame, within -pi..pi."""
    emotion: Tensor
    """(N,) index of the emotion commanded last; its cross-fade is over by the end of a chunk."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Every frame of N characters."""

    yaw: Tensor
    """(N, F) radians in -pi..pi."""
    emotion: Tensor
    """(N, F, 8) weights."""
    state: State
    """After the last frame."""


def chunk_frames(chunk: int) -> range:
    """The frames of the video that a chunk adds."""
    if chunk == 0:
        return range(FIRST_CHUNK_FRAMES)
    start = FIRST_CHUNK_FRAMES + CHUNK_FRAMES * (chunk - 1)
    return range(start, start + CHUNK_FRAMES)


def num_frames(num_chunks: int) -> int:
    """Frames of a video of so many chunks."""
    return FIRST_CHUNK_FRAMES + CHUNK_FRAMES * (num_chunks - 1)


def turn(yaw: Tensor, target: Tensor) -> Tensor:
    """Yaw of the next frame on the shortest way to `target` (both radians, any shape).

    A half turn is a tie: front and back meet through the left view, left and right through the front.
    """
    way = wrap(target - yaw)
    tie = way.abs() > pi - _TIE
    middle = torch.where(wrap(target).abs().sub(pi / 2).abs() < pi / 4, 0.0, -pi / 2)
    way = torch.where(tie, way.abs() * wrap(middle - yaw).sign(), way)
    distance = way.abs()
    step = torch.minimum((distance * _EASE).clamp(_SLOWEST, TURN_SPEED), distance)
    return torch.where(distance <= step, wrap(target), wrap(yaw + way.sign() * step))


def wrap(angle: Tensor) -> Tensor:
    """The same angle within -pi (included) .. pi."""
    return (angle + pi).remainder(2 * pi) - pi


def run_chunk(state: State, view: Tensor, emotion: Tensor, *, first: bool = False) -> Motion:
    """Frames of one chunk.

    Args:
        state: where the characters stand; as `first` chunk, frame 0 shows it as it is.
        view: (N,) the commanded views, as indices.
        emotion: (N,) the commanded emotions, as indices.
        first: 33 frames rather than 20.
    """
    target = view_yaw(state.yaw.device)[view]
    yaw, frames = state.yaw, [wrap(state.yaw)] if first else []
    for _ in range(FIRST_CHUNK_FRAMES - 1 if first else CHUNK_FRAMES):
        yaw = turn(yaw, target)
        frames.append(yaw)
    steps = torch.arange(0 if first else 1, len(frames) + (0 if first else 1), device=yaw.device)
    share = (steps / CROSS_FADE_FRAMES).clamp(max=1)
    share = (share * share * (3 - 2 * share))[None, :, None]
    old, new = (torch.nn.functional.one_hot(which, len(EXPRESSIONS)).to(share)[:, None] for which in
                (state.emotion, emotion))  # fmt: skip
    return Motion(torch.stack(frames, 1), old * (1 - share) + new * share, State(wrap(yaw), emotion))


def run(state: State, commands: Commands, *, from_start: bool = True) -> Motion:
    """Frames of several chunks; chunk 0 of the commands is the video's first one if `from_start`."""
    yaw, emotion = [], []
    for chunk in range(commands.view.shape[1]):
        views, emotions = commands.view[:, chunk], commands.emotion[:, chunk]
        motion = run_chunk(state, views, emotions, first=from_start and chunk == 0)
        state = motion.state
        yaw.append(motion.yaw)
        emotion.append(motion.emotion)
    return Motion(torch.cat(yaw, 1), torch.cat(emotion, 1), state)


def random_state(n: int, generator: torch.Generator, habits: Habits = USUAL) -> State:
    """Characters at rest in a view with any emotion."""
    views = torch.randint(len(VIEWS), (n,), generator=generator)
    views = torch.where(torch.rand(n, generator=generator) < habits.front, 0, views)
    return State(wrap(view_yaw()[views]), torch.randint(len(EXPRESSIONS), (n,), generator=generator))


def random_commands(state: State, num_chunks: int, generator: torch.Generator, habits: Habits = USUAL) -> Commands:
    """Commands for `num_chunks` chunks of the characters in `state`; a turn that is under way goes on."""
    n = len(state.yaw)
    yaws = view_yaw()
    view = wrap(state.yaw[:, None] - yaws).abs().argmin(1)
    emotion, busy = state.emotion, wrap(state.yaw - yaws[view]).abs() > _TIE
    views, emotions = [], []
    for _ in range(num_chunks):
        other = (view + torch.randint(1, len(VIEWS), (n,), generator=generator)) % len(VIEWS)
        other = torch.where((view != 0) & (torch.rand(n, generator=generator) < habits.home), 0, other)
        turning = (torch.rand(n, generator=generator) < habits.turn) & ~busy
        half = wrap(yaws[other] - yaws[view]).abs() > 0.75 * pi
        busy = turning & half
        view = torch.where(turning, other, view)
        new = (emotion + torch.randint(1, len(EXPRESSIONS), (n,), generator=generator)) % len(EXPRESSIONS)
        emotion = torch.where(torch.rand(n, generator=generator) < habits.emotion, new, emotion)
        views.append(view)
        emotions.append(emotion)
    return Commands(torch.stack(views, 1), torch.stack(emotions, 1))


def camera_drift(n: int, frames: int, generator: torch.Generator, *, reach_px: float = 1.5) -> Tensor:
    """(n, frames, 2) slow smooth drift of the camera: a random sinusoid in each direction, at most `reach_px`."""
    size = torch.rand(n, 1, 2, generator=generator) * reach_px
    period = 48 + 96 * torch.rand(n, 1, 2, generator=generator)  # frames
    phase = 2 * pi * torch.rand(n, 1, 2, generator=generator)
    return size * (2 * pi * torch.arange(frames)[None, :, None] / period + phase).sin()
