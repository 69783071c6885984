"""LoRAs worked into weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gloria_core.errors import LoraError
from gloria_core.lora import Fit, LoraFile, check_mergeable, fit, merged, normalise

SHAPES = {"blocks.0.ffn.0.weight": (6, 4), "blocks.0.ffn.0.bias": (6,), "blocks.0.modulation.weight": (1, 6, 4)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fitted(tensors: dict[str, Tensor]) -> Fit:
    lora = normalise(LoraFile(name="a.safetensors", tensors=tensors, metadata={}), [n[:-7] for n in SHAPES])
    return fit(lora, SHAPES, "a model")


def weights() -> dict[str, Tensor]:
    return {
        "blocks.0.ffn.0.weight": draw(6, 4, seed=1),
        "blocks.0.ffn.0.bias": draw(6, seed=2),
        "blocks.0.modulation": draw(1, 6, 4, seed=3),
        "head.bias": draw(2, seed=4),
    }


def test_a_product_is_added_by_alpha_and_strength() -> None:
    up, down = draw(6, 2, seed=5), draw(2, 4, seed=6)
    names = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(4.0)}
    found = fitted({f"diffusion_model.blocks.0.ffn.0.{part}": tensor for part, tensor in names.items()})
    check_mergeable(found)
    before = weights()
    after = merged(before, found, 0.5, torch.float32)
    torch.testing.assert_close(
        after["blocks.0.ffn.0.weight"], before["blocks.0.ffn.0.weight"] + 0.5 * (4.0 / 2) * up @ down
    )
    assert all(after[name] is before[name] for name in before if name != "blocks.0.ffn.0.weight")


def test_differences_of_weights_biases_and_tables() -> None:
    names = {
        "ffn.0.diff": draw(6, 4, seed=7),
        "ffn.0.diff_b": draw(6, seed=8),
        "modulation.diff": draw(1, 6, 4, seed=9),
    }
    found = fitted({f"diffusion_model.blocks.0.{name}": tensor for name, tensor in names.items()})
    before = weights()
    after = merged(before, found, -2.0, torch.float64)
    for own, name in (
        ("ffn.0.weight", "ffn.0.diff"),
        ("ffn.0.bias", "ffn.0.diff_b"),
        ("modulation", "modulation.diff"),
    ):
        expected = before[f"blocks.0.{own}"] - 2.0 * names[name]
        torch.testing.assert_close(after[f"blocks.0.{own}"], expected.double(), check_dtype=True)


def test_other_kinds_are_refused_by_name() -> None:
    parts = {"lora_up.weight": draw(6, 2), "lora_down.weight": draw(2, 4), "dora_scale": draw(6, 1)}
    found = fitted({f"diffusion_model.blocks.0.ffn.0.{part}": tensor for part, tensor in parts.items()})
    with pytest.raises(LoraError, match=r"has dora_scale for blocks\.0\.ffn\.0; only LoRAs, LoHas"):
        check_mergeable(found)
