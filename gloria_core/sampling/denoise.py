"""Ties a network to the conditions of one chunk, so that a solver sees nothing but ``denoise(x, sigma)``."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import AudioError, ConfigError, GloriaError
from ..protocols import Cache, Denoiser
from ..types import AnchorSet
from .chunks import Chunk
from .guidance import Branch, Guidance
from .long_video import ChunkJob, ChunkSampler, PrefixMode
from .solver import Denoise, Solver, Step

TIMESTEPS = 1000.0
"""Timestep of pure noise: timestep = 1000 * sigma. Source: wan.md section 6."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChunkConditions:
    """What one chunk is made from. A batch of 1 serves a larger batch of latents."""

    context: Tensor
    """Rows of the prompt (B or 1, L, D_text)."""
    negative_context: Tensor | None = None
    """Rows of the negative prompt (B or 1, L, D_text); needed where the text scale is not 1."""
    audio: Tensor | None = None
    """Windows of audio features (B or 1, T, W, A) for all of the chunk's latents; None where there is no sound."""
    anchors: AnchorSet | None = None
    guidance: Guidance = field(default_factory=Guidance)


def bind(
    denoiser: Denoiser, conditions: ChunkConditions, *, prefix: Tensor | None = None, cache: Cache | None = None
) -> Denoise:
    """Return ``denoise(x, sigma) -> x0`` for one chunk.

    Before every pass the prefix takes its place in ``x`` again, and it is in ``x0`` as given: it is held whatever the
    solver does to it. The network runs in the dtype of the context, the solver in that of ``x``.

    Args:
        denoiser: the network.
        conditions: prompt, audio, anchors and guidance of the chunk.
        prefix: clean latents (B, C, P, H, W) to hold at the start of the chunk.
        cache: handed to the network at every pass; the caller tells it when a chunk begins.

    Raises:
        ConfigError: guidance needs a negative prompt that is not there.
    """
    has_audio = conditions.audio is not None
    if Branch.NEGATIVE in conditions.guidance.weights(has_audio=has_audio) and conditions.negative_context is None:
        raise ConfigError(
            f"The text guidance scale is {conditions.guidance.text_scale}, which needs a negative prompt (it may be "
            "empty); give one, or set the scale to 1."
        )
    num_prefix = 0 if prefix is None else prefix.shape[2]

    def denoise(x: Tensor, sigma: float) -> Tensor:
        x = _with_prefix(x, prefix)
        timestep = torch.full((x.shape[0],), TIMESTEPS * sigma, dtype=torch.float32, device=x.device)

        def predict(branch: Branch) -> Tensor:
            context, audio = _shown(branch, conditions, x)
            return denoiser(
                x.to(context.dtype),
                timestep,
                context,
                anchors=conditions.anchors,
                num_prefix=num_prefix,
                audio=audio,
                cache=cache,
            ).to(x.dtype)

        velocity = conditions.guidance.velocity(predict, has_audio=has_audio)
        return _with_prefix(x - sigma * velocity, prefix)

    return denoise


def chunk_sampler(
    denoiser: Denoiser,
    *,
    solver: Solver,
    sigmas: Tensor,
    cache: Cache | None = None,
    on_step: Callable[[Chunk, Step], None] | None = None,
) -> ChunkSampler[ChunkConditions]:
    """Return the core's own sampler for `long_video.generate`.

    Args:
        denoiser: the network, one whose prefix is held.
        solver: walks along ``sigmas``.
        sigmas: noise levels from 1 to 0.
        cache: the network's cache for this video; told about the start of every chunk.
        on_step: called at every step, for progress and previews; what it raises ends the sampling.

    Raises:
        ConfigError: ``sigmas`` do not go from 1 to 0.
    """
    if float(sigmas[0]) != 1.0 or float(sigmas[-1]) != 0.0:
        raise ConfigError(
            f"The noise levels go from {float(sigmas[0]):g} to {float(sigmas[-1]):g}; a chunk is made from pure noise, "
            "so they must go from 1 to 0."
        )

    @torch.no_grad()
    def sample(job: ChunkJob[ChunkConditions]) -> Tensor:
        if job.prefix_mode != PrefixMode.HELD and job.prefix is not None:
            raise ConfigError(
                "These weights take their prefix through extra channels; the core samples held prefixes only."
            )
        if cache is not None:
            cache.start_chunk()
        noise = job.noise.to(job.conditions.context.device)
        prefix = None if job.prefix is None else job.prefix.to(noise)
        denoise = bind(denoiser, job.conditions, prefix=prefix, cache=cache)
        callback = None if on_step is None else lambda step: on_step(job.chunk, step)
        return solver(denoise, noise, sigmas, callback)

    return sample


def _with_prefix(x: Tensor, prefix: Tensor | None) -> Tensor:
    return x if prefix is None else torch.cat([prefix, x[:, :, prefix.shape[2] :]], dim=2)


def _shown(branch: Branch, conditions: ChunkConditions, x: Tensor) -> tuple[Tensor, Tensor | None]:
    context = conditions.context
    if branch == Branch.NEGATIVE and conditions.negative_context is not None:
        context = conditions.negative_context
    audio = conditions.audio
    if audio is not None:
        if audio.shape[1] != x.shape[2]:
            raise AudioError(
                f"The chunk has {x.shape[2]} latent frames, but the audio has windows for {audio.shape[1]}; cut the "
                "windows for all of the chunk's latents, its prefix included."
            )
        audio = _batched(audio if branch == Branch.FULL else torch.zeros_like(audio), x)
    return _batched(context, x), audio


def _batched(rows: Tensor, x: Tensor) -> Tensor:
    if rows.shape[0] not in (1, x.shape[0]):
        raise GloriaError(
            f"A condition has a batch of {rows.shape[0]}, the latents one of {x.shape[0]}; give 1 or as many."
        )
    return rows.expand(x.shape[0], *rows.shape[1:])
