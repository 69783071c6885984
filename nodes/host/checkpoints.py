"""Weights files as the host's MODEL."""

import logging
from pathlib import Path

import comfy.model_patcher
from torch import Tensor

from ...gloria_core.checkpoint import inspect, open_weights
from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import ConfigError
from ...gloria_core.nano.bundle import WEIGHTS_FILE
from .gguf import gguf_patcher, read_gguf
from .model import build_model, build_patcher
from .patcher import new_patcher
from .paths import model_path
from .quant import WEIGHT_DTYPES
from .support import GloriaSupport

__all__ = ["ATTENTION", "BUNDLED_WEIGHTS", "WEIGHT_DTYPES", "fingerprint", "load_model", "model_from", "weights_path"]

BUNDLED_WEIGHTS = "gloria-nano (bundled)"
"""Stands for the weights that come with the pack."""

ATTENTION = ("as trained", "joint", "cached")
"""Choices of how anchors are attended to."""

_log = logging.getLogger(__name__)


def weights_path(name: str) -> Path:
    """Return the path of the bundled weights or of a file in models/diffusion_models, or raise CheckpointError."""
    return WEIGHTS_FILE if name == BUNDLED_WEIGHTS else model_path(name)


def fingerprint(name: str) -> str:
    """Return a text that changes when the file does, or one of the parts that an index names."""
    path = weights_path(name)
    parts = sorted(path.parent.glob("*.safetensors")) if path.suffix == ".json" else []
    stats = [part.stat() for part in (path, *parts)]
    return ":".join([name, *(f"{stat.st_mtime_ns}:{stat.st_size}" for stat in stats)])


def load_model(name: str, attention: str, weight_dtype: str = "default") -> comfy.model_patcher.ModelPatcher:
    """Load a MODEL.

    Args:
        name: a file of models/diffusion_models, or BUNDLED_WEIGHTS.
        attention: one of ATTENTION.
        weight_dtype: one of WEIGHT_DTYPES.

    Raises:
        CheckpointError: the file is missing, cut, no model of a kind that is known, or a GGUF without the pack for it.
        ConfigError: the attention mode or the weights type is unknown.
    """
    inspection = inspect(weights_path(name))
    config = _in_mode(inspection.config, attention)
    quantization = inspection.quantization
    _log.info("%s is a %s; weights: %s, %s.", name, config.family, inspection.dtype, quantization.kind)
    if quantization.kind == "gguf":
        if weight_dtype != WEIGHT_DTYPES[0]:
            _log.warning("%s is quantised already; weight_dtype %s changes nothing.", name, weight_dtype)
        weights, types = read_gguf(inspection, GloriaSupport(config).supported_inference_dtypes)
        return gguf_patcher(new_patcher(build_model(weights, config, types)))
    if weight_dtype == "fp8_e4m3fn_fast" and quantization.full_precision:
        _log.warning("%s asks for products in full precision; it runs without the fast float8 ones.", name)
        weight_dtype = "default"
    return build_patcher(open_weights(inspection), config, weight_dtype)


def model_from(state_dict: dict[str, Tensor], config: ModelConfig, attention: str) -> comfy.model_patcher.ModelPatcher:
    """Build a MODEL in the attention mode that was asked for; one that it was not trained in is warned about."""
    return build_patcher(state_dict, _in_mode(config, attention))


def _in_mode(config: ModelConfig, attention: str) -> ModelConfig:
    if attention not in ATTENTION:
        raise ConfigError(f"There is no attention mode {attention!r}; use one of: {', '.join(ATTENTION)}.")
    if attention not in ("joint", "cached") or attention == config.anchors.mode:
        return config
    _log.warning(
        "%s was trained with %s attention and runs with %s: expect weaker anchors.",
        config.name,
        config.anchors.mode,
        attention,
    )
    return config.with_mode(attention)  # type: ignore[arg-type]  # narrowed by the tests above
