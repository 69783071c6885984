"""From the header of a safetensors file to the model's configuration, without reading a weight."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..config import ModelConfig
from ..errors import CheckpointError

CONFIG_KEY = "gloria.config"
"""Metadata entry that holds the ModelConfig as JSON."""
PREFIX = "diffusion_model."
"""Stands before the transformer's own names in a Gloria file, as LoRA files and the host have it."""


def read_config(path: Path) -> ModelConfig:
    """Return the configuration that a Gloria checkpoint carries.

    Raises:
        CheckpointError: the file is missing, cut, not safetensors, or carries no configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no weights file {path.name}; choose one that is in the models folder.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The weights file {path.name} was cut or is not safetensors ({error}); copy or download it again."
        ) from error
    if CONFIG_KEY not in metadata:
        raise CheckpointError(
            f"The weights file {path.name} is not a Gloria checkpoint: its header carries no Gloria configuration."
        )
    return ModelConfig.from_json(metadata[CONFIG_KEY])
