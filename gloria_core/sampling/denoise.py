"""Ties a network to the conditions of one chunk, so that a solver sees nothing but ``denoise(x, sigma)``."""

from collections.abc import Callable, Sequence
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
    prefix_noise: float = 0.0
    """Noise level at which the network is shown a held prefix, from 0 (clean) to below 1."""

    def __post_init__(self) -> None:
        check_prefix_noise(self.prefix_noise)


def check_prefix_noise(sigma: float) -> None:
    """Refuse a noise level at which a prefix cannot be shown; ConfigError."""
    if not 0 <= sigma < 1:
        raise ConfigError(
            f"The noise of the prefix is {sigma}; it must be from 0 (shown clean) to below 1 (0.02 to 0.1 is slight)."
        )


def shown_prefix(prefix: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Return a held prefix (B, C, P, H, W) as the network is shown it: with a part of its own chunk's noise.

    Args:
        prefix: clean latents, in the space of the network.
        noise: the chunk's noise (B, C, T, H, W), of which the first P frames serve.
        sigma: noise level of the prefix; at 0 it is returned as it is.
    """
    return (1 - sigma) * prefix + sigma * noise[:, :, : prefix.shape[2]].to(prefix) if sigma else prefix


def bind(
    denoiser: Denoiser,
    conditions: ChunkConditions,
    *,
    prefix: Tensor | None = None,
    noise: Tensor | None = None,
    cache: Cache | None = None,
    together: bool = False,
) -> Denoise:
    """Return ``denoise(x, sigma) -> x0`` for one chunk.

    Before every pass the prefix takes its place in ``x`` again, noised where the conditions ask for that, and it is in
    ``x0`` as given: it is held whatever the solver does to it. The network runs in the dtype of the context, the solver
    in that of ``x``.

    Args:
        denoiser: the network.
        conditions: prompt, audio, anchors and guidance of the chunk.
        prefix: clean latents (B, C, P, H, W) to hold at the start of the chunk.
        noise: the chunk's noise (B, C, T, H, W), for a prefix that is shown noised.
        cache: handed to the network at every pass; the caller tells it when a chunk begins.
        together: run the passes of guidance as one batch: faster where the card is not busy, for as much more memory.
            Anchors of several characters run pass by pass.

    Raises:
        ConfigError: guidance needs a negative prompt that is not there, or a noised prefix the chunk's noise.
    """
    has_audio = conditions.audio is not None
    if Branch.NEGATIVE in conditions.guidance.weights(has_audio=has_audio) and conditions.negative_context is None:
        raise ConfigError(
            f"The text guidance scale is {conditions.guidance.text_scale}, which needs a negative prompt (it may be "
            "empty); give one, or set the scale to 1."
        )
    num_prefix = 0 if prefix is None else prefix.shape[2]
    shown = _shown_prefix(prefix, noise, conditions.prefix_noise)
    side_by_side = together and (conditions.anchors is None or conditions.anchors.batch_size == 1)

    def velocities(x: Tensor, sigma: float, branches: Sequence[Branch]) -> tuple[Tensor, ...]:
        """Run the network once, the branches side by side in its batch."""
        given = [_shown(branch, conditions, x) for branch in branches]
        context = torch.cat([rows for rows, _ in given])
        sounds = [audio for _, audio in given if audio is not None]
        x = torch.cat([x] * len(given))
        timestep = torch.full((x.shape[0],), TIMESTEPS * sigma, dtype=torch.float32, device=x.device)
        velocity = denoiser(
            x.to(context.dtype),
            timestep,
            context,
            anchors=conditions.anchors,
            num_prefix=num_prefix,
            prefix_timestep=TIMESTEPS * conditions.prefix_noise,
            audio=torch.cat(sounds) if sounds else None,
            cache=cache,
        )
        return velocity.to(x.dtype).chunk(len(given))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        x = _with_prefix(x, shown)
        branches = tuple(conditions.guidance.weights(has_audio=has_audio))
        passes = [branches] if side_by_side else [(branch,) for branch in branches]
        found = [velocity for several in passes for velocity in velocities(x, sigma, several)]
        guesses = {branch: x - velocity * sigma for branch, velocity in zip(branches, found, strict=True)}
        return _with_prefix(conditions.guidance.mix(guesses.__getitem__, has_audio=has_audio), prefix)

    return denoise


def chunk_sampler(
    denoiser: Denoiser,
    *,
    solver: Solver,
    sigmas: Tensor,
    cache: Cache | None = None,
    together: bool = False,
    on_step: Callable[[Chunk, Step], None] | None = None,
) -> ChunkSampler[ChunkConditions]:
    """Return the core's own sampler for `long_video.generate`.

    Args:
        denoiser: the network, one whose prefix is held.
        solver: walks along ``sigmas``.
        sigmas: noise levels from 1 to 0.
        cache: the network's cache for this video; told about the start of every chunk.
        together: run the passes of guidance as one batch; see `bind`.
        on_step: called at every step, for progress and previews; what it raises ends the sampling.

    Raises:
        ConfigError: ``sigmas`` do not go from 1 to 0.
    """
    highest = float(sigmas[0])
    if abs(highest - 1.0) > 1e-3 or float(sigmas[-1]) != 0.0:
        raise ConfigError(
            f"The noise levels go from {highest:g} to {float(sigmas[-1]):g}; a chunk is made from pure noise, "
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
        denoise = bind(denoiser, job.conditions, prefix=prefix, noise=noise, cache=cache, together=together)
        callback = None if on_step is None else lambda step: on_step(job.chunk, step)
        return _with_prefix(solver(denoise, highest * noise, sigmas, callback), prefix)

    return sample


def _shown_prefix(prefix: Tensor | None, noise: Tensor | None, sigma: float) -> Tensor | None:
    if prefix is None or not sigma:
        return prefix
    if noise is None:
        raise ConfigError(f"The prefix is to be shown at a noise level of {sigma}; give the chunk's noise with it.")
    return shown_prefix(prefix, noise, sigma)


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
