"""Script time a frame while a graph of 200 nodes with 20 anchor boards is moved: `python tests/bench/page.py`.

Prints a line for each frontend and each way of drawing nodes, and writes `results/page-DATE.json`: once at the scale
at which people work (a few nodes in view), once with the whole graph in view, the worst case. `without_ms` is 200
small nodes of the pack, with no anchor set among them; `self_ms` is those 200 nodes measured again, after the boards.
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from playwright.sync_api import sync_playwright  # noqa: E402

from launch.environment import HOST, Environment, newest_frontend  # noqa: E402 - needs the path
from launch.server import Settings, running, wait_until_ready  # noqa: E402
from tests.conftest import Host  # noqa: E402
from tests.web.board_page import ANCHOR_SET, board_json, nano_pictures  # noqa: E402
from tests.web.conftest import QUIET, RENDERERS, find_chromium, opened  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NODES, BOARDS, FRAMES = 200, 20, 120
VIEWS = {"working": 0.6, "whole": 0.12}  # scales of the canvas
PAN = """async frames => { // move the canvas a little in every frame
    const view = app.canvas.ds;
    for (let frame = 0; frame < frames; frame++) {
        view.offset[0] += 6 * Math.sin(frame / 9);
        view.offset[1] += 3 * Math.cos(frame / 9);
        app.canvas.setDirty(true, true);
        await new Promise(done => requestAnimationFrame(done));
    }
}"""


def graph(boards: int, pictures: dict[str, str]) -> dict[str, Any]:
    """A graph of NODES nodes, of which the first are anchor sets with every slot filled."""
    nodes = []
    for index in range(NODES):
        is_board = index < boards
        column, row = index % 20, index // 20
        nodes.append(
            {
                "id": index + 1, "type": ANCHOR_SET if is_board else "GloriaNano", "pos": [column * 660, row * 760],
                "size": [620, 690] if is_board else [220, 120], "flags": {}, "order": index, "mode": 0, "inputs": [],
                "outputs": [], "properties": {},
                "widgets_values": [json.dumps(board_json(pictures))] if is_board else [],
            }
        )  # fmt: skip
    return {"last_node_id": NODES, "last_link_id": 0, "nodes": nodes, "links": [], "groups": [], "version": 0.4}


def measure(page: Page, workflow: dict[str, Any]) -> dict[str, float]:
    """Script time a frame in ms for each of VIEWS: what the browser itself counts as scripting, by its own metrics."""
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(6000)
    return {name: _panned(page, scale) for name, scale in VIEWS.items()}


def _panned(page: Page, scale: float) -> float:
    page.evaluate(
        "scale => { const { ds } = app.canvas; [ds.scale, ds.offset[0], ds.offset[1]] = [scale, 60, 60]; }", scale
    )
    page.wait_for_timeout(1500)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")

    def script_s() -> float:
        found = devtools.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in found if metric["name"] == "ScriptDuration"))

    page.evaluate(PAN, 20)
    rounds = []
    for _ in range(3):
        before = script_s()
        page.evaluate(PAN, FRAMES)
        rounds.append(1000 * (script_s() - before) / FRAMES)
    return round(statistics.median(rounds), 2)


def of_host(browser: Browser, frontend: str, page: Path | None) -> dict[str, Any]:
    """Measure one frontend with both ways of drawing nodes."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        extra = ("--front-end-root", str(page)) if page else ()
        settings = Settings(base=base, log=base / "host.log", cpu=True, threads=1, extra=extra)
        with running(Environment(Path(sys.executable), HOST, own=False), settings) as server:
            wait_until_ready(server)
            pictures = nano_pictures(base / "input")
            for renderer, vue in RENDERERS.items():
                with opened(browser, Host(server), vue=vue) as shown:
                    without = measure(shown.page, graph(0, pictures))
                    boards = measure(shown.page, graph(BOARDS, pictures))
                    again = measure(shown.page, graph(0, pictures))
                for view in VIEWS:
                    times = {"boards_ms": boards[view], "without_ms": without[view], "self_ms": again[view]}
                    found[f"{frontend}-{renderer}-{view}"] = times
                    print(f"{frontend}-{renderer}, {view}: script a frame {times}", flush=True)
    return found


def main() -> None:
    """Measure, print, and write the results."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(find_chromium()), args=[*QUIET, "--no-sandbox"])
        found = {**of_host(browser, "pinned", None)}
        newest = newest_frontend()
        if newest:
            found |= of_host(browser, "newest", newest)
        browser.close()
    told = {"nodes": NODES, "boards": BOARDS, "frames": FRAMES, "script_ms_a_frame": found}
    path = Path(__file__).parent / "results" / f"page-{datetime.datetime.now(datetime.UTC).date()}.json"
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
