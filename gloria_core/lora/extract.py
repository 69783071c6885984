"""What a fine-tune has changed, as a LoRA: the nearest low rank of every matrix's change, small tensors whole."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import LoraError
from .write import LowRank

_MORE, _ROUNDS = 8, 4
"""How many more directions a large matrix is probed with, and how often: the error is then that of a whole
decomposition to a thousandth. Source: Halko, Martinsson and Tropp 2011."""
_EXACT = 512
"""Matrices with a side up to this are decomposed whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """A fine-tune as a LoRA."""

    low_rank: dict[str, LowRank]
    """By layer."""
    differences: dict[str, Tensor]
    """By weight: what has no two long sides, and what the base did not have."""
    kept: float
    """Share of all matrices' change (its squared size) that the low rank holds, 0..1."""


def extract(
    names: Iterable[str], base: Callable[[str], Tensor | None], tuned: Callable[[str], Tensor], rank: int
) -> Extracted:
    """Compare two models weight by weight.

    Args:
        names: the fine-tuned model's weights.
        base: gives a weight of the model it began with, None where it had none of that name.
        tuned: gives a weight of the fine-tuned model.
        rank: of every matrix; 1 or more.

    Raises:
        LoraError: the two are not of one architecture, nothing has changed, or the rank is impossible.
    """
    if rank < 1:
        raise LoraError(f"The rank is {rank}; a LoRA needs at least 1 (16 to 128 are usual).")
    low_rank: dict[str, LowRank] = {}
    differences: dict[str, Tensor] = {}
    whole = held = 0.0
    for name in names:
        before, after = base(name), tuned(name).float()
        if before is not None and before.shape != after.shape:
            raise LoraError(
                f"{name} is {tuple(after.shape)} in the fine-tune and {tuple(before.shape)} in its base: they are not "
                "of one architecture."
            )
        change = after if before is None else after - before.float()
        if not bool(change.any()):
            continue
        layer = name.removesuffix(".weight")
        if before is None or not name.endswith(".weight") or change.ndim != 2 or min(change.shape) <= rank:
            differences[name] = change
            continue
        low_rank[layer] = nearest(change, rank)
        found = low_rank[layer].up @ low_rank[layer].down
        whole += float(change.square().sum())
        held += float(change.square().sum() - (change - found).square().sum())
    if not low_rank and not differences:
        raise LoraError("The two models are the same: there is nothing to extract.")
    return Extracted(low_rank, differences, held / whole if whole else 1.0)


def nearest(change: Tensor, rank: int) -> LowRank:
    """Return the matrices of a rank whose product is nearest to a change (out, in); alpha equals the rank."""
    if min(change.shape) <= _EXACT:
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the probes; the same file every time
            u, s, v = torch.svd_lowrank(change, q=min(rank + _MORE, *change.shape), niter=_ROUNDS)
        vh = v.T
    root = s[:rank].sqrt()
    return LowRank(down=root[:, None] * vh[:rank], up=u[:, :rank] * root, alpha=float(rank))
