"""Numbers from a workflow: the host compares them with their limits, which "not a number" passes."""

import math

from ..gloria_core.errors import ConfigError


def check_finite(**numbers: object) -> None:
    """Refuse inputs that are no finite numbers.

    Args:
        numbers: inputs of a node by their names; those that are no floats are not looked at.

    Raises:
        ConfigError: one is NaN or infinite.
    """
    for name, value in numbers.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"'{name}' is {value}, which is no number to work with: write an ordinary one there.")
