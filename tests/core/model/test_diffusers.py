"""Without anchors and sound our transformer is Wan's: diffusers' implementation is the oracle.

The host's implementation is another: tests/host/inside/check_wan_parity.py.
"""

import re
from dataclasses import replace

import diffusers
import pytest
import torch
from torch import Tensor, nn

from gloria_core.config import ModelConfig
from gloria_core.model import GloriaDiT

TOLERANCE = 1e-4
T2V = ModelConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=2, text_dim=64)
I2V = replace(T2V, in_channels=36, clip_dim=1280)
FLF = replace(I2V, clip_positions=514)
TI2V = replace(T2V, in_channels=48, out_channels=48)

NAMES = (
    (r"^text_embedding\.0\.", "condition_embedder.text_embedder.linear_1."),
    (r"^text_embedding\.2\.", "condition_embedder.text_embedder.linear_2."),
    (r"^time_embedding\.0\.", "condition_embedder.time_embedder.linear_1."),
    (r"^time_embedding\.2\.", "condition_embedder.time_embedder.linear_2."),
    (r"^time_projection\.1\.", "condition_embedder.time_proj."),
    (r"^img_emb\.proj\.0\.", "condition_embedder.image_embedder.norm1."),
    (r"^img_emb\.proj\.1\.", "condition_embedder.image_embedder.ff.net.0.proj."),
    (r"^img_emb\.proj\.3\.", "condition_embedder.image_embedder.ff.net.2."),
    (r"^img_emb\.proj\.4\.", "condition_embedder.image_embedder.norm2."),
    (r"^img_emb\.emb_pos$", "condition_embedder.image_embedder.pos_embed"),
    (r"^head\.head\.", "proj_out."),
    (r"^head\.modulation$", "scale_shift_table"),
    (r"\.modulation$", ".scale_shift_table"),
    (r"\.norm3\.", ".norm2."),
    (r"\.ffn\.0\.", ".ffn.net.0.proj."),
    (r"\.ffn\.2\.", ".ffn.net.2."),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.k_img\.", ".add_k_proj."),
    (r"\.v_img\.", ".add_v_proj."),
    (r"\.norm_k_img\.", ".norm_added_k."),
    (r"\.([qkv])\.(weight|bias)$", r".to_\1.\2"),
    (r"\.o\.(weight|bias)$", r".to_out.0.\1"),
)
"""From Wan's names to diffusers'. Source: wan.md section 2."""


def renamed(name: str) -> str:
    for pattern, theirs in NAMES:
        name = re.sub(pattern, theirs, name)
    return name


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(config: ModelConfig) -> tuple[nn.Module, GloriaDiT]:
    theirs = diffusers.WanTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        image_dim=config.clip_dim or None,
        added_kv_proj_dim=config.dim if config.clip_dim else None,
        pos_embed_seq_len=config.clip_positions or None,
    )
    ours = GloriaDiT(config)
    weights = {}
    for number, (name, empty) in enumerate(ours.state_dict().items()):
        scale = empty[0].numel() ** -0.5 if empty.ndim > 1 and "modulation" not in name else 0.3
        centre = 1.0 if re.search(r"norm\w*\.weight|proj\.[04]\.weight", name) else 0.0
        weights[name] = centre + scale * draw(*empty.shape, seed=number)
    ours.load_state_dict(weights)
    theirs.load_state_dict({renamed(name): t for name, t in weights.items()}, strict=True)
    return theirs.eval(), ours.eval()


@torch.no_grad()
def difference(config: ModelConfig, timestep: Tensor, clip: Tensor | None = None, **theirs_given: Tensor) -> float:
    """Return the largest difference; ``timestep`` and ``clip`` are ours, and theirs unless given otherwise."""
    theirs, ours = pair(config)
    x, context = draw(2, config.in_channels, 3, 8, 12, seed=101), draw(2, 512, config.text_dim, seed=102)
    their_clip = theirs_given.get("their_clip", clip)
    expected = theirs(x, theirs_given.get("their_timestep", timestep), context, their_clip, return_dict=False)[0]
    assert expected.std() > 0.5
    return float((ours(x, timestep, context, clip) - expected).abs().max())


@pytest.mark.parametrize("steps", [(850.0, 120.0), (999.5, 0.0)])
def test_text_to_video(steps: tuple[float, float]) -> None:
    assert difference(T2V, torch.tensor(steps)) < TOLERANCE


def test_image_to_video_with_clip() -> None:
    assert difference(I2V, torch.tensor([640.0, 90.0]), draw(2, 257, 1280, seed=103)) < TOLERANCE


@pytest.mark.parametrize("layout", [(4, 257, 1280), (2, 514, 1280)])
def test_first_and_last_frame_to_video(layout: tuple[int, int, int]) -> None:
    """Diffusers takes the two images' tokens as rows of the batch, the host as one row; we take both."""
    clip = draw(4, 257, 1280, seed=104)
    assert difference(FLF, torch.tensor([640.0, 90.0]), clip.reshape(layout), their_clip=clip) < TOLERANCE


def test_a_timestep_for_every_frame_or_for_every_token() -> None:
    frames = torch.tensor([[0.0, 700.0, 700.0], [0.0, 0.0, 300.0]])
    tokens = frames.repeat_interleave(4 * 6, dim=1)
    assert difference(TI2V, frames, their_timestep=tokens) < TOLERANCE
    assert difference(TI2V, tokens, their_timestep=tokens) < TOLERANCE
    inside = tokens + torch.arange(24.0).repeat(3)  # differs inside a frame too
    assert difference(TI2V, inside, their_timestep=inside) < TOLERANCE
