"""A long video inside the host: chunks are sampled, decoded, written and forgotten one after the other."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.sd
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...gloria_core.errors import AudioError, ConfigError, GloriaError, MediaError, PlanError
from ...gloria_core.media import VideoWriter
from ...gloria_core.media.layout import LabelledPicture, Layout, layout_named
from ...gloria_core.sampling.chunks import Chunk, num_frames_for, plan
from ...gloria_core.sampling.guidance import Branch, Guidance
from ...gloria_core.sampling.long_video import FinishedChunk, generate
from ...gloria_core.sampling.prompts import lost_cues, prompt_for_chunk
from ...gloria_core.types import AnchorRole
from ..sockets import Conditioning, EncodedAnchors, EncodedAudio, EncodedPrompts
from .guider import ChunkPrompts, HostChunkSampler, with_anchors, with_audio
from .model import model_config
from .paths import OutputPlace
from .progress import VideoProgress, stop_if_interrupted
from .vae import StreamDecoder, encode_picture, grid_px, to_bytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoRequest:
    """All that a long video is made from."""

    patcher: comfy.model_patcher.ModelPatcher
    vae: comfy.sd.VAE
    anchors: EncodedAnchors
    prompts: EncodedPrompts
    negative: Conditioning | None
    audio: EncodedAudio | None
    start_image: Tensor | None
    """(1, H, W, 3) at the video's size; None lets the model begin freely."""
    seconds: float
    fps: float
    """0 takes the rate that the model was trained at."""
    width: int
    """0 takes the global anchor's."""
    height: int
    chunk_latents: int
    """0 takes the length that the model was trained with."""
    prefix_latents: int
    guidance: Guidance
    sampler: comfy.samplers.Sampler
    sigmas: Tensor
    seed: int
    layout: str
    smallest_side: int
    place: OutputPlace
    keep_latents: bool
    node_id: str


