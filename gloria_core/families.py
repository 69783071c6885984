"""Every kind of model that loads, as data. Source: wan.md sections 1 and 6.

A weights file does not say what it is called; ``checkpoint`` finds the family whose architecture its header shows.
"""

from dataclasses import replace
from types import MappingProxyType

from .config import AudioConfig, ModelConfig

_SMALL = ModelConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, fps=16.0, chunk_latents=21)
_LARGE = ModelConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40, fps=16.0, chunk_latents=21, shift=5.0)


def _with_image(base: ModelConfig) -> ModelConfig:
    """Return Wan 2.1's image-to-video of a size: a mask, an image latent, and CLIP vision tokens."""
    return replace(base, in_channels=36, clip_dim=1280, prefix="given", shift=5.0)


_FIVE = ModelConfig(
    dim=3072, ffn_dim=14336, num_heads=24, num_layers=30, in_channels=48, out_channels=48, codec="wan2.2",
    spatial_stride=16, fps=24.0, chunk_latents=31, shift=5.0,
)  # fmt: skip
_GLORIA_DEFAULTS = ModelConfig(audio=AudioConfig())


def _gloria(base: ModelConfig) -> ModelConfig:
    """Return Gloria on top of a Wan model: its rates, its audio branch, and prefixes held clean. Paper: 4; spec.md."""
    ours = _GLORIA_DEFAULTS
    return replace(base, audio=ours.audio, fps=ours.fps, chunk_latents=ours.chunk_latents, prefix="held")


_PRESETS = {
    "Wan2.1 T2V 1.3B": _SMALL,
    "Wan2.1 T2V 14B": _LARGE,
    "Wan2.1 I2V 14B 480P": replace(_with_image(_LARGE), shift=3.0),
    "Wan2.1 I2V 14B 720P": _with_image(_LARGE),
    "Wan2.1 FLF2V 14B": replace(_with_image(_LARGE), clip_positions=514, shift=16.0),
    "Wan2.1 Fun-InP 1.3B": _with_image(_SMALL),
    "Wan2.1 Fun-InP 14B": _with_image(_LARGE),
    "Wan2.2 T2V A14B": replace(_LARGE, shift=12.0, boundary=0.875),
    "Wan2.2 I2V A14B": replace(_LARGE, in_channels=36, prefix="given", boundary=0.900),
    "Wan2.2 TI2V 5B": _FIVE,
    "Gloria 14B": _gloria(_with_image(_LARGE)),
    "Gloria 5B": _gloria(_FIVE),
}

FAMILIES = MappingProxyType({name: replace(config, name=name, family=name) for name, config in _PRESETS.items()})
"""Every family by its name, with the real model's sizes and its usual settings.

Files that share all shapes are told apart by their name alone, and differ in nothing but settings that the user may
change: 480P and 720P; Fun-InP 14B and I2V 14B; T2V 14B and T2V A14B, whose two experts are of one family."""
