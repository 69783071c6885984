"""What the largest batches of a training on footage look like, for an estimate before its first step."""

from typing import Any

from ..config import ModelConfig
from ..data.task import FootageTask
from ..types import TrainBatch
from .config import TrainConfig
from .estimate import ClipShape

_DRAWS = 32
_WHOLE: dict[str, Any] = {"drop_role": 0.0, "drop_slot": 0.0, "one_type": 0.0, "prefix": 0.0, "start_image": 0.0}
"""Options with which nothing is left out of a batch, and all of it is generated."""


def largest_shape(config: TrainConfig) -> tuple[ModelConfig, ClipShape]:
    """Return the network of a training on footage, and the largest of 32 batches, with every anchor there is.

    Raises:
        GloriaError: the footage was not prepared for this model, or an option is wrong.
    """
    task = FootageTask(**{**config.task.options, **_WHOLE})
    shapes = [shape_of(task.batch(index, 0, 1)) for index in range(_DRAWS)]
    return task.config, max(shapes, key=_size)


def shape_of(batch: TrainBatch) -> ClipShape:
    """Return what a batch looks like."""
    count, _, length, height, width = batch.latents.shape
    words = batch.context if batch.context is not None else batch.words
    return ClipShape(
        num_latents=length,
        height=height,
        width=width,
        batch_size=count,
        num_prefix=batch.num_prefix,
        text_rows=words.shape[1] if words is not None else 0,
        anchors=tuple((a.role, a.slot, *a.latent.shape[-2:]) for a in batch.anchors or ()),
    )


def _size(shape: ClipShape) -> int:
    return shape.num_latents * shape.height * shape.width + sum(h * w for _, _, h, w in shape.anchors)
