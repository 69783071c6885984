import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.errors import LoraError
from gloria_core.lora import Fit, LoraFile, differences, fit, normalise

SHAPES = {
    f"blocks.{i}.{layer}": shape
    for i in range(2)
    for layer, shape in {
        "self_attn.q.weight": (8, 8), "self_attn.q.bias": (8,), "ffn.0.weight": (12, 8), "ffn.0.bias": (12,),
        "self_attn.norm_q.weight": (8,), "modulation.weight": (1, 6, 8),
    }.items()
} | {"patch_embedding.weight": (8, 4, 1, 2, 2), "patch_embedding.bias": (8,)}  # fmt: skip


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pair(name: str, out: int = 8, columns: int = 8, rank: int = 2) -> dict[str, Tensor]:
    return {f"{name}.lora_A.weight": draw(rank, columns), f"{name}.lora_B.weight": draw(out, rank)}


def fitted(tensors: dict[str, Tensor]) -> Fit:
    return fit(normalise(LoraFile(name="some.safetensors", tensors=tensors, metadata={})), SHAPES, "tiny")


GOOD = pair("blocks.0.self_attn.q") | pair("blocks.1.ffn.0", out=12)


def test_what_fits_is_used_and_counted() -> None:
    found = fitted(GOOD)
    assert sorted(found.layers) == ["blocks.0.self_attn.q", "blocks.1.ffn.0"]
    assert found.report(0.5) == "some.safetensors at strength 0.5: 4 of 4 keys used, on 2 layers (2 LoRA)."


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (pair("blocks.0.cross_attn.k_img"), "CLIP image branch"),
        (pair("blocks.5.self_attn.q"), "after the 2 that this model has"),
        (pair("blocks.0.audio_attn.k"), "audio branch"),
        (pair("text_encoder.layers.0.q"), "text encoder"),
        (pair("vace_blocks.0.self_attn.q"), "does not have"),
        (pair("blocks.1.self_attn.q", 16, 16), "made for 16 x 16 weights where this model has 8 x 8"),
        ({"blocks.1.self_attn.q.diff_b": draw(3)}, r"made for \(3,\) biases"),
        ({"blocks.1.self_attn.norm_q.diff_b": draw(8)}, "bias that this model's layers do not have"),
        ({"blocks.1.self_attn.q.alpha": torch.tensor(1.0)}, "change nothing by themselves"),
        (pair("blocks.1.self_attn.q") | {"blocks.1.self_attn.q.lokr_w1": draw(8, 8)}, "two kinds of LoRA at once"),
        (pair("blocks.1.self_attn.q") | {"blocks.1.self_attn.q.dora_scale": draw(5, 1)}, "with 5 lengths"),
        (
            {"blocks.1.self_attn.q.dora_scale": draw(8, 1), "blocks.1.self_attn.q.diff": draw(8, 8)},
            "without the matrices",
        ),
        (pair("blocks.1.self_attn.q") | {"blocks.1.self_attn.q.lora_mid.weight": draw(2, 2, 1, 1, 1)}, "not flat"),
        (pair("blocks.1.self_attn.q") | {"blocks.1.self_attn.q.reshape_weight": torch.tensor([8, 9])}, "8 x 9 weights"),
        (
            {
                "blocks.1.self_attn.q.lokr_w1_a": draw(2, 3),
                "blocks.1.self_attn.q.lokr_w1_b": draw(2, 2),
                "blocks.1.self_attn.q.lokr_w2": draw(4, 4),
            },
            r"made for 8 x \? weights",
        ),
        (
            {
                f"blocks.1.self_attn.q.hada_{n}": draw(*s)
                for n, s in {"w1_a": (8, 2), "w1_b": (2, 8), "w2_a": (8, 2), "w2_b": (3, 8)}.items()
            },
            r"made for 8 x \? weights",
        ),
        ({"blocks.1.self_attn.q.oft_blocks": draw(2, 4, 3)}, r"made for \? x 8 weights"),
        ({"head.diff_m": draw(1, 2, 8)}, "only in a model of Load Gloria DiT"),
        ({"blocks.0.stray.weight": draw(3)}, "no kind of LoRA"),
        ({"blocks.1.self_attn.q.lokr_w1": draw(2, 2)}, r"made for \? x 2 weights"),
        ({"patch_embedding.diff": draw(8, 9, 1, 2, 2)}, "made for 8 x 9 x 1 x 2 x 2 weights"),
    ],
)
def test_every_unused_key_is_told_with_its_reason(extra: dict[str, Tensor], reason: str) -> None:
    found = fitted({**GOOD, **extra})
    assert {key for key, _ in found.unused} == set(extra)
    text = found.report(1.0)
    assert f"4 of {4 + len(extra)} keys used" in text
    assert re.search(reason, text), text


