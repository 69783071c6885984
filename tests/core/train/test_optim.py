"""Parameters, optimisers, rates, gradients and the running average."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import TinyTask
from torch import nn

from gloria_core.errors import ConfigError
from gloria_core.events import read_events
from gloria_core.train import TrainConfig, latest_checkpoint, load_checkpoint, train
from gloria_core.train.config import MethodConfig, OptimConfig, RunConfig
from gloria_core.train.method import choose_trained
from gloria_core.train.optim import Ema, Gradients, lr_factor, make_optimizers, named_parameters, set_lr

MakeConfig = Callable[..., TrainConfig]


def select_trained(modules: Mapping[str, nn.Module], run: RunConfig) -> dict[str, nn.Parameter]:
    return choose_trained(modules, run, MethodConfig())[0]


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    config = OptimConfig(warmup_steps=4, cooldown_steps=5)
    factors = [lr_factor(step, 20, config) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(factors[4:16]) == {1.0}
    assert factors[15:] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert lr_factor(19, 20, OptimConfig(warmup_steps=0)) == 1.0


def test_every_group_gets_its_rate_times_the_factor() -> None:
    trained = select_trained(TinyTask().modules(), RunConfig(total_steps=1))
    config = OptimConfig(kind="muon", lr=0.5, muon_lr=0.25)
    adamw, muon = make_optimizers(trained, config)
    set_lr([adamw, muon], 0.1, config)
    assert [group["lr"] for group in adamw.param_groups] == [0.05, 0.05]
    assert [group["lr"] for group in muon.param_groups] == [0.025]


def test_patterns_choose_what_is_trained() -> None:
    modules = TinyTask().modules()
    trained = select_trained(modules, RunConfig(total_steps=1, train=("dit.*",), freeze=("dit.blocks.*", "*.bias")))
    assert sorted(trained) == ["dit.audio.weight", "dit.head.weight", "dit.patch_embedding.weight", "dit.time.weight"]
    assert {name for name, p in named_parameters(modules).items() if p.requires_grad} == set(trained)


def test_a_pattern_without_a_match_and_an_empty_choice_are_told() -> None:
    modules = TinyTask().modules()
    with pytest.raises(ConfigError, match=r"run\.freeze has the pattern 'dit\.bocks\.\*'"):
        select_trained(modules, RunConfig(total_steps=1, freeze=("dit.bocks.*",)))
    with pytest.raises(ConfigError, match="no parameter to train"):
        select_trained(modules, RunConfig(total_steps=1, freeze=("*",)))


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    trained = select_trained(TinyTask().modules(), RunConfig(total_steps=1))
    adamw, muon = make_optimizers(trained, OptimConfig(kind="muon"))
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    assert taken == {id(trained[f"dit.blocks.{i}.weight"]) for i in range(2)}
    rest = {id(p) for group in adamw.param_groups for p in group["params"]}
    assert taken | rest == {id(p) for p in trained.values()}
    assert not taken & rest


def test_vectors_have_no_weight_decay() -> None:
    trained = select_trained(TinyTask().modules(), RunConfig(total_steps=1))
    (adamw,) = make_optimizers(trained, OptimConfig(weight_decay=0.3))
    for group in adamw.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)


def test_muon_without_a_matrix_is_told() -> None:
    trained = select_trained(TinyTask().modules(), RunConfig(total_steps=1))
    with pytest.raises(ConfigError, match="matches no trained matrix"):
        make_optimizers(trained, OptimConfig(kind="muon", muon_params=("dit.nothing",)))


def test_gradients_gather_in_one_vector_and_unused_parameters_get_zero() -> None:
    used, unused = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.ones(2, 2))
    gradients = Gradients([used, unused], num_extra=1)
    gradients.extra[0] = 5.0
    (used**2).sum().backward()
    (used * 3.0).sum().backward()
    assert gradients.flat.tolist() == [5.0, 7.0, 0.0, 0.0, 0.0, 0.0, 5.0]
    gradients.zero()
    assert float(gradients.flat.abs().max()) == 0.0
    assert used.grad.tolist() == [0.0, 0.0]


def test_clipping_scales_to_the_limit_and_tells_the_norm_before() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    gradients = Gradients([parameter])
    gradients.flat.copy_(torch.tensor([3.0, 4.0]))
    assert gradients.clip(0.0) == 5.0
    assert gradients.clip(10.0) == 5.0
    assert parameter.grad.tolist() == [3.0, 4.0]
    assert gradients.clip(1.0) == 5.0
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8])


def test_the_average_follows_its_formula_with_a_warmed_up_decay() -> None:
    parameter = nn.Parameter(torch.tensor([0.0]))
    ema = Ema({"w": parameter}, decay=0.6)
    expected = 0.0
    for step in range(20):
        parameter.data.fill_(float(step + 1))
        ema.update(step)
        decay = min(0.6, (1 + step) / (10 + step))
        assert (decay < 0.6) == (step < 13)
        expected = decay * expected + (1 - decay) * (step + 1)
        assert math.isclose(float(ema.average["w"]), expected, rel_tol=1e-5)


def test_the_average_is_put_in_and_taken_out_even_after_an_error() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    ema = Ema({"w": parameter}, decay=0.9)
    parameter.data.fill_(2.0)
    inside: list[float] = []

    def use() -> None:
        with ema.applied():
            inside.append(parameter.item())
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert inside == [1.0]
    assert parameter.item() == 2.0
    assert ema.average["w"].item() == 1.0


def test_no_averaging_keeps_the_weights_themselves() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    ema = Ema({"w": parameter}, decay=0.0)
    parameter.data.fill_(2.5)
    ema.update(7)
    assert ema.average["w"].item() == 2.5


@pytest.mark.parametrize(
    ("kind", "options"),
    [("adafactor", {}), ("torch.optim.RAdam", {"betas": [0.9, 0.95]}), ("torchao.optim.AdamW8bit", {"block_size": 16})],
)
def test_other_optimisers_learn_and_come_back(make_config: MakeConfig, kind: str, options: dict[str, Any]) -> None:
    with torch.compiler.set_stance("force_eager"):  # torchao compiles its step, which takes half a minute
        settings = {"optim__kind": kind, "optim__options": options, "optim__lr": 0.02, "run__total_steps": 8}
        whole, cut = make_config("whole", **settings), make_config("cut", **settings)
        train(whole)
        losses = [event["loss"] for event in read_events(Path(whole.run.out) / "events.jsonl", "train")]
        assert losses[-1] < losses[0]
        train(cut, stop_after_s=0.0)
        train(cut, resume=True)
        first, second = (load_checkpoint(latest_checkpoint(Path(c.run.out)), ema=False)["dit"] for c in (whole, cut))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "sgd"}, "one of: adamw, muon, adafactor"),
        ({"kind": "no.such.Optimizer"}, "pip"),
        ({"kind": "torch.optim.Nothing"}, "is not there"),
        ({"kind": ".AdamW"}, "is not there"),
        ({"kind": "..optim.AdamW"}, "is not there"),
        ({"kind": "torch.optim.LBFGS"}, "computes the loss again"),
        ({"kind": "torch.optim.SparseAdam"}, "sparse gradients"),
        ({"kind": "adafactor", "options": {"speed": 3}}, "does not fit adafactor"),
    ],
)
def test_optimisers_that_are_not_there_are_told(changes: dict[str, Any], words: str) -> None:
    trained = select_trained(TinyTask().modules(), RunConfig(total_steps=1))
    with pytest.raises(ConfigError, match=words):
        make_optimizers(trained, OptimConfig(**changes))


def test_the_rate_falls_along_a_line_or_a_cosine() -> None:
    line = OptimConfig(warmup_steps=0, schedule="linear", lr_end=0.1)
    assert [lr_factor(step, 10, line) for step in (0, 5, 10)] == pytest.approx([1.0, 0.55, 0.1])
    wave = OptimConfig(warmup_steps=2, schedule="cosine")
    assert [lr_factor(step, 12, wave) for step in (1, 2, 7, 12)] == pytest.approx([1.0, 1.0, 0.5, 0.0])
