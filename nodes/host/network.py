"""The transformer in the host's clothes: its calling convention, its layers, its attention, its wrappers."""

from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...gloria_core.config import ModelConfig
from ...gloria_core.model import AnchorCache, GloriaDiT
from .attention import host_attention
from .operations import HostTable, Layers

CACHE = "gloria_cache"
"""Where a run's AnchorCache stands in the transformer options."""


class HostDiT(GloriaDiT):
    """GloriaDiT with the host's calling convention and its wrappers around the forward pass."""

    def __init__(
        self,
        gloria: ModelConfig,
        *,
        operations: Any,  # noqa: ANN401 - a namespace of layers, chosen by the host
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        **_detected: Any,  # noqa: ANN401 - the host passes all of its detected configuration
    ) -> None:
        super().__init__(gloria, operations=Layers(operations), attention=host_attention, device=device, dtype=dtype)
        for module in self.modules():
            if isinstance(module, torch.nn.Embedding) and not hasattr(module, "bias"):
                module.register_parameter("bias", None)  # the host's casts look for it

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401 - whatever ``GloriaModel.extra_conds`` and other packs put there
    ) -> Tensor:
        """Run the network inside the wrappers that other nodes have put around it."""
        options = transformer_options or {}
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        executor = WrapperExecutor.new_class_executor(self._inner_forward, self, wrappers)
        return executor.execute(x, timestep, context, clip_fea, time_dim_concat, options, **kwargs)

    def _inner_forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None,
        time_dim_concat: Tensor | None,
        transformer_options: dict[str, Any],
        **given: Any,  # noqa: ANN401
    ) -> Tensor:
        return super().forward(
            x,
            timestep,
            context,
            clip_fea,
            time_dim_concat,
            transformer_options,
            anchors=given.get("gloria_anchors"),
            num_prefix=given.get("gloria_prefix", 0),
            prefix_timestep=given.get("gloria_prefix_timestep", 0.0),
            audio=given.get("gloria_audio"),
            cache=transformer_options.get(CACHE),
        )


def tables(network: torch.nn.Module) -> tuple[str, ...]:
    """Return the names of the tables: in weights files they are names of tensors, in the host those of layers."""
    return tuple(name for name, module in network.named_modules() if isinstance(module, HostTable))


def with_run_cache(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - the host's signature
    """Lend a sampling run an anchor cache, unless the caller brought one that lives longer (the long sampler does)."""
    guider = executor.class_obj
    options = guider.model_options.setdefault("transformer_options", {})
    if CACHE in options:
        return executor(*args, **kwargs)
    options[CACHE] = AnchorCache()
    try:
        return executor(*args, **kwargs)
    finally:
        del options[CACHE]
