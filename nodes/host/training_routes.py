"""The addresses by which a page or a program follows, stops and resumes trainings: ``/gloria/training`` and below."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import folder_paths
from aiohttp import web
from server import PromptServer

from ...gloria_core.errors import ConfigError, GloriaError
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
)
from .paths import training_folder
from .training import begin, stop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_FRESH = {"Cache-Control": "no-cache"}
_MOST_DIGITS = 9
_MOST_BYTES = 1 << 16
"""Of a request; nothing in it is read."""
_FOREIGN = "Send this as JSON, from ComfyUI's own page or from a program."


class _ForeignError(GloriaError):
    """A request that a page from elsewhere could send unasked."""


class _TooLargeError(GloriaError):
    """A request has more bytes than are taken."""


def register() -> None:
    """Add the addresses to the host's, once; where no server runs, as in tools that import nodes, do nothing."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    known = {(route.method, route.path) for route in server.routes if isinstance(route, web.RouteDef)}
    for (method, path), handler in ROUTES.items():
        if (method, path) not in known:
            server.routes.route(method, path)(_answered(handler))


async def _all(_request: web.Request) -> web.StreamResponse:
    jobs = await asyncio.to_thread(list_jobs, training_folder(), _root())
    return web.json_response(jobs, headers=_FRESH)


async def _one(request: web.Request) -> web.StreamResponse:
    return await _view(await _job(request))


async def _events(request: web.Request) -> web.StreamResponse:
    job, after = await _job(request), _count(request.query.get("after", "0"))
    return web.json_response(await asyncio.to_thread(events_after, job, _root(), after), headers=_FRESH)


async def _plot(request: web.Request) -> web.StreamResponse:
    picture = await asyncio.to_thread(plot_png, await _job(request))
    return web.Response(body=picture, content_type="image/png", headers=_FRESH)


async def _sample(request: web.Request) -> web.StreamResponse:
    number = _count(request.match_info["number"])
    path = await asyncio.to_thread(sample_file, await _job(request), _root(), number)
    return web.FileResponse(path, headers={"Content-Type": "image/png", **_FRESH})


async def _stop(request: web.Request) -> web.StreamResponse:
    _check_wish(request)
    job = await _job(request)
    told = await asyncio.to_thread(stop, job)
    return web.json_response({"told": told}, headers=_FRESH)


async def _resume(request: web.Request) -> web.StreamResponse:
    """Resume; the host lets its models go as soon as nothing is sampled with them."""
    _check_wish(request)
    job = await _job(request)
    for flag in ("unload_models", "free_memory"):
        PromptServer.instance.prompt_queue.set_flag(flag, True)
    await asyncio.to_thread(begin, job)
    return await _view(job)


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/gloria/training"): _all,
    ("GET", "/gloria/training/{name}"): _one,
    ("GET", "/gloria/training/{name}/events"): _events,
    ("GET", "/gloria/training/{name}/plot.png"): _plot,
    ("GET", "/gloria/training/{name}/samples/{number}"): _sample,
    ("POST", "/gloria/training/{name}/stop"): _stop,
    ("POST", "/gloria/training/{name}/resume"): _resume,
}
"""The host repeats each below ``/api``."""


def _answered(handler: Handler) -> Handler:
    """Return a handler that says in JSON why it has nothing to give."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NoJobError as error:
            return _refusal(404, str(error))
        except _TooLargeError as error:
            return _refusal(413, str(error))
        except _ForeignError as error:
            return _refusal(415, str(error))
        except GloriaError as error:
            return _refusal(400, str(error))
        except OSError as error:  # it was deleted while it was read
            return _refusal(404, f"The training cannot be read ({error.strerror}).")

    return answer


def _check_wish(request: web.Request) -> None:
    """Refuse what a browser would send for a page from elsewhere, and what is no mere wish."""
    if request.content_type != "application/json" or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise _ForeignError(_FOREIGN)
    if (request.content_length or 0) > _MOST_BYTES:
        raise _TooLargeError(f"The request has {request.content_length:,} bytes; an empty object, {{}}, will do.")


def _refusal(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": shown(sentence, _root())}, status=status, headers=_FRESH)


async def _view(job: Job) -> web.StreamResponse:
    return web.json_response(await asyncio.to_thread(job_view, job, _root()), headers=_FRESH)


async def _job(request: web.Request) -> Job:
    """Return the job that a request names."""
    return await asyncio.to_thread(find_job, training_folder(), request.match_info["name"], _root())


def _root() -> Path:
    return Path(folder_paths.get_output_directory())


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ConfigError(f"{text[:40]!r} is no number of an event or a sample; use a whole one from 0.")
    return int(text)
