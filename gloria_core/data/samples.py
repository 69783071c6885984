"""What a training shows while it goes on: clips made anew beside the true ones, as a sheet and as a film."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import MediaError
from ..media import FilmSound
from ..media.clip import write_clip
from ..render.stream import to_bytes
from ..render.wan_vae import WanVae
from ..runs.job import Frames
from ..sampling.chunks import frames_of
from ..whole import written_whole

Decode = Callable[[Tensor], Iterator[Frames]]
"""Decodes a video's latents (1, C, T, h, w) to the frames (F, H, W, 3) of each, one after the other."""

SOUND_RATE = 48000
"""Samples a second of a sample's sound."""

_MOST_COLUMNS = 12
_ENLARGED_PX, _SHRUNK_PX = 144, 192
"""Width of a cell: small frames are enlarged a whole number of times up to the first, large ones shrunk to the last."""


class Decoder(Protocol):
    """Latents (B, C, T, h, w), each coded alone, to pixels (B, 3, F, H, W) in [-1, 1]."""

    def decode(self, latents: Tensor, *, starts_video: bool = True) -> Tensor:
        """Decode; a first latent that starts no video gives four frames."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A clip, and what a network makes of its conditions; latents (1, C, T, h, w)."""

    true: Tensor
    made: Tensor
    sound: Tensor | None = None
    """What is heard (1, samples) at `SOUND_RATE`; None for silence."""

    @property
    def num_frames(self) -> int:
        """F."""
        return len(frames_of(range(self.true.shape[2])))


def frames_by_codec(decoder: Decoder) -> Decode:
    """Return what decodes with a codec that codes each latent alone, on the CPU."""

    def decode(latents: Tensor) -> Iterator[Frames]:
        for index, latent in enumerate(latents.float().cpu().split(1, dim=2)):
            yield to_bytes(decoder.decode(latent, starts_video=index == 0))

    return decode


def frames_by_vae(path: Path, device: torch.device) -> Decode:
    """Return what decodes with a Wan VAE in a stream: memory does not grow with the length of a clip.

    The VAE is held by what is returned, and by nothing else.

    Raises:
        CheckpointError: the VAE is missing, or not whole.
        ConfigError: diffusers is missing, or decodes in another way than this version knows.
    """
    decoder = WanVae(path, device).decoder()

    def decode(latents: Tensor) -> Iterator[Frames]:
        decoder.reset()
        yield from decoder.frames(latents.float())

    return decode


def write_samples(samples: Sequence[Sample], decode: Decode, path: Path, fps: float) -> None:
    """Write a sheet, and beside it a film; each appears whole or not at all, the film first.

    The sheet has two rows for each clip, a frame of each latent: the true ones above the made ones. The film
    (``.mp4``) plays the clips one after the other, the true one on the left. Held in memory: the frames of one true
    clip.

    Args:
        samples: one at least. Films of other sizes than the first one's are fitted into its size.
        decode: decodes latents.
        path: of the sheet, a .png.
        fps: frames a second.

    Raises:
        MediaError: the disk refuses.
    """
    rows: list[list[Frames]] = []

    def frames() -> Iterator[Frames]:
        size: tuple[int, int] | None = None
        for sample in samples:
            shown: tuple[list[Frames], list[Frames]] = [], []
            true = list(decode(sample.true))
            for pair in zip(true, decode(sample.made), strict=True):
                for row, pictures in zip(shown, pair, strict=True):
                    row.append(pictures[min(1, len(pictures) - 1)])
                size = size or (pair[0].shape[2], pair[0].shape[1])
                yield np.concatenate([_fitted(pictures, size) for pictures in pair], axis=2)
            rows.extend(shown)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path.with_suffix(".mp4"), frames(), fps, _sound(samples, fps))
    with written_whole(path, kind=MediaError) as partial:
        _sheet(rows).save(partial, "PNG")


def _fitted(frames: Frames, size: tuple[int, int]) -> Frames:
    """Return frames (F, H, W, 3) at a width and height, with black where their shape is another."""
    if (frames.shape[2], frames.shape[1]) == size:
        return frames
    return np.stack([np.asarray(ImageOps.pad(Image.fromarray(frame), size)) for frame in frames])


def _sound(samples: Sequence[Sample], fps: float) -> FilmSound | None:
    """Return what is heard of clips that follow each other; None where there is no sound at all."""
    if all(sample.sound is None for sample in samples):
        return None
    edges = [round(end / fps * SOUND_RATE) for end in accumulate((s.num_frames for s in samples), initial=0)]
    heard = torch.zeros(1, edges[-1])
    for sample, (start, stop) in zip(samples, pairwise(edges), strict=True):
        if sample.sound is not None:
            part = sample.sound[:, : stop - start]
            heard[:, start : start + part.shape[1]] = part
    return FilmSound((heard, SOUND_RATE))


def _sheet(rows: Sequence[Sequence[Frames]]) -> Image.Image:
    """Lay out rows of frames (H, W, 3)."""
    strips = [_strip(row) for row in rows]
    sheet = Image.new("RGB", (max(strip.width for strip in strips), sum(strip.height for strip in strips)))
    tops = accumulate((strip.height for strip in strips), initial=0)
    for strip, top in zip(strips, tops, strict=False):
        sheet.paste(strip, (0, top))
    return sheet


def _strip(row: Sequence[Frames]) -> Image.Image:
    chosen = np.linspace(0, len(row) - 1, min(len(row), _MOST_COLUMNS)).round().astype(int)
    strip = Image.fromarray(np.concatenate([row[index] for index in chosen], axis=1))
    width = row[0].shape[1]
    if width > _SHRUNK_PX:
        height = max(1, round(strip.height * _SHRUNK_PX / width))
        return strip.resize((_SHRUNK_PX * len(chosen), height), Image.Resampling.LANCZOS)
    factor = max(1, _ENLARGED_PX // width)
    return strip.resize((strip.width * factor, strip.height * factor), Image.Resampling.NEAREST)
