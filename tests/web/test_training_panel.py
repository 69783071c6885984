"""The training panel in the host's page, over real trainings: live, after a reload, stopped, resumed, failed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gloria_core.train.job import Job
from tests.core.data.footage import write_folder
from tests.host.trainings import CHARACTER, jobs, steps_of
from tests.web.page_scripts import FIND, QUEUE, TYPE

if TYPE_CHECKING:
    from conftest import ComfyPage, Stage
    from playwright.sync_api import Page, Request

pytestmark = [
    pytest.mark.host,
    pytest.mark.web,
    pytest.mark.parametrize("fresh_stage", ["pinned-litegraph", "newest-vue"], indirect=True),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "Gloria - train a LoRA of your character.json"
TRAIN, WATCH = "GloriaTrainLoRA", "GloriaWatchTraining"
NEEDED = ("GloriaNano", "GloriaPrepareDataset", TRAIN)
PATIENCE_MS = 120_000
QUICK = {
    "layers": "identity", "rank": 2, "batch_size": 1, "save_every": 2, "sample_every": 3, "held_out": 0.3,
    "more_settings": "log.log_every = 1\nlog.held_out_every = 2",
}  # fmt: skip

LOOK = """() => {
    window.panel = (type, place = 0) => input(type, "training_panel", place).element;
    window.state = (type, place = 0) => panel(type, place).dataset.state;
    window.points = (layer, type = "GloriaTrainLoRA") =>
        (panel(type).querySelector(`.is-${layer}`).getAttribute("d") ?? "").split(/[ML]/).length - 1;
    window.part = (name, type = "GloriaTrainLoRA") => panel(type).querySelector(`.gloria-${name}`);
}"""
SHOW = """type => { // the node's end, where the panel is, into view
    const [node] = nodesOf(type), view = app.canvas.ds;
    view.scale = 1;
    view.offset[0] = 500 - node.pos[0];
    view.offset[1] = 900 - node.pos[1] - node.size[1];
    app.canvas.setDirty(true, true);
}"""
KEEP = """() => { // the page keeps what is open when somebody has changed it
    const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
    (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
}"""
HEAR_TEXTS = """() => { // the last text below each node
    window.texts = {};
    app.api.addEventListener("progress_text", ({ detail }) => { texts[detail.nodeId] = detail.text; });
}"""
ADD_WATCH = """type => { // one that gets its job's name from the training, inside a subgraph
    const [train] = nodesOf("GloriaTrainLoRA"), watch = LiteGraph.createNode(type);
    app.graph.add(watch);
    watch.pos = [train.pos[0] + 700, train.pos[1]];
    train.connect(0, watch, watch.inputs.findIndex(input => input.name === "job"));
    app.graph.convertToSubgraph(new Set([watch]));
}"""


@pytest.fixture
def comfy_page(fresh_stage: Stage) -> ComfyPage:
    return fresh_stage.shown


@pytest.fixture
def job(fresh_stage: Stage) -> Iterator[Job]:
    """A job that the other set-ups on the same host do not use, with footage for it; it does not outlive its test."""
    folder = fresh_stage.host.base / "input" / "my-character"
    if not (folder / "take-4.mp4").is_file():  # of four clips one is held out; other tests need fewer
        write_folder(folder, CHARACTER, num_takes=4, num_chunks=6)
    made = Job(jobs(fresh_stage.host) / f"panel-{fresh_stage.name}")
    yield made
    made.kill()


def example() -> dict[str, Any]:
    """The example without what is told before the training, and shown after it."""
    workflow = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    workflow["nodes"] = [node for node in workflow["nodes"] if node["type"] in NEEDED]
    kept = {node["id"] for node in workflow["nodes"]}
    workflow["links"] = [link for link in workflow["links"] if {link[1], link[3]} <= kept]
    links = {link[0] for link in workflow["links"]}
    for node in workflow["nodes"]:
        for output in node["outputs"]:
            output["links"] = [link for link in output.get("links") or [] if link in links]
    return workflow


def opened(shown: ComfyPage, **inputs: Any) -> Page:
    page = shown.page
    page.evaluate(FIND)
    page.evaluate(LOOK)
    shown.open_workflow(example())
    for name, value in inputs.items():
        page.evaluate(TYPE, [TRAIN, name, value])
    show(page)
    return page


def show(page: Page) -> None:
    page.evaluate(SHOW, TRAIN)
    page.wait_for_timeout(700)


def move(page: Page, by: int) -> None:
    page.evaluate("by => { app.canvas.ds.offset[0] += by; app.canvas.setDirty(true, true); }", by)
    page.wait_for_timeout(700)


def reloaded(shown: ComfyPage) -> Page:
    """Reload the page, which opens again what was open."""
    page = shown.page
    page.evaluate(KEEP)
    page.wait_for_timeout(1500)
    count = page.evaluate("app.graph._nodes.length")
    page.reload()
    page.wait_for_function("count => window.app?.graph?._nodes.length === count", arg=count, timeout=90_000)
    page.evaluate(FIND)
    page.evaluate(LOOK)
    show(page)
    return page


def wait_for_state(page: Page, state: str) -> None:
    page.wait_for_function(f"() => state('{TRAIN}') === '{state}'", timeout=PATIENCE_MS)


def wait_for_points(page: Page, count: int) -> None:
    page.wait_for_function(f"() => points('raw') >= {count}", timeout=PATIENCE_MS)


def picture(page: Page, path: Path) -> None:
    show(page)
    page.screenshot(path=str(path))


def press(page: Page, label: str) -> None:
    show(page)
    page.locator(".gloria-training").get_by_role("button", name=label, exact=True).click()


def test_a_training_that_goes_on_by_itself(comfy_page: ComfyPage, job: Job, tmp_path: Path) -> None:
    page = opened(comfy_page, **QUICK, job=job.name, steps=100_000, wait=False)
    assert page.evaluate("state('GloriaTrainLoRA')") == "none"
    assert page.evaluate(QUEUE) == "success"
    wait_for_state(page, "running")
    wait_for_points(page, 2)
    wait_for_points(page, page.evaluate("points('raw')") + 2)  # it fills while somebody looks
    page.wait_for_function("() => points('dots') > 0 && !part('sheet').hidden", timeout=PATIENCE_MS)
    numbers = page.evaluate("[...panel('GloriaTrainLoRA').querySelectorAll('dd')].map(one => one.textContent)")
    assert "–" not in numbers, numbers
    assert "left" in page.evaluate("part('outlook').textContent")
    assert "of 100" in page.evaluate("part('job').textContent")
    picture(page, tmp_path / "running.png")

    plot = page.locator(".gloria-plot")
    plot.press("Home")
    assert page.evaluate("part('plot').ariaValueText").startswith("step 1, smoothed loss ")
    asked: list[str] = []
    page.on("request", lambda request: note(asked, request))
    move(page, -20_000)
    asked.clear()
    page.wait_for_timeout(5000)
    assert asked == [], "nobody sees it"
    move(page, 20_000)
    page.wait_for_timeout(3000)
    assert asked

    before = page.evaluate("points('raw')")
    page = reloaded(comfy_page)
    wait_for_state(page, "running")
    wait_for_points(page, before)
    press(page, "Stop")
    wait_for_state(page, "stopped")
    assert not job.is_running
    done = steps_of(job)[-1]
    press(page, "Resume")
    wait_for_state(page, "running")
    wait_for_points(page, done + 1)
    steps = steps_of(job)
    assert steps == list(range(1, len(steps) + 1)), "no step was lost or made twice"
    assert comfy_page.errors == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
def test_a_training_that_is_ended_and_cannot_go_on(comfy_page: ComfyPage, job: Job, tmp_path: Path) -> None:
    page = opened(comfy_page, **QUICK, job=f"{job.name}-ended", steps=100_000, wait=False)
    ended, cache = Job(job.path.with_name(f"{job.name}-ended")), job.path.with_name("cache")
    try:
        assert page.evaluate(QUEUE) == "success"
        wait_for_points(page, 3)
        os.kill(json.loads((ended.path / "process.json").read_text())["pid"], signal.SIGSTOP)  # it will not stop
        press(page, "Stop")
        wait_for_state(page, "stopping")
        picture(page, tmp_path / "stopping.png")
        press(page, "End at once")
        wait_for_state(page, "lost")
        assert "ended without a word" in page.evaluate("part('sentence').textContent")
        for shard in cache.glob("shards/*"):
            shard.rename(shard.with_suffix(".gone"))
        press(page, "Resume")
        wait_for_state(page, "failed")
        assert page.evaluate("part('sentence').textContent") == read_error(ended)
        lines = page.locator(".gloria-training pre")
        assert not lines.is_visible()
        page.locator(".gloria-training summary").press("Enter")
        assert lines.is_visible()
        assert lines.inner_text().splitlines()[-1].strip() == ended.last_lines()[-1].strip()
        picture(page, tmp_path / "failed.png")
        page = reloaded(comfy_page)
        wait_for_state(page, "failed")
        assert page.evaluate("part('sentence').textContent") == read_error(ended)
    finally:
        ended.kill()
        for shard in cache.glob("shards/*.gone"):
            shard.rename(shard.with_suffix(".safetensors"))
    assert comfy_page.errors == []


def read_error(job: Job) -> str:
    lines = (job.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return next(event["sentence"] for line in reversed(lines) if (event := json.loads(line))["event"] == "error")


def test_a_finished_training_and_one_that_watches_it(comfy_page: ComfyPage, job: Job, tmp_path: Path) -> None:
    page = opened(comfy_page, **QUICK, job=f"{job.name}-finished", steps=4, wait=True)
    page.evaluate(ADD_WATCH, WATCH)
    page.wait_for_timeout(700)
    page.evaluate(HEAR_TEXTS)
    assert page.evaluate(QUEUE) == "success"
    assert "clips in" in page.evaluate("texts[nodesOf('GloriaPrepareDataset')[0].id]"), "what was prepared stays below"
    for _ in range(2):
        for type_ in (TRAIN, WATCH):
            page.wait_for_function(f"() => state('{type_}') === 'finished' && points('raw', '{type_}') === 4")
        page.wait_for_function("() => part('part').ariaValueNow === '100'")
        assert page.get_by_role("button", name="Resume", exact=True).count() == 0
        assert page.evaluate(QUEUE) == "success"  # nothing is trained again
        page.wait_for_function("() => state('GloriaTrainLoRA') === 'finished'")
        page = reloaded(comfy_page)
    assert "training_panel" not in json.dumps(comfy_page.prompt())
    page.wait_for_function("() => state('GloriaTrainLoRA') === 'finished'")
    page.wait_for_function("() => !part('sheet').hidden")
    show(page)
    page.locator(".gloria-sheet:visible").first.click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    page.wait_for_function("() => document.querySelector('.gloria-large img').naturalWidth > 0")
    page.wait_for_function("() => document.querySelector('.gloria-large video').readyState > 0")
    page.screenshot(path=str(tmp_path / "samples.png"))
    page.keyboard.press("Escape")
    assert dialog.count() == 0
    page.mouse.move(0, 0)  # away from the sheet, whose film plays under the pointer
    picture(page, tmp_path / "finished.png")
    asked: list[str] = []
    page.on("request", lambda request: note(asked, request))
    page.wait_for_timeout(4000)
    assert asked == [], "it is over"
    assert comfy_page.errors == []


def note(asked: list[str], request: Request) -> None:
    if "/gloria/training" in request.url:
        asked.append(request.url)
