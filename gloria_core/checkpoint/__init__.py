"""Weights files: what a header tells, reading with a strict check, writing with the configuration inside."""

from .detect import read_config
from .load import load_dit, read_checkpoint
from .save import write_checkpoint

__all__ = ["load_dit", "read_checkpoint", "read_config", "write_checkpoint"]
