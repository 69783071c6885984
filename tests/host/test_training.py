"""Trainings from nodes in the real host: estimated, trained, watched, stopped, killed, resumed, and used."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
import torch

from gloria_core.media import probe
from gloria_core.nano.bundle import load_bundle
from gloria_core.nano.characters import COLOURS, find_character
from gloria_core.nano.recognise import TORSO, frame, nearest, with_field
from gloria_core.nano.render import Poses
from gloria_core.nano.timeline import Commands, State, run
from gloria_core.train.change import read_job
from gloria_core.train.job import Job
from gloria_core.train.status import job_events, read_status
from gloria_core.types import EXPRESSIONS
from launch.client import Client, PromptError
from tests.host.trainings import (
    CHARACTER,
    ENDLESS,
    LORA,
    SHORT,
    about,
    jobs,
    lora,
    prompt,
    report,
    steps_of,
    until,
    with_footage,
)
from tests.host.workflows import changed, latents_of_run, minute, run_of, shipped

if TYPE_CHECKING:
    from conftest import Host, HostStarter

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.usefixtures("_trainings_end")]

BADGE = "left_badge"
NUM_FILMS = 6


def ask(host: Host, path: str) -> bytes:
    with urllib.request.urlopen(host.url + path, timeout=30) as answer:
        return answer.read()


def test_a_training_is_estimated(host: Host, footage: Path) -> None:
    names = ("weights", "kind", "layers", "rank", "steps", "learning_rate", "stage", "batch_size", "frames",
             "checkpointing", "base_precision", "swap_blocks", "more_settings")  # fmt: skip
    entry = host.queue(prompt("GloriaEstimateTraining", **{name: LORA[name] for name in names}))
    told = report(entry)
    assert "Largest batch: 1 of 33 frames, 8 x 6 latents each, with 13 anchors." in told
    assert "numbers are trained (lora)" in told
    assert "The memory of this machine will do" in told
    whole = report(
        host.queue(prompt("GloriaEstimateTraining", **{name: LORA[name] for name in names} | {"kind": "full"}))
    )
    assert "numbers are trained (full)" in whole


def test_a_training_is_followed_to_its_end_and_answers_when_it_is_finished(host: Host, footage: Path) -> None:
    entry = host.queue(lora("short", **SHORT))
    assert report(entry).startswith("short: finished, step 3 of 3")
    assert "the stock LoRA loader uses all" in report(entry)
    told = [data for event, data in host.events if event == "gloria.training"]
    assert told[-1]["state"] == "finished"
    assert {data["node"] for data in told} == {"3"}
    assert "images" not in entry["outputs"]["3"], "the panel shows the losses and the samples, also when they change"
    [view] = entry["outputs"]["3"]["gloria_training"]
    assert (view["state"], view["step"], view["samples"], view["films"]) == ("finished", 3, [1], [1])
    written = host.base / "output" / "loras" / "gloria" / "short.safetensors"
    assert written.is_file()
    listed = host.client.get("/object_info/LoraLoaderModelOnly")["LoraLoaderModelOnly"]["input"]["required"]
    assert os.path.join("gloria", "short.safetensors") in json.dumps(listed).replace("\\\\", "\\")
    before = written.stat().st_mtime_ns
    assert report(host.queue(lora("short", **SHORT))).startswith("short: finished")
    assert written.stat().st_mtime_ns == before, "nothing was trained again"
    more = host.queue(lora("short", **{**SHORT, "steps": 4}))
    assert report(more).startswith("short: finished, step 4 of 4")
    assert steps_of(Job(jobs(host) / "short")) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("example", "node", "footage", "ends_with"),
    [
        ("gloria_train_lora", "GloriaTrainLoRA", "my-character", "gloria_train_lora: finished, step 2 of 2"),
        ("gloria_train_stages", "GloriaTrainFull", "my-footage", "4-both, step 1 of 1"),
    ],
)
def test_the_shipped_examples_train(
    host: Host, star: Path, example: str, node: str, footage: str, ends_with: str
) -> None:
    shutil.copytree(star, host.base / "input" / footage, dirs_exist_ok=True)
    entry = host.queue(changed(shipped(example), node, steps=2, sample_every=2, job=example))
    assert ends_with in entry["outputs"]["5"]["text"][0]
    assert "No problems." in entry["outputs"]["2"]["text"][0]
    assert "will do" in entry["outputs"]["4"]["text"][0]
    assert [len(entry["outputs"][node]["images"]) for node in ("6", "7")] == [1, 1]


def test_samples_are_a_film_that_plays_with_its_sound(host: Host, footage: Path, tmp_path: Path) -> None:
    graph = lora("filmed", **{**SHORT, "steps": 2})
    graph["2"]["inputs"]["sample_prompts"] = "turns to the left, happy\n\nfaces the camera, sad\n"
    graph["4"] = {"class_type": "GloriaPreviewVideo", "inputs": {"video": ["3", 5]}}
    entry = host.queue(graph)
    [shown] = entry["outputs"]["4"]["images"]
    assert (shown["filename"], shown["type"]) == ("step-00000002.mp4", "output")
    film = tmp_path / "film.mp4"
    film.write_bytes(ask(host, "/gloria/training/filmed/films/1"))
    assert probe(film).has_audio
    assert (probe(film).width, probe(film).height) == (96, 64)
    assert probe(film).num_frames == 4 * 33, "two clips and two prompts"
    settings = read_job(Job(jobs(host) / "filmed"))[0].task.options
    assert (settings["sample_steps"], settings["sample_guidance"], settings["sample_seed"]) == (8, 1.0, 0)
    for number in (0, 2):
        with pytest.raises(HTTPError, match="404"):
            ask(host, f"/gloria/training/filmed/films/{number}")


def test_a_node_behind_the_film_waits_while_there_is_none(host: Host, footage: Path) -> None:
    graph = lora("unfilmed", **{**SHORT, "steps": 1})
    graph["4"] = {"class_type": "GloriaPreviewVideo", "inputs": {"video": ["3", 5]}}
    entry = host.queue(graph)
    assert report(entry).startswith("unfilmed: finished")
    assert "4" not in entry["outputs"]


def test_a_whole_model_is_trained_in_stages(host: Host, footage: Path) -> None:
    left = ("kind", "layers", "rank", "base_precision", "swap_blocks")
    given = {name: value for name, value in LORA.items() if name not in left}
    given |= {"steps": 1, "stage": "stages I to III", "learning_rate": 1e-5}
    entry = host.queue(prompt("GloriaTrainFull", job="whole", **given))
    assert "4-both, step 1 of 1" in report(entry)
    assert "was loaded as a model" in report(entry)
    assert (host.base / "output" / "diffusion_models" / "gloria" / "whole.safetensors").is_file()


def test_the_host_answers_while_a_training_goes_on_and_routes_tell_stop_and_resume(host: Host, footage: Path) -> None:
    job = Job(jobs(host) / "long")
    assert "long: training" in report(host.queue(lora("long", **{**ENDLESS, "wait": False})))
    until(lambda: steps_of(job), "it never began")
    slowest = 0.0
    for _ in range(5):
        began = time.perf_counter()
        host.client.get("/queue")
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 5
    view = host.client.get("/gloria/training/long")
    assert (view["state"], view["total_steps"]) == ("running", 100_000)
    assert next(one["name"] for one in host.client.get("/gloria/training")) == "long"
    assert [one["name"] for one in host.client.get("/gloria/training?name=long&name=nobody&name=..%2fx")] == ["long"]
    assert [one["name"] for one in host.client.get("/gloria/training?count=1")] == ["long"]
    assert "curve" not in view
    curve = host.client.get("/gloria/training/long?points=2")["curve"]
    assert 1 <= len(curve["trained"]) <= 2
    assert curve["stages"] == [["", 0]]
    for query in ("/long?points=-1", "/long?points=many", "?count=1.5"):
        with pytest.raises(PromptError, match="no number that can be asked for"):
            host.client.get(f"/gloria/training{query}")
    told = host.client.get("/gloria/training/long/events?after=1")
    assert told["events"]
    assert told["next"] >= 2
    assert ask(host, "/gloria/training/long/plot.png").startswith(b"\x89PNG")
    assert report(host.queue(about("GloriaWatchTraining", "", wait=False))).startswith("long: training")
    assert "makes a checkpoint" in host.client.post("/gloria/training/long/stop", {})["told"]
    until(lambda: not job.is_running, "it did not stop")
    assert host.client.get("/gloria/training/long")["state"] == "stopped"
    done = read_status(job).step
    assert host.client.post("/gloria/training/long/resume", {})["state"] == "running"
    until(lambda: steps_of(job)[-1] > done, "it did not go on")
    job.stop_file.touch()
    assert "ended at once" in host.client.post("/gloria/training/long/stop", {})["told"]
    until(lambda: not job.is_running, "it was not ended")


def test_nodes_stop_a_training_and_go_on_with_it(host: Host, footage: Path) -> None:
    job = Job(jobs(host) / "paused")
    host.queue(lora("paused", **{**ENDLESS, "wait": False}))
    until(lambda: steps_of(job), "it never began")
    assert "makes a checkpoint" in report(host.queue(about("GloriaStopTraining", "paused", wait=True)))
    assert not job.is_running
    done = read_status(job).step
    assert report(host.queue(about("GloriaResumeTraining", "paused", wait=False))).startswith("paused: training")
    until(lambda: steps_of(job)[-1] > done, "it did not go on")
    assert steps_of(job) == list(range(1, steps_of(job)[-1] + 1)), "no step was lost or made twice"


def test_interrupt_makes_a_checkpoint_and_the_next_queue_goes_on(host: Host, footage: Path) -> None:
    job, client, heard = Job(jobs(host) / "interrupted"), host.client, []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.training" and data["step"] >= 2 and not heard:
            heard.append(data)
            client.interrupt()

    with pytest.raises(PromptError, match="interrupted"):
        client.run(lora("interrupted", **ENDLESS), listen)
    status = read_status(job)
    assert status.state == "stopped"
    entry = host.queue(lora("interrupted", **{**ENDLESS, "steps": status.step + 2}))
    assert report(entry).startswith(f"interrupted: finished, step {status.step + 2} of {status.step + 2}")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_training_is_told_and_goes_on(host: Host, footage: Path) -> None:
    job, told = Job(jobs(host) / "killed"), []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "gloria.training" and data["step"] >= 3 and not told:
            told.append(data)
            os.kill(json.loads((job.path / "process.json").read_text())["pid"], signal.SIGKILL)

    with pytest.raises(PromptError, match="ended without a word"):
        host.client.run(lora("killed", **ENDLESS), listen)
    assert host.client.get("/gloria/training/killed")["state"] == "lost"
    saved = max(event["step"] for event in job_events(job) if event["event"] == "checkpoint")
    entry = host.queue(lora("killed", **{**ENDLESS, "steps": saved + 2}))
    assert report(entry).startswith(f"killed: finished, step {saved + 2}")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_training_outlives_the_server(start_host: HostStarter, tmp_path: Path, star: Path) -> None:
    job = Job(tmp_path / "output" / "gloria_training" / "lasting")
    with start_host(tmp_path) as host:
        with_footage(host, star)
        client = Client(host.url)
        waiting = threading.Thread(target=lambda: _ended_by(PromptError, client, lora("lasting", **ENDLESS)))
        waiting.start()
        until(lambda: steps_of(job), "it never began")
        host.server.process.kill()
        waiting.join(60)
    assert job.is_running
    done = steps_of(job)[-1]
    try:
        with start_host(tmp_path) as host:
            assert report(host.queue(about("GloriaWatchTraining", "lasting", wait=False))).startswith(
                "lasting: training"
            )
            until(lambda: steps_of(job)[-1] > done, "it did not go on")
            host.queue(about("GloriaStopTraining", "lasting", wait=True))
            step = read_status(job).step
            assert report(host.queue(lora("lasting", **{**ENDLESS, "steps": step + 1}))).startswith("lasting: finished")
    finally:
        job.kill()


def _ended_by(_kind: type[Exception], client: Client, graph: dict[str, Any]) -> None:
    try:
        client.run(graph)
    except (PromptError, ConnectionError):
        return


def film(name: str, seed: int, with_lora: str) -> dict[str, Any]:
    """A turn to the left of which only the scene is known: no view shows the badge."""
    made = minute(seconds=4.0, steps=4, seed=seed, run=name, filename_prefix=f"training/{name}")
    made = changed(made, "GloriaNanoCharacter", character=CHARACTER)
    made = changed(made, "GloriaAnchorSetBuilder", anchors=None)
    made = changed(
        made, "GloriaPromptSchedule", schedule="0:00 faces the camera, neutral\n0:02 turns to the left, neutral"
    )
    if with_lora:
        made["lora"] = {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["1", 0], "lora_name": with_lora, "strength_model": 1.0},
        }
        made = changed(made, "GloriaChunkedLongSampler", model=["lora", 0])
    return made


def badge_is_right(latents: torch.Tensor) -> bool:
    """Whether the sleeve of the last picture has the character's own badge, read by the renderer itself."""
    who = find_character(CHARACTER)
    pictures = load_bundle().codec.decode(latents.float())
    neutral = torch.tensor([EXPRESSIONS.index("neutral")])
    moved = run(State(torch.zeros(1), neutral), Commands(torch.tensor([[0, 2, 2]]), neutral[:, None].expand(1, 3)))
    count = moved.yaw.shape[1]
    poses = Poses(moved.yaw, moved.emotion, torch.zeros(1, count), torch.zeros(1, count, 2))
    last = min(count, pictures.shape[2]) - 1
    assert math.isclose(abs(float(poses.yaw[0, last])), math.pi / 2, abs_tol=0.1)
    options = [with_field(BADGE, colour) for colour in range(len(COLOURS))]
    found = nearest(pictures[:, :, last], who, frame(poses, last), options, TORSO)
    return int(found) == int(getattr(who, BADGE))


