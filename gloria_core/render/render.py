"""One render from its job to its film."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import ConfigError, GloriaError
from ..runs.digest import digest_of
from ..runs.folder import RunFolder
from ..runs.make import make
from ..runs.names import RUNS, next_video
from ..runs.reuse import Shelf, decide
from .bundled import bundled_kit
from .inputs import read_inputs
from .job import RenderJob
from .kit import Kit
from .pipeline import pipeline_kit
from .prepare import Prepared, prepare
from .watch import LineWatch, Say, plan_lines


def render(job: RenderJob, say: Say) -> Path:
    """Make a video, or go on with it where it was stopped.

    Args:
        job: what is wanted; its paths are absolute.
        say: told what happens, a line at a time.

    Returns:
        The finished film.

    Raises:
        GloriaError: the job cannot be met, another process works on it, or the disk refuses. What is finished stays.
    """
    inputs = read_inputs(job)
    folder = RunFolder(run_path(job))
    with folder.locked():
        pass  # told now, before anything large is loaded
    prepared = prepare(job, inputs, kit_of(job, writes=True))
    watch = LineWatch(say, lambda decisions, notes: plan_lines(prepared, decisions, notes), len(prepared.video.chunks))
    run = replace(prepared.run, on_forecast=watch.foreseen)
    try:
        made = make(run, folder, watch, lambda: next_video(Path(job.output), job.filename_prefix))
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(prepared) from error
    if not job.keep_latents:
        shutil.rmtree(folder.path, ignore_errors=True)
    return made.video


def dry_run(job: RenderJob, say: Say) -> None:
    """Say what a render would make and what it would use again; nothing is sampled, and no folder made or changed.

    Raises:
        GloriaError: the job cannot be met.
    """
    prepared = prepare(job, read_inputs(job), kit_of(job, writes=False))
    run = prepared.run
    path = run_path(job)
    takes, broken = RunFolder(path).takes() if path.is_dir() else ([], [])
    wishes = [run.script(chunk, 0).wish for chunk in run.chunks]
    plain = [run.plain(chunk).wish for chunk in run.chunks]
    start = "" if run.start is None else digest_of(run.start.float())
    for line in plan_lines(prepared, decide(wishes, plain, Shelf(takes), start), broken):
        say(line)


def run_path(job: RenderJob) -> Path:
    """Return the folder of a job's run."""
    return Path(job.output) / RUNS / job.run_name


def kit_of(job: RenderJob, *, writes: bool) -> Kit:
    """Return the parts of a render for a job's weights; with ``writes`` what is encoded is kept in the run."""
    device = device_of(job.model.device)
    if not job.model.diffusers:
        return bundled_kit(device)
    return pipeline_kit(job.model, job.boundary, run_path(job), device, writes=writes)


def device_of(name: str) -> torch.device:
    """Return a device by its name; ConfigError where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"The device is {name!r}, and torch sees no CUDA card here: use cpu.")
    return torch.device(name)


def _out_of_memory(prepared: Prepared) -> GloriaError:
    width, height = prepared.video.size
    return GloriaError(
        f"A chunk ({prepared.video.chunks[0].num_latents} latent frames of {width} x {height}) did not fit into the "
        "graphics card's memory. Lower 'chunk_latents' or the picture's size, or use fewer anchors. What is finished "
        "is on the disk and used again where it still fits."
    )
