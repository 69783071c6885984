"""The example workflows stand in the host's template browser, each with a picture of its result."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from PIL import Image

from tests.host.workflows import FOLDER, mistakes

if TYPE_CHECKING:
    from conftest import Host

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
MOST_BYTES = 70_000
BUNDLED = (
    "gloria_minute", "gloria_single_clip", "gloria_ten_minutes", "gloria_take_again", "gloria_direct",
    "gloria_continue", "gloria_board",
)  # fmt: skip
"""Examples that need nothing but the pack."""
LONG = ("ten minutes that cannot be lost", "take a chunk again", "direct over time", "continue a video")


def fetched(host: Host, file: str) -> bytes:
    with urlopen(f"{host.url}/api/workflow_templates/gloria/{quote(file)}") as answer:
        return answer.read()


@pytest.mark.host
def test_the_template_browser_lists_every_example(host: Host) -> None:
    assert sorted(host.client.get("/workflow_templates")["gloria"]) == NAMES
    assert {f"Gloria - {name}" for name in LONG} <= set(NAMES)


@pytest.mark.host
@pytest.mark.parametrize("name", NAMES)
def test_the_template_browser_serves_workflow_and_picture(host: Host, name: str) -> None:
    assert json.loads(fetched(host, f"{name}.json")) == json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    with Image.open(io.BytesIO(fetched(host, f"{name}.jpg"))) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 200


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_small(name: str) -> None:
    assert (FOLDER / f"{name}.jpg").stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_every_example_says_what_it_is(name: str) -> None:
    """A note that begins with the example's own words, and groups whose titles tell the order of work."""
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert any(note.startswith("## ") for note in notes)
    assert [group["title"][0] for group in workflow["groups"]] == [
        str(n) for n in range(1, len(workflow["groups"]) + 1)
    ]


@pytest.mark.host
@pytest.mark.parametrize("name", BUNDLED)
def test_what_runs_on_a_fresh_machine_is_complete(host: Host, name: str) -> None:
    """By the host's own description: no missing input, no unknown choice, links of the right type."""
    prompt = json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))
    (host.base / "input" / "my-character").mkdir(parents=True, exist_ok=True)  # a person's own footage
    assert mistakes(prompt, host.client.get("/object_info")) == []
