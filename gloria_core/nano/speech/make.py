"""Make the bundled speech again: ``python -m gloria_core.nano.speech.make FOLDER`` (needs the ``flite`` program)."""

import argparse
import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...media import read_audio, write_audio
from . import FOLDER, demo_cues

RATE = 16000
BIT_RATE = 20000
LEVEL_DB = -20.0
"""RMS of a sentence while somebody speaks."""
PEAK = 0.85
SHARES = {"slt": 0.33, "rms": 0.30, "awb": 0.27, "kal16": 0.10}
STRETCHES = (0.85, 0.95, 1.0, 1.0, 1.1, 1.25)
"""Speaking rates: the factor on every sound's duration."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One way of speaking a sentence."""

    name: str
    stretch: float
    level_db: float


def speak(text: str, voice: Voice) -> Tensor:
    """Return a sentence as (1, samples) at 16 kHz, without silence around it and at the voice's level."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "sentence.wav"
        how = ["-voice", voice.name, "--setf", f"duration_stretch={voice.stretch}"]
        subprocess.run(["flite", *how, "-t", text, "-o", str(wav)], check=True)
        sound = read_audio(wav, sample_rate=RATE)[0].mean(0)
    loud = (sound.abs() > 0.01 * sound.abs().max()).nonzero()
    sound = sound[max(int(loud[0]) - 320, 0) : int(loud[-1]) + 640].clone()
    fade = torch.linspace(0, 1, 160)
    sound[:160] *= fade
    sound[-160:] *= fade.flip(0)
    power = sound.unfold(0, 400, 160).square().mean(1)
    active = power[power > power.max() * 1e-3].mean().sqrt()
    sound = sound * (10 ** (voice.level_db / 20) / active)
    return (sound * min(1.0, PEAK / float(sound.abs().max())))[None]


def pause(rng: random.Random) -> Tensor:
    """Return silence (1, samples) of a natural length: short within a thought, sometimes long."""
    bounds = rng.choices([(0.12, 0.3), (0.3, 0.8), (0.8, 1.8), (1.8, 2.6)], [0.2, 0.58, 0.18, 0.04])[0]
    return torch.zeros(1, round(rng.uniform(*bounds) * RATE))


def sentences(name: str) -> list[str]:
    """Return the lines of one of the text files beside this program."""
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()


def voiced(lines: list[str], names: list[str], rng: random.Random) -> Tensor:
    """Return all lines, each in a voice out of ``names`` at a speaking rate and level of its own."""
    parts = [pause(rng)]
    for line in lines:
        voice = Voice(rng.choice(names), rng.choice(STRETCHES), LEVEL_DB + rng.uniform(-2, 2))
        parts += [speak(line, voice), pause(rng)]
    return torch.cat(parts, dim=1)


def monologue(voice: Voice) -> Tensor:
    """Return the demo: each sentence starts at its cue."""
    cues = demo_cues()
    spoken = [speak(text, voice) for _, text in cues]
    track = torch.zeros(1, round(cues[-1][0] * RATE) + spoken[-1].shape[1] + RATE // 2)
    for (start_s, _), sound in zip(cues, spoken, strict=True):
        first = round(start_s * RATE)
        track[:, first : first + sound.shape[1]] += sound
    return track


def main() -> None:
    """Write all speech files into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    rng = random.Random(2024)
    lines = sentences("train.txt")
    who = rng.choices(list(SHARES), list(SHARES.values()), k=len(lines))
    for name in SHARES:
        mine = [line for line, voice in zip(lines, who, strict=True) if voice == name]
        write_audio(folder / f"train_{name}.ogg", voiced(mine, [name], rng), RATE, bit_rate=BIT_RATE)
    heldout = voiced(sentences("heldout.txt"), ["slt", "rms", "awb"], rng)
    write_audio(folder / "heldout.ogg", heldout, RATE, bit_rate=BIT_RATE)
    write_audio(folder / "demo.flac", monologue(Voice("slt", 1.1, LEVEL_DB)), RATE)


if __name__ == "__main__":
    main()
