"""Character files: ``.gloria`` is safetensors with pictures as the bytes of their own files. See docs/characters.md."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoint.header import read_safetensors_header
from ..checkpoint.save import write_tensors
from ..errors import CheckpointError, MediaError
from ..runs.digest import digest_of
from .board import Board, BoardError, Crop, Slot, check_board
from .pictures import MOST_FILE_BYTES
from .slots import KEYS

ENDING = ".gloria"
VERSION = 1
MOST_BYTES = 512_000_000
"""Of a character file."""
_MOST_HEADER = 1_000_000
"""Bytes of its header; a full one has 20 KB."""
_STORY = "gloria.character"
_PICTURE, _LATENT = "picture.", "latent."
_DIGEST = re.compile(r"[0-9a-f]{32}")
_MOST_LATENT = 1 << 24
"""Numbers of one latent: 1024 x 1024 pixels with 48 channels have 0.8 million."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredPicture:
    """What a file holds for one slot."""

    data: bytes
    """The picture's own file: PNG, JPEG, WebP."""
    label: str = ""
    """The name that it came under."""
    crop: Crop | None = None
    as_is: bool = False
    """Whether it is used at its own size, however large; otherwise as on a board."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Character:
    """A character as its file holds it."""

    name: str
    notes: str = ""
    pictures: Mapping[str, StoredPicture] = field(default_factory=dict)
    """By the keys of slots."""
    vae: str = ""
    """Digest of the VAE that the latents are of; empty where there are none."""
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    """(1, C, 1, h, w) by the keys of slots, in the VAE's own space."""


def write_character(path: Path, character: Character) -> None:
    """Write a character file whole or not at all.

    Raises:
        MediaError: it would be too large, or the disk refuses.
    """
    digests = {key: digest_of(stored.data) for key, stored in character.pictures.items()}
    tensors = {
        _PICTURE + digests[key]: torch.frombuffer(bytearray(stored.data), dtype=torch.uint8)
        for key, stored in character.pictures.items()
    }
    tensors |= {_LATENT + key: latent for key, latent in character.latents.items()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES - _MOST_HEADER:
        raise MediaError(
            f"The pictures have {size:,} bytes together; a character holds {MOST_BYTES:,}: scale them down."
        )
    slots = {key: _entry(stored, digests[key]) for key, stored in character.pictures.items()}
    story = {"version": VERSION, "name": character.name, "notes": character.notes, "slots": slots, "vae": character.vae}
    try:
        write_tensors(path, tensors, {_STORY: json.dumps(story, ensure_ascii=False)})
    except CheckpointError as error:
        raise MediaError(str(error)) from error


def read_character(path: Path, *, with_latents: bool = True) -> Character:
    """Read a character file, whoever made it.

    Args:
        path: the file.
        with_latents: whether the latents are read, too.

    Raises:
        MediaError: it is missing, no character file, damaged, made to harm, or of a newer version.
    """
    shapes, story = _header(path)
    slots = _slots(story, path)
    found = _check_tensors(shapes, slots, path)
    wanted = [_PICTURE + entry["picture"] for entry in slots.values()]
    latents = [key for key in slots if _LATENT + key in found] if with_latents and story["vae"] else []
    try:
        with safe_open(path, "pt") as file:
            data = {name: bytes(file.get_tensor(name).numpy()) for name in set(wanted)}
            tensors = {key: file.get_tensor(_LATENT + key) for key in latents}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)[:200]) from error
    for name, content in data.items():
        if digest_of(content) != name.removeprefix(_PICTURE):
            raise _damaged(path, "a picture in it is not the one that was saved")
    pictures = {key: _stored(data[_PICTURE + entry["picture"]], entry) for key, entry in slots.items()}
    board = _board(story, path)
    return Character(name=board.name, notes=board.notes, pictures=pictures, vae=story["vae"], latents=tensors)


