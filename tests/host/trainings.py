"""API JSON and small helpers for the tests of trainings."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloria_core.train.job import Job
from gloria_core.train.status import job_events

if TYPE_CHECKING:
    from conftest import Host

PATIENCE_S = 240
CHARACTER = "4711"
"""Nobody that nano knows."""
LORA = {
    "weights": "gloria-nano (bundled)", "kind": "lora", "layers": "character", "rank": 16, "steps": 40,
    "learning_rate": 2e-3, "stage": "character", "batch_size": 1, "frames": 0, "checkpointing": "off",
    "base_precision": "as is", "swap_blocks": 0, "optimiser": "AdamW", "seed": 0, "sample_every": 0, "save_every": 0,
    "held_out": 0.0, "title": "", "wait": True, "more_settings": "",
}  # fmt: skip
SHORT = {
    "steps": 3,
    "save_every": 1,
    "sample_every": 2,
    "rank": 2,
    "layers": "identity",
    "more_settings": "log.log_every = 1",
}
ENDLESS = {"steps": 100_000, "save_every": 2, "rank": 2, "layers": "identity", "more_settings": "log.log_every = 1"}


def with_footage(host: Host, footage: Path) -> Path:
    folder = host.base / "input" / "star"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        shutil.copytree(footage, folder)
    return folder


def jobs(host: Host) -> Path:
    return host.base / "output" / "gloria_training"


def prompt(node: str = "GloriaTrainLoRA", /, **inputs: Any) -> dict[str, Any]:
    given = {"footage": "star", "resolution": "", "fps": 0.0, "longest_frames": 129, "shortest_frames": 17}
    links = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    return {
        "1": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
        "2": {"class_type": "GloriaPrepareDataset", "inputs": {**links, **given}},
        "3": {"class_type": node, "inputs": {"dataset": ["2", 0], **inputs}},
    }


def lora(job: str, **inputs: Any) -> dict[str, Any]:
    return prompt(job=job, **{**LORA, **inputs})


def about(kind: str, job: str, **inputs: Any) -> dict[str, Any]:
    return {"3": {"class_type": kind, "inputs": {"job": job, **inputs}}}


def report(entry: dict[str, Any]) -> str:
    return entry["outputs"]["3"]["text"][0]


def until(met: Callable[[], object], what: str) -> None:
    patience = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < patience, what
        time.sleep(0.1)


def steps_of(job: Job) -> list[int]:
    return [event["step"] for event in job_events(job) if event["event"] == "train"]
