"""``python -m gloria_core.train.lora``: LoRA files extracted, merged, renamed and looked at, without ComfyUI.

- ``extract BASE TUNED OUT --rank 32``: what a full fine-tune has changed, as a LoRA
- ``merge BASE LORA OUT --strength 1``: a LoRA worked into a model
- ``convert LORA OUT --names comfy|kohya|diffusers``: other names for the same numbers
- ``info LORA``: what is in a file, and what it says of itself
"""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..checkpoint import read_checkpoint, write_checkpoint
from ..config import ModelConfig
from ..errors import GloriaError, LoraError
from ..lora import fit, normalise, read_lora, write_lora
from ..lora.extract import extract
from ..lora.merge import check_mergeable, merged
from ..lora.spell import spelled
from ..whole import written_whole

_log = logging.getLogger(__name__)


def extract_file(base: Path, tuned: Path, out: Path, rank: int) -> float:
    """Write what a fine-tune has changed as a LoRA; returns the share of the matrices' change that it holds."""
    before, _ = read_checkpoint(base)
    after, config = read_checkpoint(tuned)
    lost = sorted(before.keys() - after.keys())
    if lost:
        raise LoraError(f"{tuned.name} lacks {lost[0]}, which {base.name} has: it is no fine-tune of that model.")
    found = extract(after, before.get, after.__getitem__, rank)
    write_lora(out, found.low_rank, config, differences=found.differences)
    return found.kept


def merge_file(base: Path, lora: Path, out: Path, strength: float) -> None:
    """Write a model with a LoRA worked into it; its other weights keep their type."""
    weights, config = read_checkpoint(base)
    shapes = {_as_layer(name): tuple(t.shape) for name, t in weights.items()}
    layers = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight")]
    found = fit(normalise(read_lora(lora), layers), shapes, config.name)
    check_mergeable(found)
    dtype = next(t.dtype for name, t in weights.items() if name.startswith("blocks.0.self_attn.q"))
    _tell(found.report(strength))
    write_checkpoint(out, merged(weights, found, strength, dtype), _learned(config, lora))


def convert_file(lora: Path, out: Path, names: str) -> int:
    """Write a LoRA under other names, its header's texts kept; returns the number of tensors."""
    file = read_lora(lora)
    tensors = {n: t.contiguous() for n, t in spelled(normalise(file).state_dict(), names).items()}
    with written_whole(out, kind=LoraError) as partial:
        save_file(tensors, partial, metadata=dict(file.metadata))
    return len(tensors)


def describe(lora: Path) -> str:
    """Tell what is in a LoRA file."""
    file = read_lora(lora)
    found = normalise(file)
    ranks = sorted({len(parts["lora_down.weight"]) for parts in found.layers.values() if "lora_down.weight" in parts})
    lines = [f"{lora.name}: {len(found.layers)} layers, ranks {', '.join(map(str, ranks)) or 'none'}."]
    if found.unknown:
        lines.append(f"{len(found.unknown)} keys belong to no kind of LoRA, such as {found.unknown[0]}.")
    told = {key: text for key, text in file.metadata.items() if key.startswith(("modelspec.", "ss_"))}
    return "\n".join([*lines, *(f"{key}: {text[:200]}" for key, text in sorted(told.items())), *found.notes])


def _as_layer(name: str) -> str:
    """Return a weight's name as that of a layer's: a bare table is the weight of a layer of its name."""
    return name if name.endswith((".weight", ".bias")) else f"{name}.weight"


def _learned(config: ModelConfig, lora: Path) -> ModelConfig:
    """Return a model's settings with the anchors placed as a LoRA of ours was trained."""
    trained = normalise(read_lora(lora)).config
    return config if trained is None else replace(config, anchors=trained.anchors)


def _tell(report: str) -> None:
    for line in report.splitlines():
        _log.info("%s", line)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and work; returns 0, or 1 after an error told in a sentence."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_args(arguments)
    try:
        with torch.no_grad():
            options.work(options)
    except GloriaError as error:
        _log.error("%s", error)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gloria_core.train.lora", description="Work on LoRA files.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("extract", help="what a full fine-tune has changed, as a LoRA")
    for name, text in (("base", "the model it began with"), ("tuned", "the fine-tune"), ("out", "the LoRA to write")):
        one.add_argument(name, type=Path, help=text)
    one.add_argument("--rank", type=int, default=32)
    one.set_defaults(work=_extract)
    two = commands.add_parser("merge", help="a LoRA worked into a model")
    for name, text in (("base", "the model"), ("lora", "the LoRA"), ("out", "the model to write")):
        two.add_argument(name, type=Path, help=text)
    two.add_argument("--strength", type=float, default=1.0)
    two.set_defaults(work=lambda given: merge_file(given.base, given.lora, given.out, given.strength))
    three = commands.add_parser("convert", help="other names for the same numbers")
    three.add_argument("lora", type=Path)
    three.add_argument("out", type=Path)
    three.add_argument("--names", default="comfy", help="comfy, kohya or diffusers")
    three.set_defaults(work=lambda given: _log.info("%d tensors", convert_file(given.lora, given.out, given.names)))
    four = commands.add_parser("info", help="what is in a file")
    four.add_argument("lora", type=Path)
    four.set_defaults(work=lambda given: _log.info("%s", describe(given.lora)))
    return parser


def _extract(given: argparse.Namespace) -> None:
    kept = extract_file(given.base, given.tuned, given.out, given.rank)
    _log.info("rank %d holds %.1f %% of the matrices' change", given.rank, 100 * kept)


if __name__ == "__main__":
    sys.exit(main())
