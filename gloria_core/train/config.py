"""The trainer's settings: a TOML file read into frozen dataclasses, and written out again with every default."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..tables import at_least, between, one_of, positive, probability, read_dataclass, read_table, write_toml

_TOO_MANY_MUON_STEPS = 100
"""As torch's Muon has it."""


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
    parallel: str = "replicate"
    """What several processes do: ``replicate`` (each has the whole network) or ``shard`` (each has a part of every
    weight, its gradient and what the optimiser remembers; for networks that do not fit onto one card)."""
    shard_size: int = 0
    """Processes that share one copy of a sharded network, such as the cards of one machine; 0 is all."""
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
        at_least("run.total_steps", self.total_steps, 1)
        between("run.seed", self.seed, -(2**63), 2**64 - 1)
        between("run.threads", self.threads, 1, 1024)
        at_least("run.prefetch", self.prefetch, 0)
        one_of("run.device", self.device, ("auto", "cpu", "cuda"))
        one_of("run.parallel", self.parallel, ("replicate", "shard"))
        at_least("run.shard_size", self.shard_size, 0)
        one_of("run.precision", self.precision, ("auto", "fp32", "bf16"))


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """What is trained: a class that follows the ``TrainingTask`` protocol."""

    target: str
    """Dotted path of the class, ``package.module:Class``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodConfig:
    """How much of the network is trained."""

    kind: str = "full"
    """``full``: the weights themselves, as ``run.train`` and ``run.freeze`` say. ``lora``, ``lokr``, ``loha``: small
    adapters beside frozen weights."""
    preset: str = "character"
    """Layers that get an adapter: ``identity`` (self-attention, where anchors are heeded), ``performance``
    (cross-attention; the audio branch is trained whole beside it), ``character`` (all attention and feed-forward) or
    ``none``."""
    layers: tuple[str, ...] = ()
    """Name patterns of more linear layers, such as ``head.head`` or ``blocks.3.ffn.*``."""
    blocks: tuple[int, ...] = ()
    """Only blocks from the first number to below the second; empty is all."""
    rank: int = 32
    """Rank of an adapter's matrices. More follows more detail, and takes more memory and more footage."""
    alpha: float = 0.0
    """The adapter's change is scaled by alpha / rank; 0 takes alpha = rank."""
    dropout: float = 0.0
    """Probability that a number on the way into an adapter is left out in a step (LoKr, LoHa: the whole adapter)."""
    full: tuple[str, ...] = ()
    """Name patterns (``dit.*audio*``) of parameters trained whole beside the adapters."""

    def __post_init__(self) -> None:
        if self.kind == "dora":
            raise ConfigError(
                "method.kind 'dora' is not offered: ComfyUI's loader divides by the norm of another matrix than the "
                "training does, so a DoRA comes out about 6 % off. Use 'lora' with a higher rank."
            )
        one_of("method.kind", self.kind, ("full", "lora", "lokr", "loha"))
        one_of("method.preset", self.preset, ("identity", "performance", "character", "none"))
        at_least("method.rank", self.rank, 1)
        at_least("method.alpha", self.alpha, 0)
        probability("method.dropout", self.dropout)
        if self.blocks and not (len(self.blocks) == 2 and 0 <= self.blocks[0] < self.blocks[1]):
            raise ConfigError(f"method.blocks is {list(self.blocks)}; give two numbers, such as [0, 20], or none.")

    @property
    def scale_alpha(self) -> float:
        """The alpha that counts."""
        return self.alpha or float(self.rank)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryConfig:
    """What is saved on the device, and at which price."""

    checkpointing: str = "off"
    """``off``; ``blocks``: activations inside a block are made again in the backward pass (a third slower, far less
    memory); ``offload``: what is kept between blocks waits in the machine's memory too."""
    base: str = "as is"
    """How frozen weights of the blocks are stored: ``as is``, ``bf16``, or ``fp8`` (a number a byte, a scale for each
    row). They are brought to the computing type block by block, which needs ``checkpointing``."""
    swap_blocks: int = 0
    """Blocks whose frozen weights wait in the machine's memory and come to the device only when it is their turn, the
    next one while the last works. Needs ``checkpointing``. Raise it until the training fits."""

    def __post_init__(self) -> None:
        one_of("memory.checkpointing", self.checkpointing, ("off", "blocks", "offload"))
        one_of("memory.base", self.base, ("as is", "bf16", "fp8"))
        at_least("memory.swap_blocks", self.swap_blocks, 0)
        if self.checkpointing == "off" and (self.base != "as is" or self.swap_blocks):
            raise ConfigError(
                f"memory.base is {self.base!r} and memory.swap_blocks is {self.swap_blocks}: without checkpointing the "
                "weights brought in would all be kept for the backward pass; set memory.checkpointing to 'blocks'."
            )


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
        one_of("objective.sigmas.kind", self.kind, ("uniform", "logit_normal"))
        positive("objective.sigmas.weight", self.weight)
        positive("objective.sigmas.shift", self.shift)
        positive("objective.sigmas.std", self.std)
        between("objective.sigmas.mean", self.mean, -20.0, 20.0)
        if not 0.0 <= self.low < self.high <= 1.0:
            raise ConfigError(
                f"objective.sigmas has low = {self.low} and high = {self.high}; noise levels need 0 <= low < high <= 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig:
    """The flow-matching loss. Paper: 4.2."""

    sigmas: tuple[SigmaConfig, ...] = field(default_factory=lambda: (SigmaConfig(),))
    """Mixture of noise level distributions."""
    preset: str = ""
    """Takes the mixture from a preset instead: ``audio`` (stage I), ``video`` (stage II), ``anchors`` (stage III and
    character LoRAs); see `objective.PRESETS`."""
    stratified: bool = True
    """Spread the noise levels of a batch evenly over the distribution instead of drawing each alone."""
    text_dropout: float = 0.1
    """Probability that a clip is trained without its text, for guidance."""
    audio_dropout: float = 0.1
    """Probability that a clip is trained without its sound, for guidance."""
    padding_id: int = 0
    """Token id that fills the words of a clip without text."""

    def __post_init__(self) -> None:
        one_of("objective.preset", self.preset, ("", "audio", "video", "anchors"))
        probability("objective.text_dropout", self.text_dropout)
        probability("objective.audio_dropout", self.audio_dropout)
        if not self.sigmas:
            raise ConfigError("objective.sigmas is empty; leave it out for uniform noise levels.")


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Optimiser, learning rate and averaging."""

    kind: str = "adamw"
    """``adamw``; ``muon``: Muon for the matrices that ``muon_params`` names, AdamW for all else; ``adafactor``; or any
    optimiser by its dotted name, such as ``torchao.optim.AdamW8bit`` (a quarter of AdamW's memory)."""
    options: dict[str, Any] = field(default_factory=dict)
    """More keyword arguments of the optimiser."""
    lr: float = 1e-3
    """Learning rate after the warm-up; with Muon, AdamW's."""
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
    muon_params: tuple[str, ...] = ("dit.*blocks.*",)
    """Name patterns of the matrices that Muon takes; only tensors of two dimensions are taken."""
    warmup_steps: int = 100
    """Steps over which the rate rises linearly from 0."""
    schedule: str = "constant"
    """What the rate does after the warm-up: ``constant``, or ``linear`` or ``cosine`` down to ``lr_end``."""
    lr_end: float = 0.0
    """Share of the rate that ``linear`` and ``cosine`` end at."""
    cooldown_steps: int = 0
    """Last steps of the run over which the rate falls linearly to 0; 0 keeps it constant."""
    grad_clip: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""
    accumulation: int = 1
    """Micro-batches whose gradients are averaged for one step."""
    ema_decay: float = 0.999
    """Decay of the averaged weights per step; 0 averages nothing (they equal the weights)."""

    def __post_init__(self) -> None:
        if "." not in self.kind:
            one_of("optim.kind", self.kind, ("adamw", "muon", "adafactor"))
        one_of("optim.schedule", self.schedule, ("constant", "linear", "cosine"))
        probability("optim.lr_end", self.lr_end)
        positive("optim.lr", self.lr)
        positive("optim.muon_lr", self.muon_lr)
        at_least("optim.weight_decay", self.weight_decay, 0)
        if not 1 <= self.muon_steps < _TOO_MANY_MUON_STEPS:
            raise ConfigError(f"optim.muon_steps is {self.muon_steps}; use 1 to {_TOO_MANY_MUON_STEPS - 1}, such as 5.")
        at_least("optim.warmup_steps", self.warmup_steps, 0)
        at_least("optim.cooldown_steps", self.cooldown_steps, 0)
        at_least("optim.accumulation", self.accumulation, 1)
        at_least("optim.grad_clip", self.grad_clip, 0)
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
            at_least(f"log.{name}", getattr(self, name), 0)
        at_least("log.keep", self.keep, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """What the files that come of the run say of themselves, to loaders and to LoRA managers."""

    file: str = ""
    """The file that a finished job writes, relative to its folder; empty takes the title."""
    title: str = ""
    """A name for people; empty takes the run folder's."""
    author: str = ""
    """Who made it."""
    description: str = ""
    """What it is good for."""
    license: str = ""
    """Under which terms others may use it."""
    trigger_phrase: str = ""
    """Words that call for what was learned."""
    tags: tuple[str, ...] = ()
    """Words to find it by."""
    precision: str = "fp32"
    """Type of the numbers in exported files: ``fp32``, ``bf16`` or ``fp16``."""
    private: bool = False
    """Leave out settings, paths and captions' words: whoever gets the file learns nothing of the footage."""

    def __post_init__(self) -> None:
        one_of("output.precision", self.precision, ("fp32", "bf16", "fp16"))


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
    method: MethodConfig = field(default_factory=MethodConfig)
    """How much of the network is trained."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """What is saved on the device."""
    log: LogConfig = field(default_factory=LogConfig)
    """How often the run writes what."""
    output: OutputConfig = field(default_factory=OutputConfig)
    """What the run's files say of themselves."""

    def __post_init__(self) -> None:
        if self.method.kind == "full" and self.memory.base != "as is":
            raise ConfigError(
                f"memory.base is {self.memory.base!r} and method.kind is 'full': weights that are trained, and saved "
                "whole, must not be rounded; use 'as is', or train adapters (method.kind = 'lora')."
            )

    def to_toml(self) -> str:
        """Return the whole configuration as TOML, defaults included."""
        return write_toml(self)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file and apply ``section.key=value`` overrides (values in TOML, or plain words).

    Raises:
        ConfigError: the file is missing or is not TOML, a key is unknown or missing, or a value is of the wrong kind.
    """
    return from_table(read_table(path, overrides))


def from_table(table: Mapping[str, Any]) -> TrainConfig:
    """Build a configuration from nested tables; refuses what it does not know."""
    return read_dataclass(TrainConfig, table)


def changed_settings(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return ``section.key -> (old, new)`` for the settings that differ."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    return {
        f"{section}.{key}": (before[section][key], after[section][key])
        for section in before
        for key in before[section]
        if before[section][key] != after[section][key]
    }
