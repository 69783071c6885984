"""Footage for a training through the host's encoders: VAE, CLIP and audio encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sd
import comfy.utils
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from server import PromptServer
from torch import Tensor, nn

from ...gloria_core.audio.encoders import WhisperStates
from ...gloria_core.config import AudioConfig
from ...gloria_core.data.buckets import Sizes, areas_of
from ...gloria_core.data.cache import Cache
from ...gloria_core.data.check import Grid, Report, check
from ...gloria_core.data.contact import contact_sheet
from ...gloria_core.data.folder import read_dataset
from ...gloria_core.data.prepare import PreparedDataset, prepare
from ...gloria_core.data.problems import told
from ...gloria_core.runs.digest import digest_of, digest_of_weights
from ...gloria_core.runs.ingredients import plain
from ...gloria_core.types import AudioFeatures
from ..sockets import Dataset
from .encoders import FileEncoder
from .model import model_config
from .paths import dataset_path, training_folder
from .progress import stop_if_interrupted
from .sound import features_of
from .text import encode_texts
from .training_pictures import HostPictures
from .vae import grid_px

_CHECK_FPS = 16.0
"""Frames a second where no model tells: Wan 2.1's."""


class HostEncoder:
    """Encodes footage with what is connected, see `data.encoders.Encoder`.

    Args:
        patcher: the model that will be trained: its latent space, and what its ears are.
        vae: the VAE that belongs to it.
        clip: its text encoder.
        audio_encoder: the AUDIO_ENCODER or FileEncoder that its ears need; None where they need none. With a deaf model
            the sound is encoded for ears that are still to be made (stage I).
        clip_vision: the CLIP_VISION that a model with an image branch needs; None for every other.

    Raises:
        ConfigError: the model needs CLIP vision, and there is none, or one of another width.
    """

    def __init__(
        self,
        patcher: comfy.model_patcher.ModelPatcher,
        vae: comfy.sd.VAE,
        clip: comfy.sd.CLIP,
        audio_encoder: Any = None,  # noqa: ANN401 - AUDIO_ENCODER or FileEncoder
        clip_vision: Any = None,  # noqa: ANN401 - CLIP_VISION
    ) -> None:
        self._model, self._vae, self._clip, self._listener = patcher.model, vae, clip, audio_encoder
        config = model_config(patcher)
        self._audio = config.audio or (AudioConfig() if audio_encoder is not None else None)
        self.pictures = HostPictures(patcher.model, vae, clip_vision) if config.has_image_channels else None
        self.codec = config.codec
        self.grid_px = grid_px(vae)
        self.stride_px = self.grid_px // 2
        self.audio_kind = self._audio.kind if self._audio else ""
        self.video_id = digest_of(self.codec, digest_of_weights(vae.first_stage_model.state_dict().items()))
        self.text_id = digest_of(digest_of_weights(clip.cond_stage_model.named_parameters()), _patches(clip))
        self.audio_id = digest_of(self.audio_kind, _listener_id(audio_encoder)) if self._audio else ""

    def encode_video(self, frames: NDArray[np.uint8]) -> Tensor:
        """Encode 4k + 1 frames (F, H, W, 3) to normalised latents (1, C, T, h, w)."""
        latents = self._vae.encode(torch.from_numpy(frames).float() / 255.0)
        if latents.ndim == 4:
            latents = latents.unsqueeze(2)
        return self._model.process_latent_in(latents.float()).cpu()

    def encode_text(self, texts: list[str]) -> list[Tensor]:
        """Encode texts to rows (L, D) each."""
        encoded = encode_texts(self._clip, texts)
        return [encoded[text][0][0][0].float().cpu() for text in texts]

    def encode_audio(self, waveform: Tensor, sample_rate: int, fps: float) -> AudioFeatures:
        """Encode a whole sound (channels, samples)."""
        assert self._audio is not None  # nobody asks a deaf encoder: its audio_id is empty
        return features_of(self._audio, self._listener, waveform.float(), sample_rate, fps)


