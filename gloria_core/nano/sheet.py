"""Contact sheets of what nano makes, for a person to look at while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..data import sheet
from ..model import AnchorCache
from ..types import TrainBatch
from .codec import LinearCodec


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
    """Write a PNG: for each of some clips a row of true frames and, under it, a row of made frames."""
    dit, encoder = modules["dit"], modules["text_encoder"]
    ready = [replace(batch, words=None, context=encoder(batch.words)) for batch in batches]
    sheet.clip_sheet(dit, codec, cast(ModelConfig, dit.config).shift, ready, path, steps=steps)
