"""The command in processes of its own: killed, stopped, started twice; always the same film."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[3]
NUM_CHUNKS = 7
JOB: dict[str, Any] = {
    "version": 1,
    "model": "nano",
    "anchors": {"character": "Bruno"},
    "prompts": "0:00 faces the camera, happy / 0:03 turns to the left, sad",
    "audio": "bundled speech",
    "start_image": "global",
    "seconds": 9.0,
    "steps": 2,
    "seed": 3,
    "run": "film",
}


def write_job(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.json"
    path.write_text(json.dumps(JOB | settings), encoding="utf-8")
    return path


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gloria_core.render", str(path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def run(path: Path, *options: str) -> tuple[int, str, str]:
    return finish(start(path, *options))


def run_folder(path: Path) -> Path:
    return path.parent / "output" / "gloria_runs" / "film"


def latents(path: Path) -> list[torch.Tensor]:
    files = sorted((run_folder(path) / "chunks").glob("*.safetensors"))
    return [load_file(file)["latent_tensor"] for file in files]


def told(path: Path) -> dict[str, Any]:
    return json.loads((run_folder(path) / "run.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    """The latents of an uninterrupted render."""
    path = write_job(tmp_path_factory.mktemp("whole"))
    status, out, err = run(path)
    assert status == 0, err
    assert f"chunk {NUM_CHUNKS} of {NUM_CHUNKS}: " in out
    film = Path(out.splitlines()[-1].removeprefix("film: "))
    assert film == path.parent / "output" / "gloria" / "video_00001_.mp4"
    assert film.is_file()
    return latents(path)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if said.startswith(line):
            return
    pytest.fail(f"{line!r} was never said")


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["chunk 1 of", "chunk 3 of", "chunk 6 of"])
def test_killed_and_started_again(tmp_path: Path, whole: list[torch.Tensor], after: str) -> None:
    path = write_job(tmp_path)
    process = start(path)
    wait_for(process, after)
    killed(process)
    begun = len(latents(path))
    assert begun > 0
    status, out, err = run(path)
    assert status == 0, err
    assert "on disk" in out
    assert same(latents(path), whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_and_started_again(tmp_path: Path, whole: list[torch.Tensor], number: int) -> None:
    path = write_job(tmp_path)
    process = start(path)
    wait_for(process, "chunk 2 of")
    began = time.monotonic()
    process.send_signal(number)
    status, _, err = finish(process)
    assert status == 3
    assert err == f"Stopped by {signal.Signals(number).name}. What is finished stays; the same command goes on.\n"
    assert time.monotonic() - began < 10
    assert told(path)["state"] == "stopped"
    status, out, err = run(path)
    assert status == 0, err
    assert "on disk and used again" in out
    assert same(latents(path), whole)
    assert told(path)["state"] == "finished"


@pytest.mark.slow
def test_the_second_process_on_a_run_is_told_and_ends(tmp_path: Path, whole: list[torch.Tensor]) -> None:
    path = write_job(tmp_path)
    first = start(path)
    wait_for(first, "chunk 1 of")
    first.send_signal(signal.SIGSTOP)
    try:
        status, _, err = run(path)
        assert status == 2
        assert err.startswith("The run 'film' is being worked on by another ComfyUI or render process.")
    finally:
        first.send_signal(signal.SIGCONT)
    assert finish(first)[0] == 0
    assert same(latents(path), whole)


@pytest.mark.slow
def test_a_dry_run_says_and_changes_nothing(tmp_path: Path) -> None:
    path = write_job(tmp_path)
    status, out, err = run(path, "--dry-run")
    assert status == 0, err
    assert f"Chunks 1-{NUM_CHUNKS} are made for the first time." in out
    assert not (tmp_path / "output").exists()
    assert run(path)[0] == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "output").rglob("*") if file.is_file()}
    status, out, _ = run(write_job(tmp_path, prompts="0:00 faces the camera, happy / 0:05 angry"), "--dry-run")
    assert "Chunks 1-2 are on disk and used again." in out
    assert "its prompt changed" in out
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "output").rglob("*") if file.is_file()} == before


def test_a_bad_job_is_one_sentence(tmp_path: Path) -> None:
    status, out, err = run(write_job(tmp_path, steps=0))
    assert (status, out, err) == (2, "", "steps is 0; it must be from 1 to 1000.\n")


def test_another_output_folder_and_device(tmp_path: Path) -> None:
    path = write_job(tmp_path, seconds=0.5, steps=1)
    status, _, err = run(path, "--output", str(tmp_path / "there"), "--device", "cuda")
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert status == 2
    assert "torch sees no CUDA card" in err
    status, out, err = run(path, "--output", str(tmp_path / "there"))
    assert status == 0, err
    assert out.splitlines()[-1] == f"film: {tmp_path / 'there' / 'gloria' / 'video_00001_.mp4'}"


def printed(path: Path) -> dict[str, Any]:
    status, out, err = run(path, "--workflow")
    assert status == 0, err
    return json.loads(out)["prompt"]


def test_the_workflow_has_every_setting(tmp_path: Path) -> None:
    graph = printed(write_job(tmp_path, seed=9, anchor_schedule="0:00 all"))
    sampler = graph["sampler"]["inputs"]
    assert (sampler["seed"], sampler["run"], sampler["seconds"]) == (9, "film", 9.0)
    assert sampler["anchors"] == ["schedule", 0]
    assert {node["class_type"] for node in graph.values()} >= {"GloriaNano", "GloriaLoadSpeech", "CLIPTextEncode"}
