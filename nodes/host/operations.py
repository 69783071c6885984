"""Layers that the host lends to the transformer, and two kinds that it has not: tables, and matrices with a scale."""

from collections.abc import Callable
from typing import Any

import comfy.float
import comfy.model_management
import comfy.ops
import torch
from torch import Tensor, nn

SCALE = "scale_weight"
"""A matrix's own parameter that its stored numbers are to be multiplied with: one number, or one for each row."""
INPUT_SCALE = "scale_input"
"""A matrix's own parameter for its input, where a file brings one: used by the fast float8 product alone."""


Patch = Callable[[Tensor], Tensor]
"""What the host puts on a layer: it changes the weight at every use."""


class HostTable(nn.Module, comfy.ops.CastWeightBiasOp):
    """The host's kind of the core's ``Table``: patched, cast and offloaded like any other layer (wan.md, trap 12).

    Its weight is called ``blocks.0.modulation.weight`` in the host: LoRAs with a ``blocks.0.modulation.diff`` fit it.
    """

    weight_function: list[Patch]

    def __init__(self, *shape: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape, device=device, dtype=dtype), requires_grad=False)
        self.register_parameter("bias", None)

    def forward(self, like: Tensor) -> Tensor:
        """Return the table in the type and on the device of ``like``, with the patches that the host has put on it."""
        patched = bool(self.weight_function)
        weight = comfy.model_management.cast_to(self.weight, like.dtype, like.device, copy=patched)
        for patch in self.weight_function:
            weight = patch(weight)
        return weight.to(like)


class Layers:
    """A namespace of the host's layers with our table beside them.

    Args:
        lent: what the host has chosen for the weights' types (``comfy.ops``), or another pack's.
    """

    Table = HostTable

    def __init__(self, lent: Any) -> None:  # noqa: ANN401 - a class or an instance, as the host has it
        self._lent = lent

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a layer class
        return getattr(self._lent, name)


class ScaledLayers(comfy.ops.manual_cast):
    """The host's casting layers, whose matrices may have a scale.

    The host has such layers too, but there one scaled matrix makes all matrices float8: those that the file keeps in
    full, and those of a branch that is added later, would be rounded without a word (wan.md, trap 15).
    """

    class Linear(comfy.ops.manual_cast.Linear):
        """A matrix in float8 with a scale, where the file has one for it; any other matrix as the host has it."""

        weight: nn.Parameter
        weight_function: list[Patch]
        fast = False
        """Whether the product itself may be in float8, as the host does it where the device can."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the host's own
            super().__init__(*args, **kwargs)
            self.register_parameter(SCALE, None)
            self.register_parameter(INPUT_SCALE, None)

        def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401
            for name in (SCALE, INPUT_SCALE):
                scale = state_dict.get(prefix + name)
                if scale is not None:
                    setattr(self, name, nn.Parameter(scale.float(), requires_grad=False))
            super()._load_from_state_dict(state_dict, prefix, *rest)

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            """Multiply. One scale goes onto the input: fewer numbers, and in range where the output would not be."""
            scale = self.scale_weight
            if scale is None:
                return super().forward_comfy_cast_weights(input)
            if scale.numel() > 1:
                return self._with_scaled_rows(input)
            if self.fast and not self.weight_function:
                product = comfy.ops.fp8_linear(self, input)
                if product is not None:
                    return product
            return super().forward_comfy_cast_weights(input * scale.to(input))

        def _with_scaled_rows(self, input: Tensor) -> Tensor:
            """Multiply with a matrix whose rows are scaled after the host's own patches on what is stored."""
            patches = list(self.weight_function)
            self.weight_function = [*patches, lambda weight: weight * self._scale_like(weight)]
            try:
                return super().forward_comfy_cast_weights(input)
            finally:
                self.weight_function = patches

        def _scale_like(self, weight: Tensor) -> Tensor:
            scale = self.scale_weight.to(weight)
            return scale.view(-1, 1) if scale.numel() > 1 else scale

        def convert_weight(self, weight: Tensor, inplace: bool = False, **_kwargs: Any) -> Tensor:  # noqa: ANN401
            """Return the numbers that stored ones stand for; the host adds a LoRA to these."""
            if self.scale_weight is None:
                return weight
            weight = weight.float()
            return weight * self._scale_like(weight)

        def set_weight(
            self,
            weight: Tensor,
            inplace_update: bool = False,
            seed: int | None = None,
            return_weight: bool = False,
            **_kwargs: Any,  # noqa: ANN401 - the host's
        ) -> Tensor | None:
            """Keep patched numbers, in the stored type; or return them as they would be stored, but not rounded."""
            stored = weight if self.scale_weight is None else weight / self._scale_like(weight)
            if return_weight:
                return stored
            stored = comfy.float.stochastic_rounding(stored, self.weight.dtype, seed=seed or 0)
            if inplace_update:
                self.weight.data.copy_(stored)
            else:
                self.weight = nn.Parameter(stored, requires_grad=False)
            return None


class FastScaledLayers(ScaledLayers):
    """The same with float8 products where the device has them."""

    class Linear(ScaledLayers.Linear):
        """A matrix that may be multiplied in float8."""

        fast = True
