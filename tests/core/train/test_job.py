"""A job's folder and its process: started, watched, stopped, killed, resumed, and every end told in a sentence."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_dit import DitTask

from gloria_core.checkpoint import inspect
from gloria_core.errors import ConfigError
from gloria_core.events import EventLog, read_events
from gloria_core.lora import normalise, read_lora
from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.train import TrainConfig, job
from gloria_core.train.__main__ import main
from gloria_core.train.advice import levers, out_of_memory
from gloria_core.train.config import MemoryConfig, ObjectiveConfig
from gloria_core.train.curve import loss_curve
from gloria_core.train.job import Job, JobInUseError
from gloria_core.train.plot import loss_plot, sigma_plot
from gloria_core.train.status import job_events, read_status

MakeConfig = Callable[..., TrainConfig]
HERE = Path(__file__).parent
PATIENCE_S = 90


class HungryTask(DitTask):
    """Runs out of memory in its second batch, as the host's memory does."""

    def batch(self, step: int, rank: int, world_size: int) -> Any:
        if step:
            raise MemoryError
        return super().batch(step, rank, world_size)


class FragileTask(DitTask):
    """Breaks off with an error of another library."""

    def batch(self, step: int, rank: int, world_size: int) -> Any:
        if step:
            raise RuntimeError("the driver is gone")
        return super().batch(step, rank, world_size)


