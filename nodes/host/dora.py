"""DoRA as it is trained: the merged weights are scaled to learned lengths."""

from collections.abc import Callable

import comfy.model_management
import torch
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor


class TrainedLengths(WeightAdapterBase):
    """A low-rank change, after which each row (or column) of the weights gets its learned length.

    The host's own DoRA divides rows by their length *before* the change, but PEFT and LyCORIS train with the length
    after it; with a large change the two differ by several per cent. Source: training.md, section F.

    Args:
        change: the host's adapter for the change itself.
        lengths: (out, 1), or (1, in) for columns.
    """

    name = "dora"

    def __init__(self, change: WeightAdapterBase, lengths: Tensor) -> None:
        self.change, self.lengths = change, lengths
        self.loaded_keys = set(change.loaded_keys)
        self.weights = (*change.weights, lengths)

    def calculate_weight(
        self,
        weight: Tensor,
        key: str,
        strength: float,
        strength_model: float,
        offset: tuple[int, int, int] | None,
        function: Callable[[Tensor], Tensor],
        intermediate_dtype: torch.dtype = torch.float32,
        original_weight: object = None,
    ) -> Tensor:
        """Return the changed weight; at another strength than 1, the way from the old one to it is scaled."""
        merged = weight.to(intermediate_dtype, copy=True)
        merged = self.change.calculate_weight(
            merged, key, 1.0, strength_model, offset, lambda delta: delta, intermediate_dtype, original_weight
        )
        lengths = comfy.model_management.cast_to_device(self.lengths, weight.device, intermediate_dtype)
        axis = 0 if lengths.shape[0] == weight.shape[0] else 1
        others = [dim for dim in range(weight.ndim) if dim != axis]
        now = torch.linalg.vector_norm(merged, dim=others, keepdim=True) + torch.finfo(merged.dtype).eps
        merged = merged * (lengths.reshape(now.shape) / now)
        weight += function((strength * (merged - weight)).to(weight.dtype))
        return weight
