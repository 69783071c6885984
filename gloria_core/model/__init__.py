"""The transformer: Wan's block with anchors as tokens and an audio branch."""

from .cache import AnchorCache
from .dit import GloriaDiT
from .init import initialise

__all__ = ["AnchorCache", "GloriaDiT", "initialise"]
