"""True videos of the nano world, and what may go wrong with them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gloria_core.nano.characters import Characters
from gloria_core.nano.render import Poses, render, view_anchors, view_yaw
from gloria_core.nano.timeline import Habits, State, camera_drift, chunk_frames, num_frames, random_commands, run

Frames = NDArray[np.uint8]
NEUTRAL = 6


def pictures(drawn: Tensor) -> Frames:
    """(3, F, H, W) in [-1, 1] as (F, H, W, 3) uint8."""
    return ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()


@dataclass(frozen=True)
class Videos:
    """N characters that turn, talk and change their mood: chunks (N, K, 3, 8, 64, 48), 8 frames of each."""

    chunks: Tensor
    scenes: Tensor
    """Global anchors (N, 3, 1, 64, 48)."""
    views: Tensor
    """(N, 3, 4, 64, 48)."""


def videos(num: int, num_chunks: int, seed: int = 0) -> Videos:
    generator = torch.Generator().manual_seed(seed)
    who = Characters.random(num, generator)
    state = State(torch.zeros(num), torch.full((num,), NEUTRAL))
    motion = run(state, random_commands(state, num_chunks, generator, Habits(turn=0.6)))
    mouth = torch.rand(num, num_frames(num_chunks), generator=generator)
    camera = camera_drift(num, num_frames(num_chunks), generator)
    drawn = [
        render(who, Poses(motion.yaw[:, few], motion.emotion[:, few], mouth[:, few], camera[:, few]))
        for few in (torch.linspace(f.start, f.stop - 1, 8).long() for f in map(chunk_frames, range(num_chunks)))
    ]
    front = Poses.still(torch.zeros(num, 1), torch.full((num, 1), NEUTRAL))
    turned = Poses.still(view_yaw().expand(num, -1), torch.full((num, 4), NEUTRAL))
    return Videos(torch.stack(drawn, 1), render(who, front), view_anchors(who, turned))


def gained(drawn: Tensor, share: float) -> Tensor:
    return ((drawn + 1) * (1 + share) - 1).clamp(-1, 1)


def tinted(drawn: Tensor, amount: float) -> Tensor:
    return (drawn + amount * torch.tensor([1.0, -0.3, -0.6]).view(3, 1, 1, 1)).clamp(-1, 1)


def blurred(drawn: Tensor) -> Tensor:
    for _ in range(3):  # three boxes of 5 pixels: about a Gaussian of 2.4
        drawn = avg_pool2d(drawn, 5, 1, padding=2, count_include_pad=False)
    return drawn


def noisy(drawn: Tensor, amount: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (drawn + amount * torch.randn(drawn.shape, generator=generator)).clamp(-1, 1)
