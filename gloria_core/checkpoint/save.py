"""Writing weights whole or not at all, tensor by tensor: nothing but the largest one is ever held twice."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import CheckpointError
from ..whole import written_whole
from .detect import CONFIG_KEY
from .header import DTYPES
from .keys import PREFIX

Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The type and the shape of each tensor that will be written."""

_LABELS = {dtype: label for label, dtype in DTYPES.items()}


def write_checkpoint(
    path: Path,
    weights: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    extra: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a Gloria checkpoint under a temporary name, flush it to the disk, then rename it.

    Args:
        path: where to.
        weights: the transformer's, by its own names; scales of quantised layers as ``X.scale_weight`` beside them.
        config: its configuration, which goes into the header.
        extra: other tensors, stored by the names given (a text encoder, a codec).
        notes: more text for the header, such as a training record.

    Raises:
        CheckpointError: the disk is full or the folder is closed to us; a file of that name is left as it was.
    """
    tensors = {PREFIX + name: t for name, t in weights.items()} | dict(extra or {})
    write_tensors(path, tensors, {CONFIG_KEY: config.to_json(), **(notes or {})})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all; tensors may share memory and lie on any device.

    Raises:
        CheckpointError: a tensor has a type that the format does not know, or the disk refuses.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in _LABELS:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(f"{name!r} is a {kind}, which safetensors cannot hold; convert it to a plain tensor.")
    write_lazily(path, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}, tensors.__getitem__, metadata)


def write_lazily(path: Path, layout: Layout, tensor: Callable[[str], Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all, of tensors that are made one by one while it is written.

    Args:
        path: where to.
        layout: what will be written.
        tensor: gives a tensor by its name, each once. Whatever it raises ends the writing, and no file is left behind.
        metadata: text for the header.

    Raises:
        CheckpointError: a tensor is not what the layout says, or the disk refuses.
    """
    ordered = writing_order(layout)
    with written_whole(path) as partial, partial.open("wb") as file:
        file.write(_header(layout, ordered, metadata))
        for name in ordered:
            _write_numbers(file, name, tensor(name), layout)


def writing_order(layout: Layout) -> list[str]:
    """Return the names in the order in which they are asked for: the format's own, wide numbers first."""
    return sorted(layout, key=lambda name: (-layout[name][0].itemsize, name))


def _header(layout: Layout, ordered: list[str], metadata: Mapping[str, str]) -> bytes:
    content: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    place = 0
    for name in ordered:
        dtype, shape = layout[name]
        end = place + math.prod(shape) * dtype.itemsize
        content[name] = {"dtype": _LABELS[dtype], "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_numbers(file: BinaryIO, name: str, tensor: Tensor, layout: Layout) -> None:
    if (tensor.dtype, tuple(tensor.shape)) != layout[name]:
        raise CheckpointError(f"{name!r} is {tuple(tensor.shape)} of {tensor.dtype}; {layout[name]} was announced.")
    if tensor.numel():
        flat = tensor.detach().cpu().contiguous().flatten()
        file.write(flat.view(torch.uint8).numpy().data)
