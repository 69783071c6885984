"""What a set of weights brings to a render: a network, and the ways of text, pictures and frames."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import ModelConfig
from ..protocols import Cache, Denoiser
from ..runs.ingredients import ModelPart
from ..runs.job import Decoder


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network that is ready to run, with its memory for one video."""

    denoiser: Denoiser
    cache: Cache
    together: bool = False
    """Whether it is small enough to run the passes of guidance as one batch."""


Texts = Callable[[Iterable[str]], Mapping[str, Tensor]]
"""Encodes prompts: returns the rows (1, L, D) of each text, on the CPU."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kit:
    """The parts of a render that the weights decide. Latents are those of the network: normalised."""

    parts: tuple[ModelPart, ...]
    """What the network, or a pair of experts, is."""
    boundary: float | None = None
    """Noise level at which the second expert takes over; None where there is one network."""
    shift: float
    """How far the model's own noise levels are bent."""
    stride: int
    """Pixels of a latent along a side."""
    device: torch.device
    """Where the network runs."""
    dtype: torch.dtype = torch.float32
    """What it is computed in."""
    texts: Texts
    encode: Callable[[Tensor], Tensor]
    """Encodes frames (F, H, W, 3), 0..1, to latents (1, C, T, h, w), float32 on the CPU."""
    vae: str
    """Digest of the VAE's weights."""
    decoder: Decoder
    network: Callable[[], Network]
    """Loads the network; asked once, when the first chunk is sampled."""

    @property
    def config(self) -> ModelConfig:
        """The architecture; of a pair that of the first expert."""
        return self.parts[0].config
