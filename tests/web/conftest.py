"""A real browser for the page: whatever Chromium the machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launch.environment import newest_frontend

if TYPE_CHECKING:
    from conftest import Host, HostStarter
    from playwright.sync_api import Browser, ConsoleMessage, Page, Route

    from tests.web.board_page import BoardPage

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
QUIET = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

RENDERERS = {"litegraph": False, "vue": True}
"""How the page draws nodes, and whether that is its setting for Vue nodes."""
SETUPS = [f"{frontend}-{renderer}" for frontend in ("pinned", "newest") for renderer in RENDERERS]
"""The page that the host lists and the newest one, each with both ways of drawing nodes."""

LOAD_MS = 90_000.0
SETTLE_MS = 1000.0
READY = """() => window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow
    && Object.keys(window.LiteGraph?.registered_node_types ?? {}).some(name => name.startsWith("Gloria"))"""


def find_chromium() -> Path | None:
    """Return the browser that the variable CHROMIUM names, or one that is on the path or in a usual place."""
    named = os.environ.get("CHROMIUM")
    candidates = [named] if named else [*map(shutil.which, NAMES), *PLACES]
    return next((Path(place) for place in candidates if place and Path(place).is_file()), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; the tests that need it are skipped where the machine has none."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium on this machine: install one, or name it in the variable CHROMIUM")
    from playwright.sync_api import sync_playwright

    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium refuses its sandbox to root
    options = [*QUIET, *(["--no-sandbox"] if as_root else [])]
    with sync_playwright() as play:
        engine = play.chromium.launch(executable_path=str(chromium), args=options)
        yield engine
        engine.close()


def _only_loopback(route: Route) -> None:
    if "://127.0.0.1:" in route.request.url:
        route.continue_()
    else:
        route.abort()


@dataclass
class ComfyPage:
    """The host's page, loaded and ready for a workflow; it talks to nobody but the host."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Uncaught errors, and what our own scripts report; the host's page has noise of its own."""

    def open_workflow(self, workflow: dict[str, Any]) -> None:
        """Load UI JSON as if it had been dropped on the page."""
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        self.page.wait_for_function("count => app.graph._nodes.length === count", arg=len(workflow["nodes"]))
        self.page.wait_for_timeout(SETTLE_MS)

    def missing_nodes(self) -> list[str]:
        """Return the types of the graph's nodes that the host does not know."""
        types = self.page.evaluate("app.graph._nodes.map(node => node.type)")
        known = self.page.evaluate("Object.keys(LiteGraph.registered_node_types)")
        return sorted(set(types) - set(known))

    def prompt(self) -> dict[str, Any]:
        """Return what the page would queue: API JSON, without the titles that it adds."""
        nodes = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return {key: {name: node[name] for name in ("class_type", "inputs")} for key, node in nodes.items()}


def _is_our_error(said: ConsoleMessage) -> bool:
    return said.type == "error" and "/extensions/gloria/" in said.location.get("url", "")


@contextmanager
def opened(browser: Browser, host: Host, *, vue: bool = False) -> Iterator[ComfyPage]:
    """Open the host's page in a fresh profile."""
    # Without the first a dialog covers the page.
    host.client.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": vue})
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.route("**/*", _only_loopback)
    shown = ComfyPage(context.new_page())
    shown.page.on("pageerror", lambda error: shown.errors.append(str(error)))
    shown.page.on("console", lambda said: shown.errors.append(said.text) if _is_our_error(said) else None)
    shown.page.on("filechooser", lambda chooser: None)  # from now on: to begin when one is expected may be too late
    shown.page.goto(host.url, timeout=LOAD_MS)
    shown.page.wait_for_function(READY, timeout=LOAD_MS)
    yield shown
    context.close()


@pytest.fixture
def comfy_page(browser: Browser, host: Host) -> Iterator[ComfyPage]:
    """The host's page in a fresh profile."""
    with opened(browser, host) as shown:
        yield shown


@pytest.fixture(scope="session")
def newest_host(start_host: HostStarter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with the newest page; the tests that need it are skipped where none was brought."""
    page = newest_frontend()
    if page is None:
        pytest.skip("the newest page is not here: `python run.py test` brings it where there is a network")
    with start_host(tmp_path_factory.mktemp("newest"), "--front-end-root", str(page)) as host:
        yield host


@dataclass(frozen=True)
class Stage:
    """A page and its host, shared by the tests of a module: each opens a workflow of its own."""

    name: str
    host: Host
    shown: ComfyPage


@contextmanager
def _staged(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Stage]:
    frontend, renderer = request.param.split("-")
    host = request.getfixturevalue("newest_host" if frontend == "newest" else "_one_host")
    with opened(browser, host, vue=RENDERERS[renderer]) as shown:
        yield Stage(request.param, host, shown)


@pytest.fixture(scope="module", params=SETUPS)
def stage(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Stage]:
    """One page for each frontend and each way of drawing nodes."""
    with _staged(request, browser) as staged:
        yield staged


@pytest.fixture(params=SETUPS)
def fresh_stage(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Stage]:
    """The same with a page of its own for every test."""
    with _staged(request, browser) as staged:
        yield staged


@pytest.fixture
def board(stage: Stage) -> Iterator[BoardPage]:
    """A module's page for anchor boards; what a test left open is closed, and none may leave an error of ours."""
    from tests.web.board_page import BoardPage  # brings torch, which the other pages do without

    stage.shown.errors.clear()
    yield BoardPage(stage)
    stage.shown.page.evaluate("() => document.querySelectorAll('.gloria-dialog').forEach(dialog => dialog.close())")
    assert [error for error in stage.shown.errors if "/extensions/gloria/" in error or "gloria" in error.lower()] == []


@pytest.fixture
def nano(stage: Stage) -> dict[str, str]:
    """Pictures of a bundled character in the host's input folder, by slot."""
    from tests.web.board_page import nano_pictures

    return nano_pictures(stage.host.base / "input")