def read_slots(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return name and filled slots of a character file from its header alone; MediaError as for ``read_character``."""
    _, story = _header(path)
    return _board(story, path).name, tuple(key for key in KEYS if key in _slots(story, path))


def _entry(stored: StoredPicture, digest: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"picture": digest, "label": stored.label}
    if stored.crop:
        entry["crop"] = list(stored.crop)
    return {**entry, "as_is": True} if stored.as_is else entry


def _stored(data: bytes, entry: dict[str, Any]) -> StoredPicture:
    crop = entry["crop"]
    return StoredPicture(data=data, label=entry["label"], crop=crop, as_is=entry["as_is"])


def _header(path: Path) -> tuple[Mapping[str, tuple[torch.dtype, tuple[int, ...]]], dict[str, Any]]:
    """Return types and shapes of the tensors, and the story."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if size > MOST_BYTES or length > _MOST_HEADER:
            raise _damaged(path, f"it has {size:,} bytes and a header of {length:,}; that is no character")
        tensors, metadata = read_safetensors_header(path)
    except OSError as error:
        raise MediaError(f"The character file {path.name} cannot be read ({error.strerror}).") from error
    except CheckpointError as error:
        raise _damaged(path, str(error)) from error
    if _STORY not in metadata:
        raise MediaError(
            f"{path.name} is no character file: it holds other things. Choose a file that ends in .gloria."
        )
    try:
        story = json.loads(metadata[_STORY])
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its description is not readable") from error
    return {name: (info.dtype, info.shape) for name, info in tensors.items()}, _check_story(story, path)


def _check_story(story: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401 - parsed JSON
    if not isinstance(story, dict) or type(story.get("version")) is not int or story["version"] < 1:
        raise _damaged(path, "its description has no version")
    if story["version"] > VERSION:
        raise MediaError(
            f"The character file {path.name} is of version {story['version']}; this Gloria reads version {VERSION}. "
            "Update Gloria to open it."
        )
    vae = story.get("vae", "")
    if not isinstance(vae, str) or len(vae) > 100 or not isinstance(story.get("slots"), dict):
        raise _damaged(path, "its description is incomplete")
    return {**story, "vae": vae}


def _slots(story: dict[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Return what is told of each slot, checked."""
    crops = _board(story, path).slots
    found = {}
    for key, entry in story["slots"].items():
        label, as_is = entry.get("label", ""), entry.get("as_is", False)
        if not isinstance(label, str) or len(label) > 1000 or not isinstance(as_is, bool):
            raise _damaged(path, f"the slot '{key}' is not told of as it must be")
        found[key] = {"picture": entry["picture"], "label": label, "as_is": as_is, "crop": crops[key].crop}
    return {key: found[key] for key in KEYS if key in found}


def _board(story: dict[str, Any], path: Path) -> Board:
    """Return the story as a board whose pictures are named by their digests: a board's rules hold for it."""
    told: dict[str, Any] = {"version": 1, "name": story.get("name", ""), "notes": story.get("notes", "")}
    for key, entry in story["slots"].items():
        digest = entry.get("picture") if isinstance(entry, dict) else None
        if key not in KEYS or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise _damaged(path, f"it tells of a slot {str(key)[:40]!r} that is none, or that has no picture")
        slot = {"image": digest, "crop": entry.get("crop")}
        group, _, name = key.partition(".")
        if name:
            told.setdefault(group, {})[name] = slot
        else:
            told[group] = slot
    try:
        board, wrong = check_board(told)
    except BoardError as error:
        raise _damaged(path, str(error)) from error
    for problem in wrong.values():
        raise _damaged(path, str(problem))
    return board


def _check_tensors(
    shapes: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], slots: Mapping[str, Any], path: Path
) -> set[str]:
    """Return the names of all tensors; MediaError where one is missing, not known, or not what it must be."""
    wanted = {_PICTURE + entry["picture"] for entry in slots.values()}
    missing = wanted - set(shapes)
    if missing:
        raise _damaged(path, f"a picture is missing ({sorted(missing)[0]})")
    for name, (dtype, shape) in shapes.items():
        if name in wanted:
            fits = dtype == torch.uint8 and len(shape) == 1 and 0 < shape[0] <= MOST_FILE_BYTES
        else:
            known = name.startswith(_LATENT) and name.removeprefix(_LATENT) in slots
            fits = known and dtype.is_floating_point and len(shape) == 5 and (shape[0], shape[2]) == (1, 1)
            fits = fits and 0 < math.prod(shape) <= _MOST_LATENT
        if not fits:
            raise _damaged(path, f"it holds {name[:80]!r} as {dtype} of {shape}, which no character has")
    return set(shapes)


def _damaged(path: Path, why: str) -> MediaError:
    return MediaError(f"The character file {path.name} is damaged or was made by something else: {why}.")


def board_of(character: Character, places: Mapping[str, str]) -> Board:
    """Return a character as a board.

    Args:
        character: what the file holds.
        places: path below the input folder of each slot's picture.
    """
    slots = {key: Slot(places[key], character.pictures[key].crop) for key in KEYS if key in character.pictures}
    return Board(name=character.name, notes=character.notes, slots=slots)
