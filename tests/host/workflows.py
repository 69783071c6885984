"""API JSON for the tests: the shipped workflows, and small ones built from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import av
import torch
from safetensors import safe_open
from safetensors.torch import load_file

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


def run_of(entry: dict[str, Any], output: Path) -> Path:
    """The folder of the run that a history entry names."""
    [name] = {name for shown in entry["outputs"].values() for name in shown.get("gloria_run", [])}
    return output / "gloria_runs" / name


def chunk_latents(run: Path, index: int, take: int = 1) -> torch.Tensor:
    """The latents of a chunk (1, C, T, h, w), its prefix among them."""
    return load_file(run / "chunks" / f"{index:04}.take-{take}.safetensors")["latent_tensor"]


def latents_of_run(run: Path) -> torch.Tensor:
    """The latents of a whole video (1, C, T, h, w): where two chunks overlap the later one is final."""
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))["chunks"]
    pieces: list[torch.Tensor] = []
    for entry in told:
        path = run / "chunks" / f"{entry['chunk'] - 1:04}.take-{entry['take']}.safetensors"
        with safe_open(path, "pt") as file:
            start = json.loads(file.metadata()["gloria.chunk"])["latents"][0]
            latents = file.get_tensor("latent_tensor")
        before = torch.cat(pieces, dim=2)[:, :, :start] if pieces else latents[:, :, :0]
        pieces = [before, latents]
    return torch.cat(pieces, dim=2)


def streams(path: Path) -> dict[str, Any]:
    """What a video file holds, by decoding it."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video=0))
        kinds = {stream.type: stream.codec_context.name for stream in container.streams}
        return {
            "kinds": kinds,
            "frames": frames,
            "size": (video.width, video.height),
            "rate": float(video.average_rate),
        }


def mistakes(prompt: Prompt, known: dict[str, Any]) -> list[str]:
    """What is wrong with a graph by the host's own description of its nodes (/object_info); empty if nothing is.

    Checked are the names of nodes and inputs, the types of links, required inputs, and choices among fixed lists.
    """
    found = []
    for identity, node in prompt.items():
        kind = node["class_type"]
        if kind not in known:
            found.append(f"{identity}: there is no node {kind}")
            continue
        groups = known[kind]["input"]
        specs = {**groups.get("required", {}), **groups.get("optional", {})}
        missing = set(groups.get("required", {})) - set(node["inputs"])
        found += [f"{identity} {kind}: {name} is missing" for name in sorted(missing)]
        for name, value in node["inputs"].items():
            told = _mistake(prompt, known, specs.get(name), value)
            if told:
                found.append(f"{identity} {kind}: {name} {told}")
    return found


def _mistake(prompt: Prompt, known: dict[str, Any], spec: list[Any] | None, value: Any) -> str:
    if spec is None:
        return "is no input of it"
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if isinstance(value, list):
        source, slot = value
        outputs = known[prompt[source]["class_type"]]["output"]
        return "" if kind in ("*", outputs[slot]) else f"takes {kind}, not {outputs[slot]}"
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices is not None:
        return "" if value in choices else f"has no choice {value!r}"
    types = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}
    return "" if kind in types and isinstance(value, types[kind]) else f"takes {kind}, not {value!r}"
