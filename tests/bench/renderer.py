"""Frames a second of the nano renderer on one thread: `python tests/bench/renderer.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gloria_core.nano.characters import Characters
from gloria_core.nano.render import Poses, render
from gloria_core.nano.timeline import camera_drift

NUM_CHARACTERS, ROUNDS = 64, 5


def main() -> None:
    """Print the best of a few rounds for stills and for clips, painting included."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    characters = Characters.random(NUM_CHARACTERS, generator)
    for num_frames in (1, 13, 33):
        shape = (NUM_CHARACTERS, num_frames)
        poses = Poses(
            yaw=6.28 * torch.rand(shape, generator=generator),
            emotion=torch.softmax(torch.randn(*shape, 8, generator=generator), -1),
            mouth=torch.rand(shape, generator=generator),
            camera=camera_drift(*shape, generator),
        )
        seconds = []
        for _ in range(ROUNDS):
            start = perf_counter()
            render(characters, poses)
            seconds.append(perf_counter() - start)
        rate = NUM_CHARACTERS * num_frames / min(seconds)
        sys.stdout.write(f"{num_frames:3d} frames a character: {rate:7.0f} frames/s\n")


if __name__ == "__main__":
    main()
