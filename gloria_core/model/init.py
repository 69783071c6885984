"""First weights of a model that is trained from nothing, and of a new audio branch. Source: wan.md section 1; paper 4.4."""

import math

import torch
from torch import nn

from .blocks import AudioAttention, Block, Head
from .dit import GloriaDiT


def initialise(model: GloriaDiT, generator: torch.Generator) -> None:
    """Fill every weight: Xavier for matrices, ones for norms, zero for biases, the head, and the audio values.

    Args:
        model: weights on a real device, of any content.
        generator: the only source of randomness; it must live on the weights' device.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not name.endswith(("modulation", "emb_pos")):
                nn.init.xavier_uniform_(parameter.view(parameter.shape[0], -1), generator=generator)
            elif name.endswith("weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(std=1 / math.sqrt(model.config.dim), generator=generator)
        for layer in (*model.text_embedding, *model.time_embedding):
            if isinstance(layer, nn.Linear):
                layer.weight.normal_(std=0.02, generator=generator)
        for module in model.modules():
            if isinstance(module, Block):
                module.modulation.normal_(std=1 / math.sqrt(model.config.dim), generator=generator)
            elif isinstance(module, Head):
                module.modulation.normal_(std=1 / math.sqrt(model.config.dim), generator=generator)
                module.head.weight.zero_()
            elif isinstance(module, AudioAttention):
                silence_audio(module)


def silence_audio(branch: AudioAttention) -> None:
    """Zero the value projection, so that a new audio branch says nothing at first. Paper: 4.4."""
    with torch.no_grad():
        branch.v.weight.zero_()
        if branch.v.bias is not None:
            branch.v.bias.zero_()
        if branch.o.bias is not None:
            branch.o.bias.zero_()
