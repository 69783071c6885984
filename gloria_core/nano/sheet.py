"""Contact sheets of what nano makes, for a person to look at while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..data import sheet
from ..data.samples import Sample, frames_by_codec, write_samples
from ..model import AnchorCache
from ..types import TrainBatch
from .codec import LinearCodec
from .timeline import FPS

_CLIPS = 3
"""Of a batch that are shown."""


@torch.no_grad()
def sample_clips(
    modules: Mapping[str, nn.Module],
    batch: TrainBatch,
    *,
    steps: int,
    seed: int = 0,
    cache: AnchorCache | None = None,
) -> Tensor:
    """Make the batch's clips anew from its conditions, as `data.sheet.sample_clips` does, with its words encoded."""
    dit, encoder = modules["dit"], modules["text_encoder"]
    shift = cast(ModelConfig, dit.config).shift
    return sheet.sample_clips(dit, batch, encoder(batch.words), steps=steps, shift=shift, seed=seed, cache=cache)


@torch.no_grad()
def clip_sheet(
    modules: Mapping[str, nn.Module], codec: LinearCodec, batches: list[TrainBatch], path: Path, *, steps: int = 8
) -> None:
    """Write a sheet and a film (.mp4) of three clips of each batch: the true ones, and what the networks make of them.

    They play as if each began a video, and without sound.
    """
    device, shown = next(modules["dit"].parameters()).device, []
    for batch in batches:
        made = sample_clips(modules, batch.on(device), steps=steps).cpu()
        chosen = torch.linspace(0, len(made) - 1, min(_CLIPS, len(made))).long().tolist()
        shown += [Sample(batch.latents[[index]], made[[index]]) for index in chosen]
    write_samples(shown, frames_by_codec(codec), path, FPS)
