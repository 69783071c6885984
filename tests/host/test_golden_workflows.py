"""Workflows that were saved with earlier versions still run; see tests/golden/workflows/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.host.workflows import changed, files_of, mistakes, run_of, streams

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "workflows"
SAVED = sorted(FOLDER.glob("*.api.json"))


def test_there_are_old_workflows() -> None:
    assert {path.name.removesuffix(".api.json") for path in SAVED} == {
        path.stem for path in FOLDER.glob("*.json") if not path.name.endswith(".api.json")
    }, "each stands there as the page saves it and as the API takes it"
    assert len(SAVED) >= 2


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name.removesuffix(".api.json"))
def test_an_old_workflow_runs(host: Host, path: Path) -> None:
    prompt = json.loads(path.read_text(encoding="utf-8"))
    assert mistakes(prompt, host.client.get("/object_info")) == []
    name = path.name.split(" ")[1].removesuffix(".api.json")
    quick = {"seconds": 2.5, "steps": 1, "layout": "plain", "enlarge_to": 0, "run": f"golden-{name}", "reroll": ""}
    prompt = changed(prompt, "GloriaChunkedLongSampler", filename_prefix=f"golden/{name}", **quick)
    entry = host.queue(prompt)
    [film] = set(files_of(entry, host.base / "output", ".mp4"))
    assert streams(film)["frames"] == 40
    assert run_of(entry, host.base / "output").name == f"golden-{name}"
