"""What the widgets of a training node say, as the trainer's own settings."""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths

from ...gloria_core.checkpoint import inspect
from ...gloria_core.errors import ConfigError
from ...gloria_core.runs.places import is_inside
from ...gloria_core.tables import one_of
from ...gloria_core.train.config import TrainConfig, from_table
from ...gloria_core.train.view import job_name
from ..sockets import Dataset
from .checkpoints import weights_path
from .paths import training_folder, vae_path

_SHORT_STAGE, _SHORT_SHARE = "both", 4
"""The last stage, which is short, and by what its steps are divided. Paper: 4.4; the share is ours."""

STAGES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "character": (("", "character", "anchors"),),
    "stage I": (("", "stage1", "audio"),),
    "stage II": (("", "stage2", "video"),),
    "stage III": (("", "stage3", "anchors"),),
    "stage III, both kinds": (("", "stage3-both", "anchors"),),
    "stages I to III": (
        ("speech", "stage1", "audio"),
        ("scene", "stage2", "video"),
        ("anchors", "stage3", "anchors"),
        (_SHORT_STAGE, "stage3-both", "anchors"),
    ),
}
"""Choices of what is taught: name of each stage, its options' preset, and its noise levels' preset."""

KINDS = ("lora", "lokr", "loha")
LAYERS = ("character", "identity", "performance")
CHECKPOINTING = ("off", "blocks", "offload")
BASES = ("as is", "bf16", "fp8")
OPTIMISERS: Mapping[str, str] = {
    "AdamW": "adamw",
    "AdamW, 8 bit (torchao)": "torchao.optim.AdamW8bit",
    "Adafactor": "adafactor",
    "Muon": "muon",
}

NO_VAE = "none"
"""Choice of no VAE for samples."""
_TASK = "gloria_core.data.task:FootageTask"
_NANO_DECODER = "gloria_core.nano.codec:load_codec"
_OWN = (
    "run.out", "output.file", "task.target", "task.options.manifest", "task.options.cache", "task.options.weights",
    "task.options.decoder", "task.options.vae",
)  # fmt: skip
"""Settings that the node itself makes; from a workflow they could lead to files and programs of any kind."""
_OPTIMISER = re.compile(r"(torch|torchao)\.optim\.\w+")
_WARMUP = 50
_SAMPLES: Mapping[str, Any] = {"sample_clips": 2, "sample_seed": 0}
_NANO_SAMPLES: Mapping[str, Any] = {"sample_steps": 8, "sample_guidance": 1.0, "sample_audio_guidance": 1.0}
_WAN_SAMPLES: Mapping[str, Any] = {"sample_steps": 20, "sample_guidance": 5.0, "sample_audio_guidance": 5.0}
"""How samples are made. Few steps and no guidance show nothing with Wan weights, as they are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A training as a person asks for it."""

    dataset: Dataset
    weights: str
    """A file of models/diffusion_models, or the bundled one."""
    name: str
    """The job's."""
    method: Mapping[str, Any]
    """The ``[method]`` section."""
    steps: int
    learning_rate: float
    stage: str
    """One of STAGES."""
    batch_size: int
    frames: int
    """Length of training clips; 0 is the model's own."""
    checkpointing: str
    base: str
    swap_blocks: int
    optimiser: str
    """One of OPTIMISERS."""
    seed: int
    sample_every: int
    save_every: int
    held_out: float
    title: str
    more_settings: str
    """TOML lines, which come last."""
    sample_vae: str = NO_VAE
    """A file of models/vae that samples of Wan weights are shown with."""

    @property
    def is_full(self) -> bool:
        """Whether the weights themselves are trained."""
        return self.method["kind"] == "full"

    @property
    def file(self) -> Path:
        """What the finished training writes: below a folder that the host's loaders list."""
        return _made_files(self.is_full) / f"{job_name(self.name)}.safetensors"


def settings(wanted: Wanted) -> TrainConfig:
    """Return a training's settings; of a training in stages, what they have in common.

    Raises:
        GloriaError: a setting is unknown or cannot be, or the weights are no model.
    """
    return _checked(from_table(_merged(_table(wanted), _more(wanted.more_settings))))


