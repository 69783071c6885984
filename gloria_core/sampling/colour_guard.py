"""Holds the colours of a long video: slow drift of the latents is taken back, a commanded change is left alone.

What is compared is each channel's mean and spread over a chunk's new latents with those of the first chunk. A chunk is
corrected by a moving average of these differences, in which each chunk counts with at most ``WINDOW``. So a turn to the
back, which is a large difference for a few chunks, is changed by little, while small differences in one direction add
up: a later chunk goes on from corrected latents, and need not be corrected again for what came before.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ConfigError, GloriaError

MEMORY = 0.7
"""Share of the moving average that stays from one chunk to the next."""
WINDOW = 0.2
"""The most that one chunk counts with: means in spreads of the first chunk, spreads as logarithms of their ratio.

No chunk is corrected by more than ``(1 - MEMORY) * WINDOW``, 0.06 of a spread; a faster walk is slowed, not held.
"""
RAMP_LATENTS = 4
"""New latents over which a correction grows to its whole size, so that the seam behind the prefix shows no step."""

_REFERENCE, _AVERAGE = ("mean", "spread"), ("mean_average", "spread_average")


class ColourGuard:
    """Corrects the chunks of one video, in order.

    Args:
        strength: 0 leaves everything as it is, bit by bit; at 1 the average is taken back whole. A walk of d spreads a
            chunk, which would grow without end, settles 2.3 d away from the first chunk at 1, and 3.3 d at 0.5.

    Raises:
        ConfigError: the strength is out of range.
    """

    def __init__(self, strength: float) -> None:
        if not 0 <= strength <= 1:
            raise ConfigError(f"The colour guard's strength is {strength}; it must be from 0 (off) to 1.")
        self.strength = strength
        self._state: dict[str, Tensor] = {}

    def __call__(self, chunk_index: int, latents: Tensor, num_prefix: int) -> Tensor:
        """Return a chunk's latents (B, C, T, h, w) corrected; its prefix stays as it is.

        Args:
            chunk_index: counts from 0. Chunk 0, or the first one that is seen, is what the others are compared with.
            latents: clean and joined to the prefix.
            num_prefix: how many latents of the chunk before they begin with.
        """
        if self.strength == 0:
            return latents
        if chunk_index == 0 or not self._state:
            mean, spread = _statistics(latents)
            self._state = {"mean": mean.float(), "spread": spread.float()}
            self._state |= dict(zip(_AVERAGE, (torch.zeros(mean.shape), torch.zeros(mean.shape)), strict=True))
            return latents
        new = latents[:, :, num_prefix:]
        mean, spread = _statistics(new)
        if mean.shape != self._state["mean"].shape:
            raise GloriaError(
                f"The colour guard knows latents of (batch, channels) {tuple(self._state['mean'].shape)}, and chunk "
                f"{chunk_index} has {tuple(mean.shape)}; begin the video anew, or switch the guard off."
            )
        own = self._state["spread"].double()
        shift = self._taken_back("mean_average", (mean - self._state["mean"]) / own) * own
        stretch = self._taken_back("spread_average", (spread / own).log())
        corrected = _corrected(new, mean, shift.to(new.device), stretch.to(new.device))
        return torch.cat([latents[:, :, :num_prefix], corrected], dim=2)

    def state(self) -> dict[str, Tensor]:
        """Return all that the guard knows after a chunk: four float32 tensors (B, C) on the CPU, or nothing."""
        return {name: value.clone() for name, value in self._state.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a ``state``; an empty one makes the next chunk the first. GloriaError where it is something else."""
        if state and set(state) != {*_REFERENCE, *_AVERAGE}:
            raise GloriaError(
                f"The colour guard's state has {', '.join(sorted(state))}; it needs "
                f"{', '.join(_REFERENCE + _AVERAGE)}. Begin the video anew, or switch the guard off."
            )
        self._state = {name: value.to("cpu", torch.float32).clone() for name, value in state.items()}

    def _taken_back(self, name: str, difference: Tensor) -> Tensor:
        """Follow a difference (B, C) with its average, and return what is to be taken back of it now."""
        average = MEMORY * self._state[name].double() + (1 - MEMORY) * difference.clamp(-WINDOW, WINDOW)
        correction = self.strength * average
        self._state[name] = (average - correction).float()  # later chunks go on from corrected latents
        return correction


def _statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, C), float64 on the CPU."""
    values = latents.detach().double().flatten(2)
    return values.mean(dim=2).cpu(), values.std(dim=2, correction=0).clamp(min=1e-6).cpu()


def _corrected(new: Tensor, mean: Tensor, shift: Tensor, stretch: Tensor) -> Tensor:
    """Take back a shift and a stretch about the mean (B, C) of new latents (B, C, Tn, h, w), ramped in over time."""
    growth = torch.arange(1, new.shape[2] + 1, dtype=torch.float64, device=new.device) / (RAMP_LATENTS + 1)
    ramp = growth.clamp(max=1)[:, None, None]
    mean, shift, stretch = (part.to(new.device)[:, :, None, None, None] for part in (mean, shift, stretch))
    return ((new.double() - mean) * (-ramp * stretch).exp() + mean - ramp * shift).to(new.dtype)
