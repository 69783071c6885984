"""Sampling one chunk with the host's samplers, guided by text and by sound with a scale of their own.

Where the noise levels are shared by two experts (Wan 2.2 A14B), the first runs down to the boundary and the second goes
on from there, each as a sampling run of its own: that is what two stock KSampler (Advanced) nodes do, and the host has
to hold only one of the two in the card's memory at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ...gloria_core.errors import ConfigError
from ...gloria_core.model import AnchorCache
from ...gloria_core.sampling.chunks import Chunk
from ...gloria_core.sampling.denoise import check_prefix_noise, shown_prefix
from ...gloria_core.sampling.guidance import Branch, Guidance
from ...gloria_core.sampling.long_video import ChunkJob, PrefixMode
from ...gloria_core.sampling.schedule import num_high_noise_steps
from ...gloria_core.types import AnchorSet, AudioFeatures
from ..sockets import Conditioning
from .model import CACHE

StepCallback = Callable[[Chunk, int, int, Tensor], None]
"""Called after each step with the chunk, the 0-based step, the number of steps and the clean guess (B, C, T, h, w) in
the model's space; what it raises ends the sampling."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkPrompts:
    """What one chunk is made from, as the host's conditionings."""

    positive: Conditioning
    negative: Conditioning | None
    """None where the text scale needs no negative prompt."""
    guidance: Guidance | None = None
    """Scales for this chunk in place of the sampler's."""
    prefix_noise: float = 0.0
    """Noise level at which the model is shown a held prefix, from 0 (clean) to below 1."""

    def __post_init__(self) -> None:
        check_prefix_noise(self.prefix_noise)

    def with_options(self, options: Mapping[str, Any]) -> "ChunkPrompts":
        """Return the same prompts with more options on every entry of both."""
        if not options:
            return self
        negative = None if self.negative is None else with_options(self.negative, **options)
        return replace(self, positive=with_options(self.positive, **options), negative=negative)


@dataclass(frozen=True, slots=True, eq=False)
class LowNoise:
    """The second expert of a pair, and the noise level (0..1) below which it takes over."""

    patcher: comfy.model_patcher.ModelPatcher
    boundary: float


ChunkOptions = Callable[[ChunkJob[ChunkPrompts]], Mapping[str, Any]]
"""Gives what a chunk's conditionings carry beside its prompts: what a model is shown through its image channels."""


@dataclass(frozen=True, slots=True, eq=False)
class _Expert:
    """A model and the noise levels that it walks along."""

    patcher: comfy.model_patcher.ModelPatcher
    sigmas: Tensor
    cache: AnchorCache

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1


class GloriaGuider(comfy.samplers.CFGGuider):
    """The host's guider with the three branches of our guidance in place of its two."""

    def __init__(
        self, patcher: comfy.model_patcher.ModelPatcher, weights: dict[Branch, float], cache: AnchorCache
    ) -> None:
        super().__init__(patcher)
        self.weights = weights
        self.model_options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
        self.model_options.setdefault("transformer_options", {})[CACHE] = cache

    def set_branches(self, branches: dict[Branch, Conditioning]) -> None:
        """Set the conditioning of each branch; ``positive`` is a name that other packs' wrappers look for."""
        names = {Branch.FULL: "positive", Branch.TEXT: "text", Branch.NEGATIVE: "negative"}
        if Branch.FULL not in branches:
            names[Branch.TEXT] = "positive"
        self.names = {branch: names[branch] for branch in branches}
        self.inner_set_conds({self.names[branch]: conditioning for branch, conditioning in branches.items()})

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        """Return the clean guess. Guidance is linear with weights that add up to 1: guesses mix as velocities do."""
        conds = [self.conds[self.names[branch]] for branch in self.weights]
        guesses = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options or {})
        if len(guesses) == 1:  # its weight is 1
            return guesses[0]
        guided = sum(weight * guess for weight, guess in zip(self.weights.values(), guesses, strict=True))
        assert isinstance(guided, Tensor)  # there is more than one
        return guided


