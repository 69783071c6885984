"""Noise levels that a solver steps through."""

import math

import torch
from torch import Tensor

from ..errors import ConfigError

_TABLE = 1000
"""Noise levels that Wan's schedule is tabulated at. Source: wan.md section 6."""


def flow_sigmas(num_steps: int, shift: float) -> Tensor:
    """Return the noise levels from pure noise to a clean picture.

    A uniform grid from 1 to 0, bent by ``shift``: s' = shift * s / (1 + (shift - 1) * s).

    Args:
        num_steps: solver steps, at least 1.
        shift: 1 leaves the grid uniform; a larger value spends more steps at high noise. Wan uses 3 to 12.

    Returns:
        float32 noise levels (num_steps + 1,), strictly falling from exactly 1 to exactly 0.

    Raises:
        ConfigError: a number is out of its range.

    Source: wan.md section 6.
    """
    if num_steps < 1:
        raise ConfigError(f"The number of steps is {num_steps}; sampling needs at least 1 (8 to 50 are usual).")
    _check_shift(shift)
    grid = torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64)
    return (shift * grid / (1.0 + (shift - 1.0) * grid)).float()


def simple_sigmas(num_steps: int, shift: float) -> Tensor:
    """Return the noise levels that a host's scheduler "simple" takes: every n-th of a table of a thousand.

    Args:
        num_steps: solver steps, 1 to 1000.
        shift: as for `flow_sigmas`, from which they differ by the table's grid, and in the last bits.

    Returns:
        float32 noise levels (num_steps + 1,), falling from 1 (but for a rounding) to 0.

    Raises:
        ConfigError: a number is out of its range.
    """
    if not 1 <= num_steps <= _TABLE:
        raise ConfigError(f"The number of steps is {num_steps}; it must be from 1 to {_TABLE} (8 to 50 are usual).")
    _check_shift(shift)
    grid = torch.arange(1, _TABLE + 1) / _TABLE * _TABLE / _TABLE  # rounded as on the host's way over timesteps
    table = grid if shift == 1.0 else shift * grid / (1 + (shift - 1) * grid)
    levels = [float(table[-(1 + int(step * (_TABLE / num_steps)))]) for step in range(num_steps)]
    return torch.tensor([*levels, 0.0], dtype=torch.float32)


def num_high_noise_steps(sigmas: Tensor, boundary: float) -> int:
    """Return how many steps belong to the high-noise expert of a pair: those that begin at or above the boundary.

    Args:
        sigmas: (steps + 1,) falling noise levels.
        boundary: noise level in 0..1 down to which the high-noise expert was trained (Wan 2.2: 0.875 or 0.9).

    Raises:
        ConfigError: the boundary is no noise level.

    Source: wan.md sections 1 and 6.
    """
    if not 0.0 < boundary < 1.0:
        raise ConfigError(
            f"The boundary between the two experts is {boundary:g}; it is a noise level between 0 and 1: 0.9 for "
            "Wan 2.2 I2V-A14B, 0.875 for T2V-A14B."
        )
    return int((sigmas[:-1].double() >= boundary - 1e-6).sum())  # levels are float32: 0.9 is a little less than 0.9


def _check_shift(shift: float) -> None:
    if not (math.isfinite(shift) and shift > 0):
        raise ConfigError(f"The shift is {shift}; it must be a positive number (1 is neutral, 3 to 8 are usual).")
