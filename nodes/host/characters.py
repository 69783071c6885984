"""Boards with the host's folders: where their pictures lie, and what changes when a picture does."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ...gloria_core.anchors.picture import AnchorPicture
from ...gloria_core.characters.board import BoardError, read_board
from ...gloria_core.characters.read import board_pictures
from ...gloria_core.characters.slots import GLOBAL, KEYS, key_of
from ...gloria_core.errors import AnchorError, GloriaError, MediaError
from ...gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole
from .paths import input_path


def board_file(name: str) -> Path:
    """Return the file of a picture on a board; MediaError where it is not below the input folder."""
    try:
        return input_path(name)
    except (OSError, ValueError, MediaError) as error:  # a name that no file can have
        raise MediaError(
            f"there is no picture {name[:200]!r} in the input folder. It was moved or deleted since it was put there: "
            "put it back, or choose another one."
        ) from error


def set_pictures(
    board: str, global_image: Tensor | None, chain: tuple[AnchorPicture, ...], pictures: dict[str, Tensor | None]
) -> tuple[AnchorPicture, ...]:
    """Return the pictures of an anchor set; what is connected wins over the board.

    Args:
        board: the board's JSON.
        global_image: connected picture (B, H, W, 3), whose first one is taken.
        chain: connected anchors.
        pictures: connected pictures by the names of views and expressions.

    Raises:
        AnchorError: there is no global picture.
        BoardError: the board, or a picture on it that is needed, cannot be read.
    """
    given = [AnchorPicture(AnchorRole.GLOBAL, "", global_image[:1])] if global_image is not None else []
    for role, slots in ((AnchorRole.VIEW, VIEWS), (AnchorRole.EXPRESSION, EXPRESSIONS)):
        images = ((slot, pictures.get(slot)) for slot in slots)
        given += [AnchorPicture(role, slot, image[:1]) for slot, image in images if image is not None]
    connected = (*given, *chain)
    taken = {key_of(picture.role, picture.slot) for picture in connected}
    found, wrong = read_board(board)
    for key, error in wrong.items():
        if key not in taken:
            raise error
    if GLOBAL not in taken | set(found.slots):
        raise AnchorError(
            "The global picture is missing. Drop a picture of the whole scene on the large slot of the board, or "
            "connect one to 'global_image'; the start frame will do."
        )
    chosen = (*connected, *board_pictures(found, board_file, without=taken))
    return tuple(sorted(chosen, key=lambda picture: KEYS.index(key_of(picture.role, picture.slot))))


def board_fingerprint(board: str) -> str:
    """Return what changes when the board or one of its pictures does."""
    state = hashlib.sha256(board.encode(errors="replace"))
    try:
        slots = read_board(board)[0].slots
    except BoardError:
        return state.hexdigest()
    for slot in slots.values():
        state.update(repr(_stamp(board_file, slot.image)).encode())
    return state.hexdigest()


def _stamp(find: Callable[[str], Path], name: str) -> tuple[int, int] | None:
    try:
        known = find(name).stat()
    except (GloriaError, OSError):
        return None
    return known.st_mtime_ns, known.st_size
