"""The network in half precision, as hosts run it: finite, and near its own float32."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.model import GloriaDiT, initialise
from gloria_core.types import Anchor, AnchorRole, AnchorSet

CONFIG = ModelConfig(
    in_channels=20, out_channels=8, dim=96, ffn_dim=256, num_heads=2, num_layers=4, text_dim=32, text_length=8,
    freq_dim=64, clip_dim=16, audio=AudioConfig(kind="mel", feature_dim=5, dim=12, window=3),
)  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(config: ModelConfig) -> GloriaDiT:
    dit, generator = GloriaDiT(config), torch.Generator().manual_seed(0)
    initialise(dit, generator)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return dit.eval()


@torch.no_grad()
def run(dit: GloriaDiT, dtype: torch.dtype, loud: float = 1.0) -> Tensor:
    """Run everything at once: per-frame timesteps, prefix, anchors, CLIP tokens, text and sound."""
    anchors = AnchorSet((
        Anchor(AnchorRole.GLOBAL, "", draw(1, 8, 1, 4, 4, seed=1).to(dtype)),
        Anchor(AnchorRole.EXPRESSION, "happy", draw(1, 8, 1, 2, 2, seed=2).to(dtype)),
    ))  # fmt: skip
    return dit(
        (loud * draw(1, 20, 4, 4, 4, seed=3)).to(dtype),
        torch.tensor([[0.0, 999.0, 999.0, 500.0]]),
        (loud * draw(1, 6, 32, seed=4)).to(dtype),
        (loud * draw(1, 5, 16, seed=5)).to(dtype),
        anchors=anchors,
        num_prefix=1,
        audio=(loud * draw(1, 4, 3, 5, seed=6)).to(dtype),
    ).float()


@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)])
def test_half_precision_is_near_float32(mode: str, dtype: torch.dtype, allowed: float) -> None:
    """Each is allowed what rounding in its own precision costs (the host's model: 0.7 % in bfloat16, wan.md 8)."""
    dit = build(CONFIG.with_mode(mode))  # type: ignore[arg-type]
    exact = run(dit, torch.float32)
    half = run(as_hosts_hold_it(dit, dtype), dtype)
    assert (half - exact).norm() < allowed * exact.norm()


def as_hosts_hold_it(dit: GloriaDiT, dtype: torch.dtype) -> GloriaDiT:
    """Cast to a type, but for the patch embedding, which Wan's hosts keep in float32."""
    made = GloriaDiT(dit.config, dtype=dtype)
    assert made.patch_embedding.weight.dtype == torch.float32
    assert {p.dtype for n, p in made.named_parameters() if not n.startswith("patch_embedding")} == {dtype}
    made.load_state_dict(dit.state_dict())
    return made.eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_large_inputs_stay_finite(dtype: torch.dtype) -> None:
    """Encoders give rows of some tens; nothing of ours may square them into infinity, which float16 has at 65504."""
    for config in (CONFIG, replace(CONFIG, anchors=AnchorConfig(mode="cached"))):
        assert run(as_hosts_hold_it(build(config), dtype), dtype, loud=60.0).isfinite().all()


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_gradients_flow_in_half_precision_too(mode: str) -> None:
    """Training may compute in bfloat16; rotation works in place on a copy there, which gradients must survive."""
    dit = build(CONFIG.with_mode(mode))  # type: ignore[arg-type]
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        made = as_hosts_hold_it(dit, dtype)
        x, text = draw(1, 20, 3, 4, 4, seed=3).to(dtype), draw(1, 6, 32, seed=4).to(dtype)
        made(x, torch.tensor([600.0]), text).float().square().mean().backward()
        gradients.append(made.blocks[0].self_attn.q.weight.grad.float())
    assert gradients[0].abs().max() > 0
    assert (gradients[1] - gradients[0]).norm() < 0.1 * gradients[0].norm()
