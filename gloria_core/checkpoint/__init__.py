"""Weights files: what a header tells, opening with a strict check, writing with the configuration inside."""

from .files import read_header, read_tensors
from .inspection import Inspection, inspect, model_shapes
from .load import load_dit, open_weights, read_checkpoint, read_config
from .quantization import Quantization
from .save import write_checkpoint, write_tensors

__all__ = [
    "Inspection",
    "Quantization",
    "inspect",
    "load_dit",
    "model_shapes",
    "open_weights",
    "read_checkpoint",
    "read_config",
    "read_header",
    "read_tensors",
    "write_checkpoint",
    "write_tensors",
]
