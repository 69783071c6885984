"""Whole runs of the tiny task: learning, resuming, stopping, several processes, and bad input."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_task import TinyTask

from gloria_core.errors import CheckpointError, ConfigError, MediaError, NothingHeldOutError
from gloria_core.events import read_events
from gloria_core.train import TrainConfig, TrainingError, latest_checkpoint, load_checkpoint, objective, train
from gloria_core.train.__main__ import main
from gloria_core.train.config import ObjectiveConfig, load_config
from gloria_core.train.optim import Gradients, named_parameters
from gloria_core.train.process import joined_world

HERE = Path(__file__).parent
MakeConfig = Callable[..., TrainConfig]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}


def _losses(folder: Path) -> list[float]:
    return [event["loss"] for event in read_events(folder / "events.jsonl", "train")]


def _weights(folder: Path, ema: bool) -> dict[str, torch.Tensor]:
    modules = load_checkpoint(latest_checkpoint(folder), ema=ema)
    return {f"{key}.{name}": tensor for key, module in modules.items() for name, tensor in module.items()}


def _assert_same_weights(one: Path, other: Path, **tolerance: float) -> None:
    for ema in (False, True):
        first, second = _weights(one, ema), _weights(other, ema)
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(tensor, second[name], msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


def test_training_lowers_the_held_out_loss_and_writes_what_it_should(make_config: MakeConfig) -> None:
    config = make_config(
        run__total_steps=60, log__log_every=10, log__held_out_every=20, log__sample_every=30, log__checkpoint_every=20,
        log__keep=2, optim__ema_decay=0.9,
    )  # fmt: skip
    result = train(config)
    folder = Path(config.run.out)
    held_out = [event["loss"] for event in read_events(folder / "events.jsonl", "held_out")]
    assert held_out[-1] < 0.6 * held_out[0]
    assert result.finished
    assert result.checkpoint == folder / "checkpoints" / "step-00000060.safetensors"
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        "step-00000040.safetensors",
        "step-00000060.safetensors",
    ]
    assert (folder / "samples" / "step-00000030.png").read_text() == "30 False"
    assert load_config(folder / "config.toml") == config
    last = read_events(folder / "events.jsonl", "train")[-1]
    assert (last["step"], last["samples"], len(last["loss_bins"])) == (60, 480, 4)
    assert last["metrics"] == {"superset_ratio": 0.5}
    assert last["cpu_s"] > 0
    assert read_events(folder / "events.jsonl")[-1]["reason"] == "finished"


@pytest.mark.parametrize(("kind", "prefetch"), [("adamw", 2), ("muon", 0)])
def test_a_resumed_run_is_bit_identical(make_config: MakeConfig, kind: str, prefetch: int) -> None:
    settings = {"optim__kind": kind, "run__prefetch": prefetch, "optim__accumulation": 2, "optim__cooldown_steps": 4}
    whole, cut = make_config("whole", **settings), make_config("cut", **settings)
    train(whole)
    for expected in (1, 2, 3):  # a time limit of nothing still makes one step
        result = train(cut, resume=expected > 1, stop_after_s=0.0)
        assert (result.step, result.finished, result.reason) == (expected, False, "time")
    assert train(cut, resume=True).finished
    assert _losses(Path(cut.run.out)) == _losses(Path(whole.run.out))
    _assert_same_weights(Path(whole.run.out), Path(cut.run.out))
    elapsed = [event["elapsed_s"] for event in read_events(Path(cut.run.out) / "events.jsonl", "train")]
    assert elapsed == sorted(elapsed)


def test_held_out_and_samples_leave_no_trace_in_the_training(make_config: MakeConfig) -> None:
    plain, watched = make_config("plain"), make_config("watched", log__held_out_every=3, log__sample_every=2)
    train(plain)
    train(watched)
    _assert_same_weights(Path(plain.run.out), Path(watched.run.out))


@pytest.mark.parametrize(
    "error",
    [MediaError("The disk is full."), torch.OutOfMemoryError("The card is full."), OSError("No temporary folder.")],
)
def test_samples_that_fail_are_told_and_end_no_training(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_given: object) -> None:
        raise error

    monkeypatch.setattr(TinyTask, "sample_sheet", fail)
    config = make_config(log__sample_every=2, run__total_steps=4)
    assert train(config).finished
    events = Path(config.run.out) / "events.jsonl"
    assert [(event["step"], event["sentence"]) for event in read_events(events, "sample_failed")] == [
        (2, str(error)),
        (4, str(error)),
    ]
    assert read_events(events, "sample") == []


def test_held_out_clips_that_are_lost_end_no_training(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(*_given: object) -> None:
        raise NothingHeldOutError("No clip is held out.")

    monkeypatch.setattr(TinyTask, "held_out", lost)
    config = make_config(log__held_out_every=2, run__total_steps=4)
    assert train(config).finished
    assert read_events(Path(config.run.out) / "events.jsonl", "held_out") == []
    assert "all held-out clips are damaged" in caplog.text


def test_accumulation_equals_one_batch_of_all_clips() -> None:
    modules, batches = TinyTask().modules(), [TinyTask().batch(index, 0, 1) for index in range(3)]
    draws = [objective.draw(b, ObjectiveConfig(), torch.Generator().manual_seed(i)) for i, b in enumerate(batches)]
    gradients = Gradients(named_parameters(modules).values())
    for batch, drawn in zip(batches, draws, strict=True):
        objective.clip_losses(modules, batch, drawn).mean().backward()
    accumulated = gradients.flat / 3
    gradients.zero()
    large = replace(
        batches[0], **{name: torch.cat([getattr(b, name) for b in batches]) for name in ("latents", "words", "audio")}
    )
    names = ("sigma", "noise", "keep_text", "keep_audio")
    drawn = objective.Draw(**{name: torch.cat([getattr(d, name) for d in draws]) for name in names})
    objective.clip_losses(modules, large, drawn).mean().backward()
    torch.testing.assert_close(accumulated, gradients.flat, rtol=1e-5, atol=1e-7)


def test_two_processes_equal_one_that_accumulates_two_batches(make_config: MakeConfig, tmp_path: Path) -> None:
    pair, single = make_config("pair", log__held_out_every=6), make_config("one", optim__accumulation=2)
    (tmp_path / "pair.toml").write_text(pair.to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "gloria_core.train", str(tmp_path / "pair.toml")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    train(single)
    _assert_same_weights(Path(pair.run.out), Path(single.run.out), rtol=1e-4, atol=1e-5)
    assert _losses(Path(pair.run.out)) == pytest.approx(_losses(Path(single.run.out)), rel=1e-4)
    events = read_events(Path(pair.run.out) / "events.jsonl")
    assert [event["step"] for event in events if event["event"] == "held_out"] == [6, 12]
    assert events[-1]["step"] == 12
    result = train(replace(pair, run=replace(pair.run, total_steps=13)), resume=True)  # the run goes on in one process
    assert (result.step, result.finished) == (13, True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can catch")
def test_processes_wait_for_each_other_longer_than_samples_take(monkeypatch: pytest.MonkeyPatch) -> None:
    joining = Mock()
    monkeypatch.setattr(torch.distributed, "init_process_group", joining)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", Mock())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with joined_world("cpu"):
        assert joining.call_args.kwargs["timeout"] >= timedelta(hours=1)


def test_sigterm_makes_a_checkpoint_and_ends_well(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(run__total_steps=10**6, log__log_every=50)
    (tmp_path / "c.toml").write_text(config.to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "gloria_core.train", str(tmp_path / "c.toml")]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        log = Path(config.run.out) / "events.jsonl"
        patience = time.monotonic() + 60
        while not read_events(log, "train") and time.monotonic() < patience and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    end = read_events(log)[-1]
    assert (end["event"], end["reason"]) == ("end", "SIGTERM")
    assert latest_checkpoint(Path(config.run.out)).name == f"step-{end['step']:08d}.safetensors"


def test_a_stage_starts_from_the_stage_before(make_config: MakeConfig) -> None:
    first = make_config("first")
    checkpoint = train(first).checkpoint
    second = make_config("second", run__init_from=str(checkpoint), run__total_steps=1, optim__lr=1e-12)
    train(second)
    before, after = _weights(Path(first.run.out), ema=True), _weights(Path(second.run.out), ema=False)
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, after[name], rtol=0, atol=1e-7, msg=name)


def test_a_stage_may_add_parameters_only_if_they_are_named(make_config: MakeConfig, tmp_path: Path) -> None:
    checkpoint = train(make_config("first", run__total_steps=1)).checkpoint
    tensors = {name: t for name, t in load_file(checkpoint).items() if ".audio." not in name}
    save_file(tensors, tmp_path / "old.safetensors")
    changes = {"run__init_from": str(tmp_path / "old.safetensors"), "run__total_steps": 1}
    with pytest.raises(CheckpointError, match=r"lacking audio\.weight, audio\.bias"):
        train(make_config("refused", **changes))
    assert train(make_config("allowed", **changes, run__init_new=["dit.audio.*"])).finished


def test_named_parameters_start_fresh_though_the_checkpoint_has_them(make_config: MakeConfig) -> None:
    first = make_config("first", optim__lr=0.1)
    changes = {"run__init_from": str(train(first).checkpoint), "run__total_steps": 1, "optim__lr": 1e-12}
    second = make_config("second", **changes, run__init_new=["dit.head.*"])
    train(second)
    before, after = _weights(Path(first.run.out), ema=True), _weights(Path(second.run.out), ema=False)
    fresh = TinyTask().modules()["dit"].state_dict()
    torch.testing.assert_close(after["dit.head.weight"], fresh["head.weight"], rtol=0, atol=1e-7)
    torch.testing.assert_close(after["dit.blocks.0.weight"], before["dit.blocks.0.weight"], rtol=0, atol=1e-7)


def test_frozen_parameters_stay_as_they_were(make_config: MakeConfig) -> None:
    config = make_config(run__freeze=["dit.blocks.*"], optim__weight_decay=0.5)
    train(config)
    fresh, trained = TinyTask().modules()["dit"].state_dict(), load_checkpoint(latest_checkpoint(Path(config.run.out)))
    assert torch.equal(trained["dit"]["blocks.0.weight"], fresh["blocks.0.weight"])
    assert not torch.equal(trained["dit"]["head.weight"], fresh["head.weight"])


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(make_config: MakeConfig) -> None:
    config = make_config(task__options={"nan_at": 5}, log__checkpoint_every=2)
    with pytest.raises(TrainingError, match=r"step 6 \(batch 5\); the last checkpoint is .*step-00000004"):
        train(config)
    assert all(bool(tensor.isfinite().all()) for tensor in _weights(Path(config.run.out), ema=False).values())


def test_the_clips_whose_loss_is_no_number_are_named(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all batches of a step, not those of its last one."""
    real = TinyTask.batch
    monkeypatch.setattr(
        TinyTask, "batch", lambda task, step, *rest: replace(real(task, step, *rest), names=(f"c{step}",))
    )
    with pytest.raises(TrainingError, match=r"step 3 \(batch 7, clips c7\)"):
        train(make_config(task__options={"nan_at": 7}, optim__accumulation=3))


