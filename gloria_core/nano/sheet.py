"""Contact sheets of what nano makes, for a person to look at while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor, nn

from ..config import ModelConfig
from ..model import AnchorCache
from ..sampling.schedule import flow_sigmas
from ..types import TrainBatch
from .codec import LinearCodec

_ROWS = 3


@torch.no_grad()
def sample_clips(
    modules: Mapping[str, nn.Module],
    batch: TrainBatch,
    *,
    steps: int,
    seed: int = 0,
    cache: AnchorCache | None = None,
) -> Tensor:
    """Make the batch's clips anew from its conditions with Euler steps; the prefix is given. Returns latents.

    A cache that outlives the call keeps the anchors for the next chunk of the same characters.
    """
    dit, encoder = modules["dit"], modules["text_encoder"]
    cache = cache or AnchorCache()
    cache.start_chunk()
    clean, context = batch.latents, encoder(batch.words)
    x = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    sigmas = flow_sigmas(steps, cast(ModelConfig, dit.config).shift)
    for sigma, following in pairwise(sigmas):
        x[:, :, : batch.num_prefix] = clean[:, :, : batch.num_prefix]
        timestep = (1000 * sigma).expand(len(x))
        velocity = dit(
            x, timestep, context, anchors=batch.anchors, num_prefix=batch.num_prefix, audio=batch.audio, cache=cache
        )
        x = x + (following - sigma) * velocity
    return x


def clip_sheet(
    modules: Mapping[str, nn.Module], codec: LinearCodec, batches: list[TrainBatch], path: Path, *, steps: int = 8
) -> None:
    """Write a PNG: for each of some clips a row of true frames and, under it, a row of made frames."""
    rows = []
    for batch in batches:
        made = sample_clips(modules, batch, steps=steps)
        for index in torch.linspace(0, len(made) - 1, _ROWS).long().tolist():
            for latents in (batch.latents[index], made[index]):
                frames = codec.decode(latents[None], starts_video=False)[0, :, 1::4]  # (3, T, H, W)
                rows.append(torch.cat(list(frames.unbind(1)), dim=2))
    picture = ((torch.cat(rows, dim=1) + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    image.resize((image.width * 3, image.height * 3), Image.Resampling.NEAREST).save(path)
