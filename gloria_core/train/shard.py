"""One network over many graphics cards: FSDP2 cuts every parameter into shards, one for each process.

Every process works on clips of its own; a block's whole weights are gathered just before it runs. Checkpoints do not
depend on the number of processes: weights are gathered into one file, and what optimisers remember goes through torch's
distributed checkpoints, which cut it anew when it comes back. Source: training.md section D.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import CheckpointError, ConfigError, GloriaError
from ..types import TrainBatch
from .config import TrainConfig
from .process import World


class UnlikeBatchesError(GloriaError):
    """The processes' batches would take different ways through the network, and wait for each other for ever."""


def shard(modules: Mapping[str, nn.Module], world: World, shard_size: int) -> None:
    """Cut the parameters of networks into shards, in place.

    Args:
        modules: the networks, on the process's device. Each process has the whole of them before.
        world: all processes.
        shard_size: processes that share one copy, such as those of one machine; 0 is all of them.

    Raises:
        ConfigError: the processes cannot be shared out so.
    """
    size = shard_size or world.size
    if world.size % size:
        raise ConfigError(f"run.shard_size is {size}, which does not divide the {world.size} processes.")
    kind = world.device.type
    mesh = init_device_mesh(kind, (size,) if size == world.size else (world.size // size, size))
    for module in modules.values():
        for block in _blocks(module):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)


def _blocks(module: nn.Module) -> list[nn.Module]:
    return [block for name, block in module.named_children() if name == "blocks" for block in block.children()]


def check_sharding(config: TrainConfig) -> None:
    """Raise ConfigError where a setting does not go together with shards."""
    if config.run.parallel != "shard":
        return
    if config.memory.base != "as is" or config.memory.swap_blocks:
        raise ConfigError(
            "memory.base and memory.swap_blocks save what shards save too, and do not go together with run.parallel = "
            "'shard': set them to 'as is' and 0."
        )
    if config.optim.kind == "muon":
        raise ConfigError("Muon needs whole matrices: with run.parallel = 'shard' take optim.kind = 'adamw'.")


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, sharing its memory; itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """Return a whole tensor from its shards; every process has to ask for the same ones in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill(target: Tensor, whole: Tensor) -> None:
    """Put a whole tensor's numbers into a tensor that may be in shards."""
    if isinstance(target, DTensor):
        cut = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
        local(target).copy_(local(cut))
    else:
        target.copy_(whole)


class ShardedGradients:
    """The gradients of parameters in shards, with a few numbers that are added up beside them."""

    def __init__(self, parameters: Iterable[nn.Parameter], num_extra: int) -> None:
        self._parameters = list(parameters)
        self.extra = torch.zeros(num_extra, device=self._parameters[0].device)

    def zero(self) -> None:
        """Forget the gradients, and set the numbers to zero."""
        self.extra.zero_()
        for parameter in self._parameters:
            parameter.grad = None

    def average(self, world: World, accumulation: int) -> None:
        """Add the numbers up over all processes, and make the gradients means; the shards are averaged already."""
        world.sum_(self.extra)
        for parameter in self._parameters:
            if parameter.grad is None:  # no batch has used it
                parameter.grad = torch.zeros_like(parameter)
            local(parameter.grad).div_(accumulation)

    def clip(self, max_norm: float) -> float:
        """Scale the gradients down to a norm of at most ``max_norm`` (0: leave them) and return the norm they had."""
        parts = [local(p.grad) for p in self._parameters if p.grad is not None]
        square = torch.stack([part.float().square().sum() for part in parts]).sum()
        square = square / _copies(self._parameters[0])
        dist.all_reduce(square)
        norm = float(square.sqrt())
        if 0.0 < max_norm < norm:
            for part in parts:
                part.mul_(max_norm / norm)
        return norm


def _copies(parameter: Tensor) -> int:
    """Return how many processes hold the same shard."""
    assert isinstance(parameter, DTensor)
    mesh = parameter.device_mesh
    return mesh.size(0) if mesh.ndim == 2 else 1


def check_alike(batch: TrainBatch, world: World, *, passes_apart: bool) -> None:
    """Raise UnlikeBatchesError where the processes' batches would run the blocks in different numbers of passes.

    Args:
        batch: this process's.
        world: all processes.
        passes_apart: whether anchors and prefix run through the blocks by themselves (the cached mode).
    """
    sizes = {tuple(anchor.latent.shape[-2:]) for anchor in batch.anchors or ()}
    own = [float(batch.audio is not None), *([float(len(sizes)), float(batch.num_prefix > 0)] if passes_apart else [])]
    told = torch.tensor(own, device=world.device)
    low, high = told.clone(), told.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN)
    dist.all_reduce(high, dist.ReduceOp.MAX)
    if not torch.equal(low, high):
        raise UnlikeBatchesError(
            "The processes drew batches of different kinds (with and without sound, or, in the cached mode, with "
            "different numbers of anchor sizes or prefixes); with run.parallel = 'shard' they would wait for each "
            "other for ever. Train with joint attention (task.options.attention = 'joint'), or with run.parallel = "
            "'replicate'."
        )


def save_optimizers(names: Mapping[int, str], optimizers: Sequence[torch.optim.Optimizer], folder: Path) -> None:
    """Write what optimisers remember of parameters in shards; all processes together.

    Args:
        names: full names of the parameters by ``id``.
        optimizers: what remembers.
        folder: is made.
    """
    dcp.save(_remembered(names, optimizers), checkpoint_id=folder)


def load_optimizers(names: Mapping[int, str], optimizers: Sequence[torch.optim.Optimizer], folder: Path) -> None:
    """Bring back what `save_optimizers` wrote, whatever the number of processes was then.

    Raises:
        CheckpointError: the folder is damaged, or belongs to other parameters.
    """
    for optimizer in optimizers:
        _begin(optimizer)
    state = _remembered(names, optimizers)
    try:
        dcp.load(state, checkpoint_id=folder)
    except (OSError, RuntimeError, ValueError, dcp.api.CheckpointException) as error:
        raise CheckpointError(f"{folder} cannot be taken up ({error}); start a new run with run.init_from.") from error


def _begin(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimiser make room for what it remembers: a step of nothing."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _remembered(names: Mapping[int, str], optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{names[id(parameter)]}/{key}": value
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }
