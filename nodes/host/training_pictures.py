"""What models with image channels are shown while they are trained, through the host's VAE and CLIP vision."""

from typing import Any

import comfy.clip_vision
import comfy.sd
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...gloria_core.config import ModelConfig
from ...gloria_core.data.openings import wrong_clip
from ...gloria_core.errors import ConfigError
from ...gloria_core.runs.digest import digest_of, digest_of_weights
from ...gloria_core.sampling.known import known_video
from .support import GloriaModel
from .vae_stream import from_bytes

_PLACES = "vision_model.embeddings.position_embedding.weight"
"""The table (n, D) by which CLIP's encoders show how many tokens they make, and how wide."""


class HostPictures:
    """Encodes known pictures with what is connected, see `data.encoders.PictureEncoder`.

    Args:
        model: the model that will be trained.
        vae: the VAE that belongs to it.
        clip_vision: from the stock Load CLIP Vision; None where the model has no image branch.

    Raises:
        ConfigError: the model needs CLIP vision, and there is none, or one of another width.
    """

    def __init__(
        self, model: GloriaModel, vae: comfy.sd.VAE, clip_vision: comfy.clip_vision.ClipVisionModel | None
    ) -> None:
        self._model, self._vae = model, vae
        self._clip_vision = _checked(clip_vision, model.gloria) if model.gloria.clip_dim else None
        self.clip_id = _clip_id(self._clip_vision)

    def encode_known(self, frames: NDArray[np.uint8], num_latents: int) -> Tensor:
        """Encode the pictures (F, H, W, 3) that a clip begins with, with mid grey behind them."""
        latents = self._vae.encode(known_video(num_latents, from_bytes(frames)))
        return self._model.process_latent_in(latents.float()).cpu()

    def encode_seen(self, picture: NDArray[np.uint8]) -> Tensor:
        """Return what CLIP vision sees in a picture (H, W, 3), squeezed to its square: tokens before the last layer."""
        assert self._clip_vision is not None  # nobody asks where clip_id is empty
        seen = self._clip_vision.encode_image(from_bytes(picture[None]), crop=False)
        tokens: Tensor = seen["penultimate_hidden_states"][0].float().cpu()
        return tokens


def _clip_id(encoder: Any) -> str:  # noqa: ANN401 - the host's CLIP_VISION
    return "" if encoder is None else digest_of("host", digest_of_weights(encoder.model.state_dict().items()))


def _checked(encoder: Any, config: ModelConfig) -> Any:  # noqa: ANN401 - the host's CLIP_VISION
    if encoder is None:
        raise ConfigError(
            f"The model {config.name!r} looks at the first picture through CLIP too: connect Load CLIP Vision with "
            "clip_vision_h.safetensors to 'clip_vision'."
        )
    places = encoder.model.state_dict().get(_PLACES)
    if places is None:
        raise ConfigError(
            f"The encoder on 'clip_vision' is a {type(encoder.model).__name__}, not CLIP: load the CLIP vision that "
            f"the model {config.name!r} was trained with (clip_vision_h.safetensors)."
        )
    if places.shape[1] != config.clip_dim:
        raise ConfigError(wrong_clip(places.shape[1], config))
    return encoder
