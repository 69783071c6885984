"""``python -m gloria_core.nano.export RUN...``: pack training runs, in the order of their stages, into nano's file.

The weights are those of the last run's newest checkpoint, averaged, in float16; the record tells every leg. A first run
that went on from a nano file puts that file's legs before its own.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import write_checkpoint
from ..errors import CheckpointError
from .bundle import CODEC, RECORD, TEXT, WEIGHTS_FILE, training_record
from .codec import load_codec
from .task import NanoOptions, nano_config

_log = logging.getLogger(__name__)


def export(runs: Sequence[Path], out: Path) -> list[dict[str, Any]]:
    """Write the file and return its record.

    Args:
        runs: folders of training runs, each begun from the one before.
        out: the file.

    Raises:
        CheckpointError: a folder holds no checkpoint.
    """
    from ..train import latest_checkpoint, load_checkpoint, load_config

    legs: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        config = load_config(run / "config.toml")
        begun_from = Path(config.run.init_from)
        if number == 0 and begun_from.suffix == ".safetensors" and begun_from.is_file():
            legs += _earlier(begun_from)
        legs.append(_leg(run, latest_checkpoint(run)))
    modules = load_checkpoint(latest_checkpoint(runs[-1]), ema=True)
    options = NanoOptions(**config.task.options)
    extra = {TEXT + name: t.half() for name, t in modules["text_encoder"].items()}
    extra |= {CODEC + name: t for name, t in load_codec().state_dict().items()}
    weights = {name: t.half() for name, t in modules["dit"].items()}
    trained = nano_config(options.mode, same_position=options.same_position)
    write_checkpoint(out, weights, trained, extra=extra, notes={RECORD: json.dumps(legs)})
    _log.info("wrote %s: %d legs, %d clips", out, len(legs), sum(leg.get("clips", 0) for leg in legs))
    return legs


def _earlier(path: Path) -> list[dict[str, Any]]:
    try:
        return training_record(path)
    except CheckpointError:
        return []


def _leg(run: Path, checkpoint: Path) -> dict[str, Any]:
    """Return what one run did up to a checkpoint: steps, clips, CPU seconds, held-out loss, and its settings."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    step = int(checkpoint.stem.removeprefix("step-"))
    reached = [event for event in events if event.get("step", step + 1) <= step]
    last = next(event for event in reversed(reached) if event["event"] == "train")
    loss = next((event["loss"] for event in reversed(reached) if event["event"] == "held_out"), None)
    settings = (run / "config.toml").read_text(encoding="utf-8")
    return {"steps": step, "clips": last["samples"], "cpu_s": last["cpu_s"], "held_out": loss, "settings": settings}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Export gloria-nano from training runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="the runs' folders, first stage first")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FILE, help="the file to write")
    arguments = parser.parse_args()
    with torch.no_grad():
        export(arguments.runs, arguments.out)
