"""The board and the timeline speak the language of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Stage
    from playwright.sync_api import Page

pytestmark = [pytest.mark.host, pytest.mark.web]

ROOT = Path(__file__).resolve().parents[2]
SETTING = "Comfy.Locale"
WORKFLOW: dict[str, Any] = {
    "last_node_id": 2, "last_link_id": 0, "links": [], "groups": [], "version": 0.4,
    "nodes": [
        {"id": 1, "type": "GloriaAnchorSet", "pos": [0, 0], "size": [620, 690], "widgets_values": ["{}"]},
        {"id": 2, "type": "GloriaChunkedLongSampler", "pos": [700, 0], "size": [400, 900]},
    ],
}  # fmt: skip
SHOWN = """() => app.graph._nodes.map(node => { // what each node, its inputs and its outputs are called
    const called = slots => slots.map(slot => [slot.name, slot.label ?? slot.localized_name]);
    const inputs = Object.fromEntries(called(node.inputs));
    const widgets = called(node.widgets).filter(([name]) => name in inputs);
    return [node.title, { ...inputs, ...Object.fromEntries(widgets) }, called(node.outputs).map(([, name]) => name)];
})"""
SWITCH = "([setting, language]) => { app.extensionManager.setting.set(setting, language); }"


@pytest.fixture
def stage(request: pytest.FixtureRequest, fresh_stage: Stage) -> Iterator[Stage]:
    yield fresh_stage
    fresh_stage.host.client.post("/settings", {SETTING: "en"})


def words(language: str) -> dict[str, str]:
    return dict(json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))["gloria"])


def names_of(language: str, node: str) -> list[Any]:
    """Return what a node, its inputs and its outputs are called."""
    told = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[node]
    inputs = {name: slot["name"] for name, slot in told["inputs"].items()}
    return [told["display_name"], inputs, [slot["name"] for slot in told["outputs"].values()]]


def wait_for_words(page: Page, said: dict[str, str]) -> None:
    """Wait for the first word of the board and the first sentence of the timeline."""
    heard = """words => document.querySelector(".gloria-tools button")?.textContent === words[0]
        && document.querySelector(".gloria-head")?.textContent === words[1]"""
    queue = "Queue to see the chunks here. Each one plays as soon as it is finished."
    page.wait_for_function(heard, arg=[said.get(english, english) for english in ("Open", queue)], timeout=30_000)


@pytest.mark.parametrize(
    ("fresh_stage", "language"), [("pinned-litegraph", "fr"), ("newest-vue", "zh")], indirect=["fresh_stage"]
)
def test_they_speak_it_at_once_and_from_the_start(stage: Stage, language: str, tmp_path: Path) -> None:
    page, said = stage.shown.page, words(language)
    stage.shown.open_workflow(WORKFLOW)
    wait_for_words(page, {})
    page.evaluate(SWITCH, [SETTING, language])
    wait_for_words(page, said)
    page.reload()
    page.wait_for_function("() => window.app?.graph?._nodes.length === 2", timeout=90_000)
    wait_for_words(page, said)
    names = page.locator(".gloria-slot .gloria-name").all_inner_texts()
    assert names[:5] == [said[name] for name in ("Global", "Front", "Right", "Back", "Left")]
    assert page.evaluate(SHOWN) == [names_of(language, node["type"]) for node in WORKFLOW["nodes"]]
    page.screenshot(path=str(tmp_path / f"{stage.name}-{language}.png"))
    assert stage.shown.errors == []
