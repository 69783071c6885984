"""The trainer: one loop for every stage and every size of model. Start it with ``python -m gloria_core.train``."""

from .config import TrainConfig, load_config
from .loop import TrainingError, TrainResult, train
from .state import latest_checkpoint, load_checkpoint

__all__ = [
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "latest_checkpoint",
    "load_checkpoint",
    "load_config",
    "train",
]
