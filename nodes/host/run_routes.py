"""The addresses by which a page or a program follows runs: ``/gloria/runs`` and below. They only read."""

import asyncio
import re
from pathlib import Path

import folder_paths
from aiohttp import web

from ...gloria_core.errors import PlanError
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
from . import answers
from .answers import FRESH, Routes
from .paths import RUNS

_COUNT = re.compile(r"[0-9]{1,9}")


def register() -> None:
    """Add the addresses to the host's."""
    answers.register(ROUTES, NotThereError)


async def _all(request: web.Request) -> web.StreamResponse:
    root, names = _root(), request.query.getall("name", None)
    return web.json_response(await asyncio.to_thread(list_runs, root / RUNS, root, names), headers=FRESH)


async def _one(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    return web.json_response(await asyncio.to_thread(run_view, run, root), headers=FRESH)


async def _events(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    after = _count("after", request.query.get("after", "0"), least=0)
    return web.json_response(await asyncio.to_thread(events_after, run, root, after), headers=FRESH)


async def _chunk(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    number = _count("number of the chunk", request.match_info["number"], least=1)
    return _video(await asyncio.to_thread(segment_file, run, root, number))


async def _drift(request: web.Request) -> web.StreamResponse:
    run, _ = await _run(request)
    picture = await asyncio.to_thread(drift_png, run)
    return web.Response(body=picture, content_type="image/png", headers=FRESH)


async def _waveform(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    return web.json_response(await asyncio.to_thread(waveform, run, root), headers=FRESH)


async def _film(request: web.Request) -> web.StreamResponse:
    run, root = await _run(request)
    return _video(await asyncio.to_thread(film_file, run, root))


ROUTES: Routes = {
    ("GET", "/gloria/runs"): _all,
    ("GET", "/gloria/runs/{name}"): _one,
    ("GET", "/gloria/runs/{name}/events"): _events,
    ("GET", "/gloria/runs/{name}/chunks/{number}"): _chunk,
    ("GET", "/gloria/runs/{name}/film"): _film,
    ("GET", "/gloria/runs/{name}/drift.png"): _drift,
    ("GET", "/gloria/runs/{name}/waveform"): _waveform,
}


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
    return web.FileResponse(path, headers={"Content-Type": "video/mp4", **FRESH})
