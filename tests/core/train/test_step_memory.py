"""A LoRA step's memory against diffusers with peft, and what it keeps in half precision."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.train import method

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import training as bench


@pytest.mark.parametrize("checkpointing", ["off", "blocks"])
def test_a_lora_step_takes_less_than_with_diffusers_and_peft(checkpointing: str) -> None:
    """Bytes alive are exact: equal weights, tokens, adapters and loss. Source: performance.md, P17."""
    found = bench.compare_bytes(bench.steps(checkpointing))
    assert found["loss_difference"] < 1e-6
    assert found["bytes_ours_over_theirs"] <= 0.95


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_a_step_in_bfloat16_is_near_one_in_float32_and_takes_about_half(weights: torch.dtype) -> None:
    """As on cards: autocast, adapters in float32. Frozen weights in float32 are copied in bfloat16, once each."""
    exact, exact_bytes = _gradients(torch.float32, torch.float32)
    half, half_bytes = _gradients(torch.bfloat16, weights)
    assert (half - exact).norm() < 0.05 * exact.norm()
    copies = sum(p.numel() for p in bench.GloriaDiT(bench.CONFIG).parameters()) * 2 if weights == torch.float32 else 0
    assert half_bytes - copies < 0.55 * exact_bytes


def _gradients(computing: torch.dtype, held: torch.dtype) -> tuple[Tensor, int]:
    """Return the adapters' gradients of a step, and the most bytes alive in it."""
    pair = bench.steps("off")
    for number, parameter in enumerate(pair.network.parameters()):
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(held)
        else:  # fresh adapters add nothing, and half of their gradients are zero
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.grad = torch.zeros_like(parameter)
    if computing != torch.float32:
        method.share_inputs(pair.network)
    with torch.autocast("cpu", dtype=computing, enabled=computing != torch.float32):
        taken = bench.alive(pair.our_step, pair.network, pair.given)
    return torch.cat([p.grad.flatten() for p in pair.network.parameters() if p.grad is not None]), taken
