"""API JSON for the tests: the shipped workflows, and small ones built from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"

Prompt = dict[str, Any]


def shipped(name: str) -> Prompt:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def node_of(prompt: Prompt, class_type: str) -> dict[str, Any]:
    [found] = [node for node in prompt.values() if node["class_type"] == class_type]
    return found


def changed(prompt: Prompt, class_type: str, **inputs: Any) -> Prompt:
    """A copy with other inputs of the one node of a class; None takes an input away."""
    made = copy.deepcopy(prompt)
    node = node_of(made, class_type)["inputs"]
    for name, value in inputs.items():
        if value is None:
            node.pop(name, None)
        else:
            node[name] = value
    return made


def minute(**inputs: Any) -> Prompt:
    """The demo, made short and quick."""
    quick = {"seconds": 3.0, "steps": 2, "layout": "plain", "enlarge_to": 0, "filename_prefix": "test/video"}
    return changed(shipped("gloria_minute"), "GloriaChunkedLongSampler", **{**quick, **inputs})


def clip(**inputs: Any) -> Prompt:
    """The single clip, quick, its latents saved too."""
    made = changed(shipped("gloria_single_clip"), "KSampler", **{"steps": 2, **inputs})
    [sampler] = [identity for identity, node in made.items() if node["class_type"] == "KSampler"]
    made["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0], "filename_prefix": "test/clip"}}
    return made


def files_of(entry: dict[str, Any], output: Path, suffix: str) -> list[Path]:
    """The files with an ending that a history entry names."""
    items = [item for shown in entry["outputs"].values() for value in shown.values() for item in value]
    named = [item for item in items if isinstance(item, dict) and str(item.get("filename", "")).endswith(suffix)]
    return [output / item["subfolder"] / item["filename"] for item in named if item["type"] == "output"]
