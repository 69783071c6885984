"""First weights of a model that is trained from nothing, and of a new audio branch. Paper: 4.4."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .audio import AudioAttention
from .dit import GloriaDiT


def initialise(model: GloriaDiT, generator: torch.Generator) -> None:
    """Fill every weight: Xavier for matrices, ones for norms, zero for biases, the head, and the audio values.

    Args:
        model: weights on a real device, of any content.
        generator: the only source of randomness; it must live on the weights' device.
    """
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            _fill(name, parameter, model.config.dim, generator)
        model.head.head.weight.zero_()
    silence(model)


def new_audio_branch(shapes: Mapping[str, Sequence[int]], dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return first weights for the audio branch of a model that was made without one; `silence` makes it mute.

    Args:
        shapes: of the whole model's weights, the branch's among them.
        dim: the model's width D.
        generator: the only source of randomness.
    """
    weights = {name: torch.empty(tuple(shape)) for name, shape in shapes.items() if is_audio(name)}
    for name, weight in weights.items():
        _fill(name, weight, dim, generator)
    return weights


def is_audio(name: str) -> bool:
    """Tell whether a weight belongs to the audio branch."""
    return name.startswith("audio_embedding.") or ".audio_attn." in name


def silence(model: GloriaDiT) -> None:
    """Make a fresh audio branch add nothing."""
    for block in model.blocks:
        if isinstance(block.audio_attn, AudioAttention):
            block.audio_attn.silence()


def _fill(name: str, weight: Tensor, dim: int, generator: torch.Generator) -> None:
    if name.endswith(("modulation", "emb_pos")):
        weight.normal_(std=1 / math.sqrt(dim), generator=generator)
    elif name.startswith(("text_embedding", "time_embedding")) and weight.ndim == 2:
        weight.normal_(std=0.02, generator=generator)
    elif weight.ndim >= 2:
        nn.init.xavier_uniform_(weight.view(weight.shape[0], -1), generator=generator)
    else:
        weight.fill_(1.0 if name.endswith("weight") else 0.0)
