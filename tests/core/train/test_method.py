"""What is trained, with what of it beside the network, and that nothing of it changes what the network computes."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from tiny_dit import DitTask
from torch import Tensor, nn

from gloria_core.errors import CheckpointError, ConfigError
from gloria_core.train import TrainConfig, load_checkpoint, memory, method, objective, train
from gloria_core.train.config import MemoryConfig, MethodConfig, ObjectiveConfig, RunConfig
from gloria_core.train.live_bytes import LiveBytes
from gloria_core.train.memory import place, to_float8
from gloria_core.train.optim import named_parameters

MakeConfig = Callable[..., TrainConfig]
KINDS = ("lora", "lokr", "loha")
ATTENTION = [f"blocks.{i}.self_attn.{x}" for i in range(2) for x in "qkvo"]


@pytest.fixture
def dit_config(make_config: MakeConfig) -> MakeConfig:
    def make(out: str = "run", **changes: Any) -> TrainConfig:
        return make_config(out, **{"task__target": "tiny_dit:DitTask", "optim__lr": 0.003, **changes})

    return make


def gradients(network: nn.Module, mode: str) -> tuple[float, dict[str, Tensor]]:
    """One step's loss and gradients, by plain names."""
    batch = DitTask(mode).batch(0, 0, 1)
    drawn = objective.draw(batch, ObjectiveConfig(), torch.Generator().manual_seed(1))
    loss = objective.clip_losses({"dit": network}, batch, drawn).mean()
    loss.backward()
    found = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return float(loss.detach()), found


