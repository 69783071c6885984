"""What others see of trainings: no paths, nothing behind links, and events and pictures by number."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gloria_core.errors import ConfigError
from gloria_core.events import EventLog
from gloria_core.train import TrainConfig
from gloria_core.train.job import Job
from gloria_core.train.status import read_status
from gloria_core.train.view import (
    MOST_EVENTS,
    MOST_POINTS,
    NoJobError,
    all_jobs,
    events_after,
    find_job,
    job_name,
    job_view,
    list_jobs,
    plot_png,
    sample_file,
)

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An output folder with the folder of trainings."""
    (tmp_path / "output" / "gloria_training").mkdir(parents=True)
    return tmp_path / "output"


@pytest.fixture
def job(root: Path, make_config: MakeConfig) -> Job:
    """A training that has failed after two samples."""
    made = Job(root / "gloria_training" / "mira")
    (made.path / "samples").mkdir(parents=True)
    made.config.write_text(make_config(run__total_steps=40).to_toml(), encoding="utf-8")
    log = EventLog(made.path / "events.jsonl")
    log.write("start", step=0)
    log.write("train", step=10, loss=0.5, lr=1e-3, samples_per_s=3.0, eta_s=30.0, memory_mb=900.0)
    for step in (5, 10):
        (made.path / "samples" / f"step-{step:08d}.png").write_bytes(b"png %d" % step)
    log.write("error", sentence=f"The file {made.path / 'x.safetensors'} is gone.")
    made.log.write_text(f"Traceback\n  in {root / 'secret' / 'place.py'}\n", encoding="utf-8")
    return made


def test_a_job_is_shown_without_paths(job: Job, root: Path) -> None:
    view = job_view(find_job(root / "gloria_training", "mira", root), root)
    assert (view["state"], view["step"], view["total_steps"], view["samples"]) == ("failed", 10, 40, [1, 2])
    assert str(root) not in json.dumps(view)
    assert view["error"] == "The file gloria_training/mira/x.safetensors is gone."
    assert "place.py" in view["lines"][-1]


def test_jobs_are_listed_latest_first(job: Job, root: Path, make_config: MakeConfig) -> None:
    newer = Job(root / "gloria_training" / "bruno")
    newer.path.mkdir()
    newer.config.write_text(make_config().to_toml(), encoding="utf-8")
    (root / "gloria_training" / "cache").mkdir()
    (root / "gloria_training" / "empty").mkdir()
    assert {one["name"]: one["state"] for one in list_jobs(root / "gloria_training", root)} == {
        "bruno": "new",
        "mira": "failed",
    }
    EventLog(job.path / "events.jsonl").write("start", step=0)
    assert next(one.name for one in all_jobs(root / "gloria_training", root)) in ("mira", "bruno")
    assert list_jobs(root / "nowhere", root) == []


def test_events_come_from_a_number_on(job: Job, root: Path) -> None:
    told = events_after(job, root, 0)
    assert [event["event"] for event in told["events"]] == ["start", "train", "error"]
    assert (told["next"], told["more"]) == (3, False)
    assert events_after(job, root, 2)["events"][0]["event"] == "error"
    assert events_after(job, root, 99) == {"events": [], "next": 3, "more": False}
    log = EventLog(job.path / "events.jsonl")
    for step in range(MOST_EVENTS):
        log.write("train", step=step, loss=0.1)
    part = events_after(job, root, 0)
    assert (len(part["events"]), part["next"], part["more"]) == (MOST_EVENTS, MOST_EVENTS, True)


def test_only_the_jobs_that_were_asked_for_are_listed(job: Job, root: Path, make_config: MakeConfig) -> None:
    other = Job(root / "gloria_training" / "bruno")
    other.path.mkdir()
    other.config.write_text(make_config().to_toml(), encoding="utf-8")
    folder = root / "gloria_training"
    assert [one["name"] for one in list_jobs(folder, root, ["mira", "nobody", "../mira", "mira"])] == ["mira"]
    assert list_jobs(folder, root, []) == []
    assert len(list_jobs(folder, root, count=1)) == 1


def test_a_curve_comes_with_few_points(job: Job, root: Path) -> None:
    assert "curve" not in job_view(job, root)
    log = EventLog(job.path / "events.jsonl")
    for step in range(11, 11 + 3 * MOST_POINTS):
        log.write("train", step=step, loss=0.5)
    log.write("held_out", step=20, loss=0.25)
    curve = job_view(job, root, 100)["curve"]
    assert 50 < len(curve["trained"]) <= 100
    assert curve["trained"][0][1:] == [0.5, 0.5, 0.5]
    assert curve["held_out"] == [[20, 0.25, 0.25, 0.25]]
    assert curve["stages"] == [("", 0.0)]
    assert len(job_view(job, root, 10**9)["curve"]["trained"]) <= MOST_POINTS


def test_pictures_are_found_by_number(job: Job, root: Path) -> None:
    assert sample_file(job, root, 1).read_bytes() == b"png 5"
    assert sample_file(job, root, 2).read_bytes() == b"png 10"
    assert plot_png(job).startswith(b"\x89PNG")
    for number in (0, 3):
        with pytest.raises(NoJobError, match=f"no sample sheet {number}"):
            sample_file(job, root, number)


@pytest.mark.parametrize(
    "name", ["..", "../mira", "a/b", "a\\b", "", "con", "nul.txt", "mira.", "\u2024\u2024", "x" * 300]
)
def test_names_that_lead_elsewhere_are_refused(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="The job is called"):
        find_job(root / "gloria_training", name, root)


@pytest.mark.parametrize("name", ["cache", "Cache"])
def test_the_caches_name_is_taken(name: str) -> None:
    with pytest.raises(ConfigError, match="where the prepared footage lies"):
        job_name(name)


@pytest.mark.parametrize("part", ["config.toml", "events.jsonl", "log.txt", "samples"])
def test_what_leads_out_of_the_output_folder_is_not_there(job: Job, root: Path, tmp_path: Path, part: str) -> None:
    outside = tmp_path / "outside"
    (job.path / part).rename(outside)
    (job.path / part).symlink_to(outside)
    with pytest.raises(NoJobError, match="no training called 'mira'"):
        find_job(root / "gloria_training", "mira", root)
    assert list_jobs(root / "gloria_training", root) == []


def test_a_sample_that_is_a_link_is_not_there(job: Job, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (job.path / "samples" / "step-00000099.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(NoJobError):
        sample_file(job, root, 3)


def test_a_status_is_told_in_words(job: Job) -> None:
    told = read_status(job).told().splitlines()
    assert told[0] == "mira: failed, step 10 of 40, loss 0.5000, 3 clips a second, 0.9 GB"
    assert told[1].startswith("The file")
    assert told[2] == "Traceback"
