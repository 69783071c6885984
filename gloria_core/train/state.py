"""What a run is made of at a given step, and how it goes to the disk and comes back exactly."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoint.keys import PREFIX
from ..errors import CheckpointError, ConfigError
from ..protocols import TrainingTask
from ..whole import written_whole
from . import optim
from .config import TrainConfig

_STATE_FILE = "resume.pt"
_EMA, _MODEL = "ema.", "model."
_UNTOUCHED = "the checkpoint before it is untouched"


@dataclass(slots=True, eq=False)
class TrainState:
    """All that changes while a run goes on."""

    modules: dict[str, nn.Module]
    trained: dict[str, nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    ema: optim.Ema
    step: int = 0
    """Optimiser steps done."""
    samples: int = 0
    """Clips seen by all processes together."""
    elapsed_s: float = 0.0
    """Time of all legs up to the last checkpoint."""
    cpu_s: float = 0.0
    """CPU time of all processes and legs."""


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


def new_state(task: TrainingTask, config: TrainConfig, device: torch.device) -> TrainState:
    """Build the networks on a device, with ``run.init_from``'s weights where it is set, and their optimisers."""
    modules = dict(task.modules())
    if "dit" not in modules or any("." in key for key in modules):
        raise ConfigError(
            f"The task's modules are {sorted(modules)}; one must be called 'dit', and no name may have a dot."
        )
    if config.run.init_from:
        _start_from(modules, Path(config.run.init_from), config.run.init_new)
    for module in modules.values():
        module.to(device).train()
    trained = optim.select_trained(modules, config.run)
    return TrainState(
        modules=modules,
        trained=trained,
        optimizers=optim.make_optimizers(trained, config.optim),
        ema=optim.Ema(trained, config.optim.ema_decay),
    )


def _start_from(modules: Mapping[str, nn.Module], path: Path, new: tuple[str, ...]) -> None:
    saved = load_checkpoint(latest_checkpoint(path) if path.is_dir() else path)
    for key, module in modules.items():
        own = module.state_dict()
        tensors = {n: t for n, t in saved.get(key, {}).items() if not optim.matches(f"{key}.{n}", new)}
        lacking = [name for name in own if name not in tensors and not optim.matches(f"{key}.{name}", new)]
        wrong = [name for name in tensors if name not in own or own[name].shape != tensors[name].shape]
        if lacking or wrong:
            raise CheckpointError(
                f"run.init_from {path} does not fit {key}: lacking {_some(lacking)}; unknown or of another shape "
                f"{_some(wrong)}. Use a checkpoint of the same model, or name new parameters in run.init_new."
            )
        module.load_state_dict(tensors, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def has_state(folder: Path) -> bool:
    """Tell whether a run folder holds a run that can be resumed."""
    return (folder / _STATE_FILE).exists()


def finished_step(folder: Path) -> int:
    """Return the step that a run folder's last checkpoint stands at."""
    return int(latest_checkpoint(folder).stem.removeprefix("step-"))


def save(state: TrainState, folder: Path, config: TrainConfig) -> Path:
    """Write a checkpoint (weights and their average) and the resume state, and drop checkpoints beyond ``log.keep``.

    Every file appears under its name only when it is whole; a run that dies here resumes from the checkpoint before.
    """
    checkpoints = folder / "checkpoints"
    path = checkpoints / f"step-{state.step:08d}.safetensors"
    weights = {
        f"{_MODEL}{key}.{name}": tensor.detach().contiguous()
        for key, module in state.modules.items()
        for name, tensor in module.state_dict().items()
    }
    average = {f"{_EMA}{name}": tensor for name, tensor in state.ema.average.items()}
    metadata = {"format": "gloria-train-1", "step": str(state.step), "config": config.to_toml()}
    with written_whole(path, advice=_UNTOUCHED) as partial:
        save_file({**weights, **average}, partial, metadata=metadata)
    resume = {
        "step": state.step,
        "samples": state.samples,
        "elapsed_s": state.elapsed_s,
        "cpu_s": state.cpu_s,
        "checkpoint": path.name,
        "optimizers": optim.optimizer_state(state.optimizers),
    }
    with written_whole(folder / _STATE_FILE, advice=_UNTOUCHED) as partial:
        torch.save(resume, partial)
    for old in sorted(checkpoints.glob("step-*.safetensors"))[: -config.log.keep]:
        if old != path:
            old.unlink()
    return path


def restore(state: TrainState, folder: Path) -> None:
    """Bring a run back to its last checkpoint, bit for bit.

    Raises:
        CheckpointError: there is nothing to resume, or the files do not fit the networks.
        ConfigError: the optimiser was configured otherwise.
    """
    if not has_state(folder):
        raise CheckpointError(f"{folder} holds no run to resume ({_STATE_FILE} is missing); start it without --resume.")
    device = next(iter(state.trained.values())).device
    try:
        saved = torch.load(folder / _STATE_FILE, weights_only=True, map_location=device)
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{folder / _STATE_FILE} cannot be read ({error}); start a new run with run.init_from."
        ) from error
    path = folder / "checkpoints" / saved["checkpoint"]
    tensors = _read_tensors(path)
    for key, module in state.modules.items():
        head = f"{_MODEL}{key}."
        own = {name.removeprefix(head): tensor for name, tensor in tensors.items() if name.startswith(head)}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path} does not fit {key}; resume with the options it was trained with: {error}"
            ) from error
    average = {name.removeprefix(_EMA): tensor for name, tensor in tensors.items() if name.startswith(_EMA)}
    if average.keys() != state.trained.keys():
        raise ConfigError("run.train or run.freeze changed since the checkpoint; start a new run with run.init_from.")
    state.ema.load(average)
    optim.load_optimizer_state(state.optimizers, saved["optimizers"])
    state.step, state.samples = saved["step"], saved["samples"]
    state.elapsed_s, state.cpu_s = saved["elapsed_s"], saved["cpu_s"]


