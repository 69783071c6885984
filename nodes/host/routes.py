"""The addresses by which a page or a program follows runs: ``/gloria/runs`` and below. They only read."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ...gloria_core.errors import GloriaError, PlanError
from ...gloria_core.runs.drift_picture import drift_png
from ...gloria_core.runs.view import (
    NotThereError,
    events_after,
    film_file,
    find_run,
    list_runs,
    run_view,
    segment_file,
    waveform,
)
from .paths import RUNS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_COUNT = re.compile(r"[0-9]{1,9}")
_FRESH = {"Cache-Control": "no-cache"}


def register() -> None:
    """Add the addresses to the host's, once; where no server runs, as in tools that import nodes, do nothing."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    known = {route.path for route in server.routes if isinstance(route, web.RouteDef)}
    for path, handler in ROUTES.items():
        if path not in known:
            server.routes.get(path)(_answered(handler))


async def _all(request: web.Request) -> web.StreamResponse:
    root, names = _root(), request.query.getall("name", None)
    return web.json_response(await asyncio.to_thread(list_runs, root / RUNS, root, names), headers=_FRESH)


async def _one(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    return web.json_response(await asyncio.to_thread(run_view, run, root), headers=_FRESH)


async def _events(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    after = _count("after", request.query.get("after", "0"), least=0)
    return web.json_response(await asyncio.to_thread(events_after, run, root, after), headers=_FRESH)


async def _chunk(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    number = _count("number of the chunk", request.match_info["number"], least=1)
    return _video(await asyncio.to_thread(segment_file, run, root, number))


async def _drift(request: web.Request) -> web.StreamResponse:
    run, _ = await _run(request)
    picture = await asyncio.to_thread(drift_png, run)
    return web.Response(body=picture, content_type="image/png", headers=_FRESH)


async def _waveform(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    return web.json_response(await asyncio.to_thread(waveform, run, root), headers=_FRESH)


async def _film(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    return _video(await asyncio.to_thread(film_file, run, root))


ROUTES: dict[str, Handler] = {
    "/gloria/runs": _all,
    "/gloria/runs/{name}": _one,
    "/gloria/runs/{name}/events": _events,
    "/gloria/runs/{name}/chunks/{number}": _chunk,
    "/gloria/runs/{name}/film": _film,
    "/gloria/runs/{name}/drift.png": _drift,
    "/gloria/runs/{name}/waveform": _waveform,
}
"""The host repeats each below ``/api``."""


def _answered(handler: Handler) -> Handler:
    """Return a handler that says in JSON why it has nothing to give."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotThereError as error:
            return _refusal(404, str(error))
        except GloriaError as error:
            return _refusal(400, str(error))
        except OSError as error:  # it was deleted while it was read
            return _refusal(404, f"The run cannot be read ({error.strerror}).")

    return answer


def _refusal(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status, headers=_FRESH)


async def _run(request: web.Request) -> tuple[Path, Path]:
    """Return the folder of the run that a request names, and the output folder."""
    root = _root()
    return await asyncio.to_thread(find_run, root / RUNS, request.match_info["name"], root), root


def _root() -> Path:
    return Path(folder_paths.get_output_directory())


def _count(name: str, text: str, *, least: int) -> int:
    if not _COUNT.fullmatch(text) or int(text) < least:
        raise PlanError(f"The {name} is {text[:40]!r}; it must be a whole number from {least}.")
    return int(text)


def _video(path: Path) -> web.FileResponse:
    return web.FileResponse(path, headers={"Content-Type": "video/mp4", **_FRESH})
