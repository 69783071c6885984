"""What a training will take, before its first step: memory of card and machine, disk, and time.

One step is run without numbers (on torch's ``meta`` device), with every tensor that it holds counted; the rest is
arithmetic. How true it is, is measured: see ``docs/training.md``.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import ModelConfig
from ..model import GloriaDiT
from ..types import Anchor, AnchorRole, AnchorSet, TrainBatch
from . import method, objective
from .config import MemoryConfig, TrainConfig
from .live_bytes import LiveBytes
from .memory import place
from .objective import Draw

CARDS = {"3090": 71e12, "4090": 165e12, "5090": 209e12, "A100": 312e12, "H100": 989e12, "H200": 989e12}
"""Dense bf16 FLOP/s by a part of the card's name. Source: performance.md section 1.3."""
_USED = 0.4
"""Share of them that training reaches; published trainings reach 0.35 to 0.6. Source: performance.md section 1.3."""
_RUNTIME = 0.9e9
"""Bytes that Python, torch and the pack take by themselves; measured, on a CPU."""
_OPTIMIZER = {"adamw": 8.0, "muon": 8.0, "adafactor": 0.1}
"""Bytes that an optimiser remembers of a number; torchao's 8-bit ones two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipShape:
    """What a batch looks like; sizes in latents."""

    num_latents: int
    height: int
    width: int
    batch_size: int = 1
    num_prefix: int = 0
    text_rows: int = 512
    anchors: tuple[tuple[AnchorRole, str, int, int], ...] = ()
    """Role, slot, height and width of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a training will take; bytes, seconds, FLOPs."""

    num_trained: int
    """Numbers that are trained."""
    weights: int
    optimizer: int
    """Gradients, what the optimiser remembers, averaged weights."""
    activations: int
    """The most that a step holds beside those."""
    waiting: int
    """What waits in the machine's memory beside the card."""
    checkpoint: int
    """One checkpoint with its resume state."""
    flops: int
    """Of one optimiser step."""
    seconds: float | None
    """Of one step; None where the device's speed is not known."""

    @property
    def device(self) -> int:
        """Memory of the device where it computes."""
        return self.weights + self.optimizer + self.activations

    @property
    def machine(self) -> float:
        """Memory of the machine beside the device; where it computes itself, beside what the device would take."""
        return self.waiting + _RUNTIME

    def told(self, config: TrainConfig) -> str:
        """Tell it to a person, in lines."""
        on_cpu = config.run.device == "cpu"
        memory = self.device + self.machine if on_cpu else self.device
        steps = config.run.total_steps
        lines = [
            f"{_count(self.num_trained)} numbers are trained ({config.method.kind}).",
            f"{'Memory' if on_cpu else 'Memory of the card'}: about {memory / 1e9:.1f} GB (weights "
            f"{self.weights / 1e9:.1f}, gradients and optimiser {self.optimizer / 1e9:.1f}, activations "
            f"{self.activations / 1e9:.1f}).",
            f"Disk: {self.checkpoint / 1e9:.2f} GB a checkpoint, {self.checkpoint * config.log.keep / 1e9:.2f} GB for "
            f"the {config.log.keep} that are kept.",
        ]
        if not on_cpu:
            lines.insert(2, f"Memory of the machine: about {self.machine / 1e9:.1f} GB.")
        if self.seconds is not None:
            lines.append(f"Time: about {_time(self.seconds)} a step, {_time(self.seconds * steps)} for {steps} steps.")
        return "\n".join(lines)


def estimate(config: TrainConfig, model: ModelConfig, shape: ClipShape, speed: float | None = None) -> Estimate:
    """Estimate a training.

    Args:
        config: its settings.
        model: the network.
        shape: what its batches look like; the largest, where there are several.
        speed: FLOP/s that the device reaches; None leaves the time open. See `device_speed`.

    Raises:
        ConfigError: the settings do not fit the network.
    """
    bf16 = config.run.precision == "bf16" or (config.run.precision == "auto" and config.run.device != "cpu")
    counter = _FusedAttention()
    dit = GloriaDiT(model, device="meta", dtype=torch.bfloat16 if bf16 else torch.float32, attention=counter)
    method.add_adapters(dit, config.method, 0)
    dit.to("meta")
    for name, parameter in dit.named_parameters():
        if method.is_adapter(name):  # as autocast brings them
            parameter.data = parameter.data.to(dit.dtype)
    trained, _ = method.choose_trained({"dit": dit}, config.run, config.method)
    num_trained = sum(p.numel() for p in trained.values())
    weights, waiting = _weights(dit, config, bf16)
    block = max(sum(p.numel() for p in b.parameters() if not p.requires_grad) for b in dit.blocks)
    kept_small = replace(config.memory, swap_blocks=0, checkpointing=_plain(config.memory))
    place(dit, kept_small, torch.device("meta"), torch.bfloat16 if bf16 else torch.float32)
    peak, flops = _step(dit, shape, model, counter)
    frozen = sum(p.numel() for p in dit.parameters() if not p.requires_grad)
    if bf16 and config.memory.base == "as is" and _held(config) == "fp32" and not config.memory.swap_blocks:
        peak += 2 * (frozen if config.memory.checkpointing == "off" else block)  # copies in the computing type
    if config.memory.swap_blocks:
        brought = 1 if config.memory.base == "as is" else 0  # else it was counted among what the step makes
        peak += (1 + brought) * block * (2 if bf16 else 4)  # the block that comes, and the one that works
    if config.memory.checkpointing == "offload":
        between = (model.num_layers - 1) * _tokens(shape, model) * model.dim * (2 if bf16 else 4) * shape.batch_size
        peak, waiting = peak - between, waiting + between
    flops *= config.optim.accumulation
    optimizer = round(num_trained * (8 + _remembered(config.optim.kind)))  # gradients, averaged weights
    saved = num_trained if config.method.kind != "full" else sum(p.numel() for p in dit.parameters())
    return Estimate(
        num_trained=num_trained,
        weights=weights,
        optimizer=optimizer,
        activations=peak,
        waiting=waiting,
        checkpoint=round(4 * (saved + num_trained) + _remembered(config.optim.kind) * num_trained),
        flops=flops,
        seconds=flops / speed if speed else None,
    )


