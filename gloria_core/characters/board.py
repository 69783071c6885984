"""The board: which picture is in which slot of a character, as JSON that a person can write by hand."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from ..errors import AnchorError
from .slots import GLOBAL, GROUPS, KEYS, spoken

VERSION = 1
MOST_BYTES = 256 * 1024
"""Of a board's JSON; a full one has 2 KB."""
_MOST_NAME, _MOST_NOTES, _MOST_PATH = 100, 20_000, 1000
"""Letters."""
_FIELDS = ("version", "name", "notes", GLOBAL, *GROUPS)
_SLOT_FIELDS = ("image", "crop")
_DRIVE = re.compile(r"[A-Za-z]:")
_SMALLEST = 1e-4
"""Side of a crop: less than a pixel of any picture."""

Crop = tuple[float, float, float, float]
"""x, y, width, height as fractions of an upright picture."""


class BoardError(AnchorError):
    """A board is not written as it must be, or one of its pictures cannot be used."""

    def __init__(self, sentence: str, slot: str | None = None) -> None:
        super().__init__(sentence)
        self.slot = slot
        """The key of the slot that is meant, such as ``views.front``; None where it is the whole board."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What lies in one slot."""

    image: str
    """Path below the input folder, with forward slashes."""
    crop: Crop | None = None
    """The part of the picture that is used; None is all of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A character's pictures by their slots."""

    name: str = ""
    notes: str = ""
    slots: Mapping[str, Slot] = field(default_factory=lambda: MappingProxyType({}))
    """By key, in the order of KEYS; empty slots are left out."""

    def to_json(self) -> str:
        """Return the board as JSON: equal boards give equal text."""
        return json.dumps(self.told(), ensure_ascii=False, separators=(",", ":"))

    def told(self) -> dict[str, Any]:
        """Return what ``to_json`` writes."""
        told: dict[str, Any] = {"version": VERSION}
        told |= {name: text for name, text in (("name", self.name), ("notes", self.notes)) if text}
        for key, slot in self.slots.items():
            entry = {"image": slot.image, **({"crop": list(slot.crop)} if slot.crop else {})}
            group, _, name = key.partition(".")
            if name:
                told.setdefault(group, {})[name] = entry
            else:
                told[group] = entry
        return told


def parse_board(text: str) -> Board:
    """Return the board that a text describes; an empty text is an empty board.

    Raises:
        BoardError: the text is no board; ``slot`` of the error tells where.
    """
    board, wrong = read_board(text)
    for error in wrong.values():
        raise error
    return board


def read_board(text: str) -> tuple[Board, dict[str, BoardError]]:
    """Return the board of a text without the slots that are wrong, and what is wrong with those, by their keys.

    Raises:
        BoardError: something beside the slots is wrong.
    """
    size = len(text.encode(errors="replace"))
    if size > MOST_BYTES:
        raise BoardError(
            f"The board has {size:,} bytes; at most {MOST_BYTES:,} are read. A board holds the paths of pictures, not "
            "the pictures: put them into the input folder."
        )
    return check_board(_loaded(text))


def check_board(told: Any) -> tuple[Board, dict[str, BoardError]]:  # noqa: ANN401 - parsed JSON
    """Do as ``read_board`` with JSON that is parsed already."""
    if not isinstance(told, dict):
        raise BoardError(f'The board is {_kind(told)}; it must be an object such as {{"version": 1}}.')
    _check_names(told, _FIELDS, "the board")
    if told and _without_fraction(told.get("version", VERSION)) != VERSION:
        _refuse_version(told["version"])
    found: dict[str, Slot] = {}
    wrong: dict[str, BoardError] = {}
    for key, value in _entries(told):
        try:
            if value is not None:
                found[key] = _slot(key, value)
        except BoardError as error:
            wrong[key] = error
    slots = {key: found[key] for key in KEYS if key in found}
    name = _text(told, "name", _MOST_NAME)
    return Board(name=name, notes=_text(told, "notes", _MOST_NOTES), slots=MappingProxyType(slots)), wrong


def _loaded(text: str) -> Any:  # noqa: ANN401 - parsed JSON
    if not text.strip():
        return {}
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except RecursionError:
        raise BoardError("The board is nested too deep; it has two levels: groups and slots.") from None
    except json.JSONDecodeError as error:
        raise BoardError(
            f"The board is no JSON (line {error.lineno}, column {error.colno}: {error.msg}). An empty one is {{}}."
        ) from None
    except ValueError as error:  # a whole number of thousands of digits, among others
        raise error if isinstance(error, BoardError) else BoardError(f"The board cannot be read: {error}.") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    double = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if double is not None:
        raise BoardError(f"The board names {double[:40]!r} twice; each slot takes one picture.")
    return dict(pairs)


