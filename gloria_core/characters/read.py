"""From a board to the pictures that anchors are encoded from."""

from collections.abc import Callable, Iterable
from pathlib import Path

from ..anchors.picture import AnchorPicture
from ..errors import MediaError
from ..types import AnchorRole
from .board import Board, BoardError, Crop, Slot
from .character_file import Character
from .pictures import Picture, cut, read_picture, to_tensor
from .slots import role_and_slot, spoken

MOST_PIXELS_OF: dict[AnchorRole, int | None] = {
    AnchorRole.GLOBAL: None,
    AnchorRole.VIEW: 1024 * 1024,
    AnchorRole.EXPRESSION: 512 * 512,
}
"""Larger pictures of a board are scaled down to this: every 256 pixels are a token in each chunk. The global one sets
the video's size, and is left as it is."""

Find = Callable[[str], Path]
"""Returns the file of a path below the input folder, or raises MediaError."""


def board_pictures(board: Board, find: Find, *, without: Iterable[str] = ()) -> tuple[AnchorPicture, ...]:
    """Read the pictures of a board, in the order of the slots.

    Args:
        board: which pictures.
        find: where they lie.
        without: keys of slots that are given in another way and are not read.

    Raises:
        BoardError: a picture cannot be read; ``slot`` of the error tells which.
    """
    left_out = set(without)
    return tuple(slot_picture(key, slot, find) for key, slot in board.slots.items() if key not in left_out)


def slot_picture(key: str, slot: Slot, find: Find) -> AnchorPicture:
    """Read the picture of one slot; BoardError where it cannot be."""
    return prepared(key, slot_file(key, slot, find), slot.crop)


def slot_file(key: str, slot: Slot, find: Find) -> Picture:
    """Read the whole picture file of one slot; BoardError where it cannot be."""
    try:
        return read_picture(find(slot.image), slot.image)
    except MediaError as error:
        raise BoardError(f"The {spoken(key)} cannot be used: {error}", key) from error


def prepared(key: str, picture: Picture, crop: Crop | None, *, as_is: bool = False) -> AnchorPicture:
    """Return a picture as its slot uses it: cut, and no larger than makes sense unless it is taken ``as_is``."""
    role, name = role_and_slot(key)
    return AnchorPicture(role, name, to_tensor(cut(picture.image, crop, None if as_is else MOST_PIXELS_OF[role])))


def character_pictures(character: Character) -> tuple[AnchorPicture, ...]:
    """Return the pictures of a character file, in the order of the slots; MediaError where one is damaged."""
    return tuple(
        prepared(key, read_picture(stored.data, f"the {spoken(key)}"), stored.crop, as_is=stored.as_is)
        for key, stored in character.pictures.items()
    )
