"""The nano world's video codec: one fixed linear map on blocks of 4 frames x 8 x 8 pixels x 3 colours.

The map is the principal components of rendered blocks, found in closed form. Every latent is coded and decoded alone,
so the codec is causal and streams by nature. Frame 0, and any single picture, is coded as four equal frames; latent 0
is decoded to the mean of its four frames, which is the best single picture that a linear code holds.

`python -m gloria_core.nano.codec` fits and writes the bundled file again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange, repeat
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError, MediaError
from ..types import EXPRESSIONS, VIEWS
from .characters import Characters
from .render import Poses, expression_anchors, render, view_anchors, view_yaw
from .textures import paint
from .timeline import Habits, camera_drift, random_commands, random_state, run

CHANNELS = 64
FRAMES, SIDE = 4, 8
"""Pixels of a block in time and along each side."""
BLOCK = 3 * FRAMES * SIDE * SIDE
DECODER = "gloria-nano codec, float32, exact"
"""How runs name the decoding of its latents; the same inside and outside of a host."""
CODEC_FILE = Path(__file__).parent / "weights" / "codec.safetensors"


class LinearCodec(nn.Module):
    """Encodes (B, 3, F, H, W) in [-1, 1] to normalised latents (B, C, T, H/8, W/8) and back; F = 4 (T - 1) + 1.

    Args:
        basis: (768, C) orthonormal columns.
        mean: (768,) of the blocks.
        scale: (C,) by which each coefficient is divided: its standard deviation to the power 0.5 times a constant, so
            that coarse channels stay larger while the mean variance over the channels is 1.
        latent_std: (C,) standard deviation of the normalised latents.
    """

    basis: Tensor
    mean: Tensor
    scale: Tensor
    latent_std: Tensor

    def __init__(self, basis: Tensor, mean: Tensor, scale: Tensor, latent_std: Tensor) -> None:
        super().__init__()
        for name, value in (("basis", basis), ("mean", mean), ("scale", scale), ("latent_std", latent_std)):
            self.register_buffer(name, value.float())

    @property
    def channels(self) -> int:
        """C."""
        return self.basis.shape[1]

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode frames.

        Raises:
            MediaError: the number of frames is not 4k+1, or a side is no multiple of 8.
        """
        _check(pixels)
        first = repeat(pixels[:, :, :1], "b c 1 h w -> b c t h w", t=FRAMES)
        blocks = _to_blocks(torch.cat([first, pixels[:, :, 1:]], dim=2))  # (B, T, h, w, 768)
        latents = (blocks - self.mean.to(blocks)) @ (self.basis / self.scale).to(blocks)
        return rearrange(latents, "b t h w c -> b c t h w").contiguous()

    def decode(self, latents: Tensor, *, starts_video: bool = True) -> Tensor:
        """Decode latents (B, C, T, h, w).

        Args:
            latents: normalised.
            starts_video: the first of them is latent 0 and gives one frame; otherwise each of them gives four, as in
                the middle of a stream.

        Returns:
            (B, 3, F, 8h, 8w), not clamped.
        """
        values = rearrange(latents, "b c t h w -> b t h w c")
        blocks = values @ (self.basis * self.scale).T.to(values) + self.mean.to(values)
        pixels = rearrange(blocks, "b t h w (c f y x) -> b c (t f) (h y) (w x)", c=3, f=FRAMES, y=SIDE, x=SIDE)
        if not starts_video:
            return pixels
        return torch.cat([pixels[:, :, :FRAMES].mean(dim=2, keepdim=True), pixels[:, :, FRAMES:]], dim=2)


def _to_blocks(pixels: Tensor) -> Tensor:
    return rearrange(pixels, "b c (t f) (h y) (w x) -> b t h w (c f y x)", f=FRAMES, y=SIDE, x=SIDE)


