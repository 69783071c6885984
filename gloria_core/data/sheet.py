"""Contact sheets of clips: what is true above what a network makes of the same conditions."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from ..model import AnchorCache
from ..sampling.schedule import flow_sigmas
from ..types import TrainBatch

_ROWS = 3


class Decoder(Protocol):
    """Latents (B, C, T, h, w) to pixels (B, 3, F, H, W) in [-1, 1]."""

    def decode(self, latents: Tensor, *, starts_video: bool = True) -> Tensor:
        """Decode; a first latent that starts no video gives four frames."""
        ...


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
    """
    cache = cache or AnchorCache()
    cache.start_chunk()
    clean = batch.latents
    x = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
    for sigma, following in pairwise(flow_sigmas(steps, shift)):
        x[:, :, : batch.num_prefix] = clean[:, :, : batch.num_prefix]
        timestep = (1000 * sigma).expand(len(x)).to(clean)
        velocity = dit(
            batch.model_input(x),
            timestep,
            context,
            anchors=batch.anchors,
            num_prefix=batch.num_prefix,
            audio=batch.audio,
            cache=cache,
            **batch.seen,
        )
        x = x + (following - sigma) * velocity
    return x


def clip_sheet(
    dit: nn.Module, decoder: Decoder, shift: float, batches: Sequence[TrainBatch], path: Path, *, steps: int = 8
) -> None:
    """Write a PNG: for each of some clips a row of true frames and, under it, a row of made frames.

    The batches carry ready text rows (``context``).
    """
    rows = []
    for batch in batches:
        assert batch.context is not None
        made = sample_clips(dit, batch, batch.context, steps=steps, shift=shift)
        chosen = torch.linspace(0, len(made) - 1, min(_ROWS, len(made))).long().tolist()
        rows += [latents for index in chosen for latents in (batch.latents[index], made[index])]
    write_frames(decoder, rows, path)


def write_frames(decoder: Decoder, rows: Sequence[Tensor], path: Path) -> None:
    """Write a PNG with a row for each clip's latents (C, T, h, w): one frame of each latent, three times enlarged."""
    strips = []
    for latents in rows:
        frames = decoder.decode(latents[None].float().cpu(), starts_video=False)[0, :, 1::4]  # (3, T, H, W)
        strips.append(torch.cat(list(frames.unbind(1)), dim=2))
    width = max(strip.shape[2] for strip in strips)
    padded = [torch.nn.functional.pad(strip, (0, width - strip.shape[2])) for strip in strips]
    picture = ((torch.cat(padded, dim=1) + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST).save(path)
