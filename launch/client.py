"""Talking to a running host: its HTTP API and its events."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from . import LaunchError
from .websocket import ClosedError, WebSocket

Json = dict[str, Any]
REQUEST_SECONDS = 30.0
EVENT_SECONDS = 0.5
HISTORY_SECONDS = 30.0

ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


class UnreachableError(ConnectionError):
    """Nobody answers at the address."""


class PromptError(LaunchError):
    """The host refused a prompt, or a node of it failed; the text is the node's own message."""


def refusal(answer: Mapping[str, Any]) -> str:
    """Put the host's answer to an invalid prompt into one sentence."""
    problems = [
        f"{node.get('class_type', 'node')}: {error.get('message', 'error')} ({error.get('details', '')})"
        for node in (answer.get("node_errors") or {}).values()
        for error in node.get("errors", ())
    ]
    general = answer.get("error") or {}
    return "; ".join(problems) or f"{general.get('message', 'the prompt was refused')} ({general.get('details', '')})"


def failure(event: str, data: Mapping[str, Any]) -> str:
    """Put the host's report of a failed run into one sentence."""
    if event == "execution_interrupted":
        return "The run was interrupted."
    message = str(data.get("exception_message", "")).strip() or data.get("exception_type", "unknown error")
    return f"{data.get('node_type', 'ComfyUI')}: {message}"


class Client:
    """The API of one host."""

    def __init__(self, url: str) -> None:
        """Remember the address, such as `http://127.0.0.1:8188`; nothing is sent yet."""
        self.url = url
        self.id = uuid.uuid4().hex
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy

    def get(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON the host answers
        """Return the JSON at a path.

        Raises:
            UnreachableError: nobody answers.
            PromptError: the host answered with an error.
        """
        return self._send(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever JSON the host answers
        """Send JSON to a path and return the JSON it answers, if any.

        Raises:
            UnreachableError: nobody answers.
            PromptError: the host answered with an error.
        """
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._send(urllib.request.Request(self.url + path, data=data, headers=headers, method="POST"))

    def _send(self, request: urllib.request.Request) -> Any:  # noqa: ANN401 - whatever JSON the host answers
        try:
            with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as problem:
            raise PromptError(_spoken(problem)) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as problem:
            raise UnreachableError(f"{self.url} does not answer: {problem}") from None
        return json.loads(text) if text else None

    def run(
        self,
        prompt: Mapping[str, Any],
        on_event: Callable[[str, Json], None] = lambda event, data: None,
        check: Callable[[], None] = lambda: None,
    ) -> Json:
        """Queue a prompt, follow it to its end and return its entry in the history.

        Args:
            prompt: API JSON, node id to `{"class_type", "inputs"}`.
            on_event: called with the type and the data of each event that the host sends.
            check: called about twice a second; it may raise to give up.

        Raises:
            PromptError: the host refused the prompt, any part of it is invalid, or a node failed.
            UnreachableError: the host is gone.
        """
        address = urllib.parse.urlsplit(self.url)
        try:
            with WebSocket(address.hostname or "", address.port or 80, f"/ws?clientId={self.id}") as socket:
                identity = self._queue(prompt)
                self._follow(socket, identity, on_event, check)
        except ClosedError as problem:
            check()
            raise UnreachableError(f"{self.url}: {problem}") from None
        return self._history(identity)

    def interrupt(self) -> None:
        """Ask the host to stop what it works on; a host that is gone has stopped."""
        try:
            self.post("/interrupt", {})
        except (UnreachableError, PromptError):
            return

    def _queue(self, prompt: Mapping[str, Any]) -> str:
        answer = self.post("/prompt", {"prompt": prompt, "client_id": self.id})
        if answer.get("node_errors"):  # the host would run the valid rest and call it a success
            self.post("/queue", {"delete": [answer["prompt_id"]]})
            self.interrupt()
            raise PromptError(refusal(answer))
        return str(answer["prompt_id"])

    def _follow(
        self, socket: WebSocket, identity: str, on_event: Callable[[str, Json], None], check: Callable[[], None]
    ) -> None:
        while True:
            check()
            text = socket.receive(EVENT_SECONDS)
            if text is None:
                continue
            message = json.loads(text)
            event, data = message.get("type", ""), message.get("data") or {}
            on_event(event, data)
            if data.get("prompt_id") != identity or event not in ENDINGS:
                continue
            if event != "execution_success":
                raise PromptError(failure(event, data))
            return

    def _history(self, identity: str) -> Json:
        limit = time.monotonic() + HISTORY_SECONDS  # the entry is written a moment after the last event
        while time.monotonic() < limit:
            entry = self.get(f"/history/{identity}").get(identity)
            if entry:
                return dict(entry)
            time.sleep(0.05)
        raise PromptError("ComfyUI finished the run but wrote no history of it. Run the same command again.")


def _spoken(problem: urllib.error.HTTPError) -> str:
    text = problem.read().decode(errors="replace")
    try:
        return refusal(json.loads(text))
    except (ValueError, AttributeError):
        return f"ComfyUI answered {problem.code} {problem.reason}: {text[:200]}"
