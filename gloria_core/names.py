"""What the parts of a Wan model are called in the files of others, as data. Source: wan.md section 2.

Ours are the original names. A name is a module's path and a leaf: ``blocks.0.self_attn.q`` and ``weight``.
"""

import re
from types import MappingProxyType

TOP_FROM_DIFFUSERS = MappingProxyType(
    {
        "patch_embedding": "patch_embedding",
        "condition_embedder.text_embedder.linear_1": "text_embedding.0",
        "condition_embedder.text_embedder.linear_2": "text_embedding.2",
        "condition_embedder.time_embedder.linear_1": "time_embedding.0",
        "condition_embedder.time_embedder.linear_2": "time_embedding.2",
        "condition_embedder.time_proj": "time_projection.1",
        "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
        "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
        "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
        "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
        "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
        "proj_out": "head.head",
        "scale_shift_table": "head.modulation",
    }
)
"""Diffusers' names outside the blocks."""

BLOCK_FROM_DIFFUSERS = MappingProxyType(
    {
        "scale_shift_table": "modulation",
        **{
            f"{theirs}.{part}": f"{ours}.{own}"
            for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn"))
            for part, own in (
                ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"), ("norm_q", "norm_q"),
                ("norm_k", "norm_k"),
            )
        },
        "attn2.add_k_proj": "cross_attn.k_img",
        "attn2.add_v_proj": "cross_attn.v_img",
        "attn2.norm_added_k": "cross_attn.norm_k_img",
        "norm2": "norm3",  # the norms with weights stand before the cross-attention in both; only the number differs
        "ffn.net.0.proj": "ffn.0",
        "ffn.net.2": "ffn.2",
    }
)  # fmt: skip
"""Diffusers' names inside ``blocks.N``."""

_BLOCK = re.compile(r"(blocks\.\d+)\.(.+)")


def from_diffusers(module: str) -> str | None:
    """Return the original name of a module or bare parameter of Diffusers' WanTransformer3DModel, or None."""
    block = _BLOCK.fullmatch(module)
    if block is None:
        return TOP_FROM_DIFFUSERS.get(module)
    inner = BLOCK_FROM_DIFFUSERS.get(block[2])
    return f"{block[1]}.{inner}" if inner else None


def to_diffusers(module: str) -> str | None:
    """Return Diffusers' name of a module or bare parameter of Wan's, or None where it has none."""
    block = _BLOCK.fullmatch(module)
    if block is None:
        return next((theirs for theirs, ours in TOP_FROM_DIFFUSERS.items() if ours == module), None)
    inner = next((theirs for theirs, ours in BLOCK_FROM_DIFFUSERS.items() if ours == block[2]), None)
    return f"{block[1]}.{inner}" if inner else None