def check_dataset(
    name: str,
    patcher: comfy.model_patcher.ModelPatcher | None,
    resolution: str,
    fps: float,
    *,
    needs_audio: bool,
    decode: bool,
    node_id: str,
) -> tuple[Report, Tensor]:
    """Look at footage of the input folder.

    Args:
        name: a folder or a manifest of the input folder.
        patcher: the model that will be trained; None for Wan 2.1's sizes.
        resolution: sizes as people write them; empty for the model's own.
        fps: frames a second; 0 for the model's own.
        needs_audio: whether clips without sound are a problem.
        decode: whether videos are decoded to their end.
        node_id: the node that works.

    Returns:
        What was found, and a contact sheet (1, H, W, 3), 0..1.

    Raises:
        GloriaError: there is no such footage, or nothing in it can be read.
    """
    config = model_config(patcher) if patcher is not None else None
    codec = config.codec if config else "wan2.1"
    rate = fps or (config.fps if config else _CHECK_FPS)
    stride = config.spatial_stride if config else 8
    grid = Grid(grid_px=stride * (config.patch_size[1] if config else 2), stride_px=stride, codec=codec)
    sizes = Sizes(fps=rate, areas=areas_of(resolution, codec))
    manifest, found = read_dataset(dataset_path(name))
    report = check(
        manifest, found, _cache(), sizes, grid, needs_audio=needs_audio, decode=decode, look=_teller(node_id)
    )
    return report, _as_image(contact_sheet(manifest, report.plan))


def prepare_dataset(
    name: str, encoder: HostEncoder, sizes: Sizes, node_id: str, sample_prompts: str = ""
) -> tuple[Dataset, str]:
    """Encode footage of the input folder; what an interruption finished is kept.

    Args:
        name: a folder or a manifest of the input folder.
        encoder: of the model that will be trained.
        sizes: what the footage is brought to.
        node_id: the node that works; its bar and its text tell how far it is.
        sample_prompts: texts that the training makes samples of, a line each.

    Returns:
        What a training needs, and a report in words.

    Raises:
        GloriaError: there is no such footage, nothing in it can be used, or the disk is full.
    """
    path = dataset_path(name)
    manifest, found = read_dataset(path)
    cache = _cache()
    bar, tell = comfy.utils.ProgressBar(1, node_id=node_id), _teller(node_id)

    def progress(done: int, total: int, what: str) -> None:
        tell(f"{done} of {total}: {what}" if total else what)
        if total:
            bar.update_absolute(done, total)

    prompts = [line.strip() for line in sample_prompts.splitlines() if line.strip()]
    made = prepare(manifest, encoder, cache, sizes, progress, sample_prompts=prompts)
    return Dataset(path, cache.folder, encoder.codec), _summary(made, [str(problem) for problem in found])


def sizes_for(
    patcher: comfy.model_patcher.ModelPatcher, resolution: str, fps: float, longest: int, shortest: int
) -> Sizes:
    """Return what footage is brought to for a model; ConfigError where a number cannot be."""
    config = model_config(patcher)
    return Sizes(fps=fps or config.fps, areas=areas_of(resolution, config.codec), longest=longest, shortest=shortest)


def fingerprint(name: str) -> str:
    """Return a text that changes when a file of some footage does."""
    path = dataset_path(name)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return digest_of([[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def _summary(made: PreparedDataset, found: list[str]) -> str:
    clips = made.prepared.clips
    pieces = sum(len(clip.pieces) for clip in clips)
    lines = [
        f"{len(clips)} clips in {pieces} pieces are ready: {made.num_encoded} things were encoded, {made.num_reused} "
        "were in the cache already.",
        *found,
    ]
    return "\n".join([*lines, told(made.problems)] if made.problems else lines)


def _teller(node_id: str) -> Callable[[str], None]:
    """Return what shows a line of text on the node, and ends the work where the user has asked for it."""
    server = PromptServer.instance

    def tell(what: str) -> None:
        stop_if_interrupted()
        server.send_progress_text(what, node_id, server.client_id)

    return tell


def _cache() -> Cache:
    folder: Path = training_folder() / "cache"
    return Cache(folder)


def _as_image(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).float().div(255.0).unsqueeze(0)


def _patches(clip: comfy.sd.CLIP) -> object:
    return plain([clip.patcher.patches]) if clip.patcher.patches else ""


def _listener_id(encoder: Any) -> str:  # noqa: ANN401 - AUDIO_ENCODER or FileEncoder
    if encoder is None:
        return ""
    opened = encoder.opened if isinstance(encoder, FileEncoder) else encoder.model
    network: nn.Module = opened.encoder if isinstance(opened, WhisperStates) else opened
    return digest_of_weights(network.state_dict().items())
