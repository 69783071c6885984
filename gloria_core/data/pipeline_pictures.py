"""What models with image channels are shown, through a Wan pipeline in Diffusers' layout."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import read_header, read_tensors
from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError
from ..render import packages
from ..render.wan_vae import WanVae
from ..runs.digest import digest_of, digest_of_weights
from ..sampling.known import known_video
from .openings import wrong_clip

FOLDER = "image_encoder"
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and spread of a picture's channels, 0..1. Source: CLIP's own preprocessing."""
_USED = -2
"""The hidden state that Wan is shown: before the last layer, without a norm. Source: wan.md section 3."""


class PipelinePictures:
    """Encodes known pictures with a pipeline's VAE and CLIP vision, see `data.encoders.PictureEncoder`.

    Args:
        folder: of the pipeline; CLIP vision lies in ``image_encoder``.
        vae: the pipeline's own.
        config: of the model that will be trained.
        device: where CLIP runs.

    Raises:
        CheckpointError: the model needs CLIP vision, and the folder is missing or not whole.
        ConfigError: it is of another width than the model's.
    """

    def __init__(self, folder: Path, vae: WanVae, config: ModelConfig, device: torch.device) -> None:
        self._vae, self._device = vae, device
        self._clip = _clip_vision(folder / FOLDER, config, device) if config.clip_dim else None
        self.clip_id = digest_of("transformers", weights_id(folder / FOLDER)) if config.clip_dim else ""

    def encode_known(self, frames: NDArray[np.uint8], num_latents: int) -> Tensor:
        """Encode the pictures (F, H, W, 3) that a clip begins with, with mid grey behind them."""
        return self._vae.encode(known_video(num_latents, torch.from_numpy(frames).float() / 255.0))

    @torch.inference_mode()
    def encode_seen(self, picture: NDArray[np.uint8]) -> Tensor:
        """Return what CLIP vision sees in a picture (H, W, 3): its tokens (n, D) before the last layer."""
        assert self._clip is not None  # nobody asks where clip_id is empty
        pixels = squeezed(picture, self._clip.config.image_size).to(self._device)
        states = self._clip(pixel_values=pixels, output_hidden_states=True).hidden_states
        tokens: Tensor = states[_USED][0].float().cpu().clone()
        return tokens


def squeezed(picture: NDArray[np.uint8], side: int) -> Tensor:
    """Return a picture (H, W, 3) as CLIP takes it (1, 3, side, side): squeezed to its square, in 256 steps, normed.

    The host's CLIP Vision Encode does the same with ``crop: none``.
    """
    pixels = torch.from_numpy(picture).float().div(255.0).movedim(-1, 0)[None]
    if pixels.shape[-2:] != (side, side):
        pixels = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)
    pixels = (pixels * 255.0).clamp(0, 255).round() / 255.0
    return (pixels - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_STD).view(3, 1, 1)


def _clip_vision(folder: Path, config: ModelConfig, device: torch.device) -> Any:  # noqa: ANN401 - of transformers
    if not folder.is_dir():
        raise CheckpointError(
            f"The model {config.name!r} looks at the first picture through CLIP too, and the pipeline has no folder "
            f"{folder.name}: download it from Wan's image-to-video pipeline and put it into {folder.parent}."
        )
    transformers = packages.transformers("CLIP vision")
    try:
        clip, told = transformers.CLIPVisionModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"CLIP vision in {folder} cannot be loaded ({str(error)[:300]}).") from error
    if told["missing_keys"]:
        lost = ", ".join(sorted(told["missing_keys"])[:10])
        raise CheckpointError(f"CLIP vision in {folder} lacks weights: {lost}. Download it again.")
    if clip.config.hidden_size != config.clip_dim:
        raise ConfigError(wrong_clip(clip.config.hidden_size, config))
    return clip.to(device).eval()


def weights_id(folder: Path) -> str:
    """Return the digest of the weights in a folder."""
    header = read_header(folder)
    return digest_of_weights(read_tensors(header, tuple(header.tensors)))
