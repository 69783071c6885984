"""The trainer's settings: a TOML file read into frozen dataclasses, and written out again with every default."""

import dataclasses
import difflib
import json
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where the run lives and how long it is."""

    out: str = ""
    """Folder of the run, relative to the working folder: settings, events, checkpoints and samples go there."""
    seed: int = 0
    """Seed of noise, noise levels and dropout. The data's seed is the task's own option."""
    total_steps: int
    """Optimiser steps of the whole run, over all of its legs."""
    device: str = "auto"
    """``auto`` (CUDA where there is one), ``cpu`` or ``cuda``."""
    precision: str = "auto"
    """``fp32``, ``bf16`` (autocast; the weights stay float32) or ``auto``: bf16 on CUDA, fp32 on the CPU."""
    threads: int = 1
    """CPU threads of each process. Two processes of one thread are faster than one process of two."""
    prefetch: int = 2
    """Batches prepared ahead in a background thread; 0 prepares each when it is needed."""
    init_from: str = ""
    """Checkpoint, or run folder, whose (last) averaged weights the run starts from; empty starts fresh."""
    init_new: tuple[str, ...] = ()
    """Name patterns of parameters that are not taken from ``init_from``, such as ``dit.*audio*``: they start fresh,
    whether the checkpoint has them or not."""
    train: tuple[str, ...] = ("*",)
    """Name patterns (``dit.blocks.0.*``) of the parameters that are trained."""
    freeze: tuple[str, ...] = ()
    """Name patterns of parameters that are not trained although ``train`` names them."""

    def __post_init__(self) -> None:
        _at_least("run.total_steps", self.total_steps, 1)
        _at_least("run.threads", self.threads, 1)
        _at_least("run.prefetch", self.prefetch, 0)
        _one_of("run.device", self.device, ("auto", "cpu", "cuda"))
        _one_of("run.precision", self.precision, ("auto", "fp32", "bf16"))


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """What is trained: a class that follows the ``TrainingTask`` protocol."""

    target: str
    """Dotted path of the class, ``package.module:Class``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SigmaConfig:
    """One distribution of noise levels; several of them are mixed by their weights."""

    kind: str = "uniform"
    """``uniform`` over low..high, or ``logit_normal``."""
    weight: float = 1.0
    """Share in the mixture, relative to the other distributions."""
    shift: float = 1.0
    """sigma -> shift * sigma / (1 + (shift - 1) * sigma); above 1 trains noisier levels more often. Source: SD3."""
    mean: float = 0.0
    """Mean of the logit (logit_normal)."""
    std: float = 1.0
    """Standard deviation of the logit (logit_normal)."""
    low: float = 0.0
    """Lowest sigma before the shift (uniform)."""
    high: float = 1.0
    """Highest sigma before the shift (uniform)."""

    def __post_init__(self) -> None:
        _one_of("objective.sigmas.kind", self.kind, ("uniform", "logit_normal"))
        _positive("objective.sigmas.weight", self.weight)
        _positive("objective.sigmas.shift", self.shift)
        _positive("objective.sigmas.std", self.std)
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ConfigError(
                f"objective.sigmas has low = {self.low} and high = {self.high}; noise levels need 0 <= low < high <= 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The flow-matching loss. Paper: 4.2."""

    sigmas: tuple[SigmaConfig, ...] = field(default_factory=lambda: (SigmaConfig(),))
    """Mixture of noise level distributions."""
    stratified: bool = True
    """Spread the noise levels of a batch evenly over the distribution instead of drawing each alone."""
    text_dropout: float = 0.1
    """Probability that a clip is trained without its text, for guidance."""
    audio_dropout: float = 0.1
    """Probability that a clip is trained without its sound, for guidance."""
    padding_id: int = 0
    """Token id that fills the words of a clip without text."""

    def __post_init__(self) -> None:
        _probability("objective.text_dropout", self.text_dropout)
        _probability("objective.audio_dropout", self.audio_dropout)
        if not self.sigmas:
            raise ConfigError("objective.sigmas is empty; leave it out for uniform noise levels.")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Optimiser, learning rate and averaging."""

    kind: str = "adamw"
    """``adamw``, or ``muon``: Muon for the matrices that ``muon_params`` names, AdamW for all else."""
    lr: float = 1e-3
    """Learning rate of AdamW after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of AdamW's first and second moments."""
    weight_decay: float = 0.01
    """Decoupled weight decay of tensors with two or more dimensions; the others have none."""
    muon_lr: float = 1e-3
    """Learning rate of Muon; its update has AdamW's size (0.2 RMS), so rates of the same order fit both."""
    muon_momentum: float = 0.95
    """Momentum of Muon."""
    muon_steps: int = 5
    """Newton-Schulz iterations of Muon."""
    muon_params: tuple[str, ...] = ("dit.*blocks.*.weight",)
    """Name patterns of the matrices that Muon takes; only tensors of two dimensions are taken."""
    warmup_steps: int = 100
    """Steps over which the rate rises linearly from 0."""
    cooldown_steps: int = 0
    """Last steps of the run over which the rate falls linearly to 0; 0 keeps it constant."""
    grad_clip: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""
    accumulation: int = 1
    """Micro-batches whose gradients are averaged for one step."""
    ema_decay: float = 0.999
    """Decay of the averaged weights per step; 0 averages nothing (they equal the weights)."""

    def __post_init__(self) -> None:
        _one_of("optim.kind", self.kind, ("adamw", "muon"))
        _positive("optim.lr", self.lr)
        _positive("optim.muon_lr", self.muon_lr)
        _at_least("optim.muon_steps", self.muon_steps, 1)
        _at_least("optim.warmup_steps", self.warmup_steps, 0)
        _at_least("optim.cooldown_steps", self.cooldown_steps, 0)
        _at_least("optim.accumulation", self.accumulation, 1)
        _at_least("optim.grad_clip", self.grad_clip, 0)
        for name, value in (("ema_decay", self.ema_decay), ("muon_momentum", self.muon_momentum)):
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"optim.{name} is {value}; it must be at least 0 and below 1, such as 0.95 or 0.999.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """How often the run writes what. Each is a number of steps; 0 is never."""

    log_every: int = 20
    """A line with the mean loss since the last one."""
    held_out_every: int = 500
    """The loss on held-out batches, with averaged weights and fixed noise."""
    sample_every: int = 1000
    """A sample sheet, if the task makes them."""
    checkpoint_every: int = 500
    """A checkpoint; one is always made at the end and at an interruption."""
    keep: int = 3
    """Checkpoints that stay on the disk."""

    def __post_init__(self) -> None:
        for name in ("log_every", "held_out_every", "sample_every", "checkpoint_every"):
            _at_least(f"log.{name}", getattr(self, name), 0)
        _at_least("log.keep", self.keep, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run; the sections of the TOML file."""

    run: RunConfig
    """Where the run lives and how long it is."""
    task: TaskConfig
    """What is trained."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The loss."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser, learning rate and averaging."""
    log: LogConfig = field(default_factory=LogConfig)
    """How often the run writes what."""

    def to_toml(self) -> str:
        """Return the whole configuration as TOML, defaults included."""
        return _write_table(dataclasses.asdict(self), ())


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file and apply ``section.key=value`` overrides (values in TOML, or plain words).

    Raises:
        ConfigError: the file is missing or is not TOML, a key is unknown or missing, or a value is of the wrong kind.
    """
    return from_table(read_table(path, overrides))


def read_table(path: Path, overrides: Sequence[str] = (), *, only_overrides: bool = False) -> dict[str, Any]:
    """Read a configuration file as nested tables with the overrides in them, unchecked; or the overrides alone."""
    table: dict[str, Any] = {}
    try:
        if not only_overrides:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error.strerror}); check its path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {path} is not TOML: {error}.") from error
    for override in overrides:
        _override(table, override)
    return table


def from_table(table: Mapping[str, Any]) -> TrainConfig:
    """Build a configuration from nested tables; refuses what it does not know."""
    config: TrainConfig = _read(TrainConfig, table, "")
    return config


def changed_settings(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return ``section.key -> (old, new)`` for the settings that differ."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    return {
        f"{section}.{key}": (before[section][key], after[section][key])
        for section in before
        for key in before[section]
        if before[section][key] != after[section][key]
    }


def _override(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {override!r} is not of the form section.key=value, such as optim.lr=0.001.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r} goes into {key!r}, which is a value and not a section.")
    table[keys[-1]] = value


def _read(kind: object, value: object, where: str) -> Any:  # noqa: ANN401 - of the kind that is asked for
    """Return a TOML value as the annotated kind, or raise ConfigError with the key's full name."""
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast("type", kind), value, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and isinstance(value, dict):
        return dict(value)
    if origin is tuple and isinstance(value, list | tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_read(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(args) == len(value):
            return tuple(
                _read(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
            )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise ConfigError(f"{where} is {value!r}; it must be {_describe(kind)}.")


def _read_dataclass(kind: type, value: object, where: str) -> Any:  # noqa: ANN401 - of the kind that is asked for
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; it must be a table of settings.")
    hints = typing.get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.5)
            fix = f"did you mean {prefix}{near[0]}?" if near else f"known here are: {', '.join(hints)}."
            raise ConfigError(f"There is no setting {prefix}{key}; {fix}")
    for spec in dataclasses.fields(kind):
        needed = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if needed and spec.name not in value:
            raise ConfigError(f"The setting {prefix}{spec.name} is missing; it has no default.")
    return kind(**{key: _read(hints[key], item, f"{prefix}{key}") for key, item in value.items()})


def _describe(kind: object) -> str:
    names = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    if kind in names:
        return names[kind]
    args = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
    if typing.get_origin(kind) is tuple:
        inner = "tables" if dataclasses.is_dataclass(args[0]) else _describe(args[0])
        count = "" if typing.get_args(kind)[-1] is Ellipsis else f" of {len(args)}"
        return f"a list{count} (each: {inner})"
    return "a table"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...]) -> str:
    lines = [f"[{'.'.join(_key(part) for part in path)}]"] if path else []
    lines += [f"{_key(key)} = {_value(item)}" for key, item in table.items() if not isinstance(item, Mapping)]
    head = "\n".join(lines) + "\n" if len(lines) > (1 if path else 0) or path else ""
    tables = [_write_table(item, (*path, key)) for key, item in table.items() if isinstance(item, Mapping)]
    return "\n".join(part for part in (head, *tables) if part)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ConfigError(f"{name} is {value}; it must be {low} or more.")


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(f"{name} is {value}; it must be above 0.")


def _probability(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}; a probability lies between 0 and 1.")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; it must be one of: {', '.join(allowed)}.")
