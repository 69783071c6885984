"""A long video inside the host: chunks are sampled, decoded, written and forgotten one after the other."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...gloria_core.errors import GloriaError, MediaError
from ...gloria_core.media import VideoWriter
from ...gloria_core.sampling.chunks import Chunk
from ...gloria_core.sampling.long_video import FinishedChunk, PrefixMode, generate
from ...gloria_core.sampling.prompts import lost_cues, prompt_for_chunk
from .guider import ChunkPrompts, HostChunkSampler, with_anchors, with_audio
from .image_channels import ImageChannels, num_prefix_pictures
from .progress import VideoProgress, stop_if_interrupted
from .vae_stream import StreamDecoder
from .video_job import VideoJob, VideoRequest, prepared

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class VideoResult:
    """A video on disk."""

    path: Path
    last_frame: Tensor
    """(1, H, W, 3), 0..1, as the model made it, without any layout."""
    latents: Path | None
    """Folder of the chunks' latents."""


def make_video(request: VideoRequest) -> VideoResult:
    """Make the video; what is finished when something goes wrong, or the user stops, stays as a playable file.

    Raises:
        GloriaError: the request cannot be met; nothing has been written then.
        InterruptProcessingException: the user has stopped; the file holds the chunks that were finished.
    """
    job = prepared(request)
    lost = lost_cues(request.prompts.cues, job.chunks, job.fps)
    if lost:
        _log.warning("Gloria: %s", " ".join(lost))
    num_steps = len(request.sigmas) - 1
    progress = VideoProgress(len(job.chunks), num_steps, request.node_id)

    def on_step(chunk: Chunk, step: int, _num_steps: int) -> None:
        progress.step(chunk.index, min(step + 1, num_steps), _prompt(job, chunk))

    decode = _decoder(job)
    sampler = HostChunkSampler(
        request.patcher,
        request.sampler,
        request.sigmas,
        request.guidance,
        on_step,
        low_noise=job.low_noise,
        options=_image_channels(job, decode),
    )
    finished = generate(
        job.chunks,
        sampler=sampler,
        conditions=lambda chunk: _conditions(job, chunk),
        shape=job.shape,
        seed=request.seed,
        prefix_mode=job.prefix_mode,
        start=job.start_latents(),
    )
    path = request.place.folder / f"{request.place.name}.mp4"
    folder = request.place.folder / f"{request.place.name}latents" if request.keep_latents else None
    last = np.zeros((1, 1, 3), np.uint8)
    sound = (request.audio.waveform, request.audio.sample_rate) if request.audio is not None else None
    with VideoWriter(path, job.fps, job.layout.size, audio=sound) as writer:
        written = 0
        try:
            for piece in finished:
                frames = decode(piece.visible_latents)[: len(piece.frames)]
                last = frames[-1]
                shown = job.layout(frames, _prompt(job, piece.chunk))
                writer.write(shown)
                if folder is not None:
                    save_latents(folder, piece, _prompt(job, piece.chunk))
                written += 1
                progress.step(piece.chunk.index, num_steps, _prompt(job, piece.chunk), preview=shown[-1])
        except comfy.model_management.OOM_EXCEPTION as error:
            raise _out_of_memory(job, written) from error
        finally:
            if 0 < written < len(job.chunks):
                writer.finish()
                _log.warning("Gloria: stopped after %d of %d chunks; they are in %s.", written, len(job.chunks), path)
    return VideoResult(path, torch.from_numpy(last.astype(np.float32) / 255.0).unsqueeze(0), folder)


def _prompt(job: VideoJob, chunk: Chunk) -> str:
    return prompt_for_chunk(job.request.prompts.cues, chunk, job.fps)


def _conditions(job: VideoJob, chunk: Chunk) -> ChunkPrompts:
    stop_if_interrupted()
    request = job.request
    anchors = request.anchors.anchors
    positive = with_anchors(request.prompts.conditioning[_prompt(job, chunk)], anchors)
    if request.audio is not None:
        positive = with_audio(positive, request.audio.features, chunk.latents.start)
    negative = None if request.negative is None else with_anchors(request.negative, anchors)
    return ChunkPrompts(positive, negative)


def _decoder(job: VideoJob) -> StreamDecoder:
    """Return the decoder that the whole video goes through."""
    if job.config.has_image_channels and job.prefix_mode == PrefixMode.HELD:
        return StreamDecoder(job.request.vae, keep=num_prefix_pictures(job.longest_prefix))  # the model is shown them
    return StreamDecoder(job.request.vae)


def _image_channels(job: VideoJob, decoder: StreamDecoder) -> ImageChannels | None:
    """Return what fills the image channels of a model that has them."""
    if not job.config.has_image_channels:
        return None
    request = job.request
    return ImageChannels(
        request.vae,
        decoder,
        job.chunks[-1].index,
        start=job.start_picture,
        end=job.end_picture,
        clip_start=request.clip_start,
        clip_end=request.clip_end,
    )


def save_latents(folder: Path, piece: FinishedChunk, prompt: str) -> None:
    """Write a chunk's latents in the form that the stock LoadLatent reads, under a name that is whole or not there."""
    file = folder / f"chunk_{piece.chunk.index:04}.latent"
    partial = file.with_suffix(".part")
    metadata = {
        "gloria.first_latent": str(piece.first_latent),
        "gloria.frames": f"{piece.frames.start}:{piece.frames.stop}",
        "gloria.seed": str(piece.seed),
        "gloria.prompt": prompt,
    }
    tensors = {"latent_tensor": piece.latents.float().cpu().contiguous(), "latent_format_version_0": torch.tensor([])}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=metadata)
        partial.replace(file)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise MediaError(
            f"The latents could not be written to {file}: {error}. Free some disk space and try again."
        ) from error


def _out_of_memory(job: VideoJob, written: int) -> GloriaError:
    comfy.model_management.soft_empty_cache()
    width, height = job.size
    return GloriaError(
        f"Chunk {written + 1} of {len(job.chunks)} ({job.chunks[0].num_latents} latent frames of {width} x "
        f"{height}) did not "
        "fit into the graphics card's memory. Lower 'chunk_latents' or the picture's size, or use fewer anchors."
    )
