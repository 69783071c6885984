"""Solvers of the flow-matching equation: functions from noise to clean latents.

Conventions: x_s = (1 - s) x0 + s noise, velocity v = noise - x0 = dx/ds, so x0 = x - s v. A solver sees the network
only as ``denoise(x, sigma) -> x0``.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ConfigError

Denoise = Callable[[Tensor, float], Tensor]
"""The best guess of the clean latents, given noisy latents (B, C, T, H, W) and their noise level in 0..1."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a solver tells after its first look at a step: enough for a progress line and a preview."""

    index: int
    """0-based number of the step."""
    num_steps: int
    sigma: float
    """Noise level at the start of the step."""
    x: Tensor
    """Noisy latents at the start of the step."""
    x0: Tensor
    """The denoiser's guess of the clean latents."""


StepCallback = Callable[[Step], None]


class Solver(Protocol):
    """A way to walk from noise to clean latents."""

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, callback: StepCallback | None = None) -> Tensor:
        """Integrate from ``sigmas[0]`` to ``sigmas[-1]``.

        Args:
            denoise: gives the clean guess at a noise level.
            x: latents at the noise level ``sigmas[0]``, of any shape; not changed in place.
            sigmas: (steps + 1,) strictly falling noise levels in 0..1.
            callback: called once a step; what it raises ends the walk.

        Returns:
            The latents at the noise level ``sigmas[-1]``, shaped as ``x``.

        Raises:
            ConfigError: ``sigmas`` is not a falling list of at least two levels in 0..1.
        """
        ...


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: StepCallback | None = None) -> Tensor:
    """First order, one network call a step (see `Solver`).

    The terms are added in the order of k-diffusion's sampler of this name, so that a host that calls it makes the same
    latents to the last bit. The price is a rounding in a last step to noise level 0.
    """
    for step in _steps(sigmas):
        x0 = _look(denoise, x, step, callback)
        x = x + (x - x0) / step.sigma * (step.after - step.sigma)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: StepCallback | None = None) -> Tensor:
    """Second order, two network calls a step except for a last step to noise level 0 (see `Solver`).

    The terms are added as in `euler`.
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1, without churn.
    """
    for step in _steps(sigmas):
        slope = (x - _look(denoise, x, step, callback)) / step.sigma
        guess = x + slope * (step.after - step.sigma)
        if step.after > 0:
            slope_after = (guess - denoise(guess, step.after)) / step.after
            guess = x + (slope + slope_after) / 2 * (step.after - step.sigma)
        x = guess
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, callback: StepCallback | None = None) -> Tensor:
    """Second order from two steps' guesses, one network call a step (see `Solver`).

    The clean guess is extrapolated in -log(sigma), as k-diffusion does, and not in the flow's log((1 - sigma) / sigma),
    which is infinite at sigma 1. So a host that calls k-diffusion's sampler of this name makes the same latents.
    The price is the error on a grid that ends at 0: it falls as N^-2 log(N) with N steps.
    Source: Lu et al. 2022, DPM-Solver++ (arXiv 2211.01095), algorithm 2.
    """
    before: tuple[float, Tensor] | None = None
    for step in _steps(sigmas):
        x0 = _look(denoise, x, step, callback)
        aim = x0
        if before is not None and step.after > 0:
            sigma_before, x0_before = before
            ratio = math.log(step.sigma / step.after) / math.log(sigma_before / step.sigma)
            aim = x0 + (x0 - x0_before) * (ratio / 2)
        x = _towards(x, aim, step)
        before = (step.sigma, x0)
    return x


SOLVERS: Mapping[str, Solver] = {"euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}
"""The solvers by the names that settings use; a host calls its own samplers by the same names."""


def solver_named(name: str) -> Solver:
    """Return a solver by its name; an unknown name raises ConfigError."""
    if name not in SOLVERS:
        raise ConfigError(f"There is no solver called {name!r}; use one of: {', '.join(SOLVERS)}.")
    return SOLVERS[name]


@dataclass(frozen=True, slots=True)
class _Interval:
    index: int
    num_steps: int
    sigma: float
    after: float


def _steps(sigmas: Tensor) -> Iterator[_Interval]:
    levels = [float(s) for s in sigmas.tolist()] if sigmas.ndim == 1 else []
    falling = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falling or levels[0] > 1 or levels[-1] < 0:
        raise ConfigError(
            f"The noise levels are {levels or tuple(sigmas.shape)}; they must be at least two numbers that fall from "
            "at most 1 to at least 0. `flow_sigmas` makes such a list."
        )
    num_steps = len(levels) - 1
    return (_Interval(i, num_steps, levels[i], levels[i + 1]) for i in range(num_steps))


def _look(denoise: Denoise, x: Tensor, step: _Interval, callback: StepCallback | None) -> Tensor:
    x0 = denoise(x, step.sigma)
    if callback is not None:
        callback(Step(step.index, step.num_steps, step.sigma, x, x0))
    return x0


def _towards(x: Tensor, x0: Tensor, step: _Interval) -> Tensor:
    """Move on the straight line from ``x`` to ``x0``; at noise level 0 this is ``x0`` exactly."""
    return torch.lerp(x0, x, step.after / step.sigma)
