"""gloria-nano as one file: transformer, text encoder, codec and training record.

``python -m gloria_core.nano.bundle RUN_FOLDER`` exports the newest checkpoint of a training run.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from ..checkpoint import load_dit, read_checkpoint, write_checkpoint
from ..checkpoint.load import check_names
from ..config import ModelConfig
from ..errors import CheckpointError
from ..model import GloriaDiT
from .codec import LinearCodec, load_codec
from .text import TextEncoder

WEIGHTS_FILE = Path(__file__).parent / "weights" / "gloria-nano.safetensors"
"""The weights that come with the pack."""
_TEXT, _CODEC, _RECORD = "text_encoder.", "codec.", "gloria.training"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Everything that makes nano work."""

    config: ModelConfig
    dit: dict[str, Tensor]
    text_encoder: TextEncoder
    codec: LinearCodec

    def model(self, mode: str | None = None) -> GloriaDiT:
        """Build the transformer in float32, in another attention mode if asked."""
        config = self.config if mode is None else self.config.with_mode(mode)  # type: ignore[arg-type]
        return load_dit(self.dit, config)


def load_bundle(path: Path = WEIGHTS_FILE) -> Bundle:
    """Read a nano file.

    Raises:
        CheckpointError: the file is missing or cut, or lacks a part.
    """
    weights, config = read_checkpoint(path)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        text = {n.removeprefix(_TEXT): file.get_tensor(n).float() for n in names if n.startswith(_TEXT)}
        codec = {n.removeprefix(_CODEC): file.get_tensor(n) for n in names if n.startswith(_CODEC)}
    encoder = TextEncoder(config.text_dim)
    check_names(encoder.state_dict(), text, f"{path.name}'s text encoder")
    try:
        encoder.load_state_dict(text)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} was made with another vocabulary than this version's: {error}.") from error
    check_names(("basis", "mean", "scale", "latent_std"), codec, f"{path.name}'s codec")
    return Bundle(config, weights, encoder.eval(), LinearCodec(**codec))


def training_record(path: Path = WEIGHTS_FILE) -> dict[str, object]:
    """Return what a nano file says about its training."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get(_RECORD, "{}"))


def export(run: Path, out: Path) -> None:
    """Write the averaged weights of a run's newest checkpoint, in float16, with its record."""
    from ..train import latest_checkpoint, load_checkpoint
    from .task import nano_config

    checkpoint = latest_checkpoint(run)
    modules = load_checkpoint(checkpoint, ema=True)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    step = int(checkpoint.stem.removeprefix("step-"))
    last = next(e for e in reversed(events) if e["event"] == "train" and e["step"] <= step)
    held_out: dict[str, float] = next(
        (e for e in reversed(events) if e["event"] == "held_out" and e["step"] <= step), {}
    )
    settings = (run / "config.toml").read_text(encoding="utf-8")
    record = {"step": last["step"], "clips": last["samples"], "cpu_s": last["cpu_s"], "held_out": held_out.get("loss")}
    extra = {_TEXT + name: t.half() for name, t in modules["text_encoder"].items()}
    extra |= {_CODEC + name: t for name, t in load_codec().state_dict().items()}
    mode: Literal["joint", "cached"] = "joint" if 'mode = "joint"' in settings else "cached"
    weights = {name: t.half() for name, t in modules["dit"].items()}
    notes = {_RECORD: json.dumps(record), "gloria.settings": settings}
    write_checkpoint(out, weights, nano_config(mode), extra=extra, notes=notes)
    _log.info("wrote %s from %s: %s", out, checkpoint.name, record)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Export gloria-nano from a training run.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FILE, help="the file to write")
    arguments = parser.parse_args()
    with torch.no_grad():
        export(arguments.run, arguments.out)
