"""The chunk timeline on the sampler, in the host's page: it is filled by real runs, played, moved and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.page_scripts import FIND, QUEUE, TYPE

if TYPE_CHECKING:
    from conftest import ComfyPage, Host, Stage
    from playwright.sync_api import Page

pytestmark = [pytest.mark.host, pytest.mark.web]

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "Gloria - a minute of one character.json"
SAMPLER, SCHEDULE = "GloriaChunkedLongSampler", "GloriaPromptSchedule"
PROMPTS = "0:00 faces the camera, happy\n0:02.06 turns to the left, happy / 0:04.5 faces the camera, sad"
NUM_CHUNKS = 4  # of 5 s

LOOK = """() => {
    window.timeline = (place = 0) => input("GloriaChunkedLongSampler", "chunk_timeline", place).element;
    window.cells = (place = 0) => [...timeline(place).querySelectorAll(".gloria-cell")];
    window.states = (place = 0) => cells(place).map(cell => cell.dataset.state);
}"""
FOLLOW = """place => {
    const heard = window.heard = [];
    const look = () => { const now = states(place).join(" "); if (now && heard.at(-1) !== now) heard.push(now); };
    window.follower?.disconnect();
    window.follower = new MutationObserver(look);
    window.follower.observe(timeline(place), { subtree: true, childList: true, attributes: true });
}"""
ELSEWHERE = """type => { // another workflow's sampler with the same number has finished
    const detail = { node: String(nodesOf(type)[0].id), output: { gloria_run: ["elsewhere"] } };
    app.api.dispatchEvent(new CustomEvent("executed", { detail }));
}"""
SHOW = """place => { // the timeline into the middle of the page
    const box = timeline(place).getBoundingClientRect(), view = app.canvas.ds;
    view.offset[0] += (600 - box.x) / view.scale;
    view.offset[1] += (350 - box.y) / view.scale;
    app.canvas.setDirty(true, true);
}"""


@pytest.fixture
def comfy_page(fresh_stage: Stage) -> ComfyPage:
    return fresh_stage.shown


@pytest.fixture
def host(fresh_stage: Stage) -> Host:
    return fresh_stage.host


@pytest.fixture
def run(fresh_stage: Stage) -> str:
    """A name that the other set-ups on the same host do not use."""
    return f"timeline-{fresh_stage.name}"


def example(run: str) -> dict[str, Any]:
    """The example with 5 s, 2 steps and three prompts; a person would have typed them."""
    workflow = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        if node["type"] == SCHEDULE:
            node["widgets_values"] = [PROMPTS]
    workflow["nodes"] = [node for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    return workflow


def opened(shown: ComfyPage, run: str, workflow: dict[str, Any] | None = None) -> Page:
    page = shown.page
    page.evaluate(FIND)
    page.evaluate(LOOK)
    shown.open_workflow(workflow or example(run))
    if workflow is None:
        for name, value in {"seconds": 5, "steps": 2, "run": run}.items():
            page.evaluate(TYPE, [SAMPLER, name, value])
    page.evaluate(SHOW, 0)
    page.wait_for_timeout(500)
    stale = "run => states().length > 0 && !timeline().querySelector('.gloria-head').textContent.includes(run)"
    if page.evaluate(stale, run):  # another run's name is looked up when somebody comes near
        page.locator(".gloria-timeline").first.hover()
        page.wait_for_timeout(700)
        page.mouse.move(5, 990)
    return page


def queue(page: Page) -> None:
    assert page.evaluate(QUEUE) == "success"
    page.wait_for_timeout(300)  # the last events are drawn with the next frame


def reroll(page: Page) -> str:
    return page.evaluate("type => input(type, 'reroll').value", SAMPLER)


def schedule(page: Page) -> str:
    return page.evaluate("type => input(type, 'schedule').value", SCHEDULE)


def undo(page: Page) -> None:
    page.mouse.click(700, 990)  # the empty canvas: keys are the page's again
    page.keyboard.press("Control+z")
    page.wait_for_timeout(1000)


def choose(page: Page, chunk: int, label: str) -> None:
    page.locator(".gloria-cell").nth(chunk - 1).click(button="right")
    page.get_by_role("menuitem", name=label).click()
    page.wait_for_timeout(300)


def test_chunks_are_sampled_played_and_there_after_a_reload(
    comfy_page: ComfyPage, host: Host, run: str, tmp_path: Path
) -> None:
    page = opened(comfy_page, run)
    assert page.evaluate("states()") == []
    page.evaluate(FOLLOW, 0)
    queue(page)
    heard = [told.split() for told in page.evaluate("heard")]
    assert heard[0] == ["waiting"] * NUM_CHUNKS
    assert ["done", "sampling", "waiting", "waiting"] in heard
    assert heard[-1] == ["done"] * NUM_CHUNKS
    story = json.loads((host.base / "output" / "gloria_runs" / run / "run.json").read_text())

    cell = page.locator(".gloria-cell").nth(1)
    cell.hover()
    card = page.locator(".gloria-card:popover-open")
    card.wait_for()
    assert str(story["chunks"][1]["seed"]) in card.inner_text()
    assert story["chunks"][1]["prompt"] in card.inner_text()
    assert cell.inner_text() == f"{story['chunks'][1]['drift']['similarity']:.2f}"
    drawn = page.evaluate("timeline().querySelector('.gloria-lane path').getAttribute('d').length")
    assert drawn > 5000, "the sound is drawn"
    page.screenshot(path=str(tmp_path / "card.png"))

    cell.click()
    page.wait_for_function("() => timeline().querySelector('video').readyState >= 2", timeout=20_000)
    assert f"/gloria/runs/{run}/chunks/2?" in page.evaluate("timeline().querySelector('video').src")
    assert abs(page.evaluate("timeline().querySelector('video').duration") - 1.25) < 0.1
    page.screenshot(path=str(tmp_path / "player.png"))
    cell.press("Escape")
    assert page.evaluate("timeline().querySelector('.gloria-player').hidden")
    assert "chunk_timeline" not in json.dumps(comfy_page.prompt())

    saved = page.evaluate("app.graph.serialize()")
    page.reload()
    page.wait_for_function("() => window.app?.extensionManager?.workflow?.activeWorkflow", timeout=90_000)
    opened(comfy_page, run, saved)
    page.wait_for_function(f"() => states().length === {NUM_CHUNKS}")
    assert page.evaluate("states()") == ["done"] * NUM_CHUNKS
    assert page.evaluate("cells().every(cell => cell.dataset.ready === 'true')")
    assert page.evaluate("timeline().querySelector('.gloria-lane path').getAttribute('d').length") == drawn
    assert page.evaluate("timeline().querySelectorAll('.gloria-span').length") == 3
    queue(page)  # nothing has changed: the host has it in its cache, and tells no chunk
    assert page.evaluate("states()") == ["done"] * NUM_CHUNKS
    page.evaluate(ELSEWHERE, SAMPLER)
    page.wait_for_timeout(700)
    assert page.evaluate("states()") == ["done"] * NUM_CHUNKS
    assert comfy_page.errors == []


def test_a_chunk_is_rolled_again_and_taken_back(comfy_page: ComfyPage, run: str, tmp_path: Path) -> None:
    page = opened(comfy_page, f"{run}-reroll")
    queue(page)
    choose(page, 2, "Re-roll and bridge to the later chunks")
    assert reroll(page) == "2 try 1 bridge"
    undo(page)
    assert reroll(page) == ""
    choose(page, 2, "Re-roll from here")
    choose(page, 2, "Re-roll this chunk")
    assert reroll(page) == "2 try 2 onward"
    choose(page, 2, "Re-roll and bridge to the later chunks")
    assert reroll(page) == "2 try 3 bridge"
    page.screenshot(path=str(tmp_path / "asked.png"))
    page.evaluate(FOLLOW, 0)
    queue(page)
    # Chunk 3 is sampled no more than chunk 4; it is only decoded anew behind another chunk.
    assert page.evaluate("states()") == ["reused", "done", "done", "reused"]
    assert "reused sampling reused reused" in page.evaluate("heard")
    choose(page, 2, "Choose take 1")
    assert reroll(page) == "2 take 1 bridge"
    choose(page, 2, "As without a re-roll")
    assert reroll(page) == ""
    queue(page)
    assert page.evaluate("states()") == ["reused"] * NUM_CHUNKS
    assert comfy_page.errors == []


def test_a_border_is_dragged_to_a_chunk_and_taken_back(comfy_page: ComfyPage, run: str, tmp_path: Path) -> None:
    page = opened(comfy_page, run)  # by another test, or not at all: then every moment will do
    if not page.evaluate("states()"):
        queue(page)
    edge = page.locator(".gloria-edge").first
    at, aim = edge.bounding_box(), page.locator(".gloria-cell").nth(2).bounding_box()
    assert at is not None
    assert aim is not None
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    page.mouse.down()
    page.mouse.move(aim["x"] + 6, at["y"] + 40, steps=4)  # near the chunk's start, and off the row
    page.screenshot(path=str(tmp_path / "dragged.png"))
    page.mouse.up()
    page.wait_for_timeout(300)
    assert schedule(page) == PROMPTS.replace("0:02.06", "0:03.31")
    assert comfy_page.prompt()["4"]["inputs"]["schedule"] == schedule(page)
    undo(page)
    assert schedule(page) == PROMPTS
    page.locator(".gloria-edge").first.press("ArrowRight")
    page.wait_for_timeout(300)
    assert schedule(page) == PROMPTS.replace("0:02.06", "0:03.31")
    page.locator(".gloria-edge").first.press("Shift+ArrowRight")
    page.wait_for_timeout(300)
    assert schedule(page) == PROMPTS.replace("0:02.06", "0:03.55")
    page.evaluate(f"() => {{ input('{SCHEDULE}', 'schedule').value = '0:99 no time'; }}")
    page.locator(".gloria-timeline").hover()
    page.wait_for_timeout(300)
    assert "cannot be read yet" in page.locator(".gloria-rows").inner_text()
    assert comfy_page.errors == []


def test_two_samplers_one_of_them_in_a_subgraph(comfy_page: ComfyPage, run: str) -> None:
    page = opened(comfy_page, f"{run}-first")
    page.evaluate(
        """([type, run]) => {
            const [first] = nodesOf(type), second = first.clone();
            app.graph.add(second);
            first.inputs.forEach((input, slot) => {
                const link = input.link == null ? null : app.graph.getLink(input.link);
                if (link) app.graph.getNodeById(link.origin_id).connect(link.origin_slot, second, slot);
            });
            second.pos = [first.pos[0] + 1200, first.pos[1]];
            second.widgets.find(widget => widget.name === "run").value = run;
            second.widgets.find(widget => widget.name === "seconds").value = 3;
            app.graph.convertToSubgraph(new Set([second]));
        }""",
        [SAMPLER, f"{run}-second"],
    )
    page.wait_for_timeout(500)
    assert page.evaluate("type => nodesOf(type).length", SAMPLER) == 2
    queue(page)
    assert page.evaluate("states(0)") == ["done"] * NUM_CHUNKS
    assert page.evaluate("states(1)") == ["done"] * 2
    heads = page.evaluate("[0, 1].map(place => timeline(place).querySelector('.gloria-head').textContent)")
    assert [f"{run}-first" in heads[0], f"{run}-second" in heads[1]] == [True, True]
    spans = page.evaluate("[...timeline(1).querySelectorAll('.gloria-span')].map(span => span.textContent)")
    assert spans[:2] == ["faces the camera, happy", "turns to the left, happy"], (
        "the schedule lies outside of the subgraph"
    )
    page.evaluate(
        """type => { // open the subgraph where its node is
            const { graph, pos } = nodesOf(type)[1], view = app.canvas.ds;
            app.canvas.openSubgraph(graph, (app.rootGraph ?? app.graph)._nodes.find(node => node.subgraph === graph));
            [view.scale, view.offset[0], view.offset[1]] = [0.6, 300 - pos[0], 200 - pos[1]];
            app.canvas.setDirty(true, true);
        }""",
        SAMPLER,
    )
    page.wait_for_function("() => timeline(1).isConnected")  # not that of the node which the subgraph was made of
    assert comfy_page.errors == []
