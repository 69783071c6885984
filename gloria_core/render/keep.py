"""Encoded text and pictures kept in a run's folder, so that every machine goes on from the very same numbers."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import MediaError
from ..whole import written_whole

_VALUE = "value"


class Keep:
    """Tensors by the digest of what they were made from.

    Two cards, or two versions of torch, encode a text to numbers that differ in their last bits: chunks made from them
    would count as made from something else.

    Args:
        folder: where they lie; it is made with the first.
        writes: whether new ones are written; otherwise what is there is only read.
    """

    def __init__(self, folder: Path, *, writes: bool) -> None:
        self._folder, self._writes = folder, writes

    def get(self, key: str) -> Tensor | None:
        """Return what is kept, or None; a file that was cut counts as not there."""
        path = self._folder / f"{key}.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                value: Tensor = file.get_tensor(_VALUE).clone()
        except (SafetensorError, OSError):
            return None
        return value

    def put(self, key: str, value: Tensor) -> Tensor:
        """Keep a tensor, and return it; MediaError where the disk refuses."""
        if self._writes:
            path = self._folder / f"{key}.safetensors"
            with written_whole(path, kind=MediaError, advice="free some space and start again") as partial:
                save_file({_VALUE: value.detach().cpu().contiguous()}, partial)
        return value

    def made(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Return what is kept, or make and keep it."""
        known = self.get(key)
        return self.put(key, make()) if known is None else known
