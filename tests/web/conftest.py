"""A real browser for the page: whatever Chromium the machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Host
    from playwright.sync_api import Browser, Page, Route

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


@pytest.fixture
def page(browser: Browser, host: Host) -> Iterator[Page]:
    """The host's page, loaded and ready for a workflow; `page.problems` is the list of uncaught errors in it.

    It talks to nobody but the host. Give a workflow to `app.loadGraphData` through `page.evaluate`.
    """
    host.client.post("/settings", {"Comfy.TutorialCompleted": True})  # else a dialog covers the page
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.route("**/*", _only_loopback)
    tab: Any = context.new_page()
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.goto(host.url)
    tab.wait_for_function(
        "() => window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow"
        " && Object.keys(window.LiteGraph?.registered_node_types ?? {}).some(name => name.startsWith('Gloria'))",
        timeout=60_000,
    )
    yield tab
    context.close()
