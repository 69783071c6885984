"""A picture encoder of the host's as what drift is measured with."""

import comfy.clip_vision
from torch import Tensor, nn

from ...gloria_core.errors import ConfigError
from ...gloria_core.evaluate.colour import Frames
from ...gloria_core.evaluate.embedding import NamedEmbedding
from ...gloria_core.runs.digest import digest_of_weights
from .vae_stream import from_bytes

_KINDS = {"CLIPVisionModelProjection": ("CLIP vision", 0.5), "Dinov2Model": ("DINOv2", 0.1)}
"""What the host's classes are called, and the product of two pictures that have nothing in common.

A product of 0.85 (CLIP) or 0.73 (DINOv2) becomes a similarity of 0.7, the usual threshold. Pictures of one subject in
other surroundings have 0.885 and 0.774 on average (Source: DreamBooth, arXiv 2208.12242, table 1, real pictures; CLIP
ViT-B/32 and DINO ViT-S/16), frames of one video more. Not measured here with real weights.
"""
_UNKNOWN = ("picture encoder", 0.5)
_DIGITS = 8


def clip_embedding(encoder: comfy.clip_vision.ClipVisionModel) -> NamedEmbedding:
    """Return an encoder from the stock Load CLIP Vision as an embedding, named by its kind, size and weights.

    Pictures are squeezed to its square, so that nothing at their edges is lost.

    Raises:
        ConfigError: from the embedding, where the encoder gives no single vector for a picture (SigLIP).
    """
    kind, floor = _KINDS.get(type(encoder.model).__name__, _UNKNOWN)

    def embed(frames: Frames) -> Tensor:
        vectors: Tensor = encoder.encode_image(from_bytes(frames), crop=False)["image_embeds"]
        if vectors.ndim != 2:
            raise ConfigError(
                f"The picture encoder on 'clip_vision' ({kind}) gives no single vector for a picture, so that drift "
                "cannot be measured with it: load CLIP ViT-H or ViT-L, or DINOv2, or disconnect it."
            )
        return vectors

    millions = sum(weight.numel() for weight in encoder.model.parameters()) / 1e6
    digest = _digest(encoder.model)
    return NamedEmbedding(f"{kind}, {millions:.0f} M weights, {encoder.image_size} px ({digest})", embed, floor)


def _digest(model: nn.Module) -> str:
    return digest_of_weights(model.state_dict().items())[:_DIGITS]