class HostChunkSampler:
    """The ``ChunkSampler`` that ``sampling.long_video.generate`` is given inside the host.

    Latents are in the space of the VAE here; the host normalises them on the way into the model.

    Args:
        patcher: a MODEL of ours.
        sampler: the host's SAMPLER.
        sigmas: noise levels from the model's highest to 0.
        guidance: scales of text and sound, where a chunk brings none of its own.
        on_step: told about each step.
        low_noise: the second expert of a pair, whose first is ``patcher``.
        options: what the chunks' conditionings carry beside the prompts; asked once a chunk, before it is sampled.

    Raises:
        ConfigError: the noise levels do not go from pure noise to 0, or the boundary is no noise level.
    """

    def __init__(
        self,
        patcher: comfy.model_patcher.ModelPatcher,
        sampler: comfy.samplers.Sampler,
        sigmas: Tensor,
        guidance: Guidance,
        on_step: StepCallback,
        *,
        low_noise: LowNoise | None = None,
        options: ChunkOptions | None = None,
    ) -> None:
        highest = float(patcher.get_model_object("model_sampling").sigma_max)
        if len(sigmas) < 2 or float(sigmas[0]) < highest * 0.999 or float(sigmas[-1]) != 0.0:
            told = f"go from {float(sigmas[0]):g} to {float(sigmas[-1]):g}" if len(sigmas) else "are none at all"
            raise ConfigError(
                f"The noise levels {told}; each chunk is made from pure noise, so they must go from "
                f"{highest:g} to 0. "
                "Set denoise to 1 in the node that makes them."
            )
        self.sampler, self.guidance, self.on_step, self.options = sampler, guidance, on_step, options
        self.experts = _experts(patcher, sigmas, low_noise)
        self.num_steps = len(sigmas) - 1

    @property
    def cache(self) -> AnchorCache:
        """What is kept of the anchors for the expert that runs first."""
        return self.experts[0].cache

    def __call__(self, job: ChunkJob[ChunkPrompts]) -> Tensor:
        """Sample one chunk; a held prefix is kept by a mask, as in the host's own inpainting.

        It is shown to the model with the noise that the chunk asks for, and stands clean in the result.
        """
        prompts = job.conditions.with_options(self.options(job) if self.options else {})
        clean = job.prefix if job.prefix_mode == PrefixMode.HELD else None
        held, mask = clean, None
        if clean is not None and prompts.prefix_noise:
            prompts = prompts.with_options({"gloria_prefix_noise": prompts.prefix_noise})
            held = self._noised(clean, job.noise, prompts.prefix_noise)
        if held is not None:
            mask = job.noise.new_ones(1, 1, *job.noise.shape[2:])
            mask[:, :, : held.shape[2]] = 0.0
        noise, latents, done = job.noise, torch.zeros_like(job.noise), 0
        for expert in self.experts:
            latents = _with_start(latents, held)
            latents = self._walk(expert, job, prompts, noise=noise, latents=latents, mask=mask, done=done)
            noise = torch.zeros_like(job.noise)  # from now on it is in the latents
            done += expert.num_steps
        if held is not clean:
            latents = _with_start(latents, clean)
        return latents.to(comfy.model_management.intermediate_device())

    def _noised(self, prefix: Tensor, noise: Tensor, sigma: float) -> Tensor:
        """Put noise into a prefix; it is in the space of the VAE, and the noise belongs to that of the network."""
        model = self.experts[0].patcher.model
        shown = shown_prefix(model.process_latent_in(prefix.to(noise)), noise, sigma)
        noised: Tensor = model.process_latent_out(shown)
        return noised

    def _walk(
        self,
        expert: _Expert,
        job: ChunkJob[ChunkPrompts],
        prompts: ChunkPrompts,
        *,
        noise: Tensor,
        latents: Tensor,
        mask: Tensor | None,
        done: int,
    ) -> Tensor:
        """Let one expert walk along its noise levels, from ``done`` steps on."""
        expert.cache.start_chunk()
        has_audio = any("gloria_audio" in options for _, options in prompts.positive)
        weights = (prompts.guidance or self.guidance).weights(has_audio=has_audio)
        guider = GloriaGuider(expert.patcher, weights, expert.cache)
        guider.set_branches({branch: _branch(branch, prompts) for branch in weights})

        def callback(step: int, x0: Tensor, _x: Tensor, _num_steps: int) -> None:
            self.on_step(job.chunk, done + step, self.num_steps, x0)

        return guider.sample(
            noise,
            latents,
            self.sampler,
            expert.sigmas,
            denoise_mask=mask,
            callback=callback,
            disable_pbar=True,
            seed=job.seed,
        )


