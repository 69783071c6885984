"""The host's attention, in the shape that the transformer asks for."""

from typing import Any

from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor


def host_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    *,
    low_precision: bool = True,
    transformer_options: dict[str, Any] | None = None,
) -> Tensor:
    """Attend with whichever kernel the user has switched on in the host.

    Args:
        q: queries (B, L, N*K).
        k: keys (B, S, N*K).
        v: values (B, S, N*K).
        heads: number of heads N.
        low_precision: False keeps quantised kernels away, where the host has such a choice.
        transformer_options: the run's options, which may carry another pack's attention override.

    Returns:
        (B, L, N*K).
    """
    return optimized_attention(
        q,
        k,
        v,
        heads,
        low_precision_attention=low_precision,
        transformer_options=transformer_options or {},
    )
