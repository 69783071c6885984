"""Boards with the host's folders: where their pictures lie, and what changes when a picture does."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import folder_paths
from torch import Tensor

from ...gloria_core.anchors.picture import AnchorPicture
from ...gloria_core.characters.board import BoardError, read_board
from ...gloria_core.characters.pictures import encoded, to_image
from ...gloria_core.characters.read import board_pictures
from ...gloria_core.characters.slots import GLOBAL, KEYS, key_of
from ...gloria_core.errors import AnchorError, GloriaError, MediaError
from ...gloria_core.nano.characters import BUNDLED
from ...gloria_core.nano.portraits import portraits
from ...gloria_core.runs.places import is_inside
from ...gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole
from ...gloria_core.whole import written_whole
from .paths import input_path

_BUNDLED = re.compile(rf"gloria/bundled/({'|'.join(BUNDLED)})/({'|'.join(k.rpartition('.')[2] for k in KEYS)})\.png")
"""Pictures that a board may name on any machine: they are drawn when they are first asked for."""


def board_file(name: str) -> Path:
    """Return the file of a picture on a board; MediaError where it is not below the input folder."""
    bundled = _BUNDLED.fullmatch(name)
    if bundled and not (Path(folder_paths.get_input_directory()) / name).exists():
        _draw(bundled[1], bundled[2], name)
    try:
        return input_path(name)
    except (OSError, ValueError, MediaError) as error:  # a name that no file can have
        raise MediaError(
            f"there is no picture {name[:200]!r} in the input folder. It was moved or deleted since it was put there: "
            "put it back, or choose another one."
        ) from error


def _draw(who: str, slot: str, name: str) -> None:
    """Write a picture of a bundled character into the input folder."""
    root = Path(folder_paths.get_input_directory())
    if not is_inside(root / name, root):
        raise MediaError(f"{name} leads out of the input folder")
    picture = next(p for p in portraits(who) if slot == (p.slot or GLOBAL))
    with written_whole(root / name, kind=MediaError) as partial:
        partial.write_bytes(encoded(to_image(picture.image)))


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