@dataclass(frozen=True, slots=True, eq=False)
class VideoResult:
    """A video on disk."""

    path: Path
    last_frame: Tensor
    """(1, H, W, 3), 0..1, as the model made it, without any layout."""
    latents: Path | None
    """Folder of the chunks' latents."""


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request with every "as the model says" filled in and checked."""

    request: VideoRequest
    fps: float
    size: tuple[int, int]
    """Width and height of the frames as made."""
    shape: tuple[int, int, int, int]
    """(B, C, h, w) of the latents."""
    chunks: tuple[Chunk, ...]
    layout: Layout
    start: Tensor | None


def make_video(request: VideoRequest) -> VideoResult:
    """Make the video; what is finished when something goes wrong, or the user stops, stays as a playable file.

    Raises:
        GloriaError: the request cannot be met; nothing has been written then.
        InterruptProcessingException: the user has stopped; the file holds the chunks that were finished.
    """
    job = _prepared(request)
    lost = lost_cues(request.prompts.cues, job.chunks, job.fps)
    if lost:
        _log.warning("Gloria: %s", " ".join(lost))
    num_steps = len(request.sigmas) - 1
    progress = VideoProgress(len(job.chunks), num_steps, request.node_id)

    def on_step(chunk: Chunk, step: int, _num_steps: int) -> None:
        progress.step(chunk.index, min(step + 1, num_steps), _prompt(job, chunk))

    sampler = HostChunkSampler(request.patcher, request.sampler, request.sigmas, request.guidance, on_step)
    finished = generate(
        job.chunks,
        sampler=sampler,
        conditions=lambda chunk: _conditions(job, chunk),
        shape=job.shape,
        seed=request.seed,
        start=job.start,
    )
    path = request.place.folder / f"{request.place.name}.mp4"
    folder = request.place.folder / f"{request.place.name}latents" if request.keep_latents else None
    decode = StreamDecoder(request.vae)
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


def _prompt(job: _Job, chunk: Chunk) -> str:
    return prompt_for_chunk(job.request.prompts.cues, chunk, job.fps)


def _conditions(job: _Job, chunk: Chunk) -> ChunkPrompts:
    stop_if_interrupted()
    request = job.request
    anchors = request.anchors.anchors
    positive = with_anchors(request.prompts.conditioning[_prompt(job, chunk)], anchors)
    if request.audio is not None:
        positive = with_audio(positive, request.audio.features, chunk.latents.start)
    negative = None if request.negative is None else with_anchors(request.negative, anchors)
    return ChunkPrompts(positive, negative)


def _prepared(request: VideoRequest) -> _Job:
    """Fill in and check a request; raises GloriaError where it cannot be met."""
    config = model_config(request.patcher)
    if config.has_image_channels:
        raise ConfigError(
            f"The model {config.name!r} takes its prefix through image channels, which the Chunked Long Sampler "
            "cannot do "
            "yet: use weights that hold their prefix (gloria-nano does), or single clips with the KSampler."
        )
    fps = request.fps or config.fps
    if request.audio is not None and abs(request.audio.features.fps - fps) > 1e-3:
        raise AudioError(
            f"The sound was encoded for {request.audio.features.fps:g} frames a second, but the video is made at "
            f"{fps:g}: "
            "set 'fps' to the same number in the Audio Encoder and in the Chunked Long Sampler."
        )
    needs_negative = Branch.NEGATIVE in request.guidance.weights(has_audio=request.audio is not None)
    if needs_negative and request.negative is None:
        raise ConfigError(
            f"The text guidance is {request.guidance.text_scale:g}, which needs a negative prompt: connect one to "
            "'negative' "
            "(its text may be empty), or set text guidance to 1."
        )
    chunks = plan(
        num_frames_for(request.seconds, fps),
        request.chunk_latents or config.chunk_latents,
        request.prefix_latents,
        anchor_spacing=config.anchors.smallest_spacing,
    )
    stride = int(request.vae.spacial_compression_encode())
    width, height = _size(request, stride)
    start = None
    if request.start_image is not None:
        start = encode_picture(request.vae, _start_image(request.start_image, (width, height)))
    return _Job(
        request=request,
        fps=fps,
        size=(width, height),
        shape=(1, config.out_channels, height // stride, width // stride),
        chunks=chunks,
        layout=layout_named(request.layout, (width, height), labelled(request.anchors), request.smallest_side),
        start=start,
    )


def _size(request: VideoRequest, stride: int) -> tuple[int, int]:
    main = request.anchors.anchors.get(AnchorRole.GLOBAL)
    if main is None and not (request.width and request.height):
        raise PlanError("The anchors have no global picture to take the size from; set width and height.")
    rows, columns = (main.latent.shape[-2], main.latent.shape[-1]) if main is not None else (0, 0)
    width, height = request.width or columns * stride, request.height or rows * stride
    grid = grid_px(request.vae)
    for name, side in (("width", width), ("height", height)):
        if side % grid or side < grid:
            below, above = max(grid, side // grid * grid), (side // grid + 1) * grid
            raise PlanError(f"The {name} is {side}; it must be a multiple of {grid}: use {below} or {above}.")
    return width, height


def _start_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    width, height = size
    if image.ndim != 4 or image.shape[-1] < 3 or tuple(image.shape[1:3]) != (height, width):
        shape = f"{image.shape[2]} x {image.shape[1]}" if image.ndim == 4 else str(tuple(image.shape))
        raise MediaError(
            f"The start image is {shape}; the video is {width} x {height}: scale or crop the picture to that size "
            "first."
        )
    return image[:1]


def labelled(anchors: EncodedAnchors) -> Sequence[LabelledPicture]:
    """Return the anchors' pictures as bytes, for a strip."""
    return [LabelledPicture(p.role, p.slot, _bytes_of(p.image)) for p in anchors.pictures]


def _bytes_of(image: Tensor) -> NDArray[np.uint8]:
    return to_bytes(image)[0]


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


def _out_of_memory(job: _Job, written: int) -> GloriaError:
    comfy.model_management.soft_empty_cache()
    width, height = job.size
    return GloriaError(
        f"Chunk {written + 1} of {len(job.chunks)} ({job.chunks[0].num_latents} latent frames of {width} x "
        f"{height}) did not "
        "fit into the graphics card's memory. Lower 'chunk_latents' or the picture's size, or use fewer anchors."
    )
