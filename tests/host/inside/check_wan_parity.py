"""Our transformer without anchors and sound is Wan's: the host's own WanModel is the oracle."""

from __future__ import annotations

import comfy.ldm.wan.model
import comfy.ops
import pytest
import torch
from gloria_pack.gloria_core.config import ModelConfig
from gloria_pack.gloria_core.model import GloriaDiT
from torch import Tensor

TOLERANCE = 1e-4
SIZES = {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 2, "text_dim": 64, "text_length": 512}


def filled(model: torch.nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and "modulation" not in name else 0.1
        weights[name] = noise * scale + (
            1.0 if name.endswith("norm_q.weight") or name.endswith("norm_k.weight") else 0.0
        )
    return weights


def pair(config: ModelConfig, kind: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    theirs = comfy.ldm.wan.model.WanModel(
        model_type=kind,
        in_dim=config.in_channels,
        out_dim=config.out_channels,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        text_dim=config.text_dim,
        device="cpu",
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    ours = GloriaDiT(config)
    weights = filled(theirs)
    theirs.load_state_dict(weights, strict=True)
    ours.load_state_dict(weights, strict=True)
    return theirs.eval(), ours.eval()


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [(850.0, 120.0), (1000.0, 1000.0)])
def test_text_to_video(steps: tuple[float, float]) -> None:
    theirs, ours = pair(ModelConfig(**SIZES), "t2v")
    x, context = draw(2, 16, 3, 8, 12, seed=1), draw(2, 512, 64, seed=2)
    expected = theirs(x, torch.tensor(steps), context)
    assert expected.abs().max() > 1
    assert (ours(x, torch.tensor(steps), context) - expected).abs().max() < TOLERANCE


def test_a_timestep_of_its_own_for_every_latent_frame() -> None:
    theirs, ours = pair(ModelConfig(**SIZES), "t2v")
    x, context = draw(2, 16, 3, 8, 12, seed=1), draw(2, 512, 64, seed=2)
    steps = torch.tensor([[0.0, 700.0, 700.0], [0.0, 300.0, 300.0]])
    assert (ours(x, steps, context) - theirs(x, steps, context)).abs().max() < TOLERANCE


def test_image_to_video_with_36_channels_and_clip() -> None:
    theirs, ours = pair(ModelConfig(**SIZES, in_channels=36, clip_dim=1280), "i2v")
    x, context, clip = draw(2, 36, 3, 8, 12, seed=1), draw(2, 512, 64, seed=2), draw(2, 257, 1280, seed=3)
    steps = torch.tensor([640.0, 90.0])
    expected = theirs(x, steps, context, clip_fea=clip)
    assert (ours(x, steps, context, clip) - expected).abs().max() < TOLERANCE


def test_odd_sides_are_padded_as_the_host_pads_them() -> None:
    theirs, ours = pair(ModelConfig(**SIZES), "t2v")
    x, context, steps = draw(1, 16, 2, 7, 9, seed=1), draw(1, 512, 64, seed=2), torch.tensor([500.0])
    assert (ours(x, steps, context) - theirs(x, steps, context)).abs().max() < TOLERANCE
