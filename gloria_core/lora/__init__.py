"""LoRA files: read from any trainer, brought to one spelling, fitted to a model, written."""

from .fit import Fit, differences, fit
from .merge import check_mergeable, merged
from .normalise import Lora, normalise
from .read import LoraFile, PeftConfig, read_lora
from .write import LowRank, write_lora

__all__ = [
    "Fit",
    "Lora",
    "LoraFile",
    "LowRank",
    "PeftConfig",
    "check_mergeable",
    "differences",
    "fit",
    "merged",
    "normalise",
    "read_lora",
    "write_lora",
]
