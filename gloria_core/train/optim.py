"""From gradients to better weights: which parameters, which optimiser, which rate, and the running average."""

import fnmatch
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..errors import ConfigError
from .config import OptimConfig
from .process import World
from .shard import fill, local

_SETTINGS = ("lr", "weight_decay", "betas", "momentum", "ns_steps")
"""Settings that are a resumed run's own; whatever else an optimiser keeps in its groups belongs to its state."""

_UNFIT: Mapping[str, str] = {
    "torch.optim.LBFGS": "computes the loss again in each step",
    "torch.optim.SparseAdam": "takes sparse gradients alone",
}


def named_parameters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return every parameter under its full name in weights files, ``module.path.in.module``."""
    return {
        f"{key}.{name}": p
        for key, module in modules.items()
        for name, p in module.state_dict(keep_vars=True).items()
        if isinstance(p, nn.Parameter)
    }


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a parameter's name fits one of the shell-like patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def make_optimizers(trained: Mapping[str, nn.Parameter], config: OptimConfig) -> list[torch.optim.Optimizer]:
    """Return the configured optimiser, or AdamW and Muon, over the trained parameters.

    Raises:
        ConfigError: the optimiser is not there or does not take its options, or Muon has nothing to do.
    """
    matrices = {
        name: p
        for name, p in trained.items()
        if config.kind == "muon" and p.ndim == 2 and matches(name, config.muon_params)
    }
    if config.kind == "muon" and not matrices:
        raise ConfigError(
            f"optim.muon_params {list(config.muon_params)} matches no trained matrix; use adamw or other names."
        )
    rest = [p for name, p in trained.items() if name not in matrices]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizers.append(_built([group for group in groups if group["params"]], config))
    if matrices:
        muon = torch.optim.Muon(
            list(matrices.values()),
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
            momentum=config.muon_momentum,
            ns_steps=config.muon_steps,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def _built(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    if config.kind in ("adamw", "muon"):
        return _called(torch.optim.AdamW, groups, config, betas=config.betas, fused=True)
    if config.kind == "adafactor":
        return _called(torch.optim.Adafactor, groups, config)
    if config.kind in _UNFIT:
        raise ConfigError(f"optim.kind is {config.kind!r}, which {_UNFIT[config.kind]}; use adamw, muon or adafactor.")
    module_name, _, class_name = config.kind.rpartition(".")
    try:
        made = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"optim.kind names {config.kind!r}, which is not there: {error}. Install its package with pip, or use "
            "adamw, muon or adafactor."
        ) from error
    return _called(made, groups, config)


def _called(
    kind: Callable[..., torch.optim.Optimizer], groups: list[dict[str, Any]], config: OptimConfig, **own: object
) -> torch.optim.Optimizer:
    try:
        return kind(groups, lr=config.lr, **{**own, **config.options})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optim.options {config.options} does not fit {config.kind}: {error}.") from error


def lr_factor(step: int, total_steps: int, config: OptimConfig) -> float:
    """Return the share of the full learning rate in a step (the first is 0): warm-up, schedule, cool-down."""
    rise = (step + 1) / config.warmup_steps if step < config.warmup_steps else 1.0
    left = total_steps - step
    fall = left / config.cooldown_steps if left < config.cooldown_steps else 1.0
    place = min(1.0, max(0.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)))
    shares = {"constant": 1.0, "linear": 1.0 - place, "cosine": (1.0 + math.cos(math.pi * place)) / 2.0}
    share = shares[config.schedule]
    return min(rise, fall) * (config.lr_end + (1.0 - config.lr_end) * share)


def set_lr(optimizers: Sequence[torch.optim.Optimizer], factor: float, config: OptimConfig) -> None:
    """Set every group's rate to ``factor`` times the configured one."""
    for optimizer in optimizers:
        base = config.muon_lr if isinstance(optimizer, torch.optim.Muon) else config.lr
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):  # torchao's, whose steps are compiled
                group["lr"].fill_(base * factor)
            else:
                group["lr"] = base * factor


