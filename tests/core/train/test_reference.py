"""A step against the same step written out by hand, and the losses of a tiny job against those of before."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_dit import DitTask

from gloria_core.events import read_events
from gloria_core.train import TrainConfig, method, objective, train
from gloria_core.train.config import MethodConfig, ObjectiveConfig, RunConfig

GOLDEN = Path(__file__).parents[2] / "golden" / "training_losses.json"


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_lora_step_is_the_one_written_out(mode: str) -> None:
    """Weights W + alpha / r B A as tensors of their own, the noisy clip and the loss in one line each. Paper: 4.2."""
    network, plain = (DitTask(mode).modules()["dit"] for _ in range(2))
    chosen = MethodConfig(kind="lora", preset="identity", rank=3, alpha=2.0)
    method.add_adapters(network, chosen, seed=1)
    trained, _ = method.choose_trained({"dit": network}, RunConfig(total_steps=1), chosen)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    batch = DitTask(mode).batch(0, 0, 1)
    drawn = objective.draw(batch, ObjectiveConfig(text_dropout=0, audio_dropout=0), generator)
    objective.clip_losses({"dit": network}, batch, drawn).mean().backward()

    matrices = {name.removeprefix("dit."): p.detach().clone().requires_grad_() for name, p in trained.items()}
    state = dict(plain.named_parameters())
    layers = {name.partition(".lora_")[0] for name in matrices}
    changed = {
        f"{layer}.weight": state[f"{layer}.weight"].detach()
        + 2.0 / 3 * matrices[f"{layer}.lora_B.default.weight"] @ matrices[f"{layer}.lora_A.default.weight"]
        for layer in layers
    }
    s, x0, noise, p = drawn.sigma.view(-1, 1, 1, 1, 1), batch.latents, drawn.noise, batch.num_prefix
    x = torch.cat([x0[:, :, :p], ((1 - s) * x0 + s * noise)[:, :, p:]], dim=2)
    options = {"anchors": batch.anchors, "num_prefix": p, "audio": batch.audio}
    v = torch.func.functional_call(plain, changed, (x, drawn.sigma * 1000, batch.context), options)
    ((v - (noise - x0))[:, :, p:] ** 2).mean().backward()

    assert layers == set(method.adapted_layers(plain, chosen))
    for name, matrix in matrices.items():
        torch.testing.assert_close(trained[f"dit.{name}"].grad, matrix.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_a_tiny_job_has_the_losses_that_it_had(make_config: Callable[..., TrainConfig]) -> None:
    """A numeric change shows here; where it is wanted, UPDATE_GOLDEN=1 writes the file anew."""
    shared = {"task__target": "tiny_dit:DitTask", "optim__lr": 0.003, "run__total_steps": 6, "log__held_out_every": 3}
    runs = {
        "lora, cached": {"method__kind": "lora", "method__rank": 4},
        "full, joint": {"task__options": {"mode": "joint"}},
        "ears, savings": {
            "method__kind": "lora", "method__preset": "performance", "memory__checkpointing": "blocks",
            "memory__base": "fp8",
        },
    }  # fmt: skip
    found: dict[str, list[float]] = {}
    for name, changes in runs.items():
        config = make_config(name.replace(", ", "-"), **shared, **changes)
        train(config)
        events = read_events(Path(config.run.out) / "events.jsonl")
        found[name] = [event["loss"] for event in events if event["event"] in ("train", "held_out")]
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert found.keys() == golden.keys()
    for name, losses in golden.items():
        assert found[name] == pytest.approx(losses, rel=1e-3), name
