"""How the pack answers under ``/gloria/``: addresses are added once, and refusals are sentences in JSON."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from server import PromptServer

from ...gloria_core.errors import GloriaError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Routes = Mapping[tuple[str, str], Handler]
"""Handlers by method and path; the host repeats each below ``/api``."""

FRESH = {"Cache-Control": "no-cache"}


class TooLargeError(GloriaError):
    """A request has more bytes than are taken."""


class WrongKindError(GloriaError):
    """A request is of a kind that a page from elsewhere could send unasked."""


def register(routes: Routes, *absent: type[GloriaError], shown: Callable[[str], str] = str) -> None:
    """Add addresses to the host's, once; where no server runs, as in tools that import nodes, do nothing.

    Args:
        routes: what answers where.
        absent: errors which say that there is no such thing (404).
        shown: brings a sentence into the form that others may see.
    """
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    known = {(route.method, route.path) for route in server.routes if isinstance(route, web.RouteDef)}
    for (method, path), handler in routes.items():
        if (method, path) not in known:
            server.routes.route(method, path)(_answered(handler, absent, shown))


def _answered(handler: Handler, absent: tuple[type[GloriaError], ...], shown: Callable[[str], str]) -> Handler:
    """Return a handler that says in JSON why it has nothing to give."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except GloriaError as error:
            slot = getattr(error, "slot", None)
            return _refusal(_status(error, absent), shown(str(error)), **({"slot": slot} if slot else {}))
        except OSError as error:  # it was deleted while it was read
            return _refusal(404, f"It cannot be read ({error.strerror}).")

    return answer


def _status(error: GloriaError, absent: tuple[type[GloriaError], ...]) -> int:
    if isinstance(error, absent):
        return 404
    if isinstance(error, TooLargeError):
        return 413
    return 415 if isinstance(error, WrongKindError) else 400


def _refusal(status: int, sentence: str, **more: str) -> web.Response:
    return web.json_response({"error": sentence, **more}, status=status, headers=FRESH)


def check_kind(request: web.Request, kind: str) -> None:
    """Refuse what a browser would send for a page from elsewhere without asking; WrongKindError."""
    if request.content_type != kind:
        raise WrongKindError(f"This address takes {kind}, not {request.content_type[:60]}.")
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise WrongKindError("Another site's page may not ask for this.")
