"""The header of a GGUF file: notes, names, shapes and formats. See `unpack` for the weights.

Source: the GGUF specification of the ggml project, versions 2 and 3.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CheckpointError
from .header import TensorInfo

MAGIC = b"GGUF"
_SHAPE_NOTE = "comfy.gguf.orig_shape."
_MOST_ENTRIES = 1_000_000
_LONGEST_TEXT = 10_000_000
_LONGEST_KEPT_ARRAY = 64

_SCALARS: Mapping[int, struct.Struct] = {
    number: struct.Struct(f"<{code}")
    for number, code in ((0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i"), (6, "f"), (7, "?"), (10, "Q"),
                         (11, "q"), (12, "d"))
}  # fmt: skip
_TEXT, _ARRAY = 8, 9

PLAIN: Mapping[int, torch.dtype] = {
    0: torch.float32, 1: torch.float16, 24: torch.int8, 25: torch.int16, 26: torch.int32, 27: torch.int64,
    28: torch.float64, 30: torch.bfloat16,
}  # fmt: skip
"""Types of plain numbers."""

BLOCKS: Mapping[int, tuple[str, int, int]] = {
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip
"""Quantised types: name, numbers in a block, bytes of a block."""


class _Reader:
    """Takes values off the start of a file; every length is checked against what is left."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.size = file, path, path.stat().st_size

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if count <= self.size else b""
        if len(data) != count:
            raise CheckpointError(f"{self.path.name} was cut inside its header. Copy or download it again.")
        return data

    def number(self, kind: int) -> int | float | bool:
        form = _SCALARS[kind]
        value: int | float | bool = form.unpack(self.take(form.size))[0]
        return value

    def count(self, most: int, what: str) -> int:
        value = int(self.number(10))
        if value > most:
            raise CheckpointError(
                f"The header of {self.path.name} tells of {value:,} {what}; no model has more than {most:,}. "
                "The file is broken: download it again."
            )
        return value

    def text(self) -> str:
        return self.take(self.count(_LONGEST_TEXT, "letters in a text")).decode("utf-8", "replace")

    def value(self) -> str | None:
        """Return a note as text; None for a long list (a tokenizer's words), which is passed over."""
        kind = int(self.number(4))
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        return str(self.number(self._known(kind)))

    def _array(self) -> str | None:
        kind = int(self.number(4))
        items = self.count(10 * _MOST_ENTRIES, "entries in a list")
        if kind == _TEXT:
            for _ in range(items):
                self.text()
            return None
        size = _SCALARS[self._known(kind)].size
        if items > _LONGEST_KEPT_ARRAY:
            self.take(items * size)
            return None
        return json.dumps([self.number(kind) for _ in range(items)])

    def _known(self, kind: int) -> int:
        if kind not in _SCALARS:
            raise CheckpointError(f"The header of {self.path.name} has a note of the unknown type {kind}; the file is "
                                  "broken: download it again.")  # fmt: skip
        return kind


def read_gguf_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return the tensors and the notes of a GGUF file.

    Raises:
        CheckpointError: the file was cut, is of another version, or stores a type that is not known here.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path)
        reader.take(len(MAGIC))
        version = int(reader.number(4))
        if version not in (2, 3):
            raise CheckpointError(
                f"{path.name} is GGUF version {version}; versions 2 and 3 (little-endian) are read. Convert it again "
                "with today's tools."
            )
        num_tensors = reader.count(_MOST_ENTRIES, "tensors")
        notes = {}
        for _ in range(reader.count(_MOST_ENTRIES, "notes")):
            name = reader.text()
            value = reader.value()
            if value is not None:
                notes[name] = value
        entries = [_entry(reader) for _ in range(num_tensors)]
        alignment = int(notes.get("general.alignment", "32")) if notes.get("general.alignment", "32").isdigit() else 32
        data = -(-file.tell() // max(alignment, 1)) * max(alignment, 1)
    tensors = {}
    for name, shape, kind, place in entries:
        info, num_bytes = _described(name, _noted_shape(notes, name, shape, path), kind, path)
        if data + place + num_bytes > reader.size:
            raise CheckpointError(
                f"{path.name} was cut: it has {reader.size:,} bytes, and {name!r} ends at "
                f"{data + place + num_bytes:,}. Copy or download it again."
            )
        tensors[name] = info
    return tensors, notes


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.text()
    dims = int(reader.number(4))
    if dims > 8:
        raise CheckpointError(f"The header of {reader.path.name} gives {name!r} {dims} axes; the file is broken: "
                              "download it again.")  # fmt: skip
    shape = tuple(int(reader.number(10)) for _ in range(dims))
    return name, shape[::-1], int(reader.number(4)), int(reader.number(10))


def _noted_shape(notes: Mapping[str, str], name: str, shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Return the shape before conversion, where the converter had to flatten it and noted it."""
    note = notes.get(_SHAPE_NOTE + name)
    if note is None:
        return shape
    try:
        noted = json.loads(note)
    except ValueError:
        noted = None
    if not isinstance(noted, list) or not all(isinstance(size, int) for size in noted):
        raise CheckpointError(f"{path.name} notes the shape of {name!r} as {note!r}; whole numbers are needed. Convert "
                              "the file again.")  # fmt: skip
    return tuple(noted)


def _described(name: str, shape: tuple[int, ...], kind: int, path: Path) -> tuple[TensorInfo, int]:
    """Return a tensor and the bytes that it takes."""
    if kind in PLAIN:
        info = TensorInfo(shape, PLAIN[kind], path)
        return info, info.num_numbers * info.dtype.itemsize
    if kind not in BLOCKS:
        raise CheckpointError(
            f"{path.name} stores {name!r} in the GGUF format number {kind}, which this version does not know. Choose a "
            "file in Q4_K, Q5_K, Q6_K or Q8_0."
        )
    label, numbers, num_bytes = BLOCKS[kind]
    info = TensorInfo(shape, torch.uint8, path, label)
    return info, info.num_numbers // numbers * num_bytes