def _experts(
    patcher: comfy.model_patcher.ModelPatcher, sigmas: Tensor, low_noise: LowNoise | None
) -> tuple[_Expert, ...]:
    """Share the noise levels out; an expert that no step begins with is left out."""
    if low_noise is None:
        return (_Expert(patcher, sigmas, AnchorCache()),)
    split = num_high_noise_steps(sigmas, low_noise.boundary)
    shares = ((patcher, sigmas[: split + 1]), (low_noise.patcher, sigmas[split:]))
    return tuple(_Expert(model, levels, AnchorCache()) for model, levels in shares if len(levels) > 1)


def _with_start(latents: Tensor, start: Tensor | None) -> Tensor:
    """Return latents (B, C, T, h, w) that begin with others."""
    return latents if start is None else torch.cat([start.to(latents), latents[:, :, start.shape[2] :]], dim=2)


def _branch(branch: Branch, prompts: ChunkPrompts) -> Conditioning:
    if branch == Branch.FULL:
        return prompts.positive
    if branch == Branch.TEXT:
        return without_audio(prompts.positive)
    if prompts.negative is None:
        raise ConfigError(
            "The text guidance is not 1, which needs a negative prompt: connect one to 'negative' (its text may be "
            "empty), "
            "or set text guidance to 1."
        )
    return without_audio(prompts.negative)


def with_options(conditioning: Conditioning, **options: Any) -> Conditioning:  # noqa: ANN401 - the host's option bag
    """Return a conditioning with more options on every entry; the given one stays as it is."""
    return [[rows, {**known, **options}] for rows, known in conditioning]


def without_audio(conditioning: Conditioning) -> Conditioning:
    """Return a conditioning without our sound; where it began stays, for what stands for silence there."""
    return [[rows, {k: v for k, v in known.items() if k != "gloria_audio"}] for rows, known in conditioning]


def with_anchors(conditioning: Conditioning, anchors: AnchorSet) -> Conditioning:
    """Return a conditioning that carries anchors to the model."""
    return with_options(conditioning, gloria_anchors=anchors)


def with_audio(conditioning: Conditioning, audio: AudioFeatures, start_latent: int = 0) -> Conditioning:
    """Return a conditioning that carries sound; the sampled latents begin at ``start_latent`` of the video."""
    return with_options(conditioning, gloria_audio=audio, gloria_audio_start=start_latent)


def sampler_named(name: str) -> comfy.samplers.Sampler:
    """Return the host's SAMPLER of a name; an unknown name raises ConfigError."""
    if name not in comfy.samplers.SAMPLER_NAMES:
        raise ConfigError(
            f"There is no sampler called {name!r}; use one of: {', '.join(comfy.samplers.SAMPLER_NAMES)}."
        )
    return comfy.samplers.sampler_object(name)


def sigmas_for(patcher: comfy.model_patcher.ModelPatcher, sampler: str, scheduler: str, steps: int) -> Tensor:
    """Return the noise levels that a stock KSampler would use; an unknown scheduler raises ConfigError."""
    if scheduler not in comfy.samplers.SCHEDULER_NAMES:
        known = ", ".join(comfy.samplers.SCHEDULER_NAMES)
        raise ConfigError(f"There is no scheduler called {scheduler!r}; use one of: {known}.")
    if steps < 1:
        raise ConfigError(f"The number of steps is {steps}; sampling needs at least 1 (8 to 30 are usual).")
    stock = comfy.samplers.KSampler(
        patcher, steps=steps, device=patcher.load_device, sampler=sampler, scheduler=scheduler, denoise=1.0
    )
    return stock.sigmas


SAMPLERS: tuple[str, ...] = tuple(comfy.samplers.SAMPLER_NAMES)
SCHEDULERS: tuple[str, ...] = tuple(comfy.samplers.SCHEDULER_NAMES)
