"""The bundled gloria-nano as the parts of a render. It is the only file of this room that knows of it."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..anchors.picture import AnchorPicture
from ..model import AnchorCache
from ..runs.digest import digest_of_weights
from ..runs.ingredients import ModelPart
from .kit import Kit, Network
from .stream import Memory, StepDecoder

_log = logging.getLogger(__name__)
_STRIDE = 8


def bundled_kit(device: torch.device) -> Kit:
    """Return the bundled model; CheckpointError where its file is missing or cut."""
    from ..nano.bundle import load_bundle
    from ..nano.codec import DECODER
    from ..nano.text import tokenize

    bundle = load_bundle()
    codec = bundle.codec

    @torch.inference_mode()
    def texts(wanted: Iterable[str]) -> Mapping[str, Tensor]:
        found = {}
        for text in wanted:
            ids, unknown = tokenize(text)
            if unknown:
                told = ", ".join(map(repr, unknown))
                _log.warning("gloria-nano does not know %s in the prompt %r and leaves it out.", told, text)
            found[text] = bundle.text_encoder(torch.tensor([ids])).float()
        return found

    @torch.inference_mode()
    def encode(frames: Tensor) -> Tensor:
        return codec.encode((frames * 2.0 - 1.0).movedim(-1, 0).unsqueeze(0))

    def step(latent: Tensor, memory: Memory) -> Tensor:
        pixels = codec.decode(latent, starts_video=not memory)
        memory[:] = ["goes on"]  # latents are independent, but the first gives one frame
        return pixels

    return Kit(
        parts=(ModelPart(config=bundle.config, weights=_weights(bundle.dit)),),
        shift=bundle.config.shift,
        stride=_STRIDE,
        device=device,
        texts=texts,
        encode=encode,
        vae=digest_of_weights((f"codec.{name}", value) for name, value in codec.state_dict().items()),
        decoder=StepDecoder(DECODER, step, lookback=1),
        network=lambda: Network(bundle.model().to(device), AnchorCache(), together=True),
    )


def character(name: str) -> tuple[AnchorPicture, ...]:
    """Draw one of its characters; GloriaError where nobody is called so."""
    from ..nano.portraits import portraits

    return portraits(name)


def speech() -> Path:
    """Return the file of its speech."""
    from ..nano.speech import DEMO_FILE

    return DEMO_FILE


def _weights(weights: Mapping[str, Tensor]) -> str:
    """Return the digest of weights in the type that every host runs them in."""
    return digest_of_weights((name, weight.float()) for name, weight in weights.items())
