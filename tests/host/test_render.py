"""The same job with and without the host: the same latents, and either goes on where the other has stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.conftest import ROOT

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

SCHEDULE = "0:00 faces the camera, happy\n0:02 turns to the left, happy\n0:04 turns to the front, sad"
JOB: dict[str, Any] = {
    "version": 1,
    "model": "nano",
    "anchors": {"character": "Mira"},
    "prompts": SCHEDULE,
    "audio": "bundled speech",
    "start_image": "global",
    "seconds": 6.0,
    "seed": 5,
    "steps": 3,
    "reroll": "3 try 2",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "guided": {"text_guidance": 2.0, "audio_guidance": 3.0, "seconds": 3.0, "reroll": ""},
    "steadied": {
        "prefix_noise": 0.1,
        "colour_guard": 0.5,
        "anchor_schedule": "0:00 all\n0:02 global, views, happy*0.5\n0:01-0:02 hide back",
        "sync_offset": 0.1,
        "fps": 12.0,
    },
    "silent": {"audio": "", "start_image": "", "anchors": {"character": 7}, "model": "nano", "seconds": 4.0},
    "heun": {"sampler_name": "heun", "seconds": 3.0, "reroll": ""},
    "looped": {"sound_end": "loop", "snap": "late", "overlap_latents": 3, "chunk_latents": 8, "seconds": 4.0},
}


def write_job(folder: Path, name: str, **settings: Any) -> Path:
    path = folder / f"{name}.json"
    whole = JOB | {"run": name, "filename_prefix": f"renders/{name}", "output": "output"} | settings
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


def run(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gloria_core.render", str(path), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def rendered(path: Path) -> Path:
    done = run(path)
    assert done.returncode == 0, done.stderr
    return path.parent / "output" / "gloria_runs" / path.stem


def in_host(host: Host, path: Path) -> Path:
    """Queue the workflow of a job; returns the run's folder."""
    printed = run(path, "--workflow")
    assert printed.returncode == 0, printed.stderr
    assert host.queue(json.loads(printed.stdout)["prompt"])["status"]["completed"]
    return host.base / "output" / "gloria_runs" / path.stem


def chunks(folder: Path) -> dict[str, tuple[torch.Tensor, dict[str, Any]]]:
    found = {}
    for path in sorted((folder / "chunks").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found[path.name] = (file.get_tensor("latent_tensor"), json.loads(file.metadata()["gloria.chunk"]))
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_job_gives_the_same_latents_with_and_without_the_host(host: Host, tmp_path: Path, variant: str) -> None:
    path = write_job(tmp_path, f"both_{variant}", **VARIANTS[variant])
    theirs, ours = chunks(in_host(host, path)), chunks(rendered(path))
    assert list(ours) == list(theirs)
    for name, (latents, record) in ours.items():
        assert record["ingredients"] == theirs[name][1]["ingredients"]
        assert torch.equal(latents, theirs[name][0]), f"{name}: {(latents - theirs[name][0]).abs().max()}"


def test_dpmpp_2m_is_the_same_but_for_roundings(host: Host, tmp_path: Path) -> None:
    """The host takes logarithms of its noise levels in float32, the core in float64."""
    path = write_job(tmp_path, "two_m", sampler_name="dpmpp_2m", seconds=3.0, reroll="")
    theirs, ours = chunks(in_host(host, path)), chunks(rendered(path))
    assert list(ours) == list(theirs)
    for name, (latents, record) in ours.items():
        torch.testing.assert_close(latents, theirs[name][0], atol=2e-5, rtol=0)
        assert record["ingredients"] == theirs[name][1]["ingredients"]


def test_a_video_goes_on_from_another_one(host: Host, tmp_path: Path) -> None:
    first = write_job(tmp_path, "first", seconds=3.0, reroll="")
    rendered(first)
    [film] = (tmp_path / "output" / "renders").glob("first_*.mp4")
    for folder in (tmp_path, host.base / "input"):
        shutil.copy(film, folder / "before.mp4")
    path = write_job(tmp_path, "goes_on", start_image="", continue_from="before.mp4", seconds=3.0, reroll="")
    theirs, ours = chunks(in_host(host, path)), chunks(rendered(path))
    assert list(ours) == list(theirs)
    for name, (latents, record) in ours.items():
        assert record == theirs[name][1] | {"seconds": record["seconds"]}
        assert torch.equal(latents, theirs[name][0])


def test_a_run_that_the_host_has_begun_is_finished_without_it(host: Host, tmp_path: Path) -> None:
    path = write_job(tmp_path, "begun_inside")
    begun = in_host(host, path)
    here = tmp_path / "output" / "gloria_runs" / path.stem
    shutil.copytree(begun, here)
    for late in (here / "chunks").glob("0003*"):
        late.unlink()
    told = run(path, "--dry-run")
    assert "Chunks 1-3, 5 are" not in told.stdout
    assert "Chunks 1-3 are on disk and used again." in told.stdout
    done = run(path)
    assert done.returncode == 0, done.stderr
    expected = chunks(begun)
    for name, (latents, _) in chunks(here).items():
        assert torch.equal(latents, expected[name][0])


def test_a_run_that_was_begun_without_the_host_is_finished_in_it(host: Host, tmp_path: Path) -> None:
    path = write_job(tmp_path, "begun_outside")
    begun = rendered(path)
    there = host.base / "output" / "gloria_runs" / path.stem
    shutil.copytree(begun, there)
    for late in (there / "chunks").glob("0004*"):
        late.unlink()
    in_host(host, path)
    told = json.loads((there / "run.json").read_text(encoding="utf-8"))
    assert [chunk["reused"] for chunk in told["chunks"]][:4] == [True] * 4
    assert told["planned"] == ["disk"] * 4 + ["make"]


def test_pictures_and_a_sound_from_files(host: Host, tmp_path: Path) -> None:
    """Files are read as the host's own loaders read them."""
    source = ROOT / "gloria_core" / "nano" / "speech" / "heldout.ogg"
    sound = shutil.copy(source, tmp_path / "voice.ogg")
    shutil.copy(source, host.base / "input" / "voice.ogg")
    generator = torch.Generator().manual_seed(1)
    for name, size in (("scene", (64, 48)), ("left", (70, 50))):
        pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).numpy()
        for folder in (tmp_path, host.base / "input"):
            Image.fromarray(pixels).save(folder / f"{name}.png")
    path = write_job(
        tmp_path,
        "files",
        anchors={"global": "scene.png", "left": "left.png"},
        start_image="scene.png",
        audio=Path(sound).name,
        seconds=2.0,
        reroll="",
    )
    theirs, ours = chunks(in_host(host, path)), chunks(rendered(path))
    assert all(torch.equal(latents, theirs[name][0]) for name, (latents, _) in ours.items())
    assert all(record["ingredients"] == theirs[name][1]["ingredients"] for name, (_, record) in ours.items())
