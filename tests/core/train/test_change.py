"""What of a job's settings may change on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gloria_core.errors import ConfigError
from gloria_core.lock import take
from gloria_core.train import TrainConfig
from gloria_core.train.__main__ import main
from gloria_core.train.change import read_job, write_settings
from gloria_core.train.job import Job, JobInUseError

MakeConfig = Callable[..., TrainConfig]
STAGES = '\n[[stages]]\nname = "ears"\n\n[[stages]]\nname = "anchors"\n'


@pytest.fixture
def text(make_config: MakeConfig) -> Callable[..., str]:
    """Return a builder of settings as TOML."""

    def make(**changes: Any) -> str:
        base = {"task__target": "tiny_dit:DitTask", "method__kind": "lora", "method__rank": 2, "run__total_steps": 2}
        return make_config("ignored", **{**base, **changes}).to_toml()

    return make


def begun(job: Job, text: str) -> Job:
    write_settings(job, text)
    assert main([str(job.path)]) == 0
    return job


def test_a_new_job_takes_any_settings(tmp_path: Path, text: Callable[..., str]) -> None:
    job = Job(tmp_path / "mira")
    assert write_settings(job, text())
    assert not write_settings(job, text()), "the same again is nothing new"
    assert write_settings(job, text(method__rank=8)), "nothing was trained yet"
    assert read_job(job)[0].method.rank == 8


@pytest.mark.parametrize(
    "changes",
    [{"run__total_steps": 5}, {"optim__lr": 0.5}, {"memory__checkpointing": "blocks"}, {"output__title": "M"}],
)
def test_a_begun_job_goes_on_with_what_may_change(
    tmp_path: Path, text: Callable[..., str], changes: dict[str, Any]
) -> None:
    job = begun(Job(tmp_path / "mira"), text())
    assert not write_settings(job, text()), "the process's own way of writing them is the same"
    assert write_settings(job, text(**changes))
    assert main([str(job.path)]) == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method__rank": 4}, "was begun with method.rank = 2, and now has 4"),
        ({"method__kind": "lokr"}, "was begun with method.kind = 'lora', and now has 'lokr'"),
        ({"method__alpha": 1.0}, "method.alpha"),
        ({"method__preset": "identity"}, "method.preset"),
        ({"task__target": "tiny_task:TinyTask"}, "task.target"),
        ({"optim__kind": "adafactor"}, "optim.kind"),
        ({"task__options": {"weights": "other"}}, "task.options.weights = '', and now has 'other'"),
        ({"run__total_steps": 1}, "has done 2 steps, and now is to have 1: use 2 or more"),
    ],
)
def test_what_would_be_another_training_is_refused(
    tmp_path: Path, text: Callable[..., str], changes: dict[str, Any], told: str
) -> None:
    job = begun(Job(tmp_path / "mira"), text())
    before = job.config.read_bytes()
    with pytest.raises(ConfigError) as problem:
        write_settings(job, text(**changes))
    assert told in str(problem.value)
    assert job.config.read_bytes() == before


def test_stages_are_settings_too(tmp_path: Path, text: Callable[..., str]) -> None:
    job = begun(Job(tmp_path / "mira"), text(run__total_steps=1) + STAGES)
    assert not write_settings(job, text(run__total_steps=1) + STAGES)
    with pytest.raises(ConfigError, match="was begun with 2 stages, and now has one stage"):
        write_settings(job, text(run__total_steps=1))


def test_a_job_that_runs_keeps_its_settings(tmp_path: Path, text: Callable[..., str]) -> None:
    job = Job(tmp_path / "mira")
    write_settings(job, text())
    with (job.path / "lock").open("a+b") as lock:
        assert take(lock)
        assert not write_settings(job, text())
        with pytest.raises(JobInUseError, match="is being trained with other settings"):
            write_settings(job, text(method__rank=8))


def test_settings_that_are_wrong_are_not_written(tmp_path: Path, text: Callable[..., str]) -> None:
    job = Job(tmp_path / "mira")
    with pytest.raises(ConfigError, match=r"did you mean optim\.warmup_steps"):
        write_settings(job, text().replace("warmup_steps", "warmup_stpes"))
    assert not job.config.exists()
