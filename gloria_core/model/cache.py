"""What the cached attention mode remembers: anchors for a video, the prefix for a chunk."""

from collections.abc import Hashable

from torch import Tensor

from .blocks import KV


class AnchorCache:
    """Keys and values of clean tokens, one pair for each block.

    One cache serves one video with one set of weights. Anchors are kept by the identity of their latents, so adding or
    removing one, or another strength, recomputes none.
    """

    def __init__(self) -> None:
        self.anchors_encoded = 0
        """How many anchors went through the network since the cache was made."""
        self.prefixes_encoded = 0
        """How many prefixes went through the network since the cache was made."""
        self._anchors: dict[tuple[int, int], tuple[Tensor, list[KV]]] = {}
        self._prefix: dict[Hashable, list[KV]] = {}

    def start_chunk(self) -> None:
        """Forget the prefix: the next chunk has another one."""
        self._prefix.clear()

    def anchor(self, latent: Tensor, position: int) -> list[KV] | None:
        """Return what is kept for an anchor at a position, or None."""
        kept = self._anchors.get((id(latent), position))
        return kept[1] if kept else None

    def keep_anchor(self, latent: Tensor, position: int, blocks: list[KV]) -> None:
        """Keep an anchor's keys and values (the latent too, so that its identity stays taken)."""
        self._anchors[id(latent), position] = (latent, blocks)
        self.anchors_encoded += 1

    def prefix(self, key: Hashable) -> list[KV] | None:
        """Return what is kept for the chunk's prefix under all that it was computed from, or None."""
        return self._prefix.get(key)

    def keep_prefix(self, key: Hashable, blocks: list[KV]) -> None:
        """Keep the prefix's keys and values until the next chunk.

        The key names what they follow from within a chunk: the prefix's length, its batch, its timestep and the anchors
        that it sees (by identities that this cache has kept, with their strengths and hidings).
        """
        self._prefix[key] = blocks
        self.prefixes_encoded += 1
