"""Short names for contents: two things with one digest are the same, wherever and whenever they were made."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BYTES = 16
"""128 bits: no two contents of one run will ever share a digest by chance."""
_WHOLE = 1 << 22
"""Weights of up to this many bytes are read whole."""
_PIECES, _PIECE = 16, 1 << 16
"""Of larger ones so many pieces of so many bytes are read, spread evenly from the first byte to the last."""


def digest_of(*parts: object) -> str:
    """Return the digest of tensors, arrays, bytes and whatever JSON can say, in their order.

    Kind, shape and type of a tensor count, its device and strides do not.

    Raises:
        TypeError: a part is none of these.
    """
    state = _state()
    for part in parts:
        _add(state, part)
    return state.hexdigest()


def digest_of_weights(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Return the digest of named weights, whatever their order; of large ones only pieces are read.

    16 pieces of 64 KiB tell any retraining, LoRA or rounding of a matrix, and make the digest of a model of 28 GB a
    matter of a second. A hand-edited number of a large matrix may go unnoticed.
    """
    state = _state()
    for name, weight in sorted(weights, key=lambda item: item[0]):
        _add(state, [name, str(weight.dtype), list(weight.shape)])
        data = _bytes(weight)
        if data.nbytes > _WHOLE:
            starts = np.linspace(0, data.nbytes - _PIECE, _PIECES).astype(np.int64)
            data = np.concatenate([data[start : start + _PIECE] for start in starts])
        state.update(data)
    return state.hexdigest()


def _state() -> Any:  # noqa: ANN401 - hashlib's object
    return hashlib.blake2b(digest_size=_BYTES)


def _add(state: Any, part: object) -> None:  # noqa: ANN401 - hashlib's object
    if isinstance(part, Tensor):
        _add(state, ["tensor", str(part.dtype), list(part.shape)])
        state.update(_bytes(part))
    elif isinstance(part, np.ndarray):
        _add(state, ["array", str(part.dtype), list(part.shape)])
        state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
    elif isinstance(part, bytes):
        _add(state, ["bytes", len(part)])
        state.update(part)
    else:
        text = json.dumps(part, sort_keys=True).encode()
        state.update(f"{len(text)}:".encode() + text)


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """Return a tensor's bytes, in the order of its elements."""
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.zeros(0, np.uint8)