def _check(pixels: Tensor) -> None:
    if pixels.ndim != 5 or pixels.shape[1] != 3:
        raise MediaError(f"The codec takes colour video (batch, 3, frames, height, width), not {tuple(pixels.shape)}.")
    frames, height, width = pixels.shape[2:]
    if frames % FRAMES != 1:
        lower = max(1, (frames - 1) // FRAMES * FRAMES + 1)
        raise MediaError(f"num_frames is {frames}; the codec needs 4k+1: use {lower} or {lower + FRAMES}.")
    if height % SIDE or width % SIDE or not height or not width:
        near = " x ".join(str(max(SIDE, (side + SIDE // 2) // SIDE * SIDE)) for side in (width, height))
        raise MediaError(f"The picture is {width} x {height}; the codec needs multiples of 8: use {near}.")


def load_codec(path: Path = CODEC_FILE) -> LinearCodec:
    """Load a codec file.

    Raises:
        CheckpointError: the file is missing, cut, or no codec.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no codec file {path}; make it with: python -m gloria_core.nano.codec.")
    try:
        with safe_open(path, framework="pt") as file:
            return LinearCodec(*(file.get_tensor(name) for name in ("basis", "mean", "scale", "latent_std")))
    except SafetensorError as error:
        raise CheckpointError(f"The codec file {path} was cut or is no codec ({error}); restore it.") from error


# ---------------------------------------------------------------- fitting


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """What a codec is fitted to and measured on."""

    video: Tensor
    """(N, 3, 53, 64, 48): two chunks with turns, speech and changing emotions."""
    stills: tuple[Tensor, ...]
    """Anchors (n, 3, 1, h, 48): global, views, expressions."""


def footage(num_characters: int, generator: torch.Generator, *, batch: int = 16) -> Iterator[Footage]:
    """Random footage of random characters, in batches."""
    for start in range(0, num_characters, batch):
        n = min(batch, num_characters - start)
        atlas = paint(Characters.random(n, generator))
        state = random_state(n, generator)
        motion = run(state, random_commands(state, 2, generator, Habits(turn=0.5)))
        num_frames = motion.yaw.shape[1]
        mouth, camera = _babble(n, num_frames, generator), camera_drift(n, num_frames, generator)
        video = render(atlas, Poses(motion.yaw, motion.emotion, mouth, camera))
        moods = torch.arange(len(EXPRESSIONS)).expand(n, -1)
        any_mood = torch.randint(len(EXPRESSIONS), (n, len(VIEWS) + 1), generator=generator)
        yaw = view_yaw() + 0.15 * torch.randn(n, len(VIEWS), generator=generator)
        fronts = 0.1 * torch.randn(n, len(EXPRESSIONS), generator=generator)
        stills = (
            render(atlas, Poses.still(fronts[:, :1], any_mood[:, :1])),
            view_anchors(atlas, Poses.still(yaw, any_mood[:, 1:], _babble(n, len(VIEWS), generator))),
            expression_anchors(atlas, Poses.still(fronts, moods, _babble(n, len(EXPRESSIONS), generator) * 0.3)),
        )
        yield Footage(video, tuple(rearrange(still, "b c f h w -> (b f) c 1 h w") for still in stills))


def _babble(n: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """Mouth openings (n, num_frames) in syllables of four to eight frames, shut for a part of the time."""
    period = 4 + 4 * torch.rand(n, 1, generator=generator)
    phase = 6.283 * torch.rand(n, 1, generator=generator)
    loudness = torch.rand(n, num_frames // 8 + 1, generator=generator).mul(1.5).sub(0.4).clamp(0, 1)
    wave = 0.5 - 0.5 * (6.283 * torch.arange(num_frames) / period + phase).cos()
    return wave * loudness.repeat_interleave(8, dim=1)[:, :num_frames]


def _blocks(clip: Tensor) -> Tensor:
    first = repeat(clip[:, :, :1], "b c 1 h w -> b c t h w", t=FRAMES)
    return _to_blocks(torch.cat([first, clip[:, :, 1:]], dim=2)).flatten(0, -2)


def fit_codec(clips: Iterator[Footage], channels: tuple[int, ...] = (CHANNELS,)) -> dict[int, LinearCodec]:
    """Fit codecs of several sizes to the same footage, in closed form through the covariance of its blocks."""
    total, second, count = torch.zeros(BLOCK, dtype=torch.float64), torch.zeros(BLOCK, BLOCK, dtype=torch.float64), 0
    for batch in clips:
        for clip in (batch.video, *batch.stills):
            blocks = _blocks(clip)
            total += blocks.sum(0, dtype=torch.float64)
            second += (blocks.T @ blocks).double()
            count += len(blocks)
    mean = total / count
    values, vectors = torch.linalg.eigh(second / count - mean[:, None] * mean)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    vectors = vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)  # the sign is free: fixed, so that a fit repeats
    codecs = {}
    for size in channels:
        deviation = values[:size].sqrt()
        scale = deviation.sqrt() * deviation.mean().sqrt()
        codecs[size] = LinearCodec(vectors[:, :size], mean, scale, deviation / scale)
    return codecs


def psnr(error: Tensor) -> float:
    """Decibels of a mean squared error tensor of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / error.square().mean()))


def measure(codec: LinearCodec, clips: Iterator[Footage]) -> dict[str, float]:
    """PSNR (dB) on held-out footage: of all video, its first frames, and each kind of anchor; decoded as shown."""
    errors: dict[str, list[Tensor]] = {}
    for batch in clips:
        restored = codec.decode(codec.encode(batch.video)).clamp(-1, 1) - batch.video
        errors.setdefault("video", []).append(restored)
        errors.setdefault("first_frame", []).append(restored[:, :, :1])
        for name, still in zip(("global", "view", "expression"), batch.stills, strict=True):
            errors.setdefault(name, []).append(codec.decode(codec.encode(still)).clamp(-1, 1) - still)
    return {name: round(psnr(torch.cat(parts)), 2) for name, parts in errors.items()}


def save_codec(codec: LinearCodec, path: Path, record: dict[str, float]) -> None:
    """Write a codec with what was measured on it in the file's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "gloria-nano-codec", "channels": str(codec.channels), "psnr_db": json.dumps(record)}
    save_file({name: value.contiguous() for name, value in codec.state_dict().items()}, path, metadata)


def main(arguments: list[str] | None = None) -> None:
    """Fit, measure on held-out characters, write."""
    parser = argparse.ArgumentParser(prog="python -m gloria_core.nano.codec", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=CODEC_FILE)
    parser.add_argument("--channels", type=int, default=CHANNELS)
    parser.add_argument("--compare", type=int, nargs="*", default=[], help="other channel counts, measured only")
    parser.add_argument("--characters", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    sizes = (options.channels, *options.compare)
    codecs = fit_codec(footage(options.characters, torch.Generator().manual_seed(options.seed)), sizes)
    for size, codec in codecs.items():
        record = measure(codec, footage(64, torch.Generator().manual_seed(options.seed + 1)))
        sys.stdout.write(f"{size} channels: {record}\n")
        if size == options.channels:
            save_codec(codec, options.out, record)


if __name__ == "__main__":
    main()
