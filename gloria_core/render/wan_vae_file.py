"""A Wan VAE in one file, as ComfyUI's users have it: found out from its header, and made with diffusers' names."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import read_header, read_tensors
from ..checkpoint.files import misfits, some
from ..checkpoint.header import Header
from ..errors import CheckpointError
from . import packages

_NUM_PLACES = 4
"""Layers of a step of Wan 2.1's decoder: three blocks, and what enlarges."""


def _enlarging(found: re.Match[str]) -> str:
    step, place = divmod(int(found[1]), _NUM_PLACES)
    return f".up_blocks.{step}." + ("upsamplers.0." if place == _NUM_PLACES - 1 else f"resnets.{place}.")


_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.(down|up)samples\.(\d+)\.\1samples\.\d+\.(resample|time_conv)\.", r".\1_blocks.\2.\1sampler.\3."),
    (r"\.(down|up)samples\.(\d+)\.\1samples\.(\d+)\.", r".\1_blocks.\2.resnets.\3."),
    (r"\.downsamples\.(\d+)\.", r".down_blocks.\1."),
    (r"\.upsamples\.(\d+)\.", _enlarging),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)
"""Wan's own names to diffusers'; a name of diffusers stays as it is. Source: wan.md, VAE 2.1 and 2.2."""

_PACKED: Mapping[str, Any] = {
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
}
"""What VAE 2.2 is beside its sizes."""

_FORM_22: Mapping[str, Any] = {
    "latents_mean": [
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    "latents_std": [
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
        0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
        0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
}  # fmt: skip
"""Mean and standard deviation of VAE 2.2's latents; those of 2.1 are diffusers' own defaults. Source: wan.md, VAE."""

_STATISTICS: Mapping[int, Mapping[str, Any]] = {16: {}, 48: _FORM_22}


@dataclass(frozen=True, slots=True, eq=False)
class VaeFile:
    """A single-file VAE whose header was read and checked."""

    header: Header
    names: Mapping[str, str]
    """Diffusers' name -> name in the file."""
    config: Mapping[str, Any]
    """Of ``diffusers.AutoencoderKLWan``."""

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return int(self.config["z_dim"])


def read_vae_file(path: Path) -> VaeFile:
    """Look at a file without reading its weights.

    Args:
        path: of weights under Wan's own names (as ComfyUI has them) or under diffusers'.

    Raises:
        CheckpointError: it is missing or cut, no Wan VAE, or not a whole one.
        ConfigError: diffusers is missing.
    """
    header = read_header(path)
    names = {diffusers_name(name): name for name in header.tensors}
    file = VaeFile(header, names, _config(path, {name: header.tensors[own].shape for name, own in names.items()}))
    wanted = {name: tuple(tensor.shape) for name, tensor in _without_numbers(file).state_dict().items()}
    wrong = misfits(wanted, {name: header.tensors[own].shape for name, own in names.items()}, whose="of a Wan VAE")
    if wrong:
        raise CheckpointError(f"{path.name} is no whole Wan VAE: {wrong}. Download it again.")
    return file


def open_vae_file(path: Path) -> Any:  # noqa: ANN401 - of diffusers
    """Return a file's VAE as diffusers', in float32; raises as `read_vae_file`."""
    file = read_vae_file(path)
    vae, own = _without_numbers(file), {own: name for name, own in file.names.items()}
    tensors = {own[name]: tensor.float() for name, tensor in read_tensors(file.header, tuple(own))}
    vae.load_state_dict(tensors, assign=True)
    return vae


def diffusers_name(name: str) -> str:
    """Return what diffusers calls a weight of Wan's VAEs."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _config(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    telling = ("encoder.conv_in.weight", "decoder.norm_out.gamma", "post_quant_conv.weight")
    lacking = [name for name in telling if not shapes.get(name)]
    if lacking:
        raise CheckpointError(
            f"{path.name} is no VAE of Wan: it lacks {some(lacking)}. Use wan_2.1_vae.safetensors, or with the 5B "
            "model wan2.2_vae.safetensors."
        )
    first, last, middle = (shapes[name] for name in telling)
    channels = middle[0]
    if channels not in _STATISTICS:
        raise CheckpointError(
            f"{path.name} has latents of {channels} channels; Wan's VAEs have 16 (2.1) or 48 (2.2): use one of these."
        )
    packed = _PACKED if first[1:2] == (_PACKED["in_channels"],) else {}
    sizes = {"z_dim": channels, "base_dim": first[0], "decoder_base_dim": last[0]}
    return {**sizes, **packed, **_STATISTICS[channels]}


def _without_numbers(file: VaeFile) -> Any:  # noqa: ANN401 - of diffusers
    with torch.device("meta"):
        return packages.diffusers().AutoencoderKLWan(**file.config)
