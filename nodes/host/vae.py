"""The nano codec as the host's VAE, pictures through any VAE, and decoding of a video as a stream."""

import math
from collections.abc import Iterator

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...gloria_core.errors import AnchorError
from ...gloria_core.nano.codec import LinearCodec
from ...gloria_core.sampling.chunks import STRIDE
from ...gloria_core.types import Anchor, AnchorSet
from ..sockets import AnchorPicture

CONTEXT = 8
"""Latents that a stream of a convolutional VAE leans on; see ``StreamDecoder``."""

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


def encode_anchors(vae: comfy.sd.VAE, pictures: tuple[AnchorPicture, ...]) -> AnchorSet:
    """Encode pictures, each apart and at its own size, sides rounded to the patch grid.

    Raises:
        AnchorError: a picture is too small for one patch, or two are for one slot.
    """
    return AnchorSet(tuple(Anchor(p.role, p.slot, encode_picture(vae, on_grid(p, grid_px(vae)))) for p in pictures))


def grid_px(vae: comfy.sd.VAE) -> int:
    """Return the pixels of one patch of the transformer along a side: two latents."""
    return 2 * int(vae.spacial_compression_encode())


def on_grid(picture: AnchorPicture, grid: int) -> Tensor:
    """Return the picture (1, H, W, 3) with sides rounded to multiples of the grid: cut or scaled, never squeezed.

    A side is rounded to the nearest multiple. The picture is scaled by one factor until it covers the new size, and
    what hangs over is cut off evenly.
    """
    image = picture.image
    if image.ndim != 4 or image.shape[-1] < 3 or min(image.shape[1:3]) < grid // 2:
        anchor = Anchor(picture.role, picture.slot, image.new_zeros(1, 1, 1, 1, 1))
        raise AnchorError(
            f"The picture for the {anchor.name} anchor has the shape {tuple(image.shape)}; it must be a colour "
            "picture of at "
            f"least {grid // 2} x {grid // 2} pixels."
        )
    height, width = image.shape[1:3]
    new_height, new_width = (max(grid, (side + grid // 2) // grid * grid) for side in (height, width))
    if (new_height, new_width) == (height, width):
        return image
    scale = max(new_height / height, new_width / width)
    size = (max(new_height, round(height * scale)), max(new_width, round(width * scale)))
    pixels = image.movedim(-1, 1)
    if size != (height, width):
        pixels = nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
    top, left = (size[0] - new_height) // 2, (size[1] - new_width) // 2
    return pixels[:, :, top : top + new_height, left : left + new_width].movedim(1, -1)


class StreamDecoder:
    """Decodes the latents of one video piece by piece, keeping only the few latents that the next piece leans on.

    Every frame comes out once and in its place, whatever the pieces. The values are those of an unbroken decoding where
    ``context`` reaches back as far as the VAE looks. Wan's look back over some thirty latents, ever more faintly. With
    random weights, which carry more over than trained ones should, the frames behind a joint of Wan 2.1's differ from
    an unbroken decoding by this part of the pictures' spread (root mean square): 0.7 with a context of 4, 0.35 with 8,
    0.02 with 16, 1e-4 with 24; Wan 2.2's by somewhat less.

    Args:
        vae: a causal video VAE: its first latent decodes to one frame, every later one to four.
        context: latents decoded again before each piece and thrown away, which is what they cost. The nano codec needs
            one, because its latents are independent; any other VAE gets ``CONTEXT`` unless told otherwise.
    """

    def __init__(self, vae: comfy.sd.VAE, context: int | None = None) -> None:
        self.vae = vae
        self.context = context or (1 if isinstance(vae, NanoVAE) else CONTEXT)
        self._before: Tensor | None = None

    def __call__(self, latents: Tensor) -> NDArray[np.uint8]:
        """Decode the next latents (1, C, T, h, w) in the VAE's space to frames (F, H, W, 3)."""
        frames = self.ahead(latents)
        joined = latents if self._before is None else torch.cat([self._before, latents], dim=2)
        self._before = joined[:, :, -self.context :].clone()
        return to_bytes(frames)

    def ahead(self, latents: Tensor) -> Tensor:
        """Decode the latents that come next without taking them: they will come again, perhaps changed.

        Returns:
            Frames (F, H, W, 3), 0..1.
        """
        if self._before is None:
            return self.vae.decode(latents)[0]
        frames = self.vae.decode(torch.cat([self._before, latents], dim=2))[0]
        return frames[STRIDE * (self._before.shape[2] - 1) + 1 :]

    def latest(self, num_frames: int) -> Tensor:
        """Decode the last latents that were taken once more and return their last frames (F, H, W, 3), 0..1.

        Right only for fewer frames than ``context`` latents hold; the more so the fewer.
        """
        assert self._before is not None  # asked for after a piece
        return self.vae.decode(self._before)[0][-num_frames:]


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Turn the host's IMAGE (..., 3), 0..1, into bytes."""
    return (images[..., :3] * 255.0).round().clamp(0, 255).to("cpu", torch.uint8).numpy()


def single_pictures(images: Tensor) -> Iterator[Tensor]:
    """Yield the pictures (1, H, W, C) of the host's IMAGE batch."""
    for index in range(images.shape[0]):
        yield images[index : index + 1]
