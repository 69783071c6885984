"""What the cached attention mode remembers: anchors for a video, the prefix for a chunk."""

from torch import Tensor

from .blocks import KV


class AnchorCache:
    """Keys and values of clean tokens, one pair for each block.

    One cache serves one video with one set of weights. Anchors are kept by the identity of their latents, so adding or
    removing one recomputes nothing else.
    """

    def __init__(self) -> None:
        self.anchors_encoded = 0
        """How many anchors went through the network since the cache was made."""
        self.prefixes_encoded = 0
        """How many prefixes went through the network since the cache was made."""
        self._anchors: dict[tuple[int, int], tuple[Tensor, list[KV]]] = {}
        self._prefix: dict[tuple[int, int], list[KV]] = {}

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
        self._prefix.clear()

    def prefix(self, num_prefix: int, batch_size: int) -> list[KV] | None:
        """Return what is kept for the chunk's prefix, or None."""
        return self._prefix.get((num_prefix, batch_size))

    def keep_prefix(self, num_prefix: int, batch_size: int, blocks: list[KV]) -> None:
        """Keep the prefix's keys and values until the next chunk."""
        self._prefix[num_prefix, batch_size] = blocks
        self.prefixes_encoded += 1
