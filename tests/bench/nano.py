"""Speed of nano on this machine: training in both attention modes, and chunks of film. Prints ratios; not a test.

``python tests/bench/nano.py [--out RESULTS.json]``; CPU time, alternating order, medians, with self/self beside.
"""

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from gloria_core.model import GloriaDiT, initialise
from gloria_core.nano.task import nano_config
from gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet

_CHARACTERS, _CLIPS = 4, 3


def anchors(batch: int) -> AnchorSet:
    made = [Anchor(AnchorRole.GLOBAL, "", torch.randn(batch, 64, 1, 8, 6))]
    made += [Anchor(AnchorRole.VIEW, v, torch.randn(batch, 64, 1, 8, 6)) for v in VIEWS]
    made += [Anchor(AnchorRole.EXPRESSION, e, torch.randn(batch, 64, 1, 4, 6)) for e in EXPRESSIONS]
    return AnchorSet(tuple(made))


def train_step(dit: GloriaDiT, given: AnchorSet) -> float:
    """Return the CPU seconds of one forward and backward of a batch."""
    batch = _CHARACTERS * _CLIPS
    x, audio = torch.randn(batch, 64, 9, 8, 6), torch.randn(batch, 9, 8, 32)
    context = torch.randn(batch, dit.config.text_length, dit.config.text_dim)
    began = time.process_time()
    out = dit(x, torch.rand(batch) * 1000, context, anchors=given, num_prefix=4, audio=audio)
    out.square().mean().backward()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = anchors(_CHARACTERS)
    models = {}
    for name in ("joint", "cached", "joint again"):
        models[name] = GloriaDiT(nano_config(name.split()[0]))  # type: ignore[arg-type]
        initialise(models[name], torch.Generator().manual_seed(0))
        train_step(models[name], given)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(arguments.rounds):
        for name in sorted(models, reverse=bool(turn % 2)):
            times[name].append(train_step(models[name], given))
    median = {name: statistics.median(values) for name, values in times.items()}
    clips = _CHARACTERS * _CLIPS
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "clips_per_core_second": {name: round(clips / value, 2) for name, value in median.items()},
        "joint_over_cached": round(median["joint"] / median["cached"], 3),
        "self_over_self": round(median["joint"] / median["joint again"], 3),
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
