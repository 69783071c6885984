"""What a run is made of at a given step, and how it goes to the disk and comes back exactly."""

import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..checkpoint.keys import PREFIX
from ..checkpoint.save import write_lazily, writing_order
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError
from ..whole import written_whole
from . import optim
from . import shard as shards
from .config import TrainConfig
from .process import World

_STATE_FILE = "resume.pt"
_EMA, _MODEL = "ema.", "model."
BASE = "base"
"""Metadata entry with the fingerprint of the weights that a checkpoint's adapters stand beside."""
MODEL = "model"
"""Metadata entry with the configuration of the network that a checkpoint belongs to."""
START_FILE = "start.safetensors"
"""Values, before the first step of all stages, of what is trained whole beside adapters."""
OTHER_BASE = (
    "{path} was trained beside other base weights than the task has now: give it the weights file that it began with, "
    "or start a new run."
)
_STATE_FOLDER = "resume-"
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
    begun: dict[str, Tensor] = field(default_factory=dict)
    """What is trained whole beside adapters, as it was; what the task's own file did not have counts from zero."""
    base: str = ""
    """Fingerprint of the frozen weights that adapters stand beside; empty where the weights themselves are trained."""


def some(names: list[str]) -> str:
    """Name the first five of a list for people; ``none`` where it is empty."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def has_state(folder: Path) -> bool:
    """Tell whether a run folder holds a run that can be resumed."""
    return (folder / _STATE_FILE).exists()


def finished_step(folder: Path) -> int:
    """Return the step that a run folder's last checkpoint stands at."""
    return int(latest_checkpoint(folder).stem.removeprefix("step-"))


def save(state: TrainState, folder: Path, config: TrainConfig, world: World) -> Path:
    """Write a checkpoint (weights and their average) and the resume state, and drop checkpoints beyond ``log.keep``.

    With adapters, only what is trained is written: the base stays in its own file.
    Every file appears under its name only when it is whole; a run that dies here resumes from the checkpoint before.
    All processes of a sharded run call it together; otherwise the main one alone.
    """
    path = folder / "checkpoints" / f"step-{state.step:08d}.safetensors"
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in _kept(state).items()}
    tensors |= {f"{_EMA}{name}": tensor for name, tensor in state.ema.average.items()}
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    sharded = config.run.parallel == "shard"
    remembered = folder / f"{_STATE_FOLDER}{state.step:08d}"
    if sharded:
        shards.save_optimizers(_names(state), state.optimizers, remembered)
    if not world.is_main:
        for name in writing_order(layout):
            shards.gathered(tensors[name])
        return path
    write_lazily(path, layout, lambda name: shards.gathered(tensors[name]), _told(state, config))
    resume = {
        "step": state.step,
        "samples": state.samples,
        "elapsed_s": state.elapsed_s,
        "cpu_s": state.cpu_s,
        "checkpoint": path.name,
        "optimizers": remembered.name if sharded else optim.optimizer_state(state.optimizers),
    }
    with written_whole(folder / _STATE_FILE, advice=_UNTOUCHED) as partial:
        torch.save(resume, partial)
    _drop_old(folder, path, config.log.keep, remembered)
    return path


def _told(state: TrainState, config: TrainConfig) -> dict[str, str]:
    """Return the texts of a checkpoint's header."""
    metadata = {"format": "gloria-train-1", "step": str(state.step), "config": config.to_toml()}
    model = getattr(state.modules["dit"], "config", None)
    if isinstance(model, ModelConfig):
        metadata[MODEL] = model.to_json()
    if state.base:
        metadata[BASE] = state.base
    return metadata


def _drop_old(folder: Path, path: Path, keep: int, remembered: Path) -> None:
    for old in sorted((folder / "checkpoints").glob("step-*.safetensors"))[:-keep]:
        if old != path:
            old.unlink()
    for other in folder.glob(f"{_STATE_FOLDER}*"):
        if other != remembered:
            shutil.rmtree(other, ignore_errors=True)


def _names(state: TrainState) -> dict[int, str]:
    return {id(parameter): name for name, parameter in state.trained.items()}


def _kept(state: TrainState) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their full names."""
    if state.base:
        return dict(state.trained)
    modules = state.modules.items()
    return {f"{key}.{name}": tensor for key, module in modules for name, tensor in module.state_dict().items()}


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
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise CheckpointError(
            f"{folder / _STATE_FILE} cannot be read ({reason}); start a new run with run.init_from."
        ) from error
    path = folder / "checkpoints" / saved["checkpoint"]
    tensors = _read_tensors(path)
    _check_base(state, path)
    if isinstance(saved["optimizers"], str) != isinstance(next(iter(state.trained.values())), DTensor):
        raise ConfigError("run.parallel is not the one that the run was trained with; start a new run for another.")
    own = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
    targets = _kept(state)
    wrong = sorted(targets.keys() ^ own.keys())
    wrong += sorted(name for name in targets.keys() & own.keys() if targets[name].shape != own[name].shape)
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the networks ({some(wrong)}); resume with the options it was trained with."
        )
    with torch.no_grad():
        for name, tensor in targets.items():
            shards.fill(tensor, own[name])
    average = {name.removeprefix(_EMA): tensor for name, tensor in tensors.items() if name.startswith(_EMA)}
    if average.keys() != state.trained.keys():
        raise ConfigError("run.train or run.freeze changed since the checkpoint; start a new run with run.init_from.")
    state.ema.load(average)
    if isinstance(saved["optimizers"], str):
        shards.load_optimizers(_names(state), state.optimizers, folder / saved["optimizers"])
    else:
        optim.load_optimizer_state(state.optimizers, saved["optimizers"])
    state.step, state.samples = saved["step"], saved["samples"]
    state.elapsed_s, state.cpu_s = saved["elapsed_s"], saved["cpu_s"]


def _check_base(state: TrainState, path: Path) -> None:
    saved = read_metadata(path).get(BASE, "")
    if saved and state.base and saved != state.base:
        raise CheckpointError(OTHER_BASE.format(path=path))
    if bool(saved) != bool(state.base):
        raise ConfigError(f"method.kind is not the one that {path} was trained with; start a new run for another.")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts in a checkpoint's header; CheckpointError where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read ({error}); it is missing or was cut.") from error


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
