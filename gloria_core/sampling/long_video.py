"""A long video, chunk by chunk: a generator of finished clean latents whose memory is one chunk. Paper: 4.3."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import GloriaError, PlanError
from .chunks import Chunk, frames_of, num_latents_for
from .seeds import chunk_noise, chunk_seed

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)
C_contra = TypeVar("C_contra", contravariant=True)


class PrefixMode(StrEnum):
    """How a chunk takes up the last latents of the one before; the weights decide. Source: spec.md, inference."""

    HELD = "held"
    """As clean latents at timestep 0 that sampling leaves as they are."""
    GIVEN = "given"
    """Through the mask and image channels; the network makes these latents anew, and the two versions are blended."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkJob(Generic[C_co]):
    """All that sampling one chunk needs."""

    chunk: Chunk
    noise: Tensor
    """float32 (B, C, T, H, W) on the CPU, for the whole chunk, the prefix included."""
    prefix: Tensor | None
    """Clean latents (B, C, P, H, W) that come before the new ones; None where nothing does."""
    prefix_mode: PrefixMode
    conditions: C_co
    """What the caller's ``conditions`` returned for this chunk."""
    seed: int
    """The seed that ``noise`` was drawn with, for samplers that need more noise."""
    pictures: NDArray[np.uint8] | None = None
    """What the prefix decodes to (F, H, W, 3), F = 4(P - 1) + 1, for weights that are shown pictures; else None."""


class ChunkSampler(Protocol[C_contra]):
    """Makes one chunk's clean latents; the core's is `denoise.chunk_sampler`, a host brings its own."""

    def __call__(self, job: ChunkJob[C_contra]) -> Tensor:
        """Return clean latents shaped as ``job.noise``; the first P are ignored where the prefix is held."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FinishedChunk:
    """Latents that no later chunk changes."""

    chunk: Chunk
    latents: Tensor
    """Clean (B, C, Tn, H, W), those beyond the video's end included. Where the prefix is given they lie P before the
    chunk's new latents, because its last P latents wait for the next chunk's blend."""
    first_latent: int
    """Place of ``latents[:, :, 0]`` in the whole video."""
    frames: range
    """Pixel frames of the video that these latents decode to, cut at the video's end."""
    seed: int = 0
    seconds: float = 0.0
    """Time that sampling took."""

    @property
    def visible_latents(self) -> Tensor:
        """The latents that the video shows: all of them, except in the last chunk those beyond its end."""
        return self.latents[:, :, : num_latents_for(self.frames.stop) - self.first_latent]


def generate(
    chunks: Sequence[Chunk],
    *,
    sampler: ChunkSampler[C],
    conditions: Callable[[Chunk], C],
    shape: tuple[int, int, int, int],
    seed: int,
    prefix_mode: PrefixMode = PrefixMode.HELD,
    start: Tensor | None = None,
) -> Iterator[FinishedChunk]:
    """Sample a video of any length.

    Args:
        chunks: the rest of a plan: all of it, or from some chunk on to continue a video.
        sampler: makes one chunk's clean latents.
        conditions: gives what the sampler needs for a chunk beside noise and prefix (prompt, audio, anchors); called
            once for each chunk, just before it is sampled.
        shape: (B, C, H, W) of the latents.
        seed: the user's seed; each chunk's is derived from it (see `seeds.chunk_seed`).
        prefix_mode: how the weights take their prefix.
        start: clean latents (B or 1, C, P, H, W) to begin with. Before chunk 0: a start frame (P = 1) or the tail of
            another video, which are the first latents of this one. Before chunk k: the last latents of chunk k - 1.

    Returns:
        An iterator that samples a chunk each time it is asked, and keeps no more than a prefix between two of them.
        Together the latents are those of the whole video, each once, in order.

    Raises:
        PlanError: ``chunks`` or ``start`` do not fit together (at once, before anything is sampled).
        GloriaError: the sampler returned another shape or values that are not numbers (from the iterator).
    """
    chunks = tuple(chunks)
    if not chunks:
        raise PlanError("The plan has no chunks left; there is nothing to sample.")
    if start is not None:
        start = (start.expand(shape[0], *start.shape[1:]) if start.shape[0] == 1 else start).contiguous()
    _check_start(chunks[0], shape, start)
    return _run(chunks, _Video(sampler, conditions, shape, seed, prefix_mode), start)


def blend(old: Tensor, new: Tensor) -> Tensor:
    """Join two versions of the same latents (B, C, P, H, W); the new one's weight grows from 0 to 1. Paper: 4.3."""
    weight = torch.linspace(0.0, 1.0, old.shape[2], dtype=new.dtype, device=new.device)
    return torch.lerp(old.to(new), new, weight[:, None, None])


@dataclass(frozen=True, slots=True, eq=False)
class _Video(Generic[C]):
    sampler: ChunkSampler[C]
    conditions: Callable[[Chunk], C]
    shape: tuple[int, int, int, int]
    seed: int
    prefix_mode: PrefixMode


