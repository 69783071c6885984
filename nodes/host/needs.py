"""What a long video takes of the graphics card's and the main memory, as the host reckons it before it loads models."""

from collections.abc import Iterable

import comfy.model_management
import comfy.model_patcher
import torch

from ...gloria_core.runs.forecast import (
    CACHE,
    DECODING,
    IMAGES,
    LATENTS,
    PASS,
    PICTURES,
    STATE,
    WAITING,
    WEIGHTS,
    Memory,
    latent_bytes,
)
from ...gloria_core.sampling.chunks import STRIDE
from ...gloria_core.sampling.long_video import PrefixMode
from .support import GloriaModel
from .vae_stream import stream_state_bytes
from .video_job import VideoJob

CARD, MAIN = "graphics card", "main memory"
_CPU = torch.device("cpu")
_BATCHED = 1.5
"""The host puts branches of guidance into one pass where that takes less than the free memory by this factor."""
_QUEUED, _MEASURED = 72, 32
"""Frames that lie about at most while a chunk is decoded: between decoder and encoder, and for the drift meter."""
_COPIES_OF_LATENTS = 8
"""Noise, prefix, guesses and what a solver keeps."""
_OF_AN_IMAGE = 30
"""Bytes of a pixel for 'images': as bytes, joined, as floats and divided."""


def memory_needs(job: VideoJob) -> tuple[Memory, ...]:
    """Return what a video takes of the graphics card, where there is one, and of the main memory."""
    on_card, vae_on_card = (not _is_cpu(device) for device in (job.request.patcher.load_device, job.request.vae.device))
    network, decoder = _network(job), _decoder(job)
    card = Memory(
        place=CARD,
        sampling=network if on_card else {},
        decoding=decoder if vae_on_card else {},
        free=_free(job.request.patcher.load_device if on_card else job.request.vae.device),
    )
    main = Memory(
        place=MAIN,
        sampling={**_held(job), **({} if on_card else network), WEIGHTS: _mapped(job)},
        decoding={**_held(job), **_pictures(job), DECODING: _new_state(job) if vae_on_card else decoder[DECODING]},
        free=_free(_CPU),
    )
    return (card, main) if on_card or vae_on_card else (main,)


def _network(job: VideoJob) -> dict[str, int]:
    """Return what the experts take; one after the other has its weights on the device, and each keeps its cache."""
    request, experts = job.request, _experts(job)
    anchors = sum(a.latent.shape[-2] * a.latent.shape[-1] for a in request.anchors.anchors)
    longest = max(chunk.num_latents for chunk in job.chunks)
    cache = max(_cached(expert.model, job, anchors // 4) for expert in experts)
    one = max(
        expert.model.memory_required([1, *job.shape[1:2], longest, *job.shape[2:]], _sizes(anchors))
        for expert in experts
    )
    one = max(0.0, one - cache)  # the host's estimate counts what is kept of the anchors
    rows = _branches(job)
    batched = one * rows * _BATCHED < _free(request.patcher.load_device)
    found = {WEIGHTS: max(expert.model_size() for expert in experts), PASS: round(one * (rows if batched else 1))}
    return {**found, CACHE: cache * len(experts)} if cache else found


def _decoder(job: VideoJob) -> dict[str, int]:
    vae, latent = job.request.vae, (1, job.shape[1], 1, *job.shape[2:])
    return {WEIGHTS: vae.patcher.model_size(), DECODING: round(vae.memory_used_decode(latent, vae.vae_dtype))}


def _held(job: VideoJob) -> dict[str, int]:
    """Return what stays in main memory, whatever is being done."""
    width, height = job.size
    longest = max(chunk.num_latents for chunk in job.chunks)
    state = stream_state_bytes(job.request.vae, height, width) * (3 if job.request.drift_threshold else 1)
    held = {LATENTS: _COPIES_OF_LATENTS * latent_bytes(longest, job.shape), STATE: state}
    if job.request.wants_images:
        held[IMAGES] = _OF_AN_IMAGE * width * height * job.chunks[-1].frames.stop
    return held


def _pictures(job: VideoJob) -> dict[str, int]:
    """Return what frames take on their way from the decoder to the encoder."""
    (width, height), (film_width, film_height) = job.size, job.layout.size
    made, shown = 3 * width * height, 3 * film_width * film_height
    found = {PICTURES: _QUEUED * shown + (_MEASURED + 3 * 4 * STRIDE) * made}
    if job.request.drift_threshold:
        found[WAITING] = 2 * max(len(chunk.frames) for chunk in job.chunks) * shown
    return found


def _new_state(job: VideoJob) -> int:
    """Return what a chunk's decoding on the card ends with: the decoder's state, before the last one goes."""
    return stream_state_bytes(job.request.vae, job.size[1], job.size[0])


def _cached(model: GloriaModel, job: VideoJob, anchor_tokens: int) -> int:
    """Return what is kept of anchors and prefixes from step to step: each block's keys and values; 0 in joint mode."""
    config = model.gloria
    if config.anchors.mode != "cached":
        return 0
    held = job.longest_prefix if job.prefix_mode == PrefixMode.HELD else 0
    prefix = held * (job.shape[2] // 2) * (job.shape[3] // 2) * _branches(job)
    kept = model.manual_cast_dtype or model.get_dtype()
    return (anchor_tokens + prefix) * config.num_layers * 2 * config.dim * comfy.model_management.dtype_size(kept)


def _branches(job: VideoJob) -> int:
    """Return how many passes of the network a step takes at most."""
    scales = [job.request.guidance, *(cue.guidance(job.request.guidance) for cue in job.prompts)]
    return max(len(scale.weights(has_audio=job.request.audio is not None)) for scale in scales)


def _experts(job: VideoJob) -> list[comfy.model_patcher.ModelPatcher]:
    return [job.request.patcher, *([job.low_noise.patcher] if job.low_noise is not None else [])]


def _sizes(latent_pixels: int) -> dict[str, list[list[int]]]:
    return {"gloria_anchors": [[1, 1, latent_pixels]]} if latent_pixels else {}


def _mapped(job: VideoJob) -> int:
    """Return the bytes of weights that are pages of a file, which take memory once they are read."""
    return sum(_bytes_of(expert.model.diffusion_model.parameters(), expert.model.mapped) for expert in _experts(job))


def _bytes_of(weights: Iterable[torch.Tensor], addresses: frozenset[int]) -> int:
    return sum(weight.nbytes for weight in weights if weight.data_ptr() in addresses)


def _free(device: torch.device) -> int:
    """Return what can be had of a device's memory, what the host may unload for it among it."""
    free = comfy.model_management.get_free_memory(device)
    if _is_cpu(device):
        return int(free)
    loaded = [one for one in comfy.model_management.current_loaded_models if one.model is not None]
    unloaded = sum(one.model_loaded_memory() for one in loaded if one.device == device)
    return int(free + unloaded - comfy.model_management.extra_reserved_memory())


def _is_cpu(device: torch.device) -> bool:
    return bool(comfy.model_management.is_device_cpu(device))
