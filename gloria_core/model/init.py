"""First weights of a model that is trained from nothing, and of a new audio branch. Paper: 4.4."""

import math

import torch
from torch import nn

from .audio import AudioAttention
from .dit import GloriaDiT


def initialise(model: GloriaDiT, generator: torch.Generator) -> None:
    """Fill every weight: Xavier for matrices, ones for norms, zero for biases, the head, and the audio values.

    Args:
        model: weights on a real device, of any content.
        generator: the only source of randomness; it must live on the weights' device.
    """
    spread = 1 / math.sqrt(model.config.dim)
    with torch.no_grad():
        for name, parameter in model.state_dict(keep_vars=True).items():
            if name.endswith(("modulation", "emb_pos")):
                parameter.normal_(std=spread, generator=generator)
            elif name.startswith(("text_embedding", "time_embedding")) and parameter.ndim == 2:
                parameter.normal_(std=0.02, generator=generator)
            elif parameter.ndim >= 2:
                nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1), generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        model.head.head.weight.zero_()
    for block in model.blocks:
        if isinstance(block.audio_attn, AudioAttention):
            block.audio_attn.silence()
