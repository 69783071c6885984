"""The attention callable used where the host lends none."""

from typing import Any

from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def torch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    *,
    low_precision: bool = True,
    transformer_options: dict[str, Any] | None = None,
) -> Tensor:
    """Attend with torch's own kernel.

    Args:
        q: queries (B, L, N*K).
        k: keys (B, S, N*K).
        v: values (B, S, N*K).
        heads: number of heads N.
        low_precision: accepted for the host's sake; torch's kernels keep the precision of their inputs.
        transformer_options: accepted for the host's sake; not used.

    Returns:
        (B, L, N*K).
    """
    q, k, v = (rearrange(x, "b l (n k) -> b n l k", n=heads) for x in (q, k, v))
    return rearrange(scaled_dot_product_attention(q, k, v), "b n l k -> b l (n k)")
