"""``python -m gloria_core.train.export RUN``: from a run's checkpoint to a file that loaders take.

Adapters become a LoRA file that ComfyUI's stock loader applies as the training did; whole weights, or with ``--merge``
adapters worked into their base, a Gloria checkpoint.
"""

import argparse
import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..checkpoint import write_checkpoint
from ..config import ModelConfig
from ..data.folder import read_dataset
from ..data.prepared import read_prepared
from ..errors import CheckpointError, ConfigError, DatasetError, GloriaError, LoraError
from ..lora import LowRank, fit, normalise, read_lora, write_lora
from ..model import GloriaDiT
from ..tables import read_table
from . import method, start
from .config import TrainConfig, from_table, load_config
from .state import BASE, MODEL, START_FILE, latest_checkpoint, load_checkpoint, read_metadata

_log = logging.getLogger(__name__)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NO_NAME, _MOST_SIGNS = re.compile(r'[\\/:*?"<>|\x00-\x1f]'), 60
_ADAPTER = ".default"
"""The name that peft gives an adapter, in front of ``.weight`` or at the end."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trained:
    """What a run has learned so far."""

    folder: Path
    checkpoint: Path
    config: TrainConfig
    model: ModelConfig
    weights: dict[str, dict[str, Tensor]]
    """By module and name; only what was trained where there are adapters."""

    @property
    def is_adapter(self) -> bool:
        """Whether the run trains adapters."""
        return self.config.method.kind != "full"

    @property
    def title(self) -> str:
        """The name for people."""
        return self.config.output.title or self.folder.name

    @property
    def file_name(self) -> str:
        """The title as the name of a file, which some of its signs cannot be in on every system."""
        plain = _NO_NAME.sub("_", self.title).strip(" .")[:_MOST_SIGNS]
        return f"{plain or 'trained'}.safetensors"

    @property
    def step(self) -> int:
        """The step that the checkpoint stands at."""
        return int(self.checkpoint.stem.removeprefix("step-"))


def read_trained(run: Path, *, averaged: bool = True) -> Trained:
    """Read a run folder's newest checkpoint, or one checkpoint of it.

    Raises:
        CheckpointError: there is none, it is damaged, or it does not tell its network.
        ConfigError: the run's settings cannot be read.
    """
    checkpoint = run if run.suffix == ".safetensors" else latest_checkpoint(run)
    folder = checkpoint.parent.parent
    metadata = read_metadata(checkpoint)
    if MODEL not in metadata:
        raise CheckpointError(f"{checkpoint} does not tell which network it belongs to; train a step more to renew it.")
    return Trained(
        folder=folder,
        checkpoint=checkpoint,
        config=load_config(folder / "config.toml"),
        model=ModelConfig.from_json(metadata[MODEL]),
        weights=load_checkpoint(checkpoint, ema=averaged),
    )


def export_lora(trained: Trained, out: Path) -> Path:
    """Write a run's adapters, and what was trained whole beside them, as one LoRA file; read it back and check it.

    Raises:
        ConfigError: the run trains whole weights.
        LoraError: the training diverged, the disk refuses, or the file does not say what the run has learned.
    """
    if not trained.is_adapter:
        raise ConfigError(
            f"The run {trained.folder.name} trained whole weights: export it as a checkpoint, or extract a LoRA from "
            "that (python -m gloria_core.train.lora extract BASE TUNED OUT)."
        )
    low_rank, factors = _adapters(trained)
    write_lora(
        out,
        low_rank,
        trained.model,
        factors=factors,
        differences=_differences(trained),
        dtype=_DTYPES[trained.config.output.precision],
        notes=notes(trained),
    )
    check_lora(out, trained.model)
    return out


def export_run(run: Path, *, averaged: bool = True) -> Path:
    """Write what a run has learned to where ``output.file`` says: adapters as a LoRA, whole weights as a checkpoint."""
    trained = read_trained(run, averaged=averaged)
    out = trained.folder / (trained.config.output.file or trained.file_name)
    return export_lora(trained, out) if trained.is_adapter else export_checkpoint(trained, out)


def check_lora(path: Path, model: ModelConfig) -> None:
    """Read a LoRA file back and raise LoraError where a key of it would not be used by the model it was made for."""
    network = GloriaDiT(model, device="meta")
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    layers = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    found = fit(normalise(read_lora(path), layers), shapes, model.name)
    if found.unused:
        key, reason = found.unused[0]
        raise LoraError(f"{path.name} holds {len(found.unused)} keys that no loader would use: {key}, {reason}.")


def export_checkpoint(trained: Trained, out: Path) -> Path:
    """Write a run's whole network as a Gloria checkpoint; adapters are worked into the task's base weights.

    Raises:
        CheckpointError: the base is not the one that was trained beside, or the disk refuses.
    """
    weights = merged(trained) if trained.is_adapter else trained.weights
    dtype = _DTYPES[trained.config.output.precision]
    extra = {
        f"{key}.{name}": t.to(dtype) for key, tensors in weights.items() if key != "dit" for name, t in tensors.items()
    }
    own = {name: t.to(dtype) for name, t in weights["dit"].items()}
    write_checkpoint(out, own, trained.model, extra=extra, notes=notes(trained))
    return out


def merged(trained: Trained) -> dict[str, dict[str, Tensor]]:
    """Return the task's base weights, by module and name, with what was trained worked into them."""
    config = trained.config
    modules = dict(start.load_task(config.task.target, config.task.options).modules())
    method.add_adapters(modules["dit"], config.method, config.run.seed)
    parameters, frozen = method.choose_trained(modules, config.run, config.method)
    if method.fingerprint(frozen) != read_metadata(trained.checkpoint).get(BASE):
        raise CheckpointError(
            f"{trained.checkpoint} was trained beside other base weights than {config.task.target} has now: give it "
            "the weights file that it began with."
        )
    given = {f"{key}.{name}": t for key, tensors in trained.weights.items() for name, t in tensors.items()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(given[name])
    for module in modules["dit"].modules():
        merge = getattr(module, "merge", None)
        if callable(merge) and hasattr(module, "base_layer"):
            merge()
    return {key: _without_adapters(module) for key, module in modules.items()}


def _without_adapters(module: nn.Module) -> dict[str, Tensor]:
    state = {name: t for name, t in module.state_dict().items() if not method.is_adapter(f".{name}")}
    return {method.plain_name(name): tensor for name, tensor in state.items()}


def _adapters(trained: Trained) -> tuple[dict[str, LowRank], dict[str, dict[str, Tensor]]]:
    """Return low-rank pairs by layer, and the parts of adapters of other kinds."""
    chosen = trained.config.method
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in trained.weights["dit"].items():
        if method.is_adapter(f".{name}"):
            plain = name.replace(f"{_ADAPTER}.weight", "").removesuffix(_ADAPTER)
            layer, _, part = plain.rpartition(".")
            layers.setdefault(layer, {})[part] = tensor
    if chosen.kind == "lora":
        return {n: LowRank(p["lora_A"], p["lora_B"], chosen.scale_alpha) for n, p in layers.items()}, {}
    return {}, {layer: _scaled(parts, chosen.rank, chosen.scale_alpha) for layer, parts in layers.items()}


def _scaled(parts: dict[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """Put the scale where loaders look: two whole factors of a LoKr are taken as they are, whatever alpha says."""
    if "lokr_w1" in parts and "lokr_w2" in parts:
        return {**parts, "lokr_w1": parts["lokr_w1"] * (alpha / rank), "alpha": torch.tensor(1.0)}
    return {**parts, "alpha": torch.tensor(alpha)}


def _differences(trained: Trained) -> dict[str, Tensor]:
    """Return what was trained whole, less what it was before the first step."""
    whole = {name: t for name, t in trained.weights["dit"].items() if not method.is_adapter(f".{name}")}
    if not whole:
        return {}
    begun = load_file(trained.folder / START_FILE)
    return {method.plain_name(name): tensor - begun[f"dit.{name}"] for name, tensor in whole.items()}


def notes(trained: Trained) -> dict[str, str]:
    """Return the texts of a file's header: ModelSpec, what LoRA managers read, and the run's own settings."""
    config, output = trained.config, trained.config.output
    found = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": trained.model.family + ("/lora" if trained.is_adapter else ""),
        "modelspec.implementation": "gloria",
        "modelspec.title": trained.title,
        "modelspec.author": output.author,
        "modelspec.description": output.description,
        "modelspec.license": output.license,
        "modelspec.trigger_phrase": output.trigger_phrase,
        "modelspec.tags": ", ".join(output.tags),
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "ss_base_model_version": trained.model.name,
        "ss_learning_rate": str(config.optim.lr),
        "ss_optimizer": config.optim.kind,
        "ss_steps": str(trained.step),
        "ss_seed": str(config.run.seed),
        "ss_timestep_sampling": config.objective.preset or config.objective.sigmas[0].kind,
        "ss_output_name": trained.title,
    }
    if trained.is_adapter:
        found |= {
            "ss_network_module": f"peft.{config.method.kind}",
            "ss_network_dim": str(config.method.rank),
            "ss_network_alpha": str(config.method.scale_alpha),
            "gloria.base": read_metadata(trained.checkpoint).get(BASE, ""),
        }
    if not output.private:
        found |= {"gloria.training": config.to_toml(), **_manifest(config.task.options)}
    return {key: text for key, text in found.items() if text}


def _manifest(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of what a run learned from, a list or a folder of footage, where it has one."""
    if not options.get("manifest"):
        return {}
    source = Path(str(options["manifest"]))
    try:
        digest = read_prepared(source).manifest if source.suffix == ".json" else read_dataset(source)[0].digest
    except DatasetError:  # it went away, or was never there
        return {}
    return {"gloria.manifest": digest}


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and export; returns 0, or 1 after an error told in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m gloria_core.train.export", description="Make a file of a run.")
    parser.add_argument("run", type=Path, help="the run's folder, or one of its checkpoints")
    parser.add_argument("--out", type=Path, help="the file to write; by default beside the checkpoints")
    parser.add_argument("--merge", action="store_true", help="work adapters into their base and write a checkpoint")
    parser.add_argument("--raw", action="store_true", help="take the weights of the last step, not the averaged ones")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of [output]")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        trained = _with_output(read_trained(options.run, averaged=not options.raw), options.set)
        out = options.out or trained.folder / trained.file_name
        as_lora = trained.is_adapter and not options.merge
        (export_lora if as_lora else export_checkpoint)(trained, out)
    except GloriaError as error:
        _log.error("%s", error)
        return 1
    _log.info("wrote %s, step %d", out, trained.step)
    return 0


def _with_output(trained: Trained, changes: list[str]) -> Trained:
    table = asdict(trained.config)
    changed = read_table(Path(), [f"output.{change}" for change in changes], only_overrides=True)
    table["output"] |= changed.get("output", {})
    return replace(trained, config=from_table(table))


if __name__ == "__main__":
    sys.exit(main())
