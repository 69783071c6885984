"""A training in stages, told in one file: each stage changes some settings and starts from the stage before.

``[[stages]]`` tables stand beside the usual sections. A stage has a ``name`` and whatever sections it changes; all else
is as the file's own sections say. Stage k is an ordinary run in the folder ``run.out/k-name``. Paper: 4.4, I to III.
"""

import copy
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..tables import read_table
from .config import TrainConfig, from_table
from .loop import TrainResult, train
from .state import finished_step, has_state

_log = logging.getLogger(__name__)


def read_stages(path: Path, overrides: Sequence[str] = ()) -> list[TrainConfig]:
    """Read a configuration file as one run for each of its stages; a file without stages is one run.

    Args:
        path: a TOML file.
        overrides: ``section.key=value`` settings, which hold in every stage.

    Raises:
        ConfigError: as ``load_config``; or a stage has no name, or two have the same.
    """
    table = read_table(path, overrides)
    stages = table.pop("stages", None)
    if stages is None:
        return [from_table(table)]
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise ConfigError(f"stages in {path} is not a list of tables; begin each stage with a line [[stages]].")
    names = [stage.pop("name", "") for stage in stages]
    if not all(isinstance(name, str) and name.isidentifier() for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"The stages' names are {names}; give each stage in {path} a name of its own, one word.")
    changed = read_table(path, overrides, only_overrides=True)
    out = table.get("run", {}).get("out", "")
    configs: list[TrainConfig] = []
    for number, (name, stage) in enumerate(zip(names, stages, strict=True), 1):
        whole = _merged(_merged(table, stage), changed)
        run = whole.setdefault("run", {})
        run["out"] = f"{out}/{number}-{name}" if out else ""
        if configs and not stage.get("run", {}).get("init_from"):
            run["init_from"] = configs[-1].run.out
        configs.append(from_table(whole))
    return configs


def any_begun(configs: Sequence[TrainConfig]) -> bool:
    """Tell whether a stage has a checkpoint to go on from."""
    return any(has_state(Path(config.run.out)) for config in configs)


def train_stages(
    configs: Sequence[TrainConfig],
    *,
    resume: bool = False,
    stop_after_s: float = math.inf,
    stop_file: Path | None = None,
) -> TrainResult:
    """Train one stage after the other; with ``resume``, finished stages are passed over and the next goes on.

    Returns:
        How the last stage that was begun ended.
    """
    deadline = time.perf_counter() + stop_after_s
    used = [config.run.out for config in configs if has_state(Path(config.run.out))]
    if used and not resume:
        raise ConfigError(f"{used[0]} already holds a run; go on with it by --resume, or choose another folder.")
    for number, config in enumerate(configs, 1):
        done = config.run.out in used and finished_step(Path(config.run.out)) >= config.run.total_steps
        if done and number < len(configs):
            continue
        if len(configs) > 1:
            _log.info("stage %d of %d: %s", number, len(configs), config.run.out)
        go_on = resume and (config.run.out in used or not used)
        left_s = deadline - time.perf_counter()
        result = train(config, resume=go_on, stop_after_s=left_s, stop_file=stop_file)
        if not result.finished:
            break
    return result


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``change`` in it, table by table."""
    out = copy.deepcopy(base)
    for key, value in change.items():
        inner = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if inner else copy.deepcopy(value)
    return out