def options_of_stages(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the ``[task.options]`` of each stage of a training; raises as `settings`."""
    options, stages = settings(wanted).task.options, STAGES[wanted.stage]
    return [options] if len(stages) == 1 else [{**options, "preset": preset} for _, preset, _ in stages]


def settings_text(wanted: Wanted) -> str:
    """Return a training's settings as TOML, every default written out; raises as `settings`."""
    config = settings(wanted)
    stages = STAGES[wanted.stage]
    if len(stages) == 1:
        return config.to_toml()
    return config.to_toml() + "".join(_stage(*stage, config.run.total_steps) for stage in stages)


def _stage(name: str, options: str, noise: str, steps: int) -> str:
    told = f'\n[[stages]]\nname = "{name}"\ntask.options.preset = "{options}"\nobjective.preset = "{noise}"\n'
    return told if name != _SHORT_STAGE else f"{told}run.total_steps = {math.ceil(steps / _SHORT_SHARE)}\n"


def check_startable(config: TrainConfig) -> None:
    """Raise ConfigError where a node or an address may not start a job with these settings.

    A job's folder may have been sent here by somebody: only our own task and optimisers are run, and nothing is written
    outside of the output folder.
    """
    task, kind = config.task, config.optim.kind
    if task.target != _TASK or task.options.get("decoder", "") not in ("", _NANO_DECODER):
        raise ConfigError(
            f"This job trains {task.target!r}, which is not for nodes to start; start it from a command line: "
            "python -m gloria_core.train JOB."
        )
    if "." in kind and not _OPTIMISER.fullmatch(kind):
        raise ConfigError(
            f"optim.kind is {kind!r}; from a node it may be one of torch.optim or torchao.optim, such as "
            f"{OPTIMISERS['AdamW, 8 bit (torchao)']!r}."
        )
    root, run = Path(folder_paths.get_output_directory()), config.run
    written = {
        "output.file": Path(run.out) / config.output.file,
        "run.init_from": Path(run.init_from),
        "task.options.cache": Path(str(task.options.get("cache", ""))),
    }
    for setting, path in written.items():
        if str(path) != "." and not is_inside(path, root):
            raise ConfigError(
                f"{setting} leads out of ComfyUI's output folder, which a node does not do; start the job from a "
                "command line: python -m gloria_core.train JOB."
            )


def listed_name(file: Path) -> str:
    """Return the name by which the host's loaders list a file that a training has written."""
    return os.path.join(file.parent.name, file.name)


def _made_files(is_full: bool) -> Path:
    output = Path(folder_paths.get_output_directory())
    return output / ("diffusion_models" if is_full else "loras") / "gloria"


def _table(wanted: Wanted) -> dict[str, Any]:
    one_of("stage", wanted.stage, tuple(STAGES))
    one_of("optimiser", wanted.optimiser, tuple(OPTIMISERS))
    _, options, noise = STAGES[wanted.stage][0]
    return {
        "run": {
            "total_steps": wanted.steps,
            "seed": wanted.seed,
            "device": _device(),
            "threads": max(1, (os.cpu_count() or 2) // 2),
        },
        "task": {"target": _TASK, "options": {"preset": options, **_options(wanted)}},
        "objective": {"preset": noise},
        "method": dict(wanted.method),
        "memory": {
            "checkpointing": wanted.checkpointing,
            "base": wanted.base,
            "swap_blocks": wanted.swap_blocks,
        },
        "optim": {
            "kind": OPTIMISERS[wanted.optimiser],
            "lr": wanted.learning_rate,
            "muon_lr": wanted.learning_rate,
            "warmup_steps": min(_WARMUP, wanted.steps // 10),
            "ema_decay": 0.999 if wanted.is_full else 0.0,
        },
        "log": {
            "log_every": max(1, min(10, wanted.steps // 20)),
            "held_out_every": wanted.save_every,
            "sample_every": wanted.sample_every,
            "checkpoint_every": wanted.save_every,
        },
        "output": {"file": str(wanted.file), "title": wanted.title or job_name(wanted.name)},
    }


def _options(wanted: Wanted) -> dict[str, Any]:
    weights = weights_path(wanted.weights)
    model = inspect(weights).config
    options: dict[str, Any] = {
        "manifest": str(wanted.dataset.manifest),
        "cache": str(wanted.dataset.cache),
        "weights": str(weights),
        "batch_size": wanted.batch_size,
        "seed": wanted.seed,
        "held_out": wanted.held_out,
        "weights_dtype": "fp32" if wanted.base == "as is" else "bf16",
    }
    if wanted.frames:
        options["frames"] = [wanted.frames]
    if model.audio is None and any(name == "stage1" for _, name, _ in STAGES[wanted.stage]):
        options["audio"] = "new"
    return options | _showing(wanted, model.codec)


def _showing(wanted: Wanted, codec: str) -> dict[str, Any]:
    """Return what samples are made and shown with, written out so that they can be found and changed."""
    if codec == "nano":
        return {"decoder": _NANO_DECODER, **_SAMPLES, **_NANO_SAMPLES}
    if wanted.sample_vae == NO_VAE or not wanted.sample_every:
        return {}
    return {"vae": str(vae_path(wanted.sample_vae)), **_SAMPLES, **_WAN_SAMPLES}


def _device() -> str:
    """Return where the child computes: where the host does, if the trainer knows it."""
    kind = comfy.model_management.get_torch_device().type
    return kind if kind in ("cpu", "cuda") else "auto"


def _more(text: str) -> dict[str, Any]:
    """Read the lines of 'more_settings'."""
    try:
        more = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"'more_settings' cannot be read: {error}. Write a line for each, such as optim.warmup_steps = 20; words "
            "go in quotes."
        ) from error
    for setting in _OWN:
        if _has(more, setting):
            raise ConfigError(f"'more_settings' has {setting}, which the node itself sets; take that line out.")
    return more


def _has(table: Any, setting: str) -> bool:  # noqa: ANN401 - whatever TOML says
    for key in setting.split("."):
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True


def _checked(config: TrainConfig) -> TrainConfig:
    """Keep a start to the jobs beside this one, and check the rest."""
    if config.run.init_from:
        start = training_folder() / job_name(config.run.init_from)
        config = replace(config, run=replace(config.run, init_from=str(start)))
    check_startable(config)
    return config


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in change.items():
        inner = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if inner else value
    return out
