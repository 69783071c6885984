"""What nodes say to trainings that cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.tables import write_toml
from gloria_core.train.config import from_table
from gloria_core.train.job import Job
from launch.client import PromptError
from tests.host.tiny_files import Wan, write_wan
from tests.host.trainings import ENDLESS, LORA, SHORT, about, jobs, lora

if TYPE_CHECKING:
    from conftest import Host

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.usefixtures("_trainings_end")]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"job": "../out"}, "The job is called '../out'"),
        ({"job": ""}, "The job is called ''"),
        ({"job": "cache"}, "where the prepared footage lies"),
        ({"job": "con"}, "The job is called 'con'"),
        ({"weights": "nowhere.safetensors"}, "There is no file 'nowhere.safetensors'"),
        ({"more_settings": "optim.warmup_stpes = 3"}, "did you mean optim.warmup_steps?"),
        ({"more_settings": "task.options.batch_sze = 3"}, "did you mean task.options.batch_size?"),
        ({"more_settings": "method.kind = 'dora'"}, "Use 'lora' with a higher rank"),
        ({"more_settings": "method.rank = 0"}, "method.rank is 0; it must be 1 or more"),
        ({"more_settings": "optim.lr = fast"}, "'more_settings' cannot be read"),
        ({"more_settings": "run.out = '/elsewhere'"}, "has run.out, which the node itself sets"),
        ({"more_settings": "output.file = '/elsewhere/x'"}, "has output.file, which the node itself sets"),
        ({"more_settings": "task.target = 'os:system'"}, "has task.target, which the node itself sets"),
        ({"more_settings": "task.options.decoder = 'os:getcwd'"}, "has task.options.decoder"),
        ({"more_settings": "task.options.vae = '/elsewhere/x'"}, "has task.options.vae, which the node itself sets"),
        ({"more_settings": "optim.kind = 'subprocess.Popen'"}, "may be one of torch.optim or torchao.optim"),
        ({"more_settings": "run.init_from = '../../secret'"}, "The job is called '../../secret'"),
        ({"more_settings": "optim = 3"}, "optim is 3; it must be a table of settings"),
        ({"more_settings": "task.options.held_out_ids = ['nobody']"}, "'nobody', which is no clip"),
        ({"frames": 32}, "use 29 or 33"),
        ({"frames": 1025}, "No clip can be trained on"),
        ({"base_precision": "fp8"}, "set memory.checkpointing to 'blocks'"),
        ({"checkpointing": "blocks", "swap_blocks": 99, "steps": 1}, "use at most that"),
    ],
)
def test_bad_input_is_answered_in_a_sentence(host: Host, footage: Path, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(PromptError) as problem:
        host.queue(lora(**{"job": "bad", "rank": 2, **inputs}))
    assert told in str(problem.value)


def test_a_vae_that_is_not_there_is_told_before_anything_is_written(host: Host, footage: Path) -> None:
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    write_wan(folder / "tiny_wan.safetensors", Wan(in_channels=16, out_channels=16), 1)
    with pytest.raises(PromptError, match=r"no file 'gone\.safetensors' in models/vae"):
        host.queue(lora("vaeless", **{**SHORT, "weights": "tiny_wan.safetensors", "sample_vae": "gone.safetensors"}))
    assert not (jobs(host) / "vaeless").exists()


@pytest.mark.parametrize(
    ("inputs", "told"), [({"rank": 0}, "rank"), ({"steps": 0}, "steps"), ({"kind": "dora"}, "kind")]
)
def test_what_a_widget_cannot_hold_is_refused(host: Host, footage: Path, inputs: dict[str, Any], told: str) -> None:
    with pytest.raises(PromptError, match=told):
        host.queue(lora("bad", **inputs))


def test_a_job_that_cannot_go_on_says_why(host: Host, footage: Path) -> None:
    host.queue(lora("begun", **SHORT))
    for changes, told in (
        ({"rank": 4}, "was begun with method.rank = 2, and now has 4"),
        ({"kind": "loha"}, "was begun with method.kind = 'lora'"),
        ({"steps": 2}, "has done 3 steps"),
        ({"stage": "stages I to III"}, "was begun with one stage"),
    ):
        with pytest.raises(PromptError) as problem:
            host.queue(lora("begun", **{**SHORT, **changes}))
        assert told in str(problem.value)
    (host.base / "models" / "diffusion_models").mkdir(parents=True, exist_ok=True)
    shutil.copy2(WEIGHTS_FILE, host.base / "models" / "diffusion_models" / "other.safetensors")
    with pytest.raises(PromptError, match=r"was begun with task\.options\.weights"):
        host.queue(lora("begun", **{**SHORT, "weights": "other.safetensors"}))
    host.queue(lora("busy", **{**ENDLESS, "wait": False}))
    with pytest.raises(PromptError, match="is being trained with other settings"):
        host.queue(lora("busy", **{**ENDLESS, "seed": 5, "wait": False}))


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("task", {"target": "os:system"}),
        ("task", {"target": "gloria_core.data.task:FootageTask", "options": {"decoder": "os:getcwd"}}),
        ("optim", {"kind": "subprocess.Popen"}),
        ("output", {"file": "/elsewhere/x"}),
        ("output", {"file": "../../../x"}),
        ("run", {"total_steps": 1, "init_from": "/elsewhere/x"}),
        ("task", {"target": "gloria_core.data.task:FootageTask", "options": {"cache": "/elsewhere/cache"}}),
    ],
)
def test_a_job_that_somebody_has_sent_here_runs_nothing_of_theirs(
    host: Host, section: str, changes: dict[str, Any]
) -> None:
    told = {"run": {"total_steps": 1}, "task": {"target": "gloria_core.data.task:FootageTask"}} | {section: changes}
    job = Job(jobs(host) / "sent")
    job.path.mkdir(parents=True, exist_ok=True)
    job.config.write_text(write_toml(from_table(told)), encoding="utf-8")
    for ask_for in (
        lambda: host.queue(about("GloriaResumeTraining", "sent", wait=False)),
        lambda: host.client.post("/gloria/training/sent/resume", {}),
    ):
        with pytest.raises(PromptError, match=r"command line|one of torch"):
            ask_for()
    assert not job.log.exists(), "nothing was started"


@pytest.mark.parametrize("kind", ["GloriaWatchTraining", "GloriaStopTraining", "GloriaResumeTraining"])
@pytest.mark.parametrize(
    ("job", "told"), [("nobody", "There is no training called 'nobody'"), ("../x", "The job is called")]
)
def test_nodes_name_a_job_that_is_not_there(host: Host, kind: str, job: str, told: str) -> None:
    with pytest.raises(PromptError, match=told):
        host.queue(about(kind, job, wait=False))


def test_what_was_not_prepared_is_said(host: Host, footage: Path) -> None:
    graph = lora("unprepared", **SHORT)
    host.queue(graph)
    shutil.rmtree(jobs(host) / "cache")
    (footage / "take-2.txt").write_text("changed since", encoding="utf-8")
    try:
        graph["2"]["inputs"]["footage"] = "nowhere"
        with pytest.raises(PromptError, match="There is no footage 'nowhere'"):
            host.queue(graph)
        with pytest.raises(PromptError):
            host.client.run({"3": {"class_type": "GloriaTrainLoRA", "inputs": {**LORA, "job": "no-dataset"}}})
    finally:
        (footage / "take-2.txt").unlink()
