"""Estimates against what a training really takes, on the CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from measured_step import CASES, SHAPE, model

from gloria_core.families import FAMILIES
from gloria_core.train import TrainConfig
from gloria_core.train.config import MemoryConfig, MethodConfig
from gloria_core.train.estimate import ClipShape, device_speed, estimate
from gloria_core.types import AnchorRole

MakeConfig = Callable[..., TrainConfig]
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE}",
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",  # freed memory goes back at once, so that the peak is what is held
}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("mode", "case"),
    [*(("joint", case) for case in CASES), ("cached", "full"), ("cached", "lora, checkpointed")],
)
def test_the_memory_is_within_15_percent_of_what_is_measured(make_config: MakeConfig, mode: str, case: str) -> None:
    chosen, saving = CASES[case]
    config = replace(make_config(), method=chosen, memory=saving)
    told = estimate(config, model(mode), SHAPE)
    command = [sys.executable, str(HERE / "measured_step.py"), mode, case]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["peak"]
    print(f"{mode}, {case}: estimated {told.device / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert told.device == pytest.approx(measured, rel=0.15)


def test_savings_save(make_config: MakeConfig) -> None:
    lora = MethodConfig(kind="lora", rank=16)

    def device(**memory: object) -> int:
        config = replace(make_config(), method=lora, memory=MemoryConfig(**memory))  # type: ignore[arg-type]
        return estimate(config, model("joint"), SHAPE).device

    plain, blocks = device(), device(checkpointing="blocks")
    assert plain > blocks > device(checkpointing="blocks", base="fp8")
    assert blocks > device(checkpointing="blocks", swap_blocks=6)
    assert blocks > device(checkpointing="offload")


def test_a_large_model_is_estimated_without_its_weights(make_config: MakeConfig) -> None:
    """A tenth of Wan 14B at 480p: adapters in little memory against all weights."""
    wan = replace(FAMILIES["Wan2.1 T2V 14B"], num_layers=4)
    shape = ClipShape(num_latents=21, height=60, width=104, anchors=((AnchorRole.GLOBAL, "", 60, 104),))
    base = make_config(run__precision="bf16", run__device="cuda", task__options={"weights_dtype": "bf16"})
    saving = MemoryConfig(checkpointing="offload", base="fp8", swap_blocks=2)
    lora = replace(base, method=MethodConfig(kind="lora"), memory=saving)
    small = estimate(lora, wan, shape, speed=66e12)
    whole = estimate(replace(base, memory=MemoryConfig(checkpointing="blocks")), wan, shape, speed=66e12)
    assert small.weights < 0.3 * whole.weights
    assert small.optimizer < 0.05 * whole.optimizer
    forward = 0.1 * 1.7e15  # performance.md: 1686 TFLOP a forward of 40 blocks
    assert 3 * forward < whole.flops < 5.5 * forward  # forward, again in the backward, and twice that for gradients
    told = small.told(lora)
    assert "Memory of the card" in told
    assert "a step" in told


def test_the_speed_of_this_machine_is_measured() -> None:
    assert 1e8 < device_speed(torch.device("cpu")) < 1e14


def test_a_model_that_is_shown_pictures_takes_a_little_more(make_config: MakeConfig) -> None:
    """Its image channels and what CLIP sees are there in the step that is counted."""
    config = replace(make_config(), method=MethodConfig(kind="lora", rank=4))
    shape = ClipShape(num_latents=3, height=4, width=4, batch_size=1, num_prefix=0, text_rows=8, anchors=())
    small = {"dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "text_dim": 16, "text_length": 8}
    plain = estimate(config, replace(FAMILIES["Wan2.1 T2V 14B"], **small), shape)
    seeing = estimate(config, replace(FAMILIES["Wan2.1 I2V 14B 480P"], **small), shape)
    assert seeing.activations > plain.activations
    assert seeing.flops > plain.flops
