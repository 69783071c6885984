"""AdaLN: scales, shifts and gates that follow the timestep, run by run of tokens. Source: wan.md section 1.

Tokens that share a timestep form a run: a latent frame, an anchor, the whole video. The parameters are kept once for
each run and never spread over its tokens: at real sizes that would cost as much memory as the attention.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Modulation:
    """AdaLN parameters (B, S, n, D) of S runs of tokens."""

    values: Tensor
    groups: tuple[tuple[int, int], ...]
    """Neighbouring runs of one length as (number of runs, tokens in each)."""

    @classmethod
    def of(cls, values: Tensor, lengths: Sequence[int]) -> "Modulation":
        """Make the parameters (B, S, n, D) of runs that are ``lengths`` tokens long."""
        return cls(values, tuple((len(list(group)), length) for length, group in groupby(lengths)))

    def parts(self, table: nn.Module) -> tuple[Tensor, ...]:
        """Add a layer's own table (1, n, D) and return the n parts, each (B, S, D)."""
        return (self.values + table(self.values).unsqueeze(1)).unbind(2)

    def scaled(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return x (1 + scale) + shift for tokens x (B, L, D) and parts of this modulation."""
        return self._by_run(lambda tokens, add, factor: torch.addcmul(add, tokens, factor), (x,), (shift, 1 + scale))

    def gated(self, x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        """Return x + y gate for tokens x and y (B, L, D) and a part of this modulation."""
        return self._by_run(torch.addcmul, (x, y), (gate,))

    def scaled_alone(self, x: Tensor, scale: Tensor) -> Tensor:
        """Return x (1 + scale) for tokens x (B, L, D) and a part of this modulation."""
        return self._by_run(torch.mul, (x,), (1 + scale,))

    def summed(self, x: Tensor) -> Tensor:
        """Return the sums (B, S, D) of tokens x (B, L, D) over the runs."""
        groups = x.split([runs * length for runs, length in self.groups], dim=1)
        return torch.cat([part.unflatten(1, group).sum(2) for part, group in zip(groups, self.groups, strict=True)], 1)

    def _by_run(self, combine: Callable[..., Tensor], tokens: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> Tensor:
        """Combine tokens (B, L, D) with values (B, S, D), each value meeting the tokens of its run."""
        if len(self.groups) == 1:  # to split into one is to copy the gradient
            return _combined(combine, self.groups[0], tokens, values)
        token_groups = zip(
            *(x.split([runs * length for runs, length in self.groups], dim=1) for x in tokens), strict=True
        )
        value_groups = zip(*(x.split([runs for runs, _ in self.groups], dim=1) for x in values), strict=True)
        groups = zip(self.groups, token_groups, value_groups, strict=True)
        return torch.cat([_combined(combine, *group) for group in groups], dim=1)


def _combined(
    combine: Callable[..., Tensor], group: tuple[int, int], tokens: tuple[Tensor, ...], values: tuple[Tensor, ...]
) -> Tensor:
    return combine(*(x.unflatten(1, group) for x in tokens), *(x.unsqueeze(2) for x in values)).flatten(1, 2)
