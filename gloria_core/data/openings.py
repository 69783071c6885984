"""Beginnings of clips for models with image channels: which pictures such a model is shown there.

Sampling shows it the pictures of the latents that a chunk goes on from, with mid grey behind them; a clip's first
latent holds one picture. So each place where a training clip can begin is encoded anew, at `EVERY` latents.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import ConfigError, DatasetError
from ..sampling.chunks import STRIDE, frames_of
from ..sampling.known import MASKS, known_mask
from ..types import TrainBatch
from .cache import Cache
from .options import FootageOptions
from .prepared import Prepared

EVERY = 4
"""Latents from one such beginning to the next. Each is an encoding, and latents in the cache, up to the piece's end."""


def places_of(num_latents: int, num_prefix: int) -> list[tuple[int, int]]:
    """Return where clips of a piece can begin: the first latent, and how many of them are known there.

    One begins the video with its first picture; all others go on from ``num_prefix`` latents, and leave some to make.
    """
    start = [(0, 1)] if num_latents > 1 else []
    return start + [(offset, num_prefix) for offset in range(1, num_latents - num_prefix, EVERY)]


def pictures_at(offset: int, num_prefix: int) -> range:
    """Return the frames of a piece that are known where a clip begins: the last 4(P - 1) + 1 of P latents."""
    first = STRIDE * offset
    return range(first, first + frames_of(range(num_prefix)).stop)


def check_pictures(prepared: Prepared, config: ModelConfig, options: FootageOptions, cache: Cache) -> None:
    """Refuse a dataset that was not prepared for a model with image channels.

    Raises:
        DatasetError: the pictures, or what CLIP sees in them, are missing or of another encoder.
        ConfigError: the dataset was prepared for prefixes of another length.
    """
    pieces = [piece for clip in prepared.clips for piece in clip.pieces]
    openings = [opening for piece in pieces for opening in piece.openings]
    if not openings:
        raise DatasetError(
            f"The model {config.name!r} is shown pictures through its image channels, and the dataset was prepared "
            "without them: prepare it again with this model (the videos themselves are not encoded again)."
        )
    lengths = {opening.num_prefix for opening in openings if opening.offset}
    if options.prefix and lengths and options.prefix_latents not in lengths:
        [known] = lengths
        raise ConfigError(
            f"prefix_latents is {options.prefix_latents}, but the dataset was prepared for clips that go on from "
            f"{known} latents: set it to {known}, or prepare the dataset with --prefix-latents "
            f"{options.prefix_latents}."
        )
    if config.clip_dim:
        _check_seen([piece.seen_key for piece in pieces], config, cache)


def _check_seen(keys: list[str], config: ModelConfig, cache: Cache) -> None:
    if not all(keys):
        raise DatasetError(
            f"The model {config.name!r} looks at the first picture through CLIP too, and the dataset was prepared "
            "without: prepare it again with this model and with Load CLIP Vision (clip_vision_h.safetensors) on "
            "'clip_vision'."
        )
    width = cache.get(keys[0])["rows"].shape[1]
    if width != config.clip_dim:
        raise DatasetError(wrong_clip(width, config))


def wrong_clip(width: int, config: ModelConfig) -> str:
    """Return the words for CLIP tokens of another width than a model's."""
    return (
        f"CLIP vision gives {width} numbers for a place of the picture; the model {config.name!r} was trained with "
        f"{config.clip_dim}: prepare the dataset with the CLIP vision that belongs to it (1280: CLIP ViT-H, "
        "clip_vision_h.safetensors)."
    )


def with_pictures(batch: TrainBatch, known: Tensor | None, config: ModelConfig, *, goes_on: bool) -> TrainBatch:
    """Return a batch as sampling shows it to a model with image channels.

    Where prefixes are held, they stand in the image channels as they are. Where they are given the network makes them
    anew: the batch has no clean latents then, and the loss counts a latent by its share of the video, as
    `long_video.blend` joins the two versions of it.

    Args:
        batch: clips whose first ``num_prefix`` latents are known.
        known: the pictures of these, with grey behind them, encoded (B, C, T, h, w); None where nothing is known.
        config: of the model.
        goes_on: whether the clips go on from others, rather than begin with a picture.
    """
    clean, prefix = batch.latents, batch.num_prefix
    count, channels, length, height, width = clean.shape
    if known is None:  # as the host fills the channels of a model that is shown nothing
        return replace(batch, image=clean.new_zeros(count, MASKS + channels, length, height, width))
    mask = known_mask(length, len(pictures_at(0, prefix)))[None, :, :, None, None]
    image = known
    if config.prefix == "held":
        image = torch.cat((clean[:, :, :prefix], known[:, :, prefix:]), dim=2)
    shown = torch.cat((mask.expand(count, -1, -1, height, width), image), dim=1)
    batch = replace(batch, image=shown)
    if config.prefix == "held":
        return batch
    return _made_anew(batch, known) if goes_on else replace(batch, num_prefix=0)


def _made_anew(batch: TrainBatch, known: Tensor) -> TrainBatch:
    """Return clips that go on from others, of which the network makes all; latent 0 holds one picture, as shown."""
    share = torch.ones(batch.latents.shape[2])
    share[: batch.num_prefix] = torch.linspace(0.0, 1.0, batch.num_prefix)
    weight = (share / share.mean()).view(1, 1, -1, 1, 1)
    return replace(
        batch,
        latents=torch.cat((known[:, :, :1], batch.latents[:, :, 1:]), dim=2),
        num_prefix=0,
        weight=weight if batch.weight is None else batch.weight * weight,
    )
