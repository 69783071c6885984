"""From an inspected file to weights and to the transformer, strictly: every missing and every foreign name is told."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import CheckpointError
from ..model import GloriaDiT
from ..protocols import Attention, Operations
from .blank import BLANK
from .detect import own_config
from .files import read_header, read_tensors, some
from .inspection import Inspection, inspect

_SCALE = ".scale_weight"


def open_weights(inspection: Inspection) -> dict[str, Tensor]:
    """Return the weights under GloriaDiT's names, mapped from the file: nothing is copied, joined or cast.

    The scales of quantised layers are among them, as ``X.scale_weight`` and ``X.scale_input``; a GGUF's are unpacked.

    Raises:
        CheckpointError: as `files.read_tensors`.
    """
    wanted = {**inspection.names, **inspection.quantization.scales}
    return {wanted[name]: tensor for name, tensor in read_tensors(inspection.header, tuple(wanted))}


def read_config(path: Path) -> ModelConfig:
    """Return the configuration that a Gloria checkpoint carries.

    Raises:
        CheckpointError: the file is missing, cut, not of weights, or carries no configuration.
    """
    config = own_config(read_header(path))
    if config is None:
        raise CheckpointError(
            f"The weights file {path.name} is not a Gloria checkpoint: its header carries no Gloria configuration."
        )
    return config


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], ModelConfig]:
    """Return the weights by their own names, and the configuration, of any file that ``inspect`` accepts.

    Scaled float8 weights are multiplied out, and those of a GGUF unpacked, to bfloat16.

    Raises:
        CheckpointError: the file is missing, cut, incomplete, or no model of ours.
    """
    inspection = inspect(path)
    weights = open_weights(inspection)
    plain = {name: t for name, t in weights.items() if name not in inspection.quantization.scales.values()}
    for name in weights.keys() - plain.keys():
        if name.endswith(_SCALE):
            module = name.removesuffix(_SCALE)
            weight, scale = plain[f"{module}.weight"].float(), weights[name].float()
            plain[f"{module}.weight"] = (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).bfloat16()
    return plain, inspection.config


def check_names(wanted: Iterable[str], given: Iterable[str], what: str) -> None:
    """Raise CheckpointError where names are missing or foreign, naming the first ten."""
    wanted, given = set(wanted), set(given)
    complaints = [
        f"{len(names)} {kind} ({some(names)})"
        for kind, names in (("missing", sorted(wanted - given)), ("unknown", sorted(given - wanted)))
        if names
    ]
    if complaints:
        raise CheckpointError(f"The weights of {what} do not fit the model: {' and '.join(complaints)}.")


def load_dit(
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    operations: Operations = BLANK,
    attention: Attention | None = None,
    dtype: torch.dtype = torch.float32,
) -> GloriaDiT:
    """Build the transformer without memory for it, then give it the weights.

    Weights that already have the type are used as they are, where they lie; the others are cast.

    Args:
        weights: by the transformer's own names.
        config: the architecture.
        operations: namespace of layers; torch's own by default.
        attention: the attention callable; torch's own where None.
        dtype: type of the weights; the patch embedding is float32 always.

    Raises:
        CheckpointError: a name is missing or foreign, or a shape differs.
    """
    dit = GloriaDiT(config, operations=operations, attention=attention, device="meta", dtype=dtype)
    own = dit.state_dict()
    check_names(own, weights, config.name)
    other = [name for name, t in weights.items() if t.shape != own[name].shape]
    if other:
        first = other[0]
        raise CheckpointError(
            f"The weights of {config.name} do not fit the model: {len(other)} have another shape ({some(other)}); "
            f"{first} is {tuple(weights[first].shape)} instead of {tuple(own[first].shape)}."
        )
    dit.load_state_dict({name: t.to(own[name].dtype) for name, t in weights.items()}, assign=True)
    return dit.eval()
