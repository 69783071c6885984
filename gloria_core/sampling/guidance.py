"""Guidance with a scale of its own for text and for audio."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from ..errors import ConfigError


class Branch(StrEnum):
    """What the network is shown in one of guidance's forward passes."""

    NEGATIVE = "negative"
    """The negative prompt, no audio."""
    TEXT = "text"
    """The prompt, no audio."""
    FULL = "full"
    """The prompt and the audio."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guidance:
    """v = v_negative + text_scale (v_text - v_negative) + audio_scale (v_full - v_text). Paper: 4.3."""

    text_scale: float = 1.0
    """1 follows the prompt as trained; larger values follow it harder at the cost of one more pass a step."""
    audio_scale: float = 1.0
    """1 follows the sound as trained; larger values follow it harder at the cost of one more pass a step."""

    def __post_init__(self) -> None:
        for name, scale in (("text", self.text_scale), ("audio", self.audio_scale)):
            if not math.isfinite(scale) or scale < 0:
                raise ConfigError(f"The {name} guidance scale is {scale}; it must be 0 or more (1 is neutral).")

    def weights(self, *, has_audio: bool) -> dict[Branch, float]:
        """Return the branches that are needed and the factor of each; the factors add up to 1.

        Without audio the branches TEXT and FULL are one and the same, called TEXT.
        """
        audio_scale = self.audio_scale if has_audio else 0.0
        weights = {
            Branch.NEGATIVE: 1.0 - self.text_scale,
            Branch.TEXT: self.text_scale - audio_scale,
            Branch.FULL: audio_scale,
        }
        return {branch: weight for branch, weight in weights.items() if weight != 0.0}

    def mix(self, predict: Callable[[Branch], Tensor], *, has_audio: bool) -> Tensor:
        """Return the guided velocity or clean guess, calling ``predict`` once for each branch that is needed.

        The factors add up to 1, so clean guesses mix as velocities do.
        """
        terms = [weight * predict(branch) for branch, weight in self.weights(has_audio=has_audio).items()]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
