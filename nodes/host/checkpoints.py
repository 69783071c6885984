"""Weights files as the host's MODEL."""

import logging
from pathlib import Path

import comfy.model_patcher
from torch import Tensor

from ...gloria_core.checkpoint import read_checkpoint
from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import ConfigError
from ...gloria_core.nano.bundle import WEIGHTS_FILE
from .model import build_patcher
from .paths import model_path

BUNDLED_WEIGHTS = "gloria-nano (bundled)"
"""Stands for the weights that come with the pack."""

ATTENTION = ("as trained", "joint", "cached")
"""Choices of how anchors are attended to."""

_log = logging.getLogger(__name__)


def weights_path(name: str) -> Path:
    """Return the path of the bundled weights or of a file in models/diffusion_models, or raise CheckpointError."""
    return WEIGHTS_FILE if name == BUNDLED_WEIGHTS else model_path(name)


def fingerprint(name: str) -> str:
    """Return a text that changes when the file does."""
    stat = weights_path(name).stat()
    return f"{name}:{stat.st_mtime_ns}:{stat.st_size}"


def load_model(name: str, attention: str) -> comfy.model_patcher.ModelPatcher:
    """Load a MODEL.

    Args:
        name: a file of models/diffusion_models, or BUNDLED_WEIGHTS.
        attention: one of ATTENTION.

    Raises:
        CheckpointError: the file is missing, cut, or no Gloria checkpoint.
        ConfigError: the attention mode is unknown.
    """
    state_dict, config = read_checkpoint(weights_path(name))
    return model_from(state_dict, config, attention)


def model_from(state_dict: dict[str, Tensor], config: ModelConfig, attention: str) -> comfy.model_patcher.ModelPatcher:
    """Build a MODEL in the attention mode that was asked for; one that it was not trained in is warned about."""
    if attention not in ATTENTION:
        raise ConfigError(f"There is no attention mode {attention!r}; use one of: {', '.join(ATTENTION)}.")
    if attention in ("joint", "cached") and attention != config.anchors.mode:
        _log.warning(
            "%s was trained with %s attention and runs with %s: expect weaker anchors.",
            config.name,
            config.anchors.mode,
            attention,
        )
        config = config.with_mode(attention)  # type: ignore[arg-type]  # narrowed by the test above
    return build_patcher(state_dict, config)
