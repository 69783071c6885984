"""What the host says about the nodes: frozen, explained, and helped."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "nodes.json"
OURS = {"layout", "view", "expression", "attention", "character"}
"""Choices that are ours; the others list files or the host's own names."""
LISTS_FILES = {"GloriaLoadCharacter"}
"""A node whose choice of that name lists files all the same."""


def nodes(host: Host) -> dict[str, Any]:
    return {name: node for name, node in host.client.get("/object_info").items() if name.startswith("Gloria")}


def snapshot(node_id: str, node: dict[str, Any]) -> dict[str, Any]:
    kept = ("default", "min", "max", "step", "multiline", "control_after_generate")
    inputs = []
    for group, names in node["input_order"].items():
        for name in names if group != "hidden" else []:
            kind, *rest = node["input"][group][name]
            options = rest[0] if rest else {}
            told = {key: options[key] for key in kept if options.get(key) is not None}
            if name in OURS and node_id not in LISTS_FILES:
                told["options"] = options["options"]
            inputs.append({"name": name, "type": kind, "required": group == "required", **told})
    outputs = [{"name": n, "type": t} for n, t in zip(node["output_name"], node["output"], strict=True)]
    return {"display_name": node["display_name"], "category": node["category"], "inputs": inputs, "outputs": outputs}


def test_ids_inputs_and_defaults_are_the_frozen_ones(host: Host) -> None:
    """Workflows that people have saved hold these names and, by position, these values: only ever add at the end.

    `UPDATE_GOLDEN=1` writes the file anew.
    """
    found = {name: snapshot(name, node) for name, node in sorted(nodes(host).items())}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_input_says_what_it_does(host: Host) -> None:
    for name, node in nodes(host).items():
        assert node["description"], name
        for group in ("required", "optional"):
            for key, spec in node["input"].get(group, {}).items():
                assert len(spec[1].get("tooltip", "")) > 20, f"{name}.{key} has no tooltip"


def test_every_node_has_a_help_page_that_is_served(host: Host) -> None:
    for name in nodes(host):
        assert (ROOT / "web" / "docs" / f"{name}.md").is_file(), f"web/docs/{name}.md is missing"
        with urllib.request.urlopen(f"{host.url}/extensions/gloria/docs/{name}.md", timeout=30) as answer:
            assert len(answer.read()) > 200


def test_the_example_workflows_are_offered_with_their_pictures(host: Host) -> None:
    offered = host.client.get("/api/workflow_templates")["gloria"]
    assert sorted(offered) == sorted(p.stem for p in (ROOT / "example_workflows").glob("*.json"))
    for name in offered:
        assert (ROOT / "example_workflows" / f"{name}.jpg").is_file()


def test_nothing_of_the_pack_failed_to_import(host: Host) -> None:
    assert "IMPORT FAILED" not in host.log()
    assert "could not be loaded" not in host.log()
