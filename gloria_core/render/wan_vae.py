"""Wan's VAEs (2.1 and 2.2) from a Diffusers folder or a single file: encoding, and decoding as one exact stream."""

import functools
import json
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..checkpoint import read_header
from ..errors import CheckpointError, ConfigError
from . import packages
from .stream import Memory, StepDecoder
from .wan_vae_file import open_vae_file, read_vae_file


class WanVae:
    """A VAE in float32, with latents normalised as the network wants them.

    Args:
        path: a folder in Diffusers' layout, of a pipeline or of its ``vae``; or a single file, as ComfyUI has it.
        device: where it runs.

    Raises:
        CheckpointError: it is missing, or not whole.
        ConfigError: diffusers is missing, or decodes in another way than this version knows.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        diffusers = packages.diffusers()
        _check_steps(diffusers)
        self.device = device
        vae = _from_folder(diffusers, vae_folder(path)) if path.is_dir() else open_vae_file(path)
        self.vae = vae.to(device).eval()
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(vae.config.latents_mean, device=device).view(shape)
        self._std = torch.tensor(vae.config.latents_std, device=device).view(shape)

    @property
    def stride(self) -> int:
        """Pixels of a latent along a side."""
        return int(self.vae.config.scale_factor_spatial)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return int(self.vae.config.z_dim)

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames (F, H, W, 3), 0..1, to normalised latents (1, C, T, h, w) on the CPU."""
        pixels = (frames * 2.0 - 1.0).movedim(-1, 0).unsqueeze(0).to(self.device)
        latents = self.vae.encode(pixels).latent_dist.mode()
        return ((latents - self._mean) / self._std).cpu().clone()

    def decoder(self) -> StepDecoder:
        """Return a decoder of normalised latents."""

        def step(latent: Tensor, memory: Memory) -> Tensor:
            return decode_step(self.vae, latent.to(self.device) * self._std + self._mean, memory)

        form = "2.2" if self.vae.config.patch_size else "2.1"
        return StepDecoder(f"Wan {form} VAE of diffusers, float32, exact", step, lookback=None)


def check_vae(path: Path, channels: int) -> None:
    """Look whether a VAE is whole and belongs to a model, without reading its weights.

    Args:
        path: as for `WanVae`.
        channels: of the model's latents.

    Raises:
        CheckpointError: it is missing, not whole, or of another latent space.
        ConfigError: diffusers is missing.
    """
    file = vae_folder(path) if path.is_dir() else path
    found = _channels_told(file) if path.is_dir() else read_vae_file(file).channels
    if found != channels:
        raise CheckpointError(
            f"The VAE {path.name} has latents of {found} channels; the model works with {channels}: use "
            f"{_BELONGS.get(channels, 'the VAE of the model')}."
        )


_BELONGS = {16: "wan_2.1_vae.safetensors", 48: "wan2.2_vae.safetensors"}
"""Names of the VAEs' files in ComfyUI, by the channels of their latents."""


def vae_folder(path: Path) -> Path:
    """Return where the VAE of a folder in Diffusers' layout lies: in ``vae``, or it is that folder."""
    return path if (path / "config.json").is_file() else path / "vae"


def _channels_told(folder: Path) -> int:
    """Return the channels of a latent as a Diffusers folder tells them; CheckpointError where it is not whole."""
    packages.diffusers()
    read_header(folder)
    try:
        return int(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("z_dim", 16))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"The VAE in {folder} has no config.json that can be read ({error}).") from error


def _from_folder(diffusers: Any, folder: Path) -> Any:  # noqa: ANN401 - the package, and a model of it
    try:
        vae, told = diffusers.AutoencoderKLWan.from_pretrained(
            folder, torch_dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"The VAE in {folder} cannot be loaded ({str(error)[:300]}).") from error
    if told["missing_keys"] or told["unexpected_keys"]:
        lost = ", ".join([*told["missing_keys"], *told["unexpected_keys"]][:10])
        raise CheckpointError(f"The VAE in {folder} lacks weights, or has others: {lost}. Download it again.")
    return vae


def decode_step(vae: Any, latent: Tensor, memory: Memory) -> Tensor:  # noqa: ANN401 - of diffusers
    """Decode the next latent (1, C, 1, h, w) of a video as ``vae.decode`` would within the whole."""
    is_first = not memory
    if is_first:
        memory.extend([None] * _num_places(vae.decoder))
    pixels = vae.decoder(vae.post_quant_conv(latent), feat_cache=memory, feat_idx=[0], first_chunk=is_first)
    if vae.config.patch_size is not None:
        pixels = pixel_shuffled(pixels, vae.config.patch_size)
    return pixels.clamp(-1.0, 1.0)


def pixel_shuffled(packed: Tensor, side: int) -> Tensor:
    """Return pixels (1, 3, F, H, W) from channels that hold squares of them, columns first. Source: wan.md, VAE 2.2."""
    return rearrange(packed, "b (c x y) f h w -> b c f (h y) (w x)", x=side, y=side)


def _num_places(decoder: torch.nn.Module) -> int:
    """Return how many of a decoder's layers look back."""
    return sum(type(module).__name__ == "WanCausalConv3d" for module in decoder.modules())


@functools.cache
def _check_steps(diffusers: Any) -> None:  # noqa: ANN401 - the package
    """Try a step on a tiny VAE: a later version of diffusers may keep its features in another way; ConfigError."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        memory: Memory = []
        try:
            vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4).eval()
            latents = torch.randn(1, 4, 3, 2, 2)
            steps = torch.cat([decode_step(vae, latents[:, :, i : i + 1], memory) for i in range(3)], dim=2)
            same = torch.allclose(steps, vae.decode(latents).sample, atol=1e-5)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # all that changed code may raise
            same = False
    if not same:
        raise ConfigError(
            f"diffusers {diffusers.__version__} decodes Wan's VAE in another way than this version of Gloria knows: "
            "install diffusers 0.35 to 0.42."
        )
