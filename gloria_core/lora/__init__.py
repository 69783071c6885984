"""LoRA files: read from any trainer, brought to one spelling, fitted to a model, written."""

from .fit import Fit, differences, fit
from .normalise import Lora, normalise
from .read import LoraFile, PeftConfig, read_lora
from .write import LowRank, write_lora

__all__ = [
    "Fit",
    "Lora",
    "LoraFile",
    "LowRank",
    "PeftConfig",
    "differences",
    "fit",
    "normalise",
    "read_lora",
    "write_lora",
]
