"""A long video inside the host: a run in the output folder, from which whatever is finished is taken up again."""

import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import comfy.model_management
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...gloria_core.errors import GloriaError
from ...gloria_core.runs.drift_picture import drift_picture
from ...gloria_core.runs.folder import RunFolder, read_json
from ...gloria_core.runs.job import Frames
from ...gloria_core.runs.make import make
from ...gloria_core.runs.sound import sound_notes
from ...gloria_core.sampling.chunks import Chunk
from ...gloria_core.sampling.prompts import lost_cues, prompt_for_chunk
from .needs import memory_needs
from .paths import check_prefix, new_output, run_path
from .progress import step_previewer
from .run_job import run_job
from .video_job import VideoJob, VideoRequest, prepared
from .watch import RunWatch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class VideoResult:
    """A video on disk."""

    path: Path
    last_frame: Tensor
    """(1, H, W, 3), 0..1, as the model made it, without any layout."""
    run: str
    """Name of the run."""
    latents: Path | None
    """Folder of the chunks' latents; None where they are not kept."""
    plan: list[str]
    """What was said before anything was made."""
    drift: list[dict[str, float]]
    """How similar each chunk is, by what it is compared in; empty for a chunk that was not measured."""
    drift_plot: Tensor
    """(1, H, W, 3), 0..1."""
    images: Tensor | None
    """All frames (F, H, W, 3), 0..1, where they were asked for."""


def make_video(request: VideoRequest) -> VideoResult:
    """Make the video, or go on with it where its run was stopped.

    Raises:
        GloriaError: the request cannot be met, or the disk refuses. What is finished stays in the run's folder.
        InterruptProcessingException: the user has stopped; queueing the same again goes on from there.
    """
    check_prefix(request.prefix)
    job = prepared(request)
    if request.wants_images:
        _check_room(job)
    path = run_path(request.run, request.prefix)
    lost = lost_cues(job.prompts, job.chunks, job.fps, request.snap)
    missing = request.anchors.schedule.missing(request.anchors.anchors)
    frames: list[Frames] = []

    look = step_previewer(request.patcher)

    def on_step(chunk: Chunk, step: int, _num_steps: int, x0: Tensor) -> None:
        watch.step(chunk, step + 1, prompt_for_chunk(job.prompts, chunk, job.fps, request.snap), look(x0))

    def target() -> Path:
        return new_output(request.prefix, *job.size)

    try:
        asked = run_job(job, on_step, frames.append if request.wants_images else None)
        folder = RunFolder(path)
        watch = RunWatch(job, folder, [*lost, *missing, *sound_notes(asked.sound)])
        made = make(replace(asked, memory=memory_needs(job), on_forecast=watch.foreseen), folder, watch, target)
    except comfy.model_management.OOM_EXCEPTION as error:
        raise _out_of_memory(job) from error
    except comfy.model_management.InterruptProcessingException:
        _log.warning("Gloria: stopped. What is finished is in %s; queue the same again to go on.", path)
        raise
    last = torch.from_numpy(made.last_frame.astype(np.float32) / 255.0).unsqueeze(0)
    images = torch.from_numpy(np.concatenate(frames)).float() / 255.0 if frames else None
    plot = _as_image(drift_picture(read_json(folder.settings), folder.path.name))
    if not request.keep_latents:
        shutil.rmtree(folder.path, ignore_errors=True)
    elif made.old.sentence:
        _log.info("Gloria: %s", made.old.sentence)
    return VideoResult(
        path=made.video,
        last_frame=last,
        run=folder.path.name,
        latents=folder.chunks if request.keep_latents else None,
        plan=watch.lines,
        drift=[dict(news.drift or {}) for news in made.chunks],
        drift_plot=plot,
        images=images,
    )


def _as_image(picture: Image.Image) -> Tensor:
    """Turn a picture into the host's IMAGE (1, H, W, 3), 0..1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255.0).unsqueeze(0)


def _check_room(job: VideoJob) -> None:
    """Refuse to hold all frames where they would take more than half of the free memory."""
    width, height = job.size
    needed = job.chunks[-1].frames.stop * width * height * 3 * 4
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if 2 * needed > free:
        raise GloriaError(
            f"All {job.chunks[-1].frames.stop} pictures of {width} x {height} at once take {2 * needed / 1e9:.1f} GB "
            f"of memory while they are put together; {free / 1e9:.1f} GB are free. Disconnect 'images' and use "
            "'video', which is on disk, or make a shorter video."
        )


def _out_of_memory(job: VideoJob) -> GloriaError:
    comfy.model_management.soft_empty_cache()
    width, height = job.size
    return GloriaError(
        f"A chunk ({job.chunks[0].num_latents} latent frames of {width} x {height}) did not fit into the graphics "
        "card's memory. Lower 'chunk_latents' or the picture's size, or use fewer anchors. The chunks before it are "
        "on disk and will be used again, as long as only anchors or prompts of later ones change."
    )
