"""The header of a weights file: names, shapes, types and notes, whatever the container, and no weight."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import CheckpointError

LARGEST_HEADER = 100_000_000
"""Bytes that a safetensors header may have, as the format's own reader has it."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors calls the types of numbers."""

Shapes = Mapping[str, tuple[int, ...]]
"""GloriaDiT's name -> shape."""

Place = tuple[int, int]
"""First byte of a tensor's data, and the first behind it, counted from the header's end."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as a header describes it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    """Type of the stored numbers; uint8 for blocks of a quantisation that torch has no type for."""
    file: Path
    format: str = ""
    """Name of the block quantisation in a GGUF file, such as ``Q4_K``; empty for plain numbers."""

    @property
    def num_numbers(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """What is told before the first weight, of one file or of all shards together."""

    path: Path
    """What the user chose: a file, an index, or a folder."""
    files: tuple[Path, ...]
    """Where the weights lie."""
    container: Literal["safetensors", "gguf", "pickle"]
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def read_safetensors_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return the tensors and the notes of one safetensors file.

    Raises:
        CheckpointError: the file is no safetensors file, was cut, or its header contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if size < 9 or start[8:] != b"{":
            raise CheckpointError(
                f"{path.name} is not safetensors: where its header should begin stand other bytes. Download it again, "
                "or choose another file."
            )
        if length > LARGEST_HEADER:
            raise CheckpointError(
                f"{path.name} tells of a header of {length:,} bytes; at most {LARGEST_HEADER:,} are allowed, and a "
                "model needs less than one million. It is broken or made to harm: download it again from its maker."
            )
        if 8 + length > size:
            raise CheckpointError(_cut(path, size, 8 + length))
        file.seek(8)
        text = file.read(length)
    tensors, metadata = _parsed(text, path)
    end = 8 + length + max((place[1] for _, place in tensors.values()), default=0)
    if end > size:
        raise CheckpointError(_cut(path, size, end))
    if end < size:
        raise CheckpointError(
            f"{path.name} has {size:,} bytes, but its header accounts for {end:,} only: two downloads were mixed. "
            "Download it again."
        )
    _check_places({name: place for name, (_, place) in tensors.items()}, path)
    return {name: info for name, (info, _) in tensors.items()}, metadata


def _check_places(places: Mapping[str, Place], path: Path) -> None:
    """Raise where two tensors share bytes or bytes belong to none: the format forbids both."""
    expected = 0
    for name, (start, stop) in sorted(places.items(), key=lambda item: item[1]):
        if start != expected:
            raise CheckpointError(
                f"The header of {path.name} is broken at {name[:100]!r}: its data begins at {start:,} instead of "
                f"{expected:,}. Download the file again."
            )
        expected = stop


def _cut(path: Path, size: int, wanted: int) -> str:
    return f"{path.name} was cut: it has {size:,} bytes, and its header tells of {wanted:,}. Copy or download it again."


def _parsed(text: bytes, path: Path) -> tuple[dict[str, tuple[TensorInfo, Place]], dict[str, str]]:
    """Return each tensor with the place of its data, and the notes."""
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"The header of {path.name} is not readable ({str(error)[:200]}). Copy or download the file again."
        ) from error
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"The notes in the header of {path.name} are not text. Download the file again.")
    return {name: _info(name, entry, path) for name, entry in content.items()}, metadata


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} stands there twice")
    return result


def _info(name: str, entry: Any, path: Path) -> tuple[TensorInfo, Place]:  # noqa: ANN401 - parsed JSON
    def broken(why: str) -> CheckpointError:
        return CheckpointError(
            f"The header of {path.name} is broken at {name[:100]!r}: {why}. Download the file again."
        )

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
        raise broken("a tensor needs a type, a shape and a place")
    shape, place = entry["shape"], entry["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(place) or len(place) != 2:
        raise broken(f"its shape {str(shape)[:80]} or its place {str(place)[:80]} is not made of whole numbers")
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(
            f"{path.name} stores {name[:100]!r} as {str(entry['dtype'])[:20]}, which this version does not read. Take "
            "a file in float32, float16, bfloat16 or float8."
        )
    info = TensorInfo(tuple(shape), DTYPES[entry["dtype"]], path)
    wanted = info.num_numbers * info.dtype.itemsize
    if place[1] - place[0] != wanted:
        raise broken(
            f"its shape {str(shape)[:80]} needs {wanted:,} bytes, and its place {place} has {place[1] - place[0]:,}"
        )
    return info, (place[0], place[1])


def _are_sizes(values: Any) -> bool:  # noqa: ANN401 - parsed JSON
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
