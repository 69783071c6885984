"""One finished chunk on disk: a safetensors file that is whole or not there, and tells what it was made from.

The latents lie in the form that ComfyUI's Load Latent reads.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import MediaError
from ..whole import written_whole
from .digest import digest_of

LATENTS = "latent_tensor"
_FORMAT = "latent_format_version_0"
_RECORD = "gloria.chunk"
_STATE = "state."
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One thing that a chunk is made from."""

    digest: str
    words: str = ""
    """What a person would say it is, where it can be said."""


Ingredients = Mapping[str, Ingredient]
"""By the names that a person knows them by: ``prompt``, ``seed``, ``model``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkRecord:
    """What a finished chunk is, and what it was made from."""

    index: int
    """The chunk's place in the plan, from 0."""
    take: int
    """Number of this take of the chunk, from 1; a later one replaces none."""
    latents: tuple[int, int]
    """Half-open range of latent frames of the whole video, the prefix included."""
    num_prefix: int
    seed: int
    """The seed that its noise was drawn with."""
    prompt: str
    ingredients: dict[str, Ingredient] = field(default_factory=dict)
    prefix: str
    """Digest of the latents that it goes on from; empty where nothing comes before."""
    tail: str
    """Digest of the latents that the next chunk goes on from. A bridge has that of the take it leads back to."""
    content: str
    """Digest of its own latents."""
    seconds: float
    """Time that sampling took."""


class ChunkFileError(MediaError):
    """A chunk's file is cut, damaged, or of another version."""


def write_chunk(path: Path, record: ChunkRecord, latents: Tensor, state: Mapping[str, Tensor] | None = None) -> None:
    """Write a chunk under a temporary name, force it to the disk, then give it its name.

    Args:
        path: where to.
        record: what the chunk is.
        latents: all of its latents (1, C, T, h, w), joined to its prefix.
        state: what the colour guard knows after this chunk.

    Raises:
        MediaError: the disk refuses; nothing is left behind.
    """
    tensors = {LATENTS: _plain(latents), _FORMAT: torch.tensor([])}
    tensors |= {_STATE + name: _plain(value) for name, value in (state or {}).items()}
    told = json.dumps({"version": _VERSION, **asdict(record)})
    with written_whole(path, kind=MediaError, advice="free some space and queue again; the run goes on here") as part:
        save_file(tensors, part, metadata={_RECORD: told})


def read_record(path: Path) -> ChunkRecord:
    """Read what a chunk's file is, from its header alone.

    Raises:
        ChunkFileError: the file is cut, damaged, or of another version.
    """
    try:
        with safe_open(path, "pt") as file:  # checks that the file is as long as its header says
            metadata = file.metadata() or {}
            shape = file.get_slice(LATENTS).get_shape()
        told = json.loads(metadata[_RECORD])
        version = told.pop("version")
        if version != _VERSION:
            raise ChunkFileError(f"{path.name} is of version {version}; this pack reads version {_VERSION}.")
        record = _record(told)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ChunkFileError):
            raise
        raise ChunkFileError(f"{path.name} is cut or damaged ({error}).") from error
    if len(shape) != 5 or shape[2] != record.latents[1] - record.latents[0]:
        raise ChunkFileError(f"{path.name} holds latents of the shape {tuple(shape)}, which its record does not fit.")
    return record


def read_latents(path: Path, record: ChunkRecord) -> Tensor:
    """Read a chunk's latents (1, C, T, h, w), float32.

    Raises:
        ChunkFileError: the file is gone, cut or damaged, or its latents are not those that the record names.
    """
    latents = _tensors(path, [LATENTS])[LATENTS]
    if digest_of(latents) != record.content:
        raise ChunkFileError(f"{path.name} was damaged: its latents are not those that were written.")
    return latents


def read_state(path: Path) -> dict[str, Tensor]:
    """Read what the colour guard knew after a chunk; raises ChunkFileError where the file cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(_STATE)]  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ChunkFileError(f"{path.name} cannot be read ({error}).") from error
    return {name.removeprefix(_STATE): value for name, value in _tensors(path, names).items()}


def _tensors(path: Path, names: list[str]) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError) as error:
        raise ChunkFileError(f"{path.name} cannot be read ({error}).") from error


def _record(told: dict[str, Any]) -> ChunkRecord:
    known = {f.name for f in fields(ChunkRecord)}
    values = {name: value for name, value in told.items() if name in known}
    start, stop = values["latents"]
    ingredients = {name: Ingredient(**value) for name, value in values["ingredients"].items()}
    return ChunkRecord(**{**values, "latents": (int(start), int(stop)), "ingredients": ingredients})


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu().contiguous()
