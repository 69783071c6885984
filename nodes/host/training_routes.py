"""The addresses by which a page or a program follows, stops and resumes trainings: ``/gloria/training`` and below."""

import asyncio
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ...gloria_core.errors import ConfigError
from ...gloria_core.runs.shown import shown
from ...gloria_core.train.job import Job
from ...gloria_core.train.view import (
    NoJobError,
    events_after,
    find_job,
    job_view,
    list_jobs,
    plot_png,
    sample_file,
    sample_film,
)
from . import answers
from .answers import FRESH, Routes, TooLargeError, check_kind
from .paths import training_folder
from .training import begin, stop

_MOST_DIGITS = 9
_MOST_BYTES = 1 << 16
"""Of a request; nothing in it is read."""


def register() -> None:
    """Add the addresses to the host's."""
    answers.register(ROUTES, NoJobError, shown=lambda sentence: str(shown(sentence, _root())))


async def _all(request: web.Request) -> web.StreamResponse:
    names, count = request.query.getall("name", None), request.query.get("count")
    most = None if count is None else _count(count)
    jobs = await asyncio.to_thread(list_jobs, training_folder(), _root(), names, most)
    return web.json_response(jobs, headers=FRESH)


async def _one(request: web.Request) -> web.StreamResponse:
    return await _view(await _job(request), _count(request.query.get("points", "0")))


async def _events(request: web.Request) -> web.StreamResponse:
    job, after = await _job(request), _count(request.query.get("after", "0"))
    return web.json_response(await asyncio.to_thread(events_after, job, _root(), after), headers=FRESH)


async def _plot(request: web.Request) -> web.StreamResponse:
    picture = await asyncio.to_thread(plot_png, await _job(request))
    return web.Response(body=picture, content_type="image/png", headers=FRESH)


async def _sample(request: web.Request) -> web.StreamResponse:
    number = _count(request.match_info["number"])
    path = await asyncio.to_thread(sample_file, await _job(request), _root(), number)
    return web.FileResponse(path, headers={"Content-Type": "image/png", **FRESH})


async def _film(request: web.Request) -> web.StreamResponse:
    number = _count(request.match_info["number"])
    path = await asyncio.to_thread(sample_film, await _job(request), _root(), number)
    return web.FileResponse(path, headers={"Content-Type": "video/mp4", **FRESH})


async def _stop(request: web.Request) -> web.StreamResponse:
    _check_wish(request)
    job = await _job(request)
    told = await asyncio.to_thread(stop, job)
    return web.json_response({"told": told}, headers=FRESH)


async def _resume(request: web.Request) -> web.StreamResponse:
    """Resume; the host lets its models go as soon as nothing is sampled with them."""
    _check_wish(request)
    job = await _job(request)
    for flag in ("unload_models", "free_memory"):
        PromptServer.instance.prompt_queue.set_flag(flag, True)
    await asyncio.to_thread(begin, job)
    return await _view(job)


ROUTES: Routes = {
    ("GET", "/gloria/training"): _all,
    ("GET", "/gloria/training/{name}"): _one,
    ("GET", "/gloria/training/{name}/events"): _events,
    ("GET", "/gloria/training/{name}/plot.png"): _plot,
    ("GET", "/gloria/training/{name}/samples/{number}"): _sample,
    ("GET", "/gloria/training/{name}/films/{number}"): _film,
    ("POST", "/gloria/training/{name}/stop"): _stop,
    ("POST", "/gloria/training/{name}/resume"): _resume,
}


def _check_wish(request: web.Request) -> None:
    """Refuse what is no mere wish of ComfyUI's own page or of a program."""
    check_kind(request, "application/json")
    if (request.content_length or 0) > _MOST_BYTES:
        raise TooLargeError(f"The request has {request.content_length:,} bytes; an empty object, {{}}, will do.")


async def _view(job: Job, points: int = 0) -> web.StreamResponse:
    return web.json_response(await asyncio.to_thread(job_view, job, _root(), points), headers=FRESH)


async def _job(request: web.Request) -> Job:
    """Return the job that a request names."""
    return await asyncio.to_thread(find_job, training_folder(), request.match_info["name"], _root())


def _root() -> Path:
    return Path(folder_paths.get_output_directory())


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ConfigError(f"{text[:40]!r} is no number that can be asked for; use a whole one from 0.")
    return int(text)