class Gradients:
    """The gradients of all trained parameters as views into one flat vector, with room for a few numbers behind them.

    One vector makes zeroing, averaging over processes, and clipping one operation each, and lets losses and the wish
    to stop travel with the gradients in one message. A parameter that a batch does not use has a gradient of zero.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_extra: int = 0) -> None:
        """Lay the vector out and make every parameter's ``grad`` a view of it."""
        self._parameters = list(parameters)
        count = sum(p.numel() for p in self._parameters)
        self.flat = torch.zeros(count + num_extra, device=self._parameters[0].device)
        self.grad, self.extra = self.flat[:count], self.flat[count:]
        parts = torch.split(self.grad, [p.numel() for p in self._parameters])
        self._views = [part.view_as(p) for part, p in zip(parts, self._parameters, strict=True)]
        self.zero()

    def zero(self) -> None:
        """Set gradients and extra numbers to zero."""
        self.flat.zero_()
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    def average(self, world: World, accumulation: int) -> None:
        """Add the numbers up over all processes, and make the gradients means over processes and batches."""
        world.sum_(self.flat)
        self.grad.div_(accumulation * world.size)

    def clip(self, max_norm: float) -> float:
        """Scale the gradients down to a norm of at most ``max_norm`` (0: leave them) and return the norm they had."""
        norm = float(torch.linalg.vector_norm(self.grad))
        if 0.0 < max_norm < norm:
            self.grad.mul_(max_norm / norm)
        return norm


class Ema:
    """A running average of the trained parameters."""

    def __init__(self, trained: Mapping[str, nn.Parameter], decay: float) -> None:
        """Start the average at the present weights."""
        self.decay = decay
        self._parameters = dict(trained)
        self.average: dict[str, Tensor] = {name: p.detach().clone() for name, p in trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights in after a step (the first is 0), with a decay of at most (1 + step) / (10 + step)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights: list[Tensor] = [local(p.detach()) for p in self._parameters.values()]
        torch._foreach_lerp_([local(a) for a in self.average.values()], weights, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the networks for the length of a ``with`` block, without a copy."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take an average back out of a checkpoint."""
        for name, tensor in self.average.items():
            fill(tensor, average[name])

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            if isinstance(parameter, DTensor):  # its shards are known to the sharding by their place in memory
                one, other = local(parameter.detach()), local(self.average[name])
                kept = one.clone()
                one.copy_(other)
                other.copy_(kept)
            else:
                parameter.data, self.average[name] = self.average[name], parameter.data


def optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    """Return the optimisers' state as plain dictionaries of tensors and numbers."""
    return [optimizer.state_dict() for optimizer in optimizers]


def load_optimizer_state(optimizers: Sequence[torch.optim.Optimizer], states: Sequence[dict[str, Any]]) -> None:
    """Put saved state back.

    Raises:
        ConfigError: the state belongs to other optimisers or other parameters.
    """
    sizes = [[len(group["params"]) for group in o.param_groups] for o in optimizers]
    saved = [[len(group["params"]) for group in state["param_groups"]] for state in states]
    if sizes != saved:
        raise ConfigError(
            f"The saved optimiser state is for parameter groups of {saved} tensors, this run's groups have {sizes}; "
            "resume with the same optim.kind, optim.muon_params, run.train and run.freeze, or start a new run "
            "with run.init_from."
        )
    for optimizer, state in zip(optimizers, states, strict=True):
        settings = [{k: v for k, v in group.items() if k in _SETTINGS} for group in optimizer.param_groups]
        optimizer.load_state_dict(state)
        for group, setting in zip(optimizer.param_groups, settings, strict=True):
            group.update(setting)


@contextmanager
def resting(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Let optimisers that keep two versions of the weights (schedule-free ones) show the good one for a while."""
    for optimizer in optimizers:
        _switch(optimizer, "eval")
    try:
        yield
    finally:
        for optimizer in optimizers:
            _switch(optimizer, "train")


def _switch(optimizer: torch.optim.Optimizer, to: str) -> None:
    switch = getattr(optimizer, to, None)
    if callable(switch):
        switch()
