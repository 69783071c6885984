"""Flow matching on the generated latents of a clip: what is drawn, what the network sees, what it is graded on.

Paper: 4.2. The clean prefix and the anchors are conditions: neither is ever in the loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..types import TrainBatch
from .config import ObjectiveConfig, SigmaConfig

NUM_BINS = 4
"""Equal ranges of sigma over which the loss is reported."""
LOWEST_HELD_OUT = 0.1
"""Held-out noise levels begin here: below, hardly anything is left to predict, and a network that predicts the clean
latent has its error there blown up by 1 / sigma^2."""


PRESETS: Mapping[str, tuple[SigmaConfig, ...]] = {
    "audio": (SigmaConfig(kind="logit_normal", shift=3.0),),
    "video": (SigmaConfig(kind="logit_normal", shift=5.0),),
    "anchors": (SigmaConfig(kind="logit_normal", shift=5.0, weight=0.8), SigmaConfig(shift=5.0, weight=0.2)),
}
"""Mixtures by preset. Source: training.md section H (logit-normal, then a shift of 3 to 5); the uniform fifth, which
reaches the noisiest levels where an anchor's choice is made, is ours."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Everything that is random about one batch's loss."""

    sigma: Tensor
    """Noise level (B,) in 0..1."""
    noise: Tensor
    """Gaussian noise (B, C, T, h, w)."""
    keep_text: Tensor
    """Bool (B,): false trains the clip without its text."""
    keep_audio: Tensor
    """Bool (B,): false trains the clip without its sound."""


def sample_sigma(
    config: ObjectiveConfig, count: int, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Draw ``count`` noise levels (count,) in 0..1 from the configured mixture, in random order.

    Stratified: clip i takes its draw from the i-th of ``count`` equal parts of the mixture.
    """
    place = torch.rand(count, generator=generator, device=device)
    if config.stratified:
        order = torch.randperm(count, generator=generator, device=device)
        place = (order + place) / count
    mixture = PRESETS[config.preset] if config.preset else config.sigmas
    weights = [spec.weight for spec in mixture]
    sigma, low = torch.zeros_like(place), 0.0
    for spec in mixture:
        share = spec.weight / sum(weights)
        inside = place >= low
        sigma = torch.where(inside, _quantile(spec, ((place - low) / share).clamp(0.0, 1.0)), sigma)
        low += share
    return sigma


def _quantile(spec: SigmaConfig, place: Tensor) -> Tensor:
    if spec.kind == "uniform":
        sigma = spec.low + (spec.high - spec.low) * place
    else:
        normal = torch.special.ndtri(place.clamp(1e-5, 1.0 - 1e-5))
        sigma = torch.sigmoid(spec.mean + spec.std * normal)
    return spec.shift * sigma / (1.0 + (spec.shift - 1.0) * sigma)


def draw(batch: TrainBatch, config: ObjectiveConfig, generator: torch.Generator) -> Draw:
    """Draw noise levels, noise and dropout for a training batch; the generator lives on the batch's device."""
    count, device = batch.latents.shape[0], batch.latents.device
    return Draw(
        sigma=sample_sigma(config, count, generator, device),
        noise=torch.randn(batch.latents.shape, generator=generator, device=device),
        keep_text=torch.rand(count, generator=generator, device=device) >= config.text_dropout,
        keep_audio=torch.rand(count, generator=generator, device=device) >= config.audio_dropout,
    )


def held_out_draw(batch: TrainBatch, generator: torch.Generator) -> Draw:
    """Draw for a held-out batch: evenly spaced noise levels and no dropout, so that runs can be compared."""
    count, device = batch.latents.shape[0], batch.latents.device
    levels = (torch.arange(count, device=device) + torch.rand(1, generator=generator, device=device)) / count
    levels = LOWEST_HELD_OUT + (1 - LOWEST_HELD_OUT) * levels
    keep = torch.ones(count, dtype=torch.bool, device=device)
    return Draw(
        sigma=levels[torch.randperm(count, generator=generator, device=device)],
        noise=torch.randn(batch.latents.shape, generator=generator, device=device),
        keep_text=keep,
        keep_audio=keep,
    )


def clip_losses(modules: Mapping[str, nn.Module], batch: TrainBatch, drawn: Draw, padding_id: int = 0) -> Tensor:
    """Return each clip's loss (B,): the weighted mean squared velocity error over its generated latents.

    Args:
        modules: ``dit`` (a ``Denoiser``) and, where the batch has words, ``text_encoder``.
        batch: clean clips and their conditions.
        drawn: noise levels, noise and dropout.
        padding_id: token id of a clip whose text is dropped.
    """
    clean, prefix = batch.latents, batch.num_prefix
    if not 0 <= prefix < clean.shape[2]:
        raise ConfigError(
            f"A batch has a prefix of {prefix} in clips of {clean.shape[2]} latents; some must be left to learn."
        )
    sigma = drawn.sigma.view(-1, 1, 1, 1, 1)
    noisy = torch.lerp(clean, drawn.noise, sigma)  # (1 - s) x0 + s noise, (B, C, T, h, w)
    x = torch.cat((clean[:, :, :prefix], noisy[:, :, prefix:]), dim=2)
    velocity = modules["dit"](
        batch.model_input(x),
        drawn.sigma * 1000.0,
        _context(modules, batch, drawn, padding_id),
        anchors=batch.anchors,
        num_prefix=prefix,
        audio=_dropped(batch.audio, drawn.keep_audio),
        **batch.seen,
    )
    target = (drawn.noise - clean)[:, :, prefix:]
    error = (velocity[:, :, prefix:].float() - target).square()
    if batch.weight is not None:
        weight = batch.weight if batch.weight.shape[2] == 1 else batch.weight[:, :, prefix:]
        error = error * weight
    return error.mean(dim=(1, 2, 3, 4))


def loss_bins(losses: Tensor, sigma: Tensor) -> Tensor:
    """Return (2, NUM_BINS): sums of the clips' losses and numbers of clips, by equal ranges of sigma."""
    bins = (sigma * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    zeros = torch.zeros(NUM_BINS, device=losses.device)
    values = losses.detach().float()
    return torch.stack((zeros.index_add(0, bins, values), zeros.index_add(0, bins, torch.ones_like(values))))


def _context(modules: Mapping[str, nn.Module], batch: TrainBatch, drawn: Draw, padding_id: int) -> Tensor:
    if (batch.words is None) == (batch.context is None):
        raise ConfigError("A batch must carry either words or context, and not both; the task's batch() is wrong.")
    if batch.words is None:
        context = _dropped(batch.context, drawn.keep_text)
        assert context is not None
        return context
    if "text_encoder" not in modules:
        raise ConfigError("The batches carry words but the task has no text_encoder; give context, or add one.")
    words = torch.where(drawn.keep_text.view(-1, 1), batch.words, padding_id)
    encoded: Tensor = modules["text_encoder"](words)
    return encoded


def _dropped(tensor: Tensor | None, keep: Tensor) -> Tensor | None:
    if tensor is None:
        return None
    scale = keep.view(-1, *(1,) * (tensor.ndim - 1)).to(tensor.dtype)
    return tensor * scale
