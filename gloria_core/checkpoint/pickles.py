"""Weights in torch's own archives (.pt, .pth, .ckpt, .bin): only plain tensors are let in, never code."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin"})
_DEEPEST = 6
_BROKEN = (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, AssertionError)
"""What torch's reader raises on files that were cut or made up."""


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive by their names, mapped from the file; inner tables are joined by dots.

    Raises:
        CheckpointError: the file was cut, is no such archive, holds more than plain tensors, or no tensor.
    """
    try:
        content = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is no plain list of weights: it was cut, or it holds program code, which is never run. Take "
            f"the .safetensors file of the same model instead. ({_first_line(error)})"
        ) from error
    except _BROKEN as error:
        raise CheckpointError(
            f"{path.name} was cut or is no file of weights ({_first_line(error)}). Copy or download it again."
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path.name} holds a {type(content).__name__}; a table of named weights is needed. Take the .safetensors "
            "file of the same model instead."
        )
    tensors = dict(_flat(content, "", _DEEPEST))
    if not tensors:
        raise CheckpointError(f"{path.name} holds no weight at all; choose a file with a model in it.")
    return tensors


def _flat(content: Mapping[Any, Any], head: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{head}{key}", value.detach()
        elif isinstance(value, Mapping) and depth:
            yield from _flat(value, f"{head}{key}.", depth - 1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
