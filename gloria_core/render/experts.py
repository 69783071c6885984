"""Two experts as one network: the first for high noise, the second below the boundary (Wan 2.2 A14B)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..model import AnchorCache, GloriaDiT
from ..sampling.denoise import TIMESTEPS
from ..types import AnchorSet


@dataclass(frozen=True, slots=True, eq=False)
class PairCache:
    """What each expert remembers of a video."""

    high: AnchorCache = field(default_factory=AnchorCache)
    low: AnchorCache = field(default_factory=AnchorCache)

    def start_chunk(self) -> None:
        """Forget what belongs to the chunk before."""
        self.high.start_chunk()
        self.low.start_chunk()


class ExpertPair:
    """A ``Denoiser`` that asks the expert of the noise level. The device holds one of the two at a time.

    Args:
        high: for noise levels from the boundary up; on the CPU.
        low: for those below; on the CPU.
        boundary: the noise level, 0..1.
        device: where they run.
    """

    def __init__(self, high: GloriaDiT, low: GloriaDiT, boundary: float, device: torch.device) -> None:
        self.high, self.low, self.boundary, self.device = high, low, boundary, device

    def __call__(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        anchors: AnchorSet | None = None,
        num_prefix: int = 0,
        prefix_timestep: float = 0.0,
        audio: Tensor | None = None,
        cache: Any = None,  # noqa: ANN401 - a PairCache
    ) -> Tensor:
        """Predict the velocity."""
        is_high = float(timestep.max()) >= TIMESTEPS * (self.boundary - 1e-6)
        expert, other = (self.high, self.low) if is_high else (self.low, self.high)
        if self.device.type != "cpu":
            other.to("cpu")
            expert.to(self.device)
        velocity: Tensor = expert(
            x,
            timestep,
            context,
            anchors=anchors,
            num_prefix=num_prefix,
            prefix_timestep=prefix_timestep,
            audio=audio,
            cache=cache.high if is_high else cache.low,
        )
        return velocity
