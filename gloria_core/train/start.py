"""How a run begins: the task's networks, what an earlier run left, adapters, and what of all that is trained."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..protocols import TrainingTask
from ..whole import written_whole
from . import memory, method, optim
from . import shard as shards
from .config import RunConfig, TrainConfig
from .process import World
from .state import BASE, OTHER_BASE, START_FILE, TrainState, latest_checkpoint, load_checkpoint, read_metadata, some


def load_task(target: str, options: Mapping[str, Any]) -> TrainingTask:
    """Import a task class by its dotted path ``package.module:Class`` and build it.

    Raises:
        ConfigError: the path does not name a class that can be imported, or the class does not take the options.
    """
    module_name, colon, class_name = target.partition(":")
    if not colon or not module_name or not class_name:
        raise ConfigError(f"task.target is {target!r}; write it as package.module:Class.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"task.target names the module {module_name!r}, which cannot be imported: {error}."
        ) from error
    if not hasattr(module, class_name):
        raise ConfigError(f"task.target names {class_name!r}, which {module_name} does not have.")
    try:
        task: TrainingTask = getattr(module, class_name)(**options)
    except TypeError as error:
        raise ConfigError(f"task.options does not fit {target}: {error}.") from error
    return task


def new_state(task: TrainingTask, config: TrainConfig, world: World) -> TrainState:
    """Build the networks on a process's device, from ``run.init_from`` where it is set, and their optimisers."""
    shards.check_sharding(config)
    device = world.device
    modules = dict(task.modules())
    if "dit" not in modules or any("." in key for key in modules):
        raise ConfigError(
            f"The task's modules are {sorted(modules)}; one must be called 'dit', and no name may have a dot."
        )
    start = Path(config.run.init_from) if config.run.init_from else None
    saved = None if start is None else _read_start(start, config)
    if saved is not None and not saved.is_adapter:
        _start_from(modules, saved, config.run.init_new)
    method.add_adapters(modules["dit"], config.method, config.run.seed)
    trained, frozen = method.choose_trained(modules, config.run, config.method)
    begun = _begun(trained, config, task.new_parameters)
    if saved is not None and saved.is_adapter:
        _start_adapters(trained, saved)
    base = method.fingerprint(frozen) if config.method.kind != "full" else ""
    if saved is not None and saved.is_adapter and saved.base != base:
        raise CheckpointError(OTHER_BASE.format(path=saved.path))
    del frozen  # may be stored anew in fewer bits, and would stay beside that
    compute = computing(config.run, device)
    if compute != torch.float32:
        method.share_inputs(modules["dit"])
    for key, module in modules.items():
        if key == "dit":
            memory.place(module, config.memory, device, compute)
        else:
            module.to(device)
        module.train()
    if config.run.parallel == "shard":
        shards.shard(modules, world, config.run.shard_size)
        cut = optim.named_parameters(modules)
        trained = {name: cut[name] for name in trained}
    return TrainState(
        modules=modules,
        trained=trained,
        optimizers=optim.make_optimizers(trained, config.optim),
        ema=optim.Ema(trained, config.optim.ema_decay),
        begun=begun,
        base=base,
    )


def _begun(trained: Mapping[str, nn.Parameter], config: TrainConfig, new: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the first values of what is trained whole beside adapters."""
    if config.method.kind == "full":
        return {}
    whole = {name: p for name, p in trained.items() if not method.is_adapter(name)}
    return {name: torch.zeros_like(p) if optim.matches(name, new) else p.detach().clone() for name, p in whole.items()}


def computing(config: RunConfig, device: torch.device) -> torch.dtype:
    """Return the type that the networks compute in."""
    kind = config.precision
    bf16 = device.type == "cuda" if kind == "auto" else kind == "bf16"
    return torch.bfloat16 if bf16 else torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """A checkpoint that a run starts from."""

    path: Path
    modules: dict[str, dict[str, Tensor]]
    base: str
    """Fingerprint of the weights that its adapters stand beside; empty for whole weights."""

    @property
    def is_adapter(self) -> bool:
        return bool(self.base)


def _read_start(path: Path, config: TrainConfig) -> _Start:
    file = latest_checkpoint(path) if path.is_dir() else path
    start = _Start(path, load_checkpoint(file), read_metadata(file).get(BASE, ""))
    if start.is_adapter and config.method.kind == "full":
        raise CheckpointError(
            f"run.init_from {path} holds adapters, and method.kind is 'full': merge them into their base first "
            "(python -m gloria_core.train.export RUN --merge), or go on with the same kind of adapters."
        )
    return start


def _start_from(modules: Mapping[str, nn.Module], start: _Start, new: tuple[str, ...]) -> None:
    for key, module in modules.items():
        own = module.state_dict()
        tensors = {n: t for n, t in start.modules.get(key, {}).items() if not optim.matches(f"{key}.{n}", new)}
        lacking = [name for name in own if name not in tensors and not optim.matches(f"{key}.{name}", new)]
        wrong = [name for name in tensors if name not in own or own[name].shape != tensors[name].shape]
        if lacking or wrong:
            raise CheckpointError(
                f"run.init_from {start.path} does not fit {key}: lacking {some(lacking)}; unknown or of another shape "
                f"{some(wrong)}. Use a checkpoint of the same model, or name new parameters in run.init_new."
            )
        module.load_state_dict(tensors, strict=False)


def _start_adapters(trained: Mapping[str, nn.Parameter], start: _Start) -> None:
    given = {f"{key}.{name}": t for key, tensors in start.modules.items() for name, t in tensors.items()}
    wrong = sorted(n for n in trained.keys() ^ given.keys()) + sorted(
        n for n in trained.keys() & given.keys() if trained[n].shape != given[n].shape
    )
    if wrong:
        raise CheckpointError(
            f"run.init_from {start.path} holds other adapters than this run trains ({some(wrong)}); use the same "
            "method.kind, rank, preset, layers, blocks and full."
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(given[name])


def write_start(state: TrainState, folder: Path) -> None:
    """Write the first values of what is trained whole beside adapters, once: a LoRA file holds the difference."""
    path = folder / START_FILE
    if state.begun and not path.exists():
        with written_whole(path, advice="nothing was trained yet") as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in state.begun.items()}, partial)
    state.begun.clear()
