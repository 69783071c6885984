"""What every test may use: the repository on the path, and one real host for all tests that need it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # the pack itself uses relative imports only; this is for tests of the core
    sys.path.insert(0, str(ROOT))

from launch.client import Client, Json  # noqa: E402 - needs the path
from launch.environment import HOST, Environment  # noqa: E402
from launch.preflight import ask  # noqa: E402
from launch.process import last_lines  # noqa: E402
from launch.server import Server, Settings, running, wait_until_ready  # noqa: E402


@dataclass
class Host:
    """The real ComfyUI with the pack, in a private folder."""

    server: Server
    events: list[tuple[str, Json]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address without a trailing slash."""
        return self.server.url

    @property
    def base(self) -> Path:
        """Base directory: `input`, `output`, `temp`, `user`, `models`, `custom_nodes/gloria` lie in it."""
        return self.server.settings.base

    @property
    def client(self) -> Client:
        """A new client of the host's API."""
        return Client(self.url)

    def queue(self, prompt: dict[str, Any]) -> Json:
        """Run API JSON to its end and return its entry in the history; `events` holds what was heard meanwhile.

        Raises:
            launch.client.PromptError: the prompt was refused or a node failed; its text is the node's message.
        """
        self.events = []
        return self.client.run(prompt, lambda event, data: self.events.append((event, data)), self.server.require_alive)

    def log(self) -> str:
        """Everything the host has printed."""
        return self.server.settings.log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def host_environment() -> Environment:
    """The interpreter of the tests with the host that `run.py` brought, or the one that GLORIA_HOST names."""
    own = os.environ.get("GLORIA_HOST")
    folder = Path(own) if own else HOST
    if not (folder / "main.py").is_file():
        pytest.fail(f"There is no ComfyUI in {folder}: run `python run.py test` once, it brings it.")
    return Environment(Path(sys.executable), folder, own=own is not None)


HostStarter = Callable[..., AbstractContextManager[Host]]
"""Starts a host in a private folder, with further options for its command line and, as `python_path`, a folder of
further Python packages, and ends it with the context."""


@pytest.fixture(scope="session")
def start_host(host_environment: Environment) -> HostStarter:
    """For the few tests that need a host of their own."""

    @contextmanager
    def start(base: Path, *extra: str, python_path: Path | None = None) -> Iterator[Host]:
        accelerator = ask(Path(sys.executable), ROOT).accelerator
        settings = Settings(
            base=base, log=base / "host.log", cpu=not accelerator, threads=1, extra=extra, python_path=python_path
        )
        with running(host_environment, settings) as server:
            wait_until_ready(server)
            yield Host(server)

    return start


@pytest.fixture(scope="session")
def _one_host(start_host: HostStarter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with start_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def host(_one_host: Host) -> Host:
    """The session's host; a test that finds it dead fails with the end of its log."""
    _one_host.server.require_alive()
    return _one_host


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the end of the host's log to the report of a failed test that used it."""
    report = yield
    used = getattr(item, "funcargs", {}).get("host")
    if report.failed and isinstance(used, Host):
        report.sections.append(("end of the host's log", last_lines(used.server.settings.log, 40)))
    return report
