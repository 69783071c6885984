"""Reading weights, strictly: every missing and every foreign name is told."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import CheckpointError
from ..model import GloriaDiT
from ..protocols import Attention, Operations
from .detect import PREFIX, read_config

_SHOWN = 5


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], ModelConfig]:
    """Return the transformer's weights by their own names, and its configuration.

    Raises:
        CheckpointError: the file is missing, cut, or no Gloria checkpoint.
    """
    config = read_config(path)
    tensors = load_file(path)
    return {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}, config


def check_names(wanted: Iterable[str], given: Iterable[str], what: str) -> None:
    """Raise CheckpointError where names are missing or foreign, naming the first few."""
    wanted, given = set(wanted), set(given)
    missing, foreign = sorted(wanted - given), sorted(given - wanted)
    complaints = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for kind, names in (("missing", missing), ("unknown", foreign))
        if names
    ]
    if complaints:
        raise CheckpointError(f"The weights of {what} do not fit the model: {' and '.join(complaints)}.")


def load_dit(
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    operations: Operations = nn,
    attention: Attention | None = None,
    dtype: torch.dtype = torch.float32,
) -> GloriaDiT:
    """Build the transformer without memory for it, then give it the weights, cast to ``dtype``.

    Raises:
        CheckpointError: a name is missing or foreign, or a shape differs.
    """
    dit = GloriaDiT(config, operations=operations, attention=attention, device="meta", dtype=dtype)
    check_names(dit.state_dict(), weights, config.name)
    try:
        dit.load_state_dict({name: t.to(dtype) for name, t in weights.items()}, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"The weights of {config.name} do not fit the model: {error}.") from error
    return dit.eval()
