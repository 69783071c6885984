"""The transformer that a training on footage starts from."""

from dataclasses import replace
from pathlib import Path

import torch

from ..checkpoint import load_dit, model_shapes, read_checkpoint
from ..config import AudioConfig, ModelConfig
from ..errors import ConfigError
from ..model import GloriaDiT
from ..model.init import new_audio_branch, silence
from ..sampling.known import MASKS

NEW_AUDIO = ("dit.audio_embedding.*", "dit.blocks.*.audio_attn.*")
"""Names of the parameters of a fresh audio branch."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_network(weights: Path, *, attention: str, new_audio: AudioConfig | None, dtype: str, seed: int) -> GloriaDiT:
    """Load the network that is trained.

    Args:
        weights: a checkpoint of any kind that the pack reads.
        attention: ``joint``, ``cached``, or empty for what the weights say.
        new_audio: the audio branch that is added; None adds none.
        dtype: ``fp32`` or ``bf16``.
        seed: of a new audio branch.

    Raises:
        CheckpointError: the file is no model.
        ConfigError: the model has ears already, or takes other image channels than a mask and an image latent.
    """
    tensors, config = read_checkpoint(weights)
    if config.has_image_channels and config.in_channels != 2 * config.out_channels + MASKS:
        raise ConfigError(
            f"{weights.name} takes {config.in_channels} input channels; training makes a latent of "
            f"{config.out_channels}, a mask of {MASKS} and an image latent of {config.out_channels}: train an I2V, "
            "FLF2V or Fun-InP model, or one without image channels."
        )
    if new_audio is not None:
        if config.audio is not None:
            raise ConfigError(f"{weights.name} has an audio branch already; leave 'audio' empty to train that one.")
        config = replace(config, audio=new_audio)
        generator = torch.Generator().manual_seed(seed)
        tensors = {**tensors, **new_audio_branch(model_shapes(config), config.dim, generator)}
    config = _in_mode(config, attention)
    dit = load_dit(tensors, config, dtype=_DTYPES[dtype])
    if new_audio is not None:
        silence(dit)
    return dit


def _in_mode(config: ModelConfig, attention: str) -> ModelConfig:
    match attention:
        case "joint":
            return config.with_mode("joint")
        case "cached":
            return replace(config, anchors=replace(config.anchors, mode="cached", timestep="zero"))
    return config
