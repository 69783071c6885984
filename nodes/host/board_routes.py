"""The addresses of the anchor board: ``/gloria/board`` and ``/gloria/characters``. GET gives data, POST acts."""

import asyncio
import json
import tempfile
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import BodyPartReader, web

from ...gloria_core.characters.board import Board, BoardError, Slot, check_board, read_board
from ...gloria_core.characters.character_file import ENDING, MOST_BYTES, read_character
from ...gloria_core.characters.crop import propose_crop
from ...gloria_core.characters.look import look_at
from ...gloria_core.characters.pictures import picture_size, read_picture
from ...gloria_core.characters.read import slot_file
from ...gloria_core.characters.shelf import (
    NoCharacterError,
    find_character,
    list_characters,
    save_board,
    thumbnail,
    unpack,
)
from ...gloria_core.characters.slots import GLOBAL
from ...gloria_core.errors import ConfigError, GloriaError, MediaError
from . import answers
from .analysis import ANALYSIS
from .answers import FRESH, Routes, TooLargeError, check_kind
from .character_files import character_folders
from .characters import board_file
from .fill import fill_from_file

Json = dict[str, Any]

_MOST_JSON = 1 << 20
"""Bytes of a request."""
_PIECE = 1 << 18
_STRIDES = (4, 8, 16, 32)


def register() -> None:
    """Add the addresses to the host's."""
    answers.register(ROUTES, NoCharacterError)


async def _look(request: web.Request) -> web.StreamResponse:
    body = await _json(request)
    stride = body.get("model_stride", 8)
    if stride not in _STRIDES or isinstance(stride, bool):
        raise ConfigError(f"model_stride is {str(stride)[:20]}; it is one of {', '.join(map(str, _STRIDES))}.")
    try:
        board, wrong = _board(body)
    except BoardError as error:
        return _said({"slots": {}, "error": str(error)})
    found: Json = {key: {"error": str(error)} for key, error in wrong.items()}
    scene = await asyncio.to_thread(_scene_px, board)
    for key, slot in board.slots.items():
        found[key] = await asyncio.to_thread(_seen, key, slot, stride, scene)
    return _said({"slots": found, "analysis": await asyncio.to_thread(ANALYSIS.told)})


async def _autocrop(request: web.Request) -> web.StreamResponse:
    body = await _json(request)
    path, preset = board_file(_text(body, "image")), _text(body, "preset")
    picture = await asyncio.to_thread(read_picture, path, path.name)
    crop, by = await asyncio.to_thread(ANALYSIS.use, partial(propose_crop, picture.image, preset))
    return _said({"crop": list(crop), "by": by})


async def _fill(request: web.Request) -> web.StreamResponse:
    body = await _json(request)
    kinds = [kind for kind in ("image", "video") if body.get(kind) is not None]
    if len(kinds) != 1:
        raise ConfigError("Give either 'image', the path of a sheet, or 'video', both below the input folder.")
    path, grid = board_file(_text(body, kinds[0])), body.get("grid")
    if grid is not None and (
        not isinstance(grid, list) or len(grid) != 2 or any(type(n) is not int or not 0 < n <= 64 for n in grid)
    ):
        raise ConfigError(f"The grid is {str(grid)[:40]}; it is [columns, rows], two whole numbers from 1 to 64.")
    chosen = (grid[0], grid[1]) if grid is not None else None
    return _said(await asyncio.to_thread(ANALYSIS.use, partial(fill_from_file, path, _input(), kinds[0], chosen)))


async def _characters(_request: web.Request) -> web.StreamResponse:
    return _said({"characters": await asyncio.to_thread(list_characters, character_folders())})


async def _thumbnail(request: web.Request) -> web.StreamResponse:
    path = find_character(character_folders(), request.match_info["id"])
    return web.Response(body=await asyncio.to_thread(thumbnail, path), content_type="image/webp", headers=FRESH)


async def _open(request: web.Request) -> web.StreamResponse:
    await _json(request)
    path = find_character(character_folders(), request.match_info["id"])
    return _said({"board": (await asyncio.to_thread(_unpacked, path)).told()})


async def _save(request: web.Request) -> web.StreamResponse:
    body = await _json(request)
    name, overwrite = _text(body, "name"), body.get("overwrite", False) is True
    board, wrong = _board(body)
    for error in wrong.values():
        raise error
    folder = character_folders()[0]
    identity = await asyncio.to_thread(lambda: save_board(board, board_file, folder, name, overwrite=overwrite))
    return _said({"id": identity})


