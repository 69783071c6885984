"""gloria-nano as one file: transformer, text encoder, codec and training record. ``nano.export`` writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from ..checkpoint import load_dit, read_checkpoint
from ..checkpoint.load import check_names
from ..config import ModelConfig
from ..errors import CheckpointError
from ..model import GloriaDiT
from .codec import LinearCodec
from .text import TextEncoder

WEIGHTS_FILE = Path(__file__).parent / "weights" / "gloria-nano.safetensors"
"""The weights that come with the pack."""
TEXT, CODEC, RECORD = "text_encoder.", "codec.", "gloria.training"
"""Prefixes of the parts beside the transformer, and the header's entry for the training record."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Everything that makes nano work."""

    config: ModelConfig
    dit: dict[str, Tensor]
    text_encoder: TextEncoder
    codec: LinearCodec

    def model(self, mode: str | None = None) -> GloriaDiT:
        """Build the transformer in float32, in another attention mode if asked."""
        config = self.config if mode is None else self.config.with_mode(mode)  # type: ignore[arg-type]
        return load_dit(self.dit, config)


def load_bundle(path: Path = WEIGHTS_FILE) -> Bundle:
    """Read a nano file.

    Raises:
        CheckpointError: the file is missing or cut, or lacks a part.
    """
    weights, config = read_checkpoint(path)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        text = {n.removeprefix(TEXT): file.get_tensor(n).float() for n in names if n.startswith(TEXT)}
        codec = {n.removeprefix(CODEC): file.get_tensor(n) for n in names if n.startswith(CODEC)}
    encoder = TextEncoder(config.text_dim)
    check_names(encoder.state_dict(), text, f"{path.name}'s text encoder")
    try:
        encoder.load_state_dict(text)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} was made with another vocabulary than this version's: {error}.") from error
    check_names(("basis", "mean", "scale", "latent_std"), codec, f"{path.name}'s codec")
    return Bundle(config, weights, encoder.eval(), LinearCodec(**codec))


def training_record(path: Path = WEIGHTS_FILE) -> list[dict[str, Any]]:
    """Return what a nano file says about its training: one entry for each leg, first to last."""
    with safe_open(path, framework="pt") as file:
        record = json.loads((file.metadata() or {}).get(RECORD, "[]"))
    return record if isinstance(record, list) else [record]