def _run(chunks: tuple[Chunk, ...], video: _Video[C], prefix: Tensor | None) -> Iterator[FinishedChunk]:
    for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
        began = time.perf_counter()
        seed = chunk_seed(video.seed, chunk.index)
        job = chunk_job(chunk, video.shape, seed, video.prefix_mode, prefix, video.conditions(chunk))
        latents = sample_chunk(video.sampler, job)
        seconds = time.perf_counter() - began
        finished = finished_part(chunk, latents, following, video.prefix_mode, chunks[-1].frames.stop)
        prefix = prefix_for(following, latents)
        del latents  # while the next chunk is sampled, only the prefix stays
        yield replace(finished, seed=seed, seconds=seconds)
        del finished


def chunk_job(
    chunk: Chunk,
    shape: tuple[int, int, int, int],
    seed: int,
    prefix_mode: PrefixMode,
    prefix: Tensor | None,
    conditions: C,
) -> ChunkJob[C]:
    """Return the job of one chunk, with its noise drawn from ``seed``; ``shape`` is (B, C, H, W)."""
    batch, channels, height, width = shape
    noise = chunk_noise(seed, (batch, channels, chunk.num_latents, height, width))
    return ChunkJob(chunk, noise, prefix, prefix_mode, conditions, seed)


def sample_chunk(sampler: ChunkSampler[C], job: ChunkJob[C]) -> Tensor:
    """Return a chunk's latents (B, C, T, H, W), joined to its prefix: held as it is, or blended with the new version.

    Raises:
        GloriaError: the sampler returned another shape or values that are not numbers.
    """
    latents = _checked(sampler(job), job)
    if job.prefix is None:
        return latents
    num_prefix = job.prefix.shape[2]
    made = latents[:, :, :num_prefix]
    joined = job.prefix.to(latents) if job.prefix_mode == PrefixMode.HELD else blend(job.prefix, made)
    return torch.cat([joined, latents[:, :, num_prefix:]], dim=2)


def prefix_for(following: Chunk | None, latents: Tensor) -> Tensor | None:
    """Return what the next chunk goes on from: a copy of the last latents of a chunk (B, C, T, H, W)."""
    if following is None:
        return None
    return latents[:, :, latents.shape[2] - following.num_prefix :].clone(memory_format=torch.contiguous_format)


def finished_latents(chunk: Chunk, following: Chunk | None, prefix_mode: PrefixMode) -> range:
    """Return the latents of the whole video that a chunk makes final: no later one changes them, no earlier has them.

    Where prefixes are given, the last latents wait for the next chunk's blend.
    """
    if prefix_mode == PrefixMode.HELD:
        return chunk.new_latents
    return chunk.latents[: chunk.num_latents - (0 if following is None else following.num_prefix)]


def finished_frames(chunk: Chunk, following: Chunk | None, prefix_mode: PrefixMode, end: int) -> range:
    """Return the pixel frames that these latents decode to, cut at the video's ``end``."""
    shown = frames_of(finished_latents(chunk, following, prefix_mode))
    return range(shown.start, min(shown.stop, end))


def finished_part(
    chunk: Chunk, latents: Tensor, following: Chunk | None, prefix_mode: PrefixMode, end: int
) -> FinishedChunk:
    """Return the final ones of a chunk's latents (B, C, T, H, W), which are joined to its prefix."""
    ready = finished_latents(chunk, following, prefix_mode)
    first = ready.start - chunk.latents.start
    return FinishedChunk(
        chunk,
        latents[:, :, first : first + len(ready)].contiguous(),
        ready.start,
        finished_frames(chunk, following, prefix_mode, end),
    )


def _checked(latents: Tensor, job: ChunkJob[C]) -> Tensor:
    if latents.shape != job.noise.shape:
        raise GloriaError(
            f"The sampler returned latents of the shape {tuple(latents.shape)} for chunk {job.chunk.index}; it must "
            f"return the shape of the noise that it was given, {tuple(job.noise.shape)}."
        )
    if not bool(torch.isfinite(latents).all()):
        raise GloriaError(
            f"Chunk {job.chunk.index} came out with values that are not numbers (NaN or infinite). The usual cause is "
            "a number format that is too small for these weights: run the model in bfloat16 or float32."
        )
    return latents


def _check_start(chunk: Chunk, shape: tuple[int, int, int, int], start: Tensor | None) -> None:
    if start is None:
        if chunk.num_prefix:
            raise PlanError(
                f"The video is to go on with chunk {chunk.index}, but the {chunk.num_prefix} latent frames before it "
                "are missing; give them as `start`."
            )
        return
    batch, channels, height, width = shape
    fits = start.ndim == 5 and (start.shape[0], start.shape[1], *start.shape[3:]) == (batch, channels, height, width)
    if not fits:
        raise PlanError(
            f"The start latents have the shape {tuple(start.shape)}; this video needs ({batch}, {channels}, frames, "
            f"{height}, {width}). Encode the start picture at the size of the video."
        )
    if chunk.num_prefix and start.shape[2] != chunk.num_prefix:
        raise PlanError(
            f"Chunk {chunk.index} goes on from {chunk.num_prefix} latent frames, but {start.shape[2]} were given as "
            "`start`."
        )
    if not 1 <= start.shape[2] < chunk.num_latents:
        raise PlanError(
            f"{start.shape[2]} start latents leave nothing to make in a chunk of {chunk.num_latents}; give at least 1 "
            f"and at most {chunk.num_latents - 1}, or use longer chunks."
        )