@pytest.fixture
def new_job(make_config: MakeConfig, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Write a job; whatever still runs at the end is killed."""
    made: list[Job] = []

    def write(name: str = "mira", **changes: Any) -> Job:
        settings = {"task__target": "tiny_dit:DitTask", "method__kind": "lora", "method__rank": 2}
        config = make_config("ignored", **{**settings, "log__checkpoint_every": 2, **changes})
        made.append(Job(tmp_path / name))
        made[-1].path.mkdir()
        made[-1].config.write_text(config.to_toml(), encoding="utf-8")
        return made[-1]

    yield write
    for one in made:
        one.kill()


def begin(one: Job) -> subprocess.Popen[bytes]:
    return job.start(one, environment={"PYTHONPATH": f"{job.PACK}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"})


def until(met: Callable[[], object], what: str) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < patience, what
        time.sleep(0.05)


def test_a_job_trains_in_its_folder_and_writes_its_file(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=4, output__title="Mira", log__held_out_every=2)
    assert read_status(one).state == "new"
    assert main([str(one.path)]) == 0
    status = read_status(one)
    assert (status.state, status.step, status.total_steps, status.done) == ("finished", 4, 4, 1.0)
    assert status.loss is not None
    assert status.held_out is not None
    assert status.memory_mb > 50
    assert status.file == "Mira.safetensors"
    assert normalise(read_lora(one.path / status.file)).layers
    assert not one.is_running


def test_a_job_goes_on_where_it_stands(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=4)
    for _ in range(2):
        assert main([str(one.path), "--stop-after-seconds", "0"]) == 0
    assert read_status(one).state == "stopped"
    assert read_status(one).step == 2
    assert main([str(one.path)]) == 0
    assert [e["step"] for e in read_events(one.path / "events.jsonl", "train")] == [1, 2, 3, 4]


def test_a_wish_to_stop_makes_a_checkpoint(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=10**6, log__checkpoint_every=0)
    child = begin(one)
    until(lambda: read_events(one.path / "events.jsonl", "train"), "it never began")
    assert read_status(one).state == "running"
    with pytest.raises(JobInUseError, match="running already"):
        begin(one)
    assert main([str(one.path)]) == 1  # another process is told too
    one.ask_to_stop()
    assert child.wait(PATIENCE_S) == 0
    status = read_status(one)
    assert status.state == "stopped"
    assert read_events(one.path / "events.jsonl", "checkpoint")[-1]["step"] == status.step
    child = begin(one)  # the old wish does not count
    until(lambda: len(read_events(one.path / "events.jsonl", "train")) > status.step, "it did not go on")
    one.kill()
    assert child.wait(PATIENCE_S) != 0
    until(lambda: not one.is_running, "it was not killed")
    assert read_status(one).state == "lost"
    assert "ended without a word" in read_status(one).error


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_loses_what_came_after_its_checkpoint(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=10**6)
    child = begin(one)
    until(lambda: read_events(one.path / "events.jsonl", "checkpoint"), "it made no checkpoint")
    os.kill(child.pid, signal.SIGKILL)
    child.wait(PATIENCE_S)
    saved = read_events(one.path / "events.jsonl", "checkpoint")[-1]["step"]
    assert main([str(one.path), "--stop-after-seconds", "0"]) == 0
    assert read_events(one.path / "events.jsonl", "resume")[-1]["step"] in (
        saved,
        saved + 2,
    )  # it may have made one more


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("test_job:HungryTask", r"this machine was not enough: .* GB .* Try memory\.checkpointing"),
        ("test_job:FragileTask", "broke off: RuntimeError: the driver is gone"),
        ("tiny_dit:Nothing", "does not have"),
    ],
)
def test_every_end_is_told_in_a_sentence(new_job: Callable[..., Job], target: str, words: str) -> None:
    one = new_job(task__target=target)
    child = begin(one)
    assert child.wait(PATIENCE_S) == 1
    status = read_status(one)
    assert status.state == "failed"
    assert status.lines
    assert len(status.lines) <= 40
    assert re.search(words, status.error), status.error


def test_settings_that_cannot_be_are_told_in_the_jobs_status(new_job: Callable[..., Job]) -> None:
    one = new_job()
    one.config.write_text(one.config.read_text().replace("warmup_steps", "warmup_stpes"))
    assert main([str(one.path)]) == 1
    assert "did you mean optim.warmup_steps?" in read_status(one).error
    with pytest.raises(ConfigError, match=r"no config\.toml"):
        begin(Job(one.path / "nowhere"))


def test_a_job_of_stages_is_one_job(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=2)
    more = '\n[[stages]]\nname = "ears"\n\n[[stages]]\nname = "anchors"\nrun.total_steps = 3\n'
    one.config.write_text(one.config.read_text() + more)
    assert main([str(one.path), "--stop-after-seconds", "0"]) == 0
    status = read_status(one)
    assert (status.stage, status.step, status.total_steps, status.done) == ("1-ears", 1, 2, 0.2)
    assert main([str(one.path)]) == 0
    status = read_status(one)
    assert (status.state, status.stage, status.step, status.done) == ("finished", "2-anchors", 3, 1.0)
    assert (one.path / "2-anchors" / "2-anchors.safetensors").exists()
    losses = [(e["stage"], e["step"]) for e in job_events(one) if e["event"] == "train"]
    assert losses == [("1-ears", 1), ("1-ears", 2), ("2-anchors", 1), ("2-anchors", 2), ("2-anchors", 3)]
    assert loss_plot(job_events(one)).size == (1200, 480)


def test_the_levers_are_those_that_are_left(make_config: MakeConfig) -> None:
    config = make_config(method__kind="lora", method__rank=32)
    assert levers(config, 40)[0].startswith("memory.checkpointing = 'blocks'")
    saving = make_config(
        method__kind="lora", memory__checkpointing="blocks", memory__base="fp8", memory__swap_blocks=20
    )
    assert levers(saving, 40)[:2] == [
        "memory.swap_blocks = 30 (now 20 of 40)",
        "memory.checkpointing = 'offload'",
    ]
    whole = make_config(task__options={"batch_size": 4}, memory__checkpointing="offload")
    assert any("AdamW8bit" in lever for lever in levers(whole))
    assert any("batch_size = 2 with optim.accumulation = 2" in lever for lever in levers(whole))
    sentence = out_of_memory(saving, 40, 23_400.0, "the graphics card")
    assert "23.4 GB" in sentence
    assert "swap_blocks = 30" in sentence


def test_a_training_without_memory_is_told_of_the_blocks_that_could_wait(
    make_config: MakeConfig, new_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object, **_more: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("gloria_core.train.__main__.train_stages", full)
    blocks = inspect(WEIGHTS_FILE).config.num_layers
    one = new_job(task__options={"weights": str(WEIGHTS_FILE)}, memory__checkpointing="blocks", memory__base="fp8")
    assert main([str(one.path)]) == 1
    assert f"memory.swap_blocks = {blocks // 2} (now 0 of {blocks})" in read_status(one).error


def test_events_that_are_none_of_ours_are_passed_over(new_job: Callable[..., Job]) -> None:
    one = new_job()
    sound = {"event": "train", "time": 1.0, "step": 1, "loss": 0.5, "samples_per_s": 2.0}
    broken = [{"step": "far"}, {"step": None}, {"time": "now"}, {"loss": []}, {"samples_per_s": "many"}, {"event": 3},
              {"step": math.inf}, {"eta_s": 10**400}]  # fmt: skip
    lines = [json.dumps({**sound, **change}) for change in broken]
    (one.path / "events.jsonl").write_text(
        "\n".join([*lines, "[" * 100_000, json.dumps(sound), '{"event": "train", "step": 2}', ""])
    )
    assert [event["step"] for event in job_events(one)] == [2, 1]
    assert loss_curve(job_events(one)).trained == [(1.0, 0.5)]
    assert read_status(one).told()


def test_plots_show_what_there_is(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    blank = loss_plot([])
    for step in range(1, 40):
        log.write("train", step=step, loss=2.0 / step)
    log.write("held_out", step=39, loss=0.2)
    drawn = loss_plot(read_events(tmp_path / "events.jsonl"))
    assert blank.tobytes() != drawn.tobytes()
    assert sigma_plot(ObjectiveConfig(preset="anchors")).tobytes() != sigma_plot(ObjectiveConfig()).tobytes()


def test_a_job_may_be_a_saving_one(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=2, memory__checkpointing="blocks", memory__base="fp8", memory__swap_blocks=1)
    assert main([str(one.path)]) == 0
    assert MemoryConfig(checkpointing="blocks", base="fp8", swap_blocks=1)
    assert torch.is_grad_enabled()


def test_the_module_runs_as_its_users_run_it(new_job: Callable[..., Job]) -> None:
    one = new_job(run__total_steps=1)
    environment = {**os.environ, "PYTHONPATH": f"{job.PACK}{os.pathsep}{HERE}"}
    command = [sys.executable, "-m", "gloria_core.train", str(one.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "wrote" in one.log.read_text()