def test_settings_changed_at_a_resume_are_recorded(make_config: MakeConfig) -> None:
    train(make_config(), stop_after_s=0.0)
    train(make_config(optim__lr=0.5), resume=True, stop_after_s=0.0)
    (event,) = read_events(Path(make_config().run.out) / "events.jsonl", "config_changed")
    assert event["settings"] == {"optim.lr": ["0.01", "0.5"]}
    assert load_config(Path(make_config().run.out) / "config.toml").optim.lr == 0.5
    assert read_events(Path(make_config().run.out) / "events.jsonl", "train")[-1]["lr"] == 0.5


def test_resuming_with_other_trained_parameters_or_optimisers_is_told(make_config: MakeConfig) -> None:
    train(make_config(), stop_after_s=0.0)
    with pytest.raises(ConfigError, match=r"run\.train or run\.freeze changed"):
        train(make_config(run__freeze=["dit.head.*"]), resume=True)
    with pytest.raises(ConfigError, match="saved optimiser state"):
        train(make_config(optim__kind="muon"), resume=True)


def test_starting_over_a_run_and_resuming_nothing_are_told(make_config: MakeConfig) -> None:
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        train(make_config(), resume=True)
    train(make_config(), stop_after_s=0.0)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(make_config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__target": "tiny_task"}, "write it as package.module:Class"),
        ({"task__target": "no_such_task:Task"}, "cannot be imported"),
        ({"task__target": "tiny_task:Missing"}, "does not have"),
        ({"task__options": {"colour": 1}}, "task.options does not fit"),
        ({"run__out": ""}, "run.out is empty"),
        ({"run__init_from": "missing.safetensors"}, "cannot be read"),
        ({"run__device": "cuda"}, "sees no CUDA device"),
    ],
)
def test_bad_settings_are_told_before_the_first_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        train(make_config(**changes))


