"""The folders of character files: what lies in them, by ids that are names and never paths."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import GloriaError, MediaError, PlanError
from ..runs.digest import digest_of
from ..runs.folder import check_name
from ..runs.places import is_file_inside, is_inside
from ..whole import written_whole
from .board import Board
from .character_file import (
    ENDING,
    Character,
    StoredPicture,
    board_of,
    read_character,
    read_slots,
    write_character,
)
from .pictures import cut, read_picture
from .read import Find, slot_file

THUMBNAIL = 256
"""Pixels of a thumbnail's longer side."""
_ENDINGS = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}
_FIRST = ("global", "views.front", "expressions.neutral")


class NoCharacterError(MediaError):
    """There is no such character."""


def check_id(text: str) -> str:
    """Return a character's id: one part of a path, letters, digits, spaces, '_', '-' and '.'.

    Raises:
        MediaError: it could lead elsewhere, or is no file's name on every system.
    """
    try:
        if text != text.strip():
            raise PlanError("it begins or ends with a space")
        plain = check_name(text.replace(" ", "_"))
    except PlanError as error:
        raise MediaError(
            f"{text[:60]!r} is no name for a character; use letters, digits, spaces, '_', '-' and '.', beginning with "
            "a letter or digit, such as 'Mira'."
        ) from error
    return text if len(plain) == len(text) else plain


def list_characters(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return ``id``, ``name``, ``slots``, ``size`` (bytes) and ``changed`` (Unix time) of each character, by name.

    Files that are none, or lie elsewhere behind a link, are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in (path for folder in folders for path in _files(folder)):
        try:
            identity = check_id(path.stem)
            name, slots = read_slots(path)
            known = path.stat()
        except (GloriaError, OSError):
            continue
        told = {"name": name or identity, "slots": list(slots), "size": known.st_size, "changed": known.st_mtime}
        found.setdefault(identity, {"id": identity, **told})
    return sorted(found.values(), key=lambda told: (told["name"].lower(), told["id"]))


def find_character(folders: Sequence[Path], identity: str) -> Path:
    """Return the file of a character; NoCharacterError where there is none, MediaError where it is no id."""
    name = check_id(identity) + ENDING
    for folder in folders:
        if is_file_inside(folder / name, folder):
            return folder / name
    raise NoCharacterError(f"There is no character {identity!r} in models/gloria_characters.")


def save_board(board: Board, find: Find, folder: Path, name: str, *, overwrite: bool) -> str:
    """Write a board as a character file, with its pictures' own bytes, and return its id.

    Raises:
        BoardError: a picture cannot be read.
        MediaError: the name is none, or is taken and ``overwrite`` is off.
    """
    if not board.slots:
        raise MediaError("The board is empty; put at least one picture on it before you save the character.")
    path = new_file(folder, name, overwrite=overwrite)
    pictures = {}
    for key, slot in board.slots.items():
        slot_file(key, slot, find)
        data = find(slot.image).read_bytes()
        pictures[key] = StoredPicture(data=data, label=slot.image.rpartition("/")[2], crop=slot.crop)
    write_character(path, Character(name=name.strip(), notes=board.notes, pictures=pictures))
    return path.stem


def new_file(folder: Path, name: str, *, overwrite: bool) -> Path:
    """Return where a character of a name is saved; MediaError as for ``save_board``."""
    path = folder / (check_id(name.strip()) + ENDING)
    if path.exists() and not overwrite:
        raise MediaError(f"There is a character {path.stem!r} already; choose another name, or overwrite it.")
    if not is_inside(path, folder):
        raise MediaError(f"The character {path.stem!r} is a link out of its folder; choose another name.")
    return path


def unpack(character: Character, root: Path) -> Board:
    """Write a character's pictures below an input folder, where they are not yet, and return its board.

    They go to ``gloria/NAME``, under names made of their slots and contents. Every one is verified first.

    Raises:
        MediaError: a picture is none, or the disk refuses.
    """
    folder = root / "gloria" / _folder_name(character.name)
    places = {}
    for key, stored in character.pictures.items():
        kind = read_picture(stored.data, f"the picture for '{key}'").kind
        path = folder / f"{key.replace('.', '-')}-{digest_of(stored.data)[:12]}{_ENDINGS.get(kind, '.png')}"
        if not is_inside(path, root):
            raise MediaError(f"The folder input/gloria/{folder.name} is a link that leads elsewhere; rename it.")
        if not (path.is_file() and path.stat().st_size == len(stored.data)):
            with written_whole(path, kind=MediaError) as partial:
                partial.write_bytes(stored.data)
        places[key] = path.relative_to(root).as_posix()
    return board_of(character, places)


def thumbnail(path: Path) -> bytes:
    """Return the best-known picture of a character file as WebP of at most THUMBNAIL pixels; MediaError if none."""
    character = read_character(path, with_latents=False)
    key = next((key for key in (*_FIRST, *character.pictures) if key in character.pictures), None)
    if key is None:
        raise NoCharacterError(f"The character {path.stem!r} has no picture.")
    stored = character.pictures[key]
    image = cut(read_picture(stored.data, f"the picture for '{key}'").image, stored.crop)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=80)
    return data.getvalue()


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ENDING and is_file_inside(path, folder))
    except OSError:
        return []


def _folder_name(name: str) -> str:
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._-")[:60]
    try:
        return check_name(plain)
    except PlanError:
        return "character"