def adapted(mode: str, kind: str = "lora", **settings: Any) -> nn.Module:
    """A network with adapters that change what it computes, and everything else frozen."""
    network = DitTask(mode).modules()["dit"]
    chosen = MethodConfig(kind=kind, rank=4, **settings)
    method.add_adapters(network, chosen, seed=3)
    method.choose_trained({"dit": network}, RunConfig(total_steps=1), chosen)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if method.is_adapter(name):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_is_the_identity(kind: str) -> None:
    plain, network = DitTask().modules()["dit"], DitTask().modules()["dit"]
    method.add_adapters(network, MethodConfig(kind=kind, rank=4), seed=0)
    assert gradients(network, "cached")[0] == gradients(plain, "cached")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_multiplied_out_once_in_a_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of tokens save memory, but not where each would hold a matrix of its own; LoRA makes none."""
    network = adapted("joint", kind, preset="none", layers=("blocks.0.ffn.0",))
    layer = network.get_submodule("blocks.0.ffn.0")
    made = Mock(wraps=layer.get_delta_weight)
    monkeypatch.setattr(layer, "get_delta_weight", made)
    network.get_submodule("blocks.0")._feed(torch.randn(1, 4 * 48, 48))
    assert made.call_count == int(kind != "lora")


def test_presets_name_the_layers_that_they_are_for() -> None:
    network = DitTask().modules()["dit"]
    assert method.adapted_layers(network, MethodConfig(kind="lora", preset="identity")) == ATTENTION
    first = method.adapted_layers(network, MethodConfig(kind="lora", preset="identity", blocks=(0, 1)))
    assert first == ATTENTION[:4]
    own = method.adapted_layers(network, MethodConfig(kind="lora", preset="none", layers=("head.head",)))
    assert own == ["head.head"]
    everything = method.adapted_layers(network, MethodConfig(kind="lora"))
    parts = {name.split(".", 2)[2] for name in everything}
    assert {"ffn.0", "ffn.2", "cross_attn.k", "self_attn.o", "audio_attn.v"} <= parts
    assert not any("norm" in name or "modulation" in name or "embedding" in name for name in everything)


def test_performance_trains_the_ears_whole() -> None:
    network = DitTask().modules()["dit"]
    chosen = MethodConfig(kind="lora", preset="performance", rank=2)
    method.add_adapters(network, chosen, 0)
    trained, frozen = method.choose_trained({"dit": network}, RunConfig(total_steps=1), chosen)
    assert {name for name in trained if "audio" in name} == {n for n in (*trained, *frozen) if "audio" in n}
    assert any("cross_attn.q.lora_A" in name for name in trained)
    assert not any("self_attn" in name for name in trained)


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_move(dit_config: MakeConfig, kind: str) -> None:
    config = dit_config(method__kind=kind, method__rank=2, run__total_steps=3)
    before = {f"dit.{n}": t.clone() for n, t in DitTask().modules()["dit"].state_dict().items()}
    checkpoint = train(config).checkpoint
    saved = load_checkpoint(checkpoint)["dit"]
    assert saved
    assert all(method.is_adapter(f".{name}") for name in saved)
    assert sum(t.numel() for t in saved.values()) < 0.5 * sum(t.numel() for t in before.values())


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_run_resumes_bit_for_bit(dit_config: MakeConfig, kind: str) -> None:
    settings = {"method__kind": kind, "method__rank": 2, "run__total_steps": 4, "method__dropout": 0.1}
    whole, cut = dit_config("whole", **settings), dit_config("cut", **settings)
    train(whole)
    for step in range(4):
        train(cut, resume=step > 0, stop_after_s=0.0)
    first, second = (
        load_checkpoint(Path(config.run.out) / "checkpoints" / "step-00000004.safetensors", ema=False)["dit"]
        for config in (whole, cut)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_adapters_go_on_in_the_next_stage_and_only_beside_their_base(dit_config: MakeConfig) -> None:
    first = dit_config("first", method__kind="lora", method__rank=2, run__total_steps=2)
    checkpoint = train(first).checkpoint
    second = dit_config(
        "second", method__kind="lora", method__rank=2, run__total_steps=1, run__init_from=str(checkpoint),
        optim__lr=1e-12,
    )  # fmt: skip
    begun = load_checkpoint(checkpoint)["dit"]
    went_on = load_checkpoint(train(second).checkpoint)["dit"]
    for name, tensor in begun.items():
        torch.testing.assert_close(went_on[name], tensor, rtol=0, atol=1e-9)
    other = replace(
        second, task=replace(second.task, options={"seed": 9}), run=replace(second.run, out=second.run.out + "x")
    )
    with pytest.raises(CheckpointError, match="other base weights"):
        train(other)
    with pytest.raises(CheckpointError, match="other adapters"):
        train(replace(second, method=replace(second.method, rank=3), run=replace(second.run, out=second.run.out + "y")))
    with pytest.raises(CheckpointError, match="merge them"):
        train(replace(second, method=MethodConfig(), run=replace(second.run, out=second.run.out + "z")))


def test_a_run_does_not_resume_beside_another_base_or_with_another_method(dit_config: MakeConfig) -> None:
    config = dit_config(method__kind="lora", method__rank=2, run__total_steps=2)
    train(config, stop_after_s=0.0)
    with pytest.raises(CheckpointError, match="other base weights"):
        train(replace(config, task=replace(config.task, options={"seed": 9})), resume=True)
    with pytest.raises(ConfigError, match=r"method\.kind"):
        train(replace(config, method=MethodConfig()), resume=True)


@pytest.mark.parametrize("mode", ["cached", "joint"])
@pytest.mark.parametrize("checkpointing", ["blocks", "offload"])
def test_checkpointing_changes_no_gradient(mode: str, checkpointing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[Tensor] = []
    real = torch.autograd.graph.save_on_cpu
    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", lambda **how: packed.append(torch.empty(0)) or real(**how))
    plain, saving = DitTask(mode).modules()["dit"], DitTask(mode).modules()["dit"]
    place(saving, MemoryConfig(checkpointing=checkpointing), torch.device("cpu"), torch.float32)
    (loss, expected), (other, found) = gradients(plain, mode), gradients(saving, mode)
    assert other == pytest.approx(loss, rel=1e-6)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert bool(packed) == (checkpointing == "offload")
    assert held_bytes(saving, mode) < 0.9 * held_bytes(plain, mode)  # of two blocks one is always whole


def held_bytes(network: nn.Module, mode: str) -> int:
    """The most bytes that a step holds beside weights and gradients."""
    known = [*network.parameters(), *network.buffers()]
    live = LiveBytes([*known, *(p.grad for p in network.parameters() if p.grad is not None)])
    with live:
        gradients(network, mode)
    return live.peak


def test_waiting_weights_come_when_it_is_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the forward pass and once more for the backward one; those of other blocks are where they are needed."""
    network, brought = adapted("joint"), list[nn.Module]()
    real = memory._Stored.brought
    monkeypatch.setattr(memory._Stored, "brought", lambda s, device: brought.append(s.block) or real(s, device))
    place(network, MemoryConfig(checkpointing="blocks", swap_blocks=1), torch.device("cpu"), torch.float32)
    gradients(network, "joint")
    assert brought == [network.blocks[1]] * 2


