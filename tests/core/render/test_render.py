"""Renders in this process: what becomes of a card that is too small, and of a folder that must not be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gloria_core.errors import GloriaError
from gloria_core.render import prepare
from gloria_core.render.job import read_job
from gloria_core.render.render import device_of, render

JOB: dict[str, Any] = {
    "version": 1,
    "model": "nano",
    "anchors": {"character": "Zola"},
    "prompts": "0:00 faces the camera, happy",
    "seconds": 1.0,
    "steps": 1,
    "run": "film",
}


def made(folder: Path, **settings: Any) -> tuple[Path, list[str]]:
    path, lines = folder / "job.json", list[str]()
    path.write_text(json.dumps(JOB | settings), encoding="utf-8")
    return render(read_job(path), lines.append), lines


def test_a_card_that_is_too_small_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "chunk_sampler", full)
        with pytest.raises(GloriaError, match="did not fit into the graphics card's memory"):
            made(tmp_path)
    told = json.loads((tmp_path / "output" / "gloria_runs" / "film" / "run.json").read_text(encoding="utf-8"))
    assert told["state"] == "failed"
    assert made(tmp_path)[0].is_file()


def test_a_run_that_is_not_kept(tmp_path: Path) -> None:
    film, _ = made(tmp_path, keep_latents=False)
    assert film.is_file()
    assert not (tmp_path / "output" / "gloria_runs" / "film").exists()


def test_the_same_again_makes_no_second_film(tmp_path: Path) -> None:
    first, _ = made(tmp_path)
    second, lines = made(tmp_path)
    assert second == first
    assert "chunk 1 of 1: on disk" in lines


def test_words_that_nano_does_not_know_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, prompts="0:00 juggles, happy")
    assert "does not know 'juggles'" in caplog.text


def test_prompts_and_anchors_that_are_never_seen_are_told(tmp_path: Path) -> None:
    _, lines = made(tmp_path, prompts="0:00 happy / 0:05 sad", anchor_schedule="0:00 all")
    assert any('The prompt at 0:05 ("sad") is never seen' in line for line in lines)


def test_pictures_without_a_global_one_and_files_that_are_none(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(tmp_path / "left.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "left.png").read_bytes()[:60])
    with pytest.raises(GloriaError, match="without a global one"):
        made(tmp_path, anchors={"left": "left.png"})
    with pytest.raises(GloriaError, match=r"torn\.png cannot be read"):
        made(tmp_path, anchors={"global": "torn.png"})
    with pytest.raises(GloriaError, match="no character called 'Nobody'"):
        made(tmp_path, anchors={"character": "Nobody"})
    assert not (tmp_path / "output").exists()


def test_devices() -> None:
    assert device_of("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(GloriaError, match="torch sees no CUDA card"):
            device_of("cuda:1")