def device_speed(device: torch.device, precision: torch.dtype = torch.float32) -> float | None:
    """Return the FLOP/s that training reaches on a device: by the card's name, or measured, on a CPU, in a moment.

    Returns:
        None for a card that is not in the table.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((_USED * speed for part, speed in CARDS.items() if part in name), None)
    side = 512
    a, b = torch.randn(side, side, dtype=precision), torch.randn(side, side, dtype=precision)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 0.2:
        a @ b
        count += 1
    return 0.7 * 2 * side**3 * count / (time.perf_counter() - began)


def _weights(dit: nn.Module, config: TrainConfig, bf16: bool) -> tuple[int, int]:
    """Return the bytes of the weights on the device, and of those that wait beside it."""
    blocks = list(dit.get_submodule("blocks").children())
    first = len(blocks) - config.memory.swap_blocks
    in_blocks = {id(p): index for index, b in enumerate(blocks) for p in b.parameters()}
    here = beside = 0
    for parameter in dit.parameters():
        index = in_blocks.get(id(parameter))
        if parameter.requires_grad:
            here += 4 * parameter.numel() + (2 * parameter.numel() if bf16 else 0)  # and autocast's copy
            continue
        size = _stored_bytes(parameter, config, in_block=index is not None, bf16=bf16)
        if index is not None and index >= first:
            beside += size
        else:
            here += size
    return here, beside


def _stored_bytes(parameter: Tensor, config: TrainConfig, *, in_block: bool, bf16: bool) -> int:
    if not in_block or config.memory.base == "as is":
        return parameter.numel() * (2 if _held(config) == "bf16" else 4)
    if config.memory.base == "fp8" and parameter.ndim == 2:
        return parameter.numel() + 4 * parameter.shape[0]
    return 2 * parameter.numel()


def _held(config: TrainConfig) -> str:
    held: str = config.task.options.get("weights_dtype", "fp32")
    return held


def _plain(memory: MemoryConfig) -> str:
    return "blocks" if memory.checkpointing == "offload" else memory.checkpointing


def _remembered(kind: str) -> float:
    return _OPTIMIZER.get(kind, 2.0 if "8bit" in kind else 8.0)


def _step(dit: GloriaDiT, shape: ClipShape, model: ModelConfig, attention: "_FusedAttention") -> tuple[int, int]:
    """Run a step without numbers; return the most bytes that it holds beside weights and gradients, and its FLOPs.

    Each is counted in a run of its own: torch's counter of FLOPs holds tensors back.
    """
    batch = _batch(shape, model, dit.dtype)
    keep = torch.ones(shape.batch_size, dtype=torch.bool, device="meta")
    sigma = torch.empty(shape.batch_size, device="meta", dtype=dit.dtype)
    drawn = Draw(sigma, torch.empty_like(batch.latents), keep, keep)
    for parameter in dit.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    held = [*dit.parameters(), *dit.buffers(), *(p.grad for p in dit.parameters() if p.grad is not None)]
    live, counter = LiveBytes(held), FlopCounterMode(display=False)
    for counting in (live, counter):
        attention.flops = 0
        with counting:
            objective.clip_losses({"dit": dit}, batch, drawn).mean().backward()
    return live.peak, counter.get_total_flops() + attention.flops


def _batch(shape: ClipShape, model: ModelConfig, dtype: torch.dtype) -> TrainBatch:
    count, channels, audio = shape.batch_size, model.out_channels, model.audio

    def empty(*sizes: int) -> Tensor:
        return torch.empty(sizes, device="meta", dtype=dtype)

    anchors = tuple(Anchor(role, slot, empty(count, channels, 1, h, w)) for role, slot, h, w in shape.anchors)
    heard = None if audio is None else empty(count, shape.num_latents, audio.window, audio.window_dim)
    more = model.in_channels - channels
    return TrainBatch(
        empty(count, channels, shape.num_latents, shape.height, shape.width),
        context=empty(count, shape.text_rows, model.text_dim),
        num_prefix=shape.num_prefix,
        audio=heard,
        anchors=AnchorSet(anchors) if anchors else None,
        image=empty(count, more, shape.num_latents, shape.height, shape.width) if more else None,
        clip_fea=empty(count, model.clip_length, model.clip_dim) if model.clip_dim else None,
    )


def _tokens(shape: ClipShape, model: ModelConfig) -> int:
    _, rows, columns = model.patch_size
    video = shape.num_latents * -(-shape.height // rows) * -(-shape.width // columns)
    return video + sum(-(-h // rows) * -(-w // columns) for _, _, h, w in shape.anchors)


class _FusedAttention:
    """Attention without numbers that keeps what fused kernels keep, and counts its FLOPs."""

    def __init__(self) -> None:
        self.flops = 0

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        *,
        low_precision: bool = True,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        made: Tensor = _Fused.apply(self, q, k, v)
        return made


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, counter: _FusedAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        ctx.counter, ctx.flops = counter, 4 * q.numel() * k.shape[1]
        counter.flops += ctx.flops
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's
        q, k, v, _ = ctx.saved_tensors
        ctx.counter.flops += ctx.flops * 5 // 2
        return None, torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.2f} million"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