def load_checkpoint(path: Path, ema: bool = True) -> dict[str, dict[str, Tensor]]:
    """Return the weights in a training checkpoint: module name -> parameter name -> tensor.

    Args:
        path: a file ``step-XXXXXXXX.safetensors``, or a Gloria checkpoint that was exported from one (its weights are
            the averaged ones, in whatever precision they were stored; they come back in float32).
        ema: averaged weights; otherwise the weights as they were trained. Frozen weights are the same in both.

    Raises:
        CheckpointError: the file is missing, cut, or no training checkpoint.
    """
    tensors = _read_tensors(path)
    merged = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
    if not merged:
        merged = _exported(tensors)
    if not merged:
        raise CheckpointError(f"{path} is no training checkpoint: none of its tensors is called {_MODEL}...")
    if ema:
        merged |= {name.removeprefix(_EMA): tensor for name, tensor in tensors.items() if name.startswith(_EMA)}
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in merged.items():
        key, _, parameter = name.partition(".")
        modules.setdefault(key, {})[parameter] = tensor
    return modules


def _exported(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name an exported checkpoint's tensors as the trainer does; empty where it is none."""
    dit = {f"dit.{name.removeprefix(PREFIX)}": t.float() for name, t in tensors.items() if name.startswith(PREFIX)}
    text = {name: t.float() for name, t in tensors.items() if name.startswith("text_encoder.")}
    return dit | text if dit else {}


def latest_checkpoint(folder: Path) -> Path:
    """Return the newest checkpoint of a run folder; raises CheckpointError where there is none."""
    found = sorted((folder / "checkpoints").glob("step-*.safetensors"))
    if not found:
        raise CheckpointError(f"{folder} has no checkpoint yet; let the run reach its first one.")
    return found[-1]


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read ({error}); it is missing or was cut.") from error
