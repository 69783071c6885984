"""Networks in shards over processes: the same losses and weights as one process, and back on another number of them."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_dit import DitTask

from gloria_core.errors import ConfigError
from gloria_core.events import read_events
from gloria_core.train import TrainConfig, latest_checkpoint, load_checkpoint, train
from gloria_core.types import TrainBatch

MakeConfig = Callable[..., TrainConfig]
HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="torch has no gloo with FSDP2 on Windows")


class UnevenTask(DitTask):
    """Only the first process's clips have sound."""

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        batch = super().batch(step, rank, world_size)
        return batch if rank == 0 else replace(batch, audio=None)


def losses(config: TrainConfig, kind: str = "train") -> list[float]:
    return [event["loss"] for event in read_events(Path(config.run.out) / "events.jsonl", kind)]


def together(config: TrainConfig, *arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    path = Path(config.run.out).with_suffix(".toml")
    path.write_text(config.to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "gloria_core.train", str(path), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)


def assert_same_weights(one: TrainConfig, other: TrainConfig) -> None:
    for ema in (False, True):
        first, second = (load_checkpoint(latest_checkpoint(Path(c.run.out)), ema=ema)["dit"] for c in (one, other))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            if not name.endswith(
                "attn.k.bias"
            ):  # softmax does not heed it: its gradient is rounding, and Adam's step too
                torch.testing.assert_close(tensor, second[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("mode", "kind"), [("joint", "full"), ("cached", "full"), ("cached", "lora"), ("joint", "lora")]
)
def test_two_processes_with_shards_equal_one(make_config: MakeConfig, mode: str, kind: str) -> None:
    settings: dict[str, Any] = {
        "task__target": "tiny_dit:DitTask", "task__options": {"mode": mode}, "run__total_steps": 4,
        "method__kind": kind, "method__rank": 2, "memory__checkpointing": "blocks", "log__held_out_every": 4,
        "optim__lr": 0.003, "optim__ema_decay": 0.9,
    }  # fmt: skip
    single = make_config("one", **{**settings, "optim__accumulation": 2})
    pair = make_config("pair", **settings, run__parallel="shard")
    train(single)
    done = together(pair)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(pair) == pytest.approx(losses(single), rel=1e-4)
    assert losses(pair, "held_out") == pytest.approx(losses(single, "held_out"), rel=1e-4)
    assert_same_weights(pair, single)


def test_a_sharded_run_comes_back_on_one_and_on_two(make_config: MakeConfig) -> None:
    settings: dict[str, Any] = {
        "task__target": "tiny_dit:DitTask",
        "run__parallel": "shard",
        "run__total_steps": 6,
        "optim__lr": 0.003,
    }
    whole, cut = make_config("whole", **settings), make_config("cut", **settings)
    done = together(whole)
    assert done.returncode == 0, done.stderr[-3000:]
    stop = ("--stop-after-seconds", "0")
    assert together(cut, *stop).returncode == 0
    assert together(cut, "--resume", *stop).returncode == 0
    assert losses(cut) == losses(whole)[:2]  # bit for bit, on the same number of processes
    folder = Path(cut.run.out)
    assert [path.name for path in folder.glob("resume-*")] == ["resume-00000002"]
    remembered = load_checkpoint(latest_checkpoint(folder), ema=False)["dit"]
    alone = train(replace(cut, optim=replace(cut.optim, lr=1e-12)), resume=True, stop_after_s=0.0)
    assert alone.step == 3
    for name, tensor in load_checkpoint(alone.checkpoint, ema=False)["dit"].items():
        torch.testing.assert_close(tensor, remembered[name], rtol=0, atol=1e-7, msg=name)
    assert together(cut, "--resume").returncode == 0
    assert read_events(folder / "events.jsonl")[-1]["step"] == 6


def test_what_shards_do_not_go_together_with_is_told(make_config: MakeConfig) -> None:
    shared: dict[str, Any] = {"task__target": "tiny_dit:DitTask", "run__parallel": "shard"}
    with pytest.raises(ConfigError, match="Muon needs whole matrices"):
        train(make_config(**shared, optim__kind="muon"))
    with pytest.raises(ConfigError, match="save what shards save too"):
        train(make_config(**shared, method__kind="lora", memory__checkpointing="blocks", memory__swap_blocks=1))
    with pytest.raises(ConfigError, match="does not divide the 1 processes"):
        train(make_config(**shared, run__shard_size=2))
    train(make_config(**shared, run__total_steps=1))
    with pytest.raises(ConfigError, match=r"run\.parallel"):
        train(make_config(task__target="tiny_dit:DitTask", run__total_steps=2), resume=True)


def test_processes_that_would_wait_for_ever_are_ended(make_config: MakeConfig) -> None:
    done = together(make_config(task__target="test_shard:UnevenTask", run__parallel="shard"))
    assert done.returncode != 0
    assert "batches of different kinds" in done.stderr
