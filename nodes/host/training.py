"""Trainings from nodes: jobs are written, started in processes of their own, followed, stopped and resumed."""

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...gloria_core.data.task import FootageTask
from ...gloria_core.errors import GloriaError
from ...gloria_core.evaluate.pen import Pen
from ...gloria_core.train import job as jobs
from ...gloria_core.train.change import read_job, write_settings
from ...gloria_core.train.job import Job
from ...gloria_core.train.plot import loss_plot
from ...gloria_core.train.status import JobStatus, job_events, read_status
from ...gloria_core.train.view import NoJobError, all_jobs, find_job, job_name, job_view, sample_film
from .api import VideoFromFile
from .paths import training_folder
from .progress import InterruptProcessingException, stop_if_interrupted
from .training_check import check_file
from .training_config import Wanted, check_startable, listed_name, options_of_stages, settings_text

EVENT = "gloria.training"
"""Name of our event; its fields are those of ``JobStatus``, and the node."""

_PAUSE_S = 0.5
_TOLD_EVERY_S = 1.0
_START_PATIENCE_S = 300.0
_log = logging.getLogger(__name__)


class TrainingFailedError(GloriaError):
    """A training ended early; its own sentence says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """A training as a node shows it."""

    job: Job
    status: JobStatus
    view: dict[str, Any]
    """The same for a page: see `view.job_view`."""
    file: str
    """What it has written, as the host's loaders list it; empty before it is finished."""
    plot: Tensor
    """(1, H, W, 3), 0..1."""
    sheet: Tensor
    """The latest sample sheet (1, H, W, 3), 0..1; a picture that says so where there is none."""
    film: Path | None
    """The film beside it; None where there is none."""
    report: str


def train(wanted: Wanted, *, wait: bool, num_processes: int, node_id: str) -> Followed:
    """Make a job, or go on with one, and follow it.

    Args:
        wanted: the training.
        wait: whether to follow it to its end; otherwise it goes on by itself.
        num_processes: cards that it uses.
        node_id: the node that works.

    Raises:
        GloriaError: a setting is wrong, the job is in use or cannot go on with it, or the training failed.
        InterruptProcessingException: the user has asked to stop; a checkpoint was made.
    """
    job = Job(training_folder() / job_name(wanted.name))
    for options in options_of_stages(wanted):  # what is wrong with the footage is told before anything is written
        FootageTask(**options)
    job.path.mkdir(parents=True, exist_ok=True)
    is_new = write_settings(job, settings_text(wanted))
    if is_new or read_status(job).state != "finished" or not wanted.file.is_file():
        free_memory()
        begin(job, num_processes)
    return follow(job, node_id) if wait else shown(job)


def named(name: str) -> Job:
    """Return a job by its name, the one that changed last where that is empty.

    Raises:
        ConfigError: it is no name of a job.
        NoJobError: there is no such job, or none at all.
    """
    root = Path(folder_paths.get_output_directory())
    if name.strip():
        return find_job(training_folder(), name, root)
    newest = next(iter(all_jobs(training_folder(), root)), None)
    if newest is None:
        raise NoJobError("There is no training yet; make one with Gloria Train LoRA or Gloria Train Full.")
    return newest


def begin(job: Job, num_processes: int = 1) -> None:
    """Start a job's process and wait until it works; one that runs already goes on as it is.

    The memory of the host's models is to be freed before, see `free_memory`.

    Raises:
        GloriaError: its settings are not for a node to start, or the process ended at once, with its own sentence.
    """
    if job.is_running:
        return
    for config in read_job(job):
        check_startable(config)
    since = len(job_events(job))
    child = jobs.start(job, num_processes=num_processes)
    threading.Thread(target=child.wait, name=f"training {job.name}", daemon=True).start()  # so that no dead child stays
    patience = time.monotonic() + _START_PATIENCE_S
    while not job.is_running and child.poll() is None and time.monotonic() < patience:
        time.sleep(0.05)
    if child.poll() not in (None, 0) and len(job_events(job)) == since:
        raise TrainingFailedError("\n".join([f"The training {job.name!r} could not start.", *job.last_lines(10)]))