def test_unused_keys_of_many_blocks_are_told_in_one_line() -> None:
    extra = {key: t for i in range(2) for key, t in pair(f"blocks.{i}.cross_attn.v_img").items()}
    text = fitted({**GOOD, **extra}).report(1.0)
    assert "Not used: 4 keys" in text
    assert "blocks.*.cross_attn.v_img.lora_A.weight (blocks 0-1, 2 keys)" in text


@pytest.mark.parametrize(
    ("parts", "layer"),
    [
        ({"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 8)}, "blocks.0.ffn.0"),
        ({"lokr_w1": (3, 2), "lokr_w2_a": (4, 2), "lokr_w2_b": (2, 4)}, "blocks.0.ffn.0"),
        ({"a1.weight": (8, 2), "a2.weight": (2, 8), "b1.weight": (12, 2), "b2.weight": (2, 8)}, "blocks.0.ffn.0"),
        ({"oft_blocks": (3, 4, 4)}, "blocks.0.ffn.0"),
        ({"oft_blocks": (2, 3, 4, 4)}, "blocks.0.ffn.0"),
        ({"lora_down.weight": (2, 4, 1, 2, 2), "lora_up.weight": (8, 2, 1, 1, 1)}, "patch_embedding"),
        ({"diff": (6, 8)}, "blocks.0.modulation"),
        ({"diff": (8,), }, "blocks.0.self_attn.norm_q"),
        ({"set_weight": (12, 8), "diff_b": (12,)}, "blocks.0.ffn.0"),
    ],
)  # fmt: skip
def test_every_kind_is_recognised_by_its_shapes(parts: dict[str, tuple[int, ...]], layer: str) -> None:
    found = fitted({f"{layer}.{part}": draw(*shape) for part, shape in parts.items()})
    assert list(found.layers) == [layer]
    wider = {f"{layer}.{part}": draw(*(n + 1 for n in shape)) for part, shape in parts.items()}
    assert [key for key, _ in fitted({**GOOD, **wider}).unused] == list(wider)


def test_float8_matrices_fit() -> None:
    assert len(fitted({name: t.to(torch.float8_e4m3fn) for name, t in GOOD.items()}).layers) == 2


def test_a_table_stored_without_its_leading_one_gets_it_back() -> None:
    assert fitted({"blocks.0.diff_m": draw(6, 8)}).layers["blocks.0.modulation"]["diff"].shape == (1, 6, 8)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (pair("lora_unet_down_blocks_0_attentions_0_proj_in"), "LoRA for Stable Diffusion"),
        (pair("unet.up_blocks.0.attentions.0.proj_in"), "LoRA for Stable Diffusion"),
        (pair("lora_unet_double_blocks_0_img_attn_qkv"), "Flux or HunyuanVideo"),
        (pair("transformer.single_transformer_blocks.0.attn.to_q"), "Flux or HunyuanVideo"),
        (pair("transformer.transformer_blocks.0.attn1.to_q"), "LTX-Video, Qwen-Image"),
        (pair("diffusion_model.layers.0.attention.qkv"), "Lumina or Z-Image"),
        (pair("diffusion_model.joint_blocks.0.x_block.attn.qkv"), "Stable Diffusion 3"),
        (pair("lora_te1_text_model_encoder_layers_0_mlp_fc1"), "text encoder alone"),
        ({"blocks.0.self_attn.q.weight": draw(8, 8), "head.head.weight": draw(4, 8)}, "whole model, not a LoRA"),
        ({"decoder.conv1.weight": draw(8, 8), "encoder.conv1.weight": draw(8, 8)}, "it is a VAE"),
        ({"anything": draw(3)}, "none of its 1 keys"),
        (pair("blocks.0.self_attn.q", 16, 16) | pair("blocks.1.self_attn.q", 16, 16), "another size"),
        (pair("blocks.0.self_attn.q", 16, 16) | {"patch_embedding.diff_b": draw(8)}, "another size"),
        (pair("blocks.0.cross_attn.k_img"), "CLIP image branch"),
        ({"blocks.0.self_attn.q.diff": torch.full((8, 8), float("nan"))}, "training diverged"),
        ({"blocks.0.self_attn.q.diff": torch.full((8, 8), float("inf")).half()}, "training diverged"),
    ],
)
def test_a_file_of_which_nothing_fits_is_refused_with_what_it_is(tensors: dict[str, Tensor], says: str) -> None:
    with pytest.raises(LoraError, match=says):
        fitted(tensors)


def test_settings_that_differ_from_the_models_are_told() -> None:
    trained = ModelConfig(anchors=AnchorConfig(expression_step=50, mode="cached"), audio=AudioConfig(dim=64))
    assert differences(trained, trained) == []
    assert differences(trained, replace(trained, name="another", family="other", shift=2.0)) == []
    found = differences(trained, ModelConfig(audio=AudioConfig(dim=32)))
    assert found == [
        "anchors.mode cached (this model: joint)",
        "anchors.expression_step 50 (this model: 40)",
        "audio.dim 64 (this model: 32)",
    ]
    assert "audio none" in differences(ModelConfig(audio=None), trained)[-1]