def test_a_lora_teaches_a_character(host: Host, footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prepare, train, stop, resume; then the stock loader. The badge is in the footage, and in no picture given."""
    job = Job(jobs(host) / "star")
    taught = {"steps": 160, "batch_size": 2, "more_settings": "task.options.drop_role = 0.5"}
    host.queue(lora("star", **{**taught, "wait": False}))
    until(lambda: read_status(job).step >= 10, "it never began")
    host.queue(about("GloriaStopTraining", "star", wait=True))
    began = time.perf_counter()
    assert "star: finished, step 160 of 160" in report(host.queue(about("GloriaResumeTraining", "star", wait=True)))
    took = time.perf_counter() - began

    def right(with_lora: str, name: str) -> int:
        entries = [host.queue(film(f"{name}-{seed}", seed, with_lora)) for seed in range(NUM_FILMS)]
        return sum(badge_is_right(latents_of_run(run_of(entry, host.base / "output"))) for entry in entries)

    base, mine = right("", "base"), right(os.path.join("gloria", "star.safetensors"), "taught")
    with capsys.disabled():
        print(f"\n    badge right in {base} of {NUM_FILMS} films of the base, {mine} with the LoRA ({took:.0f} s)")
    assert mine >= base + NUM_FILMS // 2
    assert "lora key not loaded" not in host.log()