def _no_number(text: str) -> None:
    raise BoardError(f"The board holds {text}, which is no number; a crop is four numbers from 0 to 1.")


def _check_names(told: Mapping[str, Any], known: tuple[str, ...], where: str, slot: str | None = None) -> None:
    for name in told:
        if name not in known:
            close = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f". It has: {', '.join(known)}."
            raise BoardError(f"There is no {name[:40]!r} in {where}{hint}", slot)


def _without_fraction(value: Any) -> Any:  # noqa: ANN401 - parsed JSON
    return None if isinstance(value, bool | float) else value


def _refuse_version(version: Any) -> None:  # noqa: ANN401 - parsed JSON
    if type(version) is int and version > VERSION:
        raise BoardError(
            f"The board is of version {str(version)[:20]}; this Gloria reads version {VERSION}. Update Gloria, or ask "
            "for the board of an older one."
        )
    raise BoardError(f'The board\'s version is {str(version)[:20]!r}; write "version": {VERSION}.')


def _entries(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    entries = [(GLOBAL, told[GLOBAL])] if GLOBAL in told else []
    for group, (_, slots) in GROUPS.items():
        inner = told.get(group)
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise BoardError(f"'{group}' of the board is {_kind(inner)}; it must be an object of slots and pictures.")
        _check_names(inner, slots, f"'{group}' of the board")
        entries += [(f"{group}.{slot}", value) for slot, value in inner.items()]
    return entries


def _slot(key: str, value: Any) -> Slot:  # noqa: ANN401 - parsed JSON
    if isinstance(value, str):
        return Slot(_path(key, value))
    if not isinstance(value, dict):
        raise BoardError(
            f'The {spoken(key)} is {_kind(value)}; it must be a path such as "gloria/front.png", or an object with '
            "'image' and 'crop'.",
            key,
        )
    _check_names(value, _SLOT_FIELDS, f"the slot '{key}'", key)
    if not isinstance(value.get("image"), str):
        raise BoardError(f"The {spoken(key)} has no 'image'; give its path below the input folder.", key)
    return Slot(_path(key, value["image"]), _crop(key, value.get("crop")))


def _path(key: str, text: str) -> str:
    def refused(why: str) -> BoardError:
        return BoardError(
            f"The {spoken(key)} has the path {text[:100]!r}, {why}; give a path below the input folder, with forward "
            "slashes, such as 'gloria/mira/front.png'.",
            key,
        )

    if not text.strip() or len(text) > _MOST_PATH:
        raise refused("which is empty" if not text.strip() else f"which has more than {_MOST_PATH} letters")
    if "\\" in text:
        raise refused("with backslashes")
    if text.startswith(("/", "~")) or _DRIVE.match(text) or "://" in text:
        raise refused("which does not begin in the input folder")
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise refused("which has an empty part, '.' or '..'")
    if not text.isprintable() or any(part != part.strip(" ") or part.endswith(".") for part in parts):
        raise refused("with signs that no file name on every system has")
    return text


def _crop(key: str, value: Any) -> Crop | None:  # noqa: ANN401 - parsed JSON
    if value is None:
        return None

    def refused(why: str) -> BoardError:
        return BoardError(
            f"The crop of the {spoken(key)} is {json.dumps(value)[:80]}: {why}. It is [x, y, width, height] in "
            "fractions of the upright picture, such as [0.1, 0, 0.8, 1].",
            key,
        )

    if not isinstance(value, list) or len(value) != 4 or any(type(number) not in (int, float) for number in value):
        raise refused("it must be four numbers")
    if not all(-1 <= number <= 2 and math.isfinite(number) for number in value):
        raise refused("each must be from 0 to 1")
    x, y, width, height = (float(number) for number in value)
    if x < 0 or y < 0 or x + width > 1 + 1e-6 or y + height > 1 + 1e-6:
        raise refused("it leads out of the picture")
    if width < _SMALLEST or height < _SMALLEST:
        raise refused("it is empty")
    return None if (x, y, width, height) == (0, 0, 1, 1) else (x, y, width, height)


def _text(told: Mapping[str, Any], name: str, most: int) -> str:
    value = told.get(name, "")
    if not isinstance(value, str):
        raise BoardError(f"'{name}' of the board is {_kind(value)}; it must be text.")
    if len(value) > most:
        raise BoardError(f"'{name}' of the board has {len(value):,} letters; at most {most:,} are kept.")
    return value


def _kind(value: Any) -> str:  # noqa: ANN401 - parsed JSON
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