@pytest.mark.parametrize(("mode", "swap"), list(itertools.product(["cached", "joint"], [1, 2])))
def test_swapping_changes_no_gradient(mode: str, swap: int) -> None:
    plain, saving = adapted(mode), adapted(mode)
    place(saving, MemoryConfig(checkpointing="blocks", swap_blocks=swap), torch.device("cpu"), torch.float32)
    (loss, expected), (other, found) = gradients(plain, mode), gradients(saving, mode)
    assert other == pytest.approx(loss, rel=1e-6)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_of_few_bits_computes_what_its_rounded_weights_do(kind: str) -> None:
    rounded, stored = adapted("cached", kind), adapted("cached", kind)
    with torch.no_grad():
        for module in rounded.blocks.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad:
                    continue
                if isinstance(module, nn.Linear) and name == "weight":
                    small, scale = to_float8(parameter)
                    parameter.copy_(small.float() * scale)
                else:
                    parameter.copy_(parameter.bfloat16())
    place(stored, MemoryConfig(checkpointing="blocks", base="fp8"), torch.device("cpu"), torch.float32)
    kept = [p for p in stored.blocks.parameters() if not p.requires_grad and p.ndim == 2]
    assert {p.dtype for p in kept} == {torch.float8_e4m3fn}
    (loss, expected), (other, found) = gradients(rounded, "cached"), gradients(stored, "cached")
    assert other == pytest.approx(loss, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_run_in_little_memory_learns_and_resumes(dit_config: MakeConfig) -> None:
    config = dit_config(
        method__kind="lora", method__rank=4, run__total_steps=6, memory__checkpointing="offload",
        memory__base="fp8", memory__swap_blocks=1, log__held_out_every=3,
    )  # fmt: skip
    train(config, stop_after_s=0.0)
    assert train(config, resume=True).finished


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "dora"}, "6 % off"),
        ({"kind": "lora", "preset": "face"}, "identity, performance, character"),
        ({"kind": "lora", "rank": 0}, "must be 1 or more"),
        ({"kind": "lora", "blocks": (3, 1)}, "two numbers"),
        ({"kind": "lora", "dropout": 1.5}, "probability"),
    ],
)
def test_impossible_methods_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MethodConfig(**settings)


def test_layers_that_are_not_there_or_are_asked_for_twice_are_told() -> None:
    network = DitTask().modules()["dit"]
    with pytest.raises(ConfigError, match="matches no linear layer"):
        method.adapted_layers(network, MethodConfig(kind="lora", layers=("blocks.*.attn.q",)))
    with pytest.raises(ConfigError, match="leaves no layer"):
        method.adapted_layers(network, MethodConfig(kind="lora", preset="none"))
    twice = MethodConfig(kind="lora", preset="identity", full=("dit.blocks.0.self_attn.q.weight",))
    method.add_adapters(network, twice, 0)
    with pytest.raises(ConfigError, match="has an adapter too"):
        method.choose_trained({"dit": network}, RunConfig(total_steps=1), twice)
    with pytest.raises(ConfigError, match=r"run\.train is"):
        method.choose_trained({"dit": network}, RunConfig(total_steps=1, train=("dit.*",)), MethodConfig(kind="lora"))


def test_savings_that_cannot_be_are_refused(dit_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"set memory\.checkpointing"):
        MemoryConfig(base="fp8")
    with pytest.raises(ConfigError, match="has 2 blocks"):
        place(
            DitTask().modules()["dit"],
            MemoryConfig(checkpointing="blocks", swap_blocks=3),
            torch.device("cpu"),
            torch.float32,
        )
    with pytest.raises(ConfigError, match="must not be rounded"):
        dit_config(memory__base="fp8", memory__checkpointing="blocks")


def test_all_parameters_are_either_trained_or_frozen() -> None:
    network = adapted("cached")
    everything = named_parameters({"dit": network})
    trained = {name for name, p in everything.items() if p.requires_grad}
    assert trained == {name for name in everything if method.is_adapter(name)}