def free_memory() -> None:
    """Let the host's models go; only for nodes: nothing may be sampled meanwhile."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def follow(job: Job, node_id: str) -> Followed:
    """Follow a job that runs to its end.

    Raises:
        TrainingFailedError: it failed.
        InterruptProcessingException: the user has asked to stop.
    """
    watch = _Watch(job, node_id)
    watch.follow()
    return shown(job, fails=True)


def stop(job: Job, *, wait: bool = False) -> str:
    """Ask a job to stop; asked again, it is ended at once. Return what was done, in a sentence.

    Args:
        job: any.
        wait: whether to wait until it has ended.
    """
    if not job.is_running:
        return f"The training {job.name!r} does not run."
    if job.stop_file.exists():
        job.kill()
        told = f"The training {job.name!r} was ended at once; what came after its last checkpoint is lost."
    else:
        job.ask_to_stop()
        told = f"The training {job.name!r} makes a checkpoint and stops. Stop it again to end it at once."
    while wait and job.is_running:
        stop_if_interrupted()
        time.sleep(_PAUSE_S)
    return told


def shown(job: Job, *, fails: bool = False) -> Followed:
    """Return how a job stands.

    Raises:
        TrainingFailedError: it failed, and ``fails`` is set.
        LoraError: the file that it has written would not be used in whole.
    """
    status = read_status(job)
    if fails and status.state in ("failed", "lost"):
        _log.error("Gloria: %s", status.told())
        raise TrainingFailedError(f"{status.error} Its last lines are in ComfyUI's log and in {job.log.name}.")
    lines, file = [status.told()], ""
    if status.state == "finished":
        config = read_job(job)[-1]
        written = Path(config.output.file)
        lines.append(check_file(written, config))
        file = listed_name(written)
    root = Path(folder_paths.get_output_directory())
    plot, sheet, view = loss_plot(job_events(job)), _latest_sheet(job, status), job_view(job, root)
    film = sample_film(job, root, view["films"][-1]) if view["films"] else None
    return Followed(job, status, view, file, _as_image(plot), _as_image(sheet), film, "\n".join(lines))


def video_or_nothing(film: Path | None) -> Any:  # noqa: ANN401 - the host's VIDEO
    """Return a film as the host's VIDEO; what is connected to it does not run where there is none."""
    return ExecutionBlocker(None) if film is None else VideoFromFile(str(film))


def say(report: str, node_id: str) -> None:
    """Show a text on a node of the page."""
    PromptServer.instance.send_progress_text(report, node_id, PromptServer.instance.client_id)


class _Watch:
    """Tells the page and the queue's clients how a job stands, and heeds the user's wish to stop."""

    def __init__(self, job: Job, node_id: str) -> None:
        self.job, self.node_id = job, node_id
        self.bar = comfy.utils.ProgressBar(1, node_id=node_id)
        self._told: JobStatus | None = None
        self._next = 0.0
        self._asked = False

    def follow(self) -> None:
        while self.job.is_running:
            try:
                stop_if_interrupted()
                self._tell()
            except InterruptProcessingException:
                self._stop()
            time.sleep(_PAUSE_S)
        self._next = 0.0
        if not self._asked:
            self._tell()
            return
        self._send()
        raise InterruptProcessingException

    def _stop(self) -> None:
        _log.info("Gloria: %s", stop(self.job))
        self._asked = True

    def _tell(self) -> None:
        status, now = read_status(self.job), time.monotonic()
        if status == self._told or now < self._next:
            return
        self._told, self._next = status, now + _TOLD_EVERY_S
        self._send()
        total = max(1, status.total_steps)
        self.bar.update_absolute(min(total, round(status.done * total)), total)

    def _send(self) -> None:
        server = PromptServer.instance
        view = job_view(self.job, Path(folder_paths.get_output_directory()))
        server.send_sync(EVENT, {"node": self.node_id, **view}, server.client_id)


def _latest_sheet(job: Job, status: JobStatus) -> Image.Image:
    sheet = _open(job.path / status.samples[-1]) if status.samples else None
    if sheet is not None:
        return sheet
    pen = Pen(640, 96, (250, 249, 246))
    pen.text((320, 48), "no samples were made yet", 18, (110, 114, 128), "mm")
    return pen.picture()


def _open(path: Path) -> Image.Image | None:
    """Return a sample sheet; None where it is still being written."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError:
        return None


def _as_image(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).float().div(255.0).unsqueeze(0)
