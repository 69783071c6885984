"""A job's settings, given and changed: what may change on the way, and what would be another training."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..whole import written_whole
from .config import TrainConfig
from .job import Job, JobInUseError
from .stages import read_stages
from .state import finished_step, has_state

FIXED = (
    "task.target", "task.options.weights", "task.options.attention", "task.options.audio", "method.kind",
    "method.preset", "method.layers", "method.blocks", "method.rank", "method.alpha", "method.full", "run.train",
    "run.freeze", "run.init_from", "run.init_new", "optim.kind", "optim.muon_params",
)  # fmt: skip
"""Settings that a checkpoint depends on: with others it does not fit, or means something else."""


def read_job(job: Job) -> list[TrainConfig]:
    """Return a job's settings, one for each stage.

    Raises:
        ConfigError: there are none, or they are wrong.
    """
    return _read(job.config, job)


def write_settings(job: Job, text: str) -> bool:
    """Give a job its settings; a job that was begun goes on with them.

    Args:
        job: new, or begun earlier.
        text: TOML, of a run or of stages.

    Returns:
        Whether anything is new.

    Raises:
        ConfigError: the settings are wrong, or the job cannot go on with them.
        JobInUseError: it is being trained with other ones.
    """
    old = read_job(job) if job.config.exists() else []
    with written_whole(job.config, kind=ConfigError) as partial:
        partial.write_text(text, encoding="utf-8")
        new = _read(partial, job)
        if new != old and job.is_running:
            raise JobInUseError(
                f"The job {job.name!r} is being trained with other settings; stop it first, or give this one another "
                "name."
            )
        if old and any(has_state(Path(config.run.out)) for config in old):
            check_goes_on(job.name, old, new)
    return new != old


def check_goes_on(name: str, old: Sequence[TrainConfig], new: Sequence[TrainConfig]) -> None:
    """Raise ConfigError where a job that was begun cannot go on with other settings; each stage is one of a list."""
    if [config.run.out for config in old] != [config.run.out for config in new]:
        raise ConfigError(
            f"The job {name!r} was begun with {_stages(old)}, and now has {_stages(new)}: set that back, or give the "
            "job another name."
        )
    for before, after in zip(old, new, strict=True):
        for setting, was, now in _differing(before, after):
            raise ConfigError(
                f"The job {name!r} was begun with {setting} = {was!r}, and now has {now!r}: what is trained cannot "
                "change on the way. Set it back, or give the job another name."
            )
        folder = Path(before.run.out)
        done = finished_step(folder) if has_state(folder) else 0
        if after.run.total_steps < done:
            raise ConfigError(
                f"The job {name!r} has done {done} steps, and now is to have {after.run.total_steps}: use {done} or "
                "more, or give the job another name."
            )


def _read(path: Path, job: Job) -> list[TrainConfig]:
    return read_stages(path, [f"run.out={json.dumps(str(job.path), ensure_ascii=False)}"])


def _differing(before: TrainConfig, after: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    one, other = asdict(before), asdict(after)
    for setting in FIXED:
        was, now = _value(one, setting), _value(other, setting)
        if was != now:
            yield setting, was, now


def _value(table: Mapping[str, Any], setting: str) -> Any:  # noqa: ANN401 - whatever a setting is
    value: Any = table
    for key in setting.split("."):
        value = value.get(key, "") if isinstance(value, Mapping) else ""
    return value


def _stages(configs: Sequence[TrainConfig]) -> str:
    return "one stage" if len(configs) == 1 else f"{len(configs)} stages"
