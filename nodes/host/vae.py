"""The nano codec as the host's VAE, and pictures through any VAE. Decoding of long videos: `vae_stream`."""

import math
from collections.abc import Iterator

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...gloria_core.anchors.picture import AnchorPicture, on_grid
from ...gloria_core.nano.codec import LinearCodec
from ...gloria_core.runs.tail import TAIL_CONTEXT, tail_pictures
from ...gloria_core.sampling.chunks import STRIDE
from ...gloria_core.types import Anchor, AnchorSet

_SPATIAL = 8


class _CodecModule(nn.Module):
    """The codec with the two methods that the host calls; (B, 3, F, H, W) in [-1, 1] and (B, C, T, h, w)."""

    def __init__(self, codec: LinearCodec) -> None:
        super().__init__()
        self.codec = codec

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode frames; what does not fill a latent at the end is dropped, as every causal video VAE does."""
        whole = STRIDE * ((pixels.shape[2] - 1) // STRIDE) + 1
        return self.codec.encode(pixels[:, :, :whole])

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents."""
        return self.codec.decode(latents)


class NanoVAE(comfy.sd.VAE):
    """The nano codec for stock VAE Encode, VAE Decode and their tiled versions."""

    def __init__(self, codec: LinearCodec) -> None:
        # The host's own constructor detects an architecture from weights; ours is none that it knows.
        self.memory_used_encode = lambda shape, dtype: 16 * math.prod(shape)
        self.memory_used_decode = lambda shape, dtype: 16 * math.prod(shape) * 3 * STRIDE
        self.downscale_ratio = (lambda frames: max(0, (frames + STRIDE - 1) // STRIDE), _SPATIAL, _SPATIAL)
        self.upscale_ratio = (lambda latents: max(0, latents * STRIDE - (STRIDE - 1)), _SPATIAL, _SPATIAL)
        self.downscale_index_formula = (STRIDE, _SPATIAL, _SPATIAL)
        self.upscale_index_formula = (STRIDE, _SPATIAL, _SPATIAL)
        self.latent_channels, self.latent_dim, self.output_channels = codec.channels, 3, 3
        self.process_input = lambda image: image * 2.0 - 1.0
        self.process_output = lambda image: ((image + 1.0) / 2.0).clamp(0.0, 1.0)
        self.working_dtypes = [torch.float32]
        self.disable_offload, self.not_video, self.crop_input = False, False, True
        self.size: int | None = None
        self.extra_1d_channel = None
        self.first_stage_model = _CodecModule(codec).eval()
        self.device = comfy.model_management.vae_device()
        self.vae_dtype = torch.float32
        self.output_device = comfy.model_management.intermediate_device()
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=comfy.model_management.vae_offload_device()
        )
        self.model_size()


def encode_picture(vae: comfy.sd.VAE, image: Tensor) -> Tensor:
    """Encode one picture (1, H, W, 3), 0..1, to (1, C, 1, h, w) in the VAE's own space."""
    latent = vae.encode(image[:1, :, :, :3])
    return latent if latent.ndim == 5 else latent.unsqueeze(2)


def encode_tail(
    vae: comfy.sd.VAE, frames: Tensor | NDArray[np.uint8], num_latents: int, context: int = TAIL_CONTEXT
) -> Tensor:
    """Encode the last frames of a video as the first latents of its continuation; see `tail_pictures`.

    Args:
        vae: a causal video VAE.
        frames: (F, H, W, 3): bytes, or 0..1.
        num_latents: latents to return, at least 1.
        context: further latents that are encoded before these and thrown away.

    Returns:
        Latents (1, C, num_latents, h, w) in the VAE's own space. The last one ends with the video's last frame.

    Raises:
        MediaError: the video is too short.
    """
    return vae.encode(tail_pictures(frames, num_latents, context))[:, :, -num_latents:]


def encode_anchors(vae: comfy.sd.VAE, pictures: tuple[AnchorPicture, ...]) -> AnchorSet:
    """Encode pictures, each apart and at its own size, sides rounded to the patch grid.

    Raises:
        AnchorError: a picture is too small for one patch, or two are for one slot.
    """
    return AnchorSet(tuple(Anchor(p.role, p.slot, encode_picture(vae, on_grid(p, grid_px(vae)))) for p in pictures))


def grid_px(vae: comfy.sd.VAE) -> int:
    """Return the pixels of one patch of the transformer along a side: two latents."""
    return 2 * int(vae.spacial_compression_encode())


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Turn the host's IMAGE (..., 3), 0..1, into bytes."""
    return (images[..., :3] * 255.0).round().clamp(0, 255).to("cpu", torch.uint8).numpy()


def single_pictures(images: Tensor) -> Iterator[Tensor]:
    """Yield the pictures (1, H, W, C) of the host's IMAGE batch."""
    for index in range(images.shape[0]):
        yield images[index : index + 1]
