import pytest
import torch
from torch import Tensor

from gloria_core.errors import LoraError
from gloria_core.lora import LoraFile, PeftConfig, normalise

Q = "blocks.0.self_attn.q"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def file(tensors: dict[str, Tensor], peft: PeftConfig | None = None, **metadata: str) -> LoraFile:
    return LoraFile(name="some.safetensors", tensors=tensors, metadata=metadata, peft=peft)


def pair(name: str, rank: int = 4) -> dict[str, Tensor]:
    return {f"{name}.lora_A.weight": draw(rank, 6), f"{name}.lora_B.weight": draw(8, rank)}


def scale(tensors: dict[str, Tensor], peft: PeftConfig | None = None) -> float:
    parts = normalise(file(tensors, peft)).layers[Q]
    return float(parts["alpha"]) / parts["lora_down.weight"].shape[0]


def test_alpha_is_baked() -> None:
    assert scale(pair(Q)) == 1.0
    assert scale(pair(Q) | {f"{Q}.alpha": torch.tensor(2.0)}) == 0.5
    assert scale(pair(Q), PeftConfig(rank=4, alpha=12.0)) == 3.0
    assert scale(pair(Q), PeftConfig(rank=4, alpha=12.0, rslora=True)) == 6.0
    assert scale(pair(Q) | {f"{Q}.alpha": torch.tensor(2.0)}, PeftConfig(rank=4, alpha=12.0)) == 0.5


def test_settings_of_another_file_are_told_and_not_used() -> None:
    lora = normalise(file(pair(Q), PeftConfig(rank=32, alpha=64.0)))
    assert float(lora.layers[Q]["alpha"]) == 4.0
    assert "say rank 32" in lora.notes[0]


def test_pefts_patterns_are_matched_in_the_trainers_names() -> None:
    config = PeftConfig(rank=4, alpha=4.0, alpha_pattern={"attn1.to_q": 8.0})
    assert scale(pair("transformer.blocks.0.attn1.to_q"), config) == 2.0


def test_the_bias_of_an_up_matrix_becomes_a_scaled_change_of_the_bias() -> None:
    bias = draw(8, seed=3)
    parts = normalise(file(pair(Q) | {f"{Q}.lora_B.bias": bias}, PeftConfig(rank=4, alpha=8.0))).layers[Q]
    assert torch.allclose(parts["diff_b"], 2 * bias)
    assert "lora_up.bias" not in parts


def test_whole_kronecker_factors_are_scaled_as_peft_scales_them() -> None:
    factors = {f"{Q}.lokr_w1": draw(2, 2), f"{Q}.lokr_w2": draw(4, 3)}
    parts = normalise(file(factors, PeftConfig(rank=4, alpha=8.0))).layers[Q]
    assert torch.allclose(parts["lokr_w1"], 2 * factors[f"{Q}.lokr_w1"])


def test_rotations_without_a_bound_get_alpha_zero() -> None:
    parts = normalise(file({f"{Q}.oft_blocks": draw(2, 2, 4, 4)})).layers[Q]
    assert float(parts["alpha"]) == 0.0


def test_the_state_dict_carries_the_hosts_prefix() -> None:
    lora = normalise(file(pair("lora_unet__blocks_0_self_attn_q")))
    assert sorted(lora.state_dict()) == [
        f"diffusion_model.{Q}.alpha",
        f"diffusion_model.{Q}.lora_down.weight",
        f"diffusion_model.{Q}.lora_up.weight",
    ]
    assert lora.keys[Q] == tuple(pair("lora_unet__blocks_0_self_attn_q"))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({f"{Q}.lora_B.weight": draw(8, 4)}, "without lora_down"),
        ({f"{Q}.lora_A.weight": draw(4, 6)}, "without lora_up"),
        ({f"{Q}.hada_w1_a": draw(8, 4), f"{Q}.hada_w1_b": draw(4, 6)}, "without hada_w2_a, hada_w2_b"),
        ({f"{Q}.lokr_w2_a": draw(8, 4)}, "without lokr_w2_b"),
        ({f"{Q}.a1.weight": draw(8, 4)}, "without a2"),
        (pair(Q) | {f"{Q}.alpha": torch.tensor(float("nan"))}, "no finite number"),
        (pair(Q) | {f"{Q}.alpha": torch.ones(3)}, "no finite number"),
        ({f"{Q}.lora_A.weight": torch.tensor(1.0), f"{Q}.lora_B.weight": draw(8)}, "is no matrix"),
        ({f"{Q}.oft_blocks": draw(8, 8)}, "is no matrix"),
        (pair(f"transformer.{Q}") | pair(f"transformer_2.{Q}"), "both experts"),
    ],
)
def test_damaged_layers_are_told(tensors: dict[str, Tensor], says: str) -> None:
    with pytest.raises(LoraError, match=says):
        normalise(file(tensors))
