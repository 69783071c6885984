"""Training in less memory: activations made again, frozen weights of few bits, blocks that wait beside the device.

All three act on whole blocks, and none changes what a block computes: the loss is that of plain training, but for the
rounding of weights that are stored as fp8.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from .config import MemoryConfig

SCALE = "scale_weight"
"""Name of the buffer beside a float8 weight that it is multiplied with: (out, 1), or one number."""

_SMALL = (torch.float8_e4m3fn, torch.float8_e5m2)


def place(dit: nn.Module, config: MemoryConfig, device: torch.device, compute: torch.dtype) -> None:
    """Put a network on a device, its blocks stored and run as the configuration says.

    Args:
        dit: the network, with ``blocks``, its trained parameters chosen; changed in place.
        config: the savings.
        device: where it computes.
        compute: type that stored weights are brought to.

    Raises:
        ConfigError: there are fewer blocks than are to wait.
    """
    if config.checkpointing == "off":
        dit.to(device)
        return
    blocks = list(dit.get_submodule("blocks").children())
    if config.swap_blocks > len(blocks):
        raise ConfigError(
            f"memory.swap_blocks is {config.swap_blocks}; this network has {len(blocks)} blocks: use at most that."
        )
    for block in blocks:
        for module in block.modules():
            _store(module, config.base)
    waiting = _Waiting([_Stored(block, compute) for block in blocks], config.swap_blocks, device)
    for index, block in enumerate(blocks):
        block.forward = _Economical(block, index, waiting, offload=config.checkpointing == "offload")
    stay = {id(p) for stored in waiting.stored[waiting.first :] for p in stored.frozen.values()}
    for parameter in dit.parameters():
        if id(parameter) not in stay:
            parameter.data = parameter.data.to(device)
    for module in dit.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


def _store(module: nn.Module, base: str) -> None:
    """Replace a module's frozen weights by what they are stored as."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.requires_grad or base == "as is" or parameter.dtype in _SMALL:
            continue
        stored = parameter.detach().bfloat16()
        if base == "fp8" and isinstance(module, nn.Linear) and name == "weight":
            stored, scale = to_float8(parameter.detach())
            module.register_buffer(SCALE, scale, persistent=False)
        setattr(module, name, nn.Parameter(stored, requires_grad=False))


def to_float8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix (out, in) as float8 and its scale (out, 1), float32: the largest number of a row is 448."""
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


class _Stored:
    """The frozen weights of a block, as stored, and how they become what the block computes with."""

    def __init__(self, block: nn.Module, compute: torch.dtype) -> None:
        self.block, self.compute = block, compute
        self.frozen = {name: p for name, p in block.named_parameters() if not p.requires_grad}
        buffers = dict(block.named_buffers())
        places = {name: name.removesuffix(".weight") + f".{SCALE}" for name in self.frozen if name.endswith(".weight")}
        self.scales = {name: buffers[place] for name, place in places.items() if place in buffers}

    def wait(self, *, pinned: bool) -> None:
        """Move the weights beside the device, and keep them there."""
        for parameter in self.frozen.values():
            waiting = parameter.detach().cpu()
            parameter.data = waiting.pin_memory() if pinned else waiting

    def brought(self, device: torch.device) -> dict[str, Tensor]:
        """Return the weights on a device, in the computing type."""
        return {name: self._computed(name, p.detach().to(device, non_blocking=True)) for name, p in self.frozen.items()}

    def _computed(self, name: str, weight: Tensor) -> Tensor:
        scale = self.scales.get(name)
        if scale is None:
            return weight.to(self.compute)
        factor = scale.to(weight.device).reshape(-1, *(1,) * (weight.ndim - 1))
        return (weight.float() * factor).to(self.compute)

    @property
    def is_ready(self) -> bool:
        """Whether the block computes with its parameters as they are."""
        return not self.scales and all(p.dtype == self.compute for p in self.frozen.values())


class _Waiting:
    """Brings the frozen weights of blocks when it is their turn, and those of the next block meanwhile."""

    def __init__(self, stored: Sequence[_Stored], num_waiting: int, device: torch.device) -> None:
        self.stored, self.device = stored, device
        self.first = len(stored) - num_waiting
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._coming: dict[int, dict[str, Tensor]] = {}
        for block in stored[self.first :]:
            block.wait(pinned=device.type == "cuda")

    def take(self, index: int, direction: int) -> dict[str, Tensor]:
        """Return the weights of a block, none where it has them; the next one's in that direction start to come."""
        if index < self.first:
            stored = self.stored[index]
            return {} if stored.is_ready else stored.brought(self.device)
        weights = self._coming.pop(index, None) or self._bring(index)
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            for tensor in weights.values():
                tensor.record_stream(torch.cuda.current_stream(self.device))
        following = index + direction
        self._coming.clear()
        if self.stream is not None and self.first <= following < len(self.stored):
            self._coming[following] = self._bring(following)
        return weights

    def _bring(self, index: int) -> dict[str, Tensor]:
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            return self.stored[index].brought(self.device)


class _Original(nn.Module):
    """A block as a part of a module, so that its own forward can be called with other weights."""

    def __init__(self, block: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.block, self.original = block, forward

    def forward(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - what a block takes and gives
        return self.original(*args, **options)


class _Economical:
    """Runs a block: its weights are brought in, and its activations made again in the backward pass."""

    def __init__(self, block: nn.Module, index: int, waiting: _Waiting, *, offload: bool) -> None:
        self.original = _Original(block, block.forward)
        self.index, self.waiting, self.offload = index, waiting, offload
        self.direction = 1

    def __call__(self, x: Tensor, *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - what a block takes and gives
        """Run the block."""

        def run(tokens: Tensor) -> Any:  # noqa: ANN401 - what a block gives
            weights = self.waiting.take(self.index, self.direction)
            named = {f"block.{name}": weight for name, weight in weights.items()}
            return torch.func.functional_call(self.original, named, (tokens, *rest), options)

        if not torch.is_grad_enabled():
            return run(x)
        with torch.autograd.graph.save_on_cpu(pin_memory=x.is_cuda) if self.offload else nullcontext():
            return checkpoint(run, x, use_reentrant=False, context_fn=self._directions)

    def _directions(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._backwards()

    @contextmanager
    def _backwards(self) -> Iterator[None]:
        self.direction = -1
        try:
            yield
        finally:
            self.direction = 1
