"""A tiny task on the import path, and runs of it in a temporary folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gloria_core.train.config import TrainConfig, from_table

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # configurations name the task by its import path, tiny_task:TinyTask
    sys.path.insert(0, str(HERE))


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Return a builder of small configurations; ``section__key=value`` changes one setting."""

    def make(out: str = "run", **changes: Any) -> TrainConfig:
        table: dict[str, dict[str, Any]] = {
            "run": {"out": str(tmp_path / out), "total_steps": 12, "device": "cpu"},
            "task": {"target": "tiny_task:TinyTask", "options": {}},
            "objective": {},
            "optim": {"lr": 0.01, "warmup_steps": 2},
            "log": {"log_every": 1, "held_out_every": 0, "sample_every": 0, "checkpoint_every": 0},
        }
        for name, value in changes.items():
            section, _, key = name.partition("__")
            table.setdefault(section, {})[key] = value
        return from_table(table)

    return make