async def _import(request: web.Request) -> web.StreamResponse:
    check_kind(request, "multipart/form-data")
    with tempfile.TemporaryDirectory(dir=_temp()) as folder:
        path = Path(folder) / ("import" + ENDING)
        await _receive(request, path)
        board = await asyncio.to_thread(_unpacked, path)
    return _said({"board": board.told()})


ROUTES: Routes = {
    ("POST", "/gloria/board/look"): _look,
    ("POST", "/gloria/board/autocrop"): _autocrop,
    ("POST", "/gloria/board/fill"): _fill,
    ("POST", "/gloria/board/import"): _import,
    ("GET", "/gloria/characters"): _characters,
    ("POST", "/gloria/characters"): _save,
    ("GET", "/gloria/characters/{id}/thumbnail"): _thumbnail,
    ("POST", "/gloria/characters/{id}/open"): _open,
}


def _said(told: Json) -> web.Response:
    return web.json_response(told, headers=FRESH)


def _scene_px(board: Board) -> int | None:
    """Return the shorter side of the global picture; None where there is none, or none that can be used."""
    slot = board.slots.get(GLOBAL)
    try:
        size = picture_size(board_file(slot.image), slot.image) if slot is not None else None
    except GloriaError:
        return None
    if slot is None or size is None:
        return None
    return round(min(size[0] * (slot.crop[2] if slot.crop else 1), size[1] * (slot.crop[3] if slot.crop else 1)))


def _seen(key: str, slot: Slot, stride: int, scene_px: int | None) -> Json:
    """Return what is told of a slot, or why its picture cannot be used."""
    try:
        known = board_file(slot.image).stat()
        return _looked_at(key, slot, stride, scene_px, (known.st_mtime_ns, known.st_size))
    except OSError as error:
        return {"error": f"{slot.image} cannot be read ({error.strerror})."}
    except GloriaError as error:
        return {"error": str(error)}


@lru_cache(maxsize=256)
def _looked_at(key: str, slot: Slot, stride: int, scene_px: int | None, stamp: tuple[int, int]) -> Json:
    """Look at a picture once for each state of its file."""
    picture = slot_file(key, slot, board_file)
    told = ANALYSIS.use(
        lambda analysis: look_at(key, picture, slot, stride=stride, scene_px=scene_px, analysis=analysis)
    )
    return {**told, "bytes": stamp[1]}


def _unpacked(path: Path) -> Board:
    return unpack(read_character(path, with_latents=False), _input())


def _board(body: Json) -> tuple[Board, dict[str, BoardError]]:
    """Return the board of a request: an object, or the text that the node's input holds."""
    told = body.get("board")
    return read_board(told) if isinstance(told, str) else check_board(told)


async def _json(request: web.Request) -> Json:
    check_kind(request, "application/json")
    data = b""
    async for piece in request.content.iter_chunked(_PIECE):
        data += piece
        if len(data) > _MOST_JSON:
            raise TooLargeError(f"The request has more than {_MOST_JSON:,} bytes; a board has at most a quarter of it.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The request is no JSON ({str(error)[:100]}).") from error
    if not isinstance(body, dict):
        raise ConfigError("The request must be a JSON object.")
    return body


async def _receive(request: web.Request, path: Path) -> None:
    """Write the field ``file`` of a form to a path."""
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if isinstance(part, BodyPartReader) and part.name == "file":
                await _write(part, path)
                return
    except (ValueError, AssertionError) as error:  # aiohttp's words for a form that is none
        raise error if isinstance(error, GloriaError) else ConfigError("The request is no form with a file.") from error
    raise ConfigError("The form has no field 'file'; send a .gloria file in it.")


async def _write(part: BodyPartReader, path: Path) -> None:
    size = 0
    with path.open("wb") as file:
        while piece := await part.read_chunk(_PIECE):
            size += len(piece)
            if size > MOST_BYTES:
                raise TooLargeError(f"The file has more than {MOST_BYTES:,} bytes; a character file is smaller.")
            file.write(piece)


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise MediaError(f"'{name}' is {str(value)[:40]!r}; it must be a short text.")
    return value


def _input() -> Path:
    return Path(folder_paths.get_input_directory())


def _temp() -> str:
    folder = folder_paths.get_temp_directory()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return str(folder)
