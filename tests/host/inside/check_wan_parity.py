"""Our transformer without anchors and sound is Wan's: the host's own WanModel is the oracle.

Numbers are compared at tiny sizes; work and memory at the real ones, on the meta device.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import comfy.ldm.wan.model
import comfy.ops
import pytest
import torch
from gloria_pack.gloria_core.checkpoint.blank import BLANK
from gloria_pack.gloria_core.config import ModelConfig
from gloria_pack.gloria_core.families import FAMILIES
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.model.attention import torch_attention
from gloria_pack.gloria_core.protocols import Attention
from torch import Tensor, nn

sys.path += [str(Path(__file__).parents[3]), str(Path(__file__).parents[2] / "bench")]
from instruments import count_flops, peak_bytes, replaced, stub_attention

TOLERANCE = 1e-4
T2V = ModelConfig(dim=256, ffn_dim=512, num_heads=2, num_layers=2, text_dim=64)
I2V = replace(T2V, in_channels=36, clip_dim=1280)
FLF = replace(I2V, clip_positions=514)
TI2V = replace(T2V, in_channels=48, out_channels=48)


def filled(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and "modulation" not in name else 0.3
        weights[name] = noise * scale + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return weights


def host_model(config: ModelConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    return comfy.ldm.wan.model.WanModel(
        model_type="i2v" if config.clip_dim else "t2v",
        in_dim=config.in_channels,
        out_dim=config.out_channels,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        text_dim=config.text_dim,
        flf_pos_embed_token_number=config.clip_positions or None,
        device=device,
        dtype=dtype,
        operations=comfy.ops.disable_weight_init,
    )


def pair(config: ModelConfig) -> tuple[nn.Module, GloriaDiT]:
    theirs, ours = host_model(config), GloriaDiT(config)
    weights = filled(theirs)
    theirs.load_state_dict(weights, strict=True)
    ours.load_state_dict(weights, strict=True)
    return theirs.eval(), ours.eval()


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(
    config: ModelConfig,
    *,
    steps: Tensor | None = None,
    size: tuple[int, int, int] = (3, 8, 12),
    rows: int = 512,
    clip: int = 0,
    **options: object,
) -> float:
    """Return the largest difference for two clips, with ``clip`` CLIP tokens."""
    theirs, ours = pair(config)
    x, context = draw(2, config.in_channels, *size, seed=1), draw(2, rows, config.text_dim, seed=2)
    clip_fea = draw(2, clip, 1280, seed=3) if clip else None
    steps = torch.tensor([640.0, 90.0]) if steps is None else steps
    expected = theirs(x, steps, torch.nn.functional.pad(context, (0, 0, 0, max(0, 512 - rows))), clip_fea, **options)
    assert expected.std() > 0.5
    return float((ours(x, steps, context, clip_fea, **options) - expected).abs().max())


@pytest.mark.parametrize("steps", [(850.0, 120.0), (1000.0, 1000.0)])
def test_text_to_video(steps: tuple[float, float]) -> None:
    assert difference(T2V, steps=torch.tensor(steps)) < TOLERANCE


def test_image_to_video_with_36_channels_and_clip() -> None:
    assert difference(I2V, clip=257) < TOLERANCE


@pytest.mark.parametrize("tokens", [514, 257])
def test_first_and_last_frame_to_video(tokens: int) -> None:
    assert difference(FLF, clip=tokens) < TOLERANCE


def test_a_timestep_of_its_own_for_every_latent_frame() -> None:
    steps = torch.tensor([[0.0, 700.0, 700.0], [0.0, 300.0, 150.0]])
    assert difference(TI2V, steps=steps) < TOLERANCE
    assert difference(TI2V, steps=steps, size=(3, 7, 9)) < TOLERANCE


@pytest.mark.parametrize(("config", "clip"), [(T2V, 0), (I2V, 257)], ids=["T2V", "I2V"])
@pytest.mark.parametrize("size", [(2, 7, 9), (1, 8, 5)])
def test_odd_sides_are_padded_as_the_host_pads_them(config: ModelConfig, clip: int, size: tuple[int, int, int]) -> None:
    assert difference(config, size=size, clip=clip) < TOLERANCE


@pytest.mark.parametrize("rows", [77, 512, 600])
def test_text_of_any_length(rows: int) -> None:
    """Shorter prompts are padded with zero rows, as the host's text encoder does; longer ones are not cut."""
    assert difference(T2V, rows=rows) < TOLERANCE
    assert difference(I2V, rows=rows, clip=257) < TOLERANCE


def test_the_hosts_own_reference_frames() -> None:
    assert difference(T2V, time_dim_concat=draw(2, 16, 2, 8, 12, seed=4)) < TOLERANCE


def test_the_hosts_rope_node() -> None:
    asked = {"scale_t": 0.75, "scale_y": 1.5, "scale_x": 2.0, "shift_t": 3.0, "shift_y": 1.0, "shift_x": 0.5}
    assert difference(T2V, transformer_options={"rope_options": asked}) < TOLERANCE
    theirs, ours = pair(T2V)
    given = draw(1, 16, 3, 8, 12, seed=1), torch.tensor([500.0]), draw(1, 512, 64, seed=2)
    assert (ours(*given, transformer_options={"rope_options": asked}) - theirs(*given)).abs().max() > 1e-2


SHAPES = [
    ("Wan2.1 T2V 14B", (21, 60, 104)),
    ("Wan2.1 T2V 14B", (21, 90, 160)),
    ("Gloria 14B", (21, 60, 104)),
    ("Gloria 14B", (21, 90, 160)),
    ("Wan2.2 TI2V 5B", (31, 30, 52)),
    ("Wan2.2 TI2V 5B", (31, 44, 80)),
]
"""Real models at 480p and 720p (the 5B's VAE shrinks by 16): latent frames, rows, columns."""


def on_meta(config: ModelConfig, attention: Attention) -> GloriaDiT:
    return GloriaDiT(config, operations=BLANK, attention=attention, device="meta", dtype=torch.bfloat16)


def meta_inputs(config: ModelConfig, size: tuple[int, int, int], per_frame: bool = False) -> list[Tensor]:
    shapes = [(1, config.in_channels, *size), (1, 512, 4096)] + ([(1, 257, 1280)] if config.clip_dim else [])
    x, *context = (torch.empty(shape, device="meta", dtype=torch.bfloat16) for shape in shapes)
    return [x, torch.empty((1, size[0]) if per_frame else (1,), device="meta"), *context]


@pytest.mark.parametrize(("family", "size"), SHAPES)
def test_a_forward_does_the_work_of_the_hosts(family: str, size: tuple[int, int, int]) -> None:
    config = replace(FAMILIES[family], num_layers=2)  # all blocks are alike; the bench counts whole models
    theirs = host_model(config, "meta", torch.bfloat16)
    ours = on_meta(config, torch_attention)
    given = meta_inputs(config, size)
    assert count_flops(ours, *given) == pytest.approx(count_flops(theirs, *given), rel=1e-3)


@pytest.mark.parametrize(("family", "size"), SHAPES)
@pytest.mark.parametrize("per_frame", [False, True])
def test_a_forward_needs_no_more_memory_than_the_hosts(
    family: str, size: tuple[int, int, int], per_frame: bool
) -> None:
    config = replace(FAMILIES[family], num_layers=2)
    given = meta_inputs(config, size, per_frame)
    with replaced(comfy.ldm.wan.model, "optimized_attention", stub_attention):
        theirs = peak_bytes(host_model(config, "meta", torch.bfloat16), *given)
    ours = peak_bytes(on_meta(config, stub_attention), *given)
    assert ours <= theirs
