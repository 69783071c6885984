"""Writing weights whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from ..config import ModelConfig
from .detect import CONFIG_KEY, PREFIX


def write_checkpoint(
    path: Path,
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a Gloria checkpoint under a temporary name, flush it to the disk, then rename it.

    Args:
        path: where to.
        weights: the transformer's, by its own names.
        config: its configuration, which goes into the header.
        extra: other tensors, stored by the names given (a text encoder, a codec).
        notes: more text for the header, such as a training record.
    """
    tensors = {PREFIX + name: t.contiguous() for name, t in weights.items()}
    tensors |= {name: t.contiguous() for name, t in (extra or {}).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata={CONFIG_KEY: config.to_json(), **(notes or {})})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
