"""Footage through the nodes: checked, prepared, stopped, prepared again, and ready for the trainer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from gloria_core.data.cache import Cache
from gloria_core.data.task import FootageTask
from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.nano.encoders import NanoEncoder
from launch.client import PromptError
from tests.core.data.footage import write_film, write_folder

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def _footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage") / "character"
    write_folder(folder, num_takes=2, num_chunks=3)
    return folder


@pytest.fixture
def footage(host: Host, _footage: Path) -> Path:
    """A folder of clips and pictures in the host's input folder."""
    folder = host.base / "input" / "character"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(_footage, folder))


def check(**inputs: Any) -> dict[str, Any]:
    given = {"footage": "character", "resolution": "", "fps": 0.0, "needs_sound": True, "play_to_the_end": True}
    return {
        "1": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
        "2": {"class_type": "GloriaCheckDataset", "inputs": {**given, "model": ["1", 0], **inputs}},
    }


def prepare(**inputs: Any) -> dict[str, Any]:
    links = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    given = {"footage": "character", "resolution": "", "fps": 0.0, "longest_frames": 129, "shortest_frames": 17}
    return {
        "1": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
        "2": {"class_type": "GloriaPrepareDataset", "inputs": {**links, **given, **inputs}},
    }


def report(entry: dict[str, Any]) -> str:
    return entry["outputs"]["2"]["text"][0]


def cache(host: Host) -> Path:
    return host.base / "output" / "gloria_training" / "cache"


def test_footage_is_checked_and_shown(host: Host, footage: Path) -> None:
    entry = host.queue(check())
    assert report(entry).endswith("No problems.")
    assert "2 of 2 can be used" in report(entry)
    [picture] = entry["outputs"]["2"]["images"]
    assert (host.base / "temp" / picture["subfolder"] / picture["filename"]).is_file()
    (footage / "hapy.png").write_bytes((footage / "happy.png").read_bytes())
    (footage / "broken.mp4").write_bytes(b"\x00" * 100)
    told = report(host.queue(check()))  # looked at again, because files changed
    assert "hapy.png" in told
    assert "Name it happy.png" in told
    assert "STOPS  broken" in told


def test_footage_is_prepared_once_and_the_trainer_reads_it(host: Host, footage: Path) -> None:
    first = report(host.queue(prepare()))
    assert "2 clips in 2 pieces are ready" in first
    (footage / "take-1.txt").write_text("unused beside a .json", encoding="utf-8")  # a changed folder runs it again
    again = report(host.queue(prepare()))
    assert ": 0 things were encoded" in again
    task = FootageTask(manifest=str(footage), cache=str(cache(host)), weights=str(WEIGHTS_FILE), batch_size=2)
    batch = task.batch(0, 0, 1)
    assert batch.latents.shape == (2, 64, 9, 8, 6)
    assert batch.audio is not None
    assert batch.audio.shape == (2, 9, 8, 32)


def test_the_hosts_encoders_give_what_the_cores_give(host: Host, footage: Path) -> None:
    host.queue(prepare())
    made = FootageTask(manifest=str(footage), cache=str(cache(host)), weights=str(WEIGHTS_FILE))
    clip = made._prepared.clips[0]
    kept = Cache(cache(host))
    own = NanoEncoder()
    rows = kept.get(clip.prompts[0].text_key)["rows"].float()
    texts = [prompt["text"] for prompt in _prompts(footage / f"{clip.id}.json")]
    expected = own.encode_text(texts[:1])[0]
    assert torch.allclose(rows, expected[: len(rows)], atol=1e-2)
    assert made._prepared.codec == "nano"
    assert made._prepared.audio_kind == "mel"


def _prompts(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["prompts"]


def test_a_stopped_preparation_keeps_what_it_has(host: Host, footage: Path) -> None:
    client, stopped = host.client, []

    def listen(event: str, data: dict[str, Any]) -> None:
        if event == "progress" and data["value"] >= 3 and not stopped:
            stopped.append(True)
            client.interrupt()

    write_film(footage / "long.mp4", np.zeros((1500, 256, 256, 3), np.uint8), 16)
    prompt = prepare(resolution="256x256", longest_frames=17)
    with pytest.raises(PromptError, match="interrupted"):
        client.run(prompt, listen)
    told = report(host.queue(prompt))
    reused = int(told.split("were encoded, ")[1].split(" ")[0])
    assert reused >= 3


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"footage": "../output"}, "There is no footage '../output'"),
        ({"footage": "nowhere"}, "There is no footage 'nowhere'"),
        ({"footage": ""}, "There is no footage ''"),
        ({"resolution": "big"}, "write it as 832x480"),
        ({"shortest_frames": 149}, "longest is 129; it must be 149 or more"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(host: Host, footage: Path, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(PromptError) as problem:
        host.queue(prepare(**inputs))
    assert told in str(problem.value)
