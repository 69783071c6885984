"""Workflows that were saved with earlier versions still open in the page and queue what they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ComfyPage

pytestmark = [pytest.mark.host, pytest.mark.web]

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "workflows"
NAMES = sorted(path.name.removesuffix(".api.json") for path in FOLDER.glob("*.api.json"))


def test_old_workflows_open_and_queue_as_before(comfy_page: ComfyPage) -> None:
    assert len(NAMES) >= 2
    for name in NAMES:
        comfy_page.open_workflow(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
        assert comfy_page.missing_nodes() == [], name
        before = json.loads((FOLDER / f"{name}.api.json").read_text(encoding="utf-8"))
        now = comfy_page.prompt()
        assert set(now) == set(before), name
        for key, node in before.items():
            assert now[key]["class_type"] == node["class_type"], name
            kept = {what: now[key]["inputs"].get(what) for what in node["inputs"]}
            assert kept == node["inputs"], f"{name}: node {key}"