def test_an_error_of_the_task_in_the_background_reaches_the_caller(make_config: MakeConfig) -> None:
    with pytest.raises(ZeroDivisionError):
        train(make_config(task__target="tiny_task:BrokenTask"))


def test_a_cut_or_foreign_checkpoint_is_told(make_config: MakeConfig, tmp_path: Path) -> None:
    checkpoint = train(make_config(run__total_steps=1)).checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="missing or was cut"):
        load_checkpoint(checkpoint)
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x13\x37 noise", pickle.dumps(print, protocol=2)])
def test_a_damaged_or_hostile_state_is_told(make_config: MakeConfig, content: bytes) -> None:
    config = make_config(run__total_steps=2)
    train(config, stop_after_s=0.0)
    (Path(config.run.out) / "resume.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"resume\.pt cannot be read \(it is damaged\); start a new run"):
        train(config, resume=True)


def test_settings_stay_whole_where_the_disk_is_full(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(run__total_steps=2)
    train(config, stop_after_s=0.0)
    path = Path(config.run.out) / "config.toml"
    before = path.read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"config\.toml cannot be written .*No space left"):
        train(replace(config, optim=replace(config.optim, lr=0.5)), resume=True)
    assert path.read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(log__checkpoint_every=2, run__total_steps=4)
    real = os.fsync

    def full_disk(descriptor: int) -> None:
        if any(Path(config.run.out).rglob("step-00000004*.partial")):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"step-00000004.* cannot be written .*No space left"):
        train(config)
    monkeypatch.undo()
    assert not list(Path(config.run.out).rglob("*.partial"))
    assert train(config, resume=True).finished


def test_the_command_tells_errors_in_a_sentence_and_runs_a_leg(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(make_config().to_toml(), encoding="utf-8")
    assert main([str(path), "--resume"]) == 1
    assert "holds no run to resume" in caplog.text
    assert main([str(path), "--out", str(tmp_path / "it's 🎬"), "--set", "run.total_steps=2"]) == 0
    assert latest_checkpoint(tmp_path / "it's 🎬").name == "step-00000002.safetensors"


def test_events_of_a_run_that_was_cut_off_can_still_be_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"event": "train", "step": 1}) + '\n{"event": "tr', encoding="utf-8")
    assert read_events(path) == [{"event": "train", "step": 1}]
