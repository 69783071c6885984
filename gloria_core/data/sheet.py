"""Clips made anew from the conditions of true ones."""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model import AnchorCache
from ..sampling.guidance import Branch, Guidance
from ..sampling.schedule import flow_sigmas
from ..types import TrainBatch


@dataclass(frozen=True, slots=True, eq=False)
class Guided:
    """How hard text and sound are followed.

    Raises:
        ConfigError: the rows of the empty text are needed, and missing.
    """

    guidance: Guidance = field(default_factory=Guidance)
    unprompted: Tensor | None = None
    """Rows of the empty text (1, L, D); needed where the text is not followed as trained."""

    def __post_init__(self) -> None:
        if self.unprompted is None and self.guidance.text_scale != 1.0:
            raise ConfigError(
                f"The text guidance scale is {self.guidance.text_scale:g}, which needs the empty text; give its rows, "
                "or set the scale to 1."
            )


_AS_TRAINED = Guided()


@torch.no_grad()
def sample_clips(
    dit: nn.Module,
    batch: TrainBatch,
    context: Tensor,
    *,
    steps: int,
    shift: float,
    seed: int = 0,
    cache: AnchorCache | None = None,
    guided: Guided = _AS_TRAINED,
) -> Tensor:
    """Make a batch's clips anew from its conditions with Euler steps; the prefix is given. Returns latents.

    Args:
        dit: a `Denoiser` in evaluation mode.
        batch: clean clips and their conditions.
        context: text rows (B, L, D).
        steps: of the solver.
        shift: of the noise levels.
        seed: of the noise.
        cache: one that outlives the call keeps the anchors for the next chunk of the same characters.
        guided: how hard text and sound are followed.
    """
    cache = cache or AnchorCache()
    cache.start_chunk()
    clean = batch.latents
    told = _told(batch, context, guided.unprompted)
    x = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
    for sigma, following in pairwise(flow_sigmas(steps, shift)):
        x[:, :, : batch.num_prefix] = clean[:, :, : batch.num_prefix]
        timestep = (1000 * sigma).expand(len(x)).to(clean)
        shown = batch.model_input(x)

        def velocity(branch: Branch, shown: Tensor = shown, timestep: Tensor = timestep) -> Tensor:
            rows, audio = told[branch]
            made: Tensor = dit(
                shown,
                timestep,
                rows,
                anchors=batch.anchors,
                num_prefix=batch.num_prefix,
                audio=audio,
                cache=cache,
                **batch.seen,
            )
            return made

        x = x + (following - sigma) * guided.guidance.mix(velocity, has_audio=batch.audio is not None)
    return x


def _told(batch: TrainBatch, context: Tensor, unprompted: Tensor | None) -> dict[Branch, tuple[Tensor, Tensor | None]]:
    """Return the text rows and the sound of each of guidance's passes."""
    silence = None if batch.audio is None else torch.zeros_like(batch.audio)
    empty = context if unprompted is None else unprompted.to(context).expand(len(context), -1, -1)
    return {Branch.NEGATIVE: (empty, silence), Branch.TEXT: (context, silence), Branch.FULL: (context, batch.audio)}
