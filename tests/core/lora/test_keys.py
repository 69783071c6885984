import pytest

from gloria_core.lora.keys import flat_names, read_key
from gloria_core.names import BLOCK_FROM_DIFFUSERS, TOP_FROM_DIFFUSERS

Q = "blocks.7.self_attn.q"


@pytest.mark.parametrize(
    ("key", "layer", "part"),
    [
        ("diffusion_model.blocks.7.self_attn.q.lora_A.weight", Q, "lora_down.weight"),
        ("diffusion_model.blocks.7.self_attn.q.lora_B.weight", Q, "lora_up.weight"),
        ("diffusion_model.blocks.7.self_attn.q.lora_down.weight", Q, "lora_down.weight"),
        ("diffusion_model.blocks.7.self_attn.q.alpha", Q, "alpha"),
        ("diffusion_model.blocks.7.self_attn.q.lora_A.default.weight", Q, "lora_down.weight"),
        ("diffusion_model.blocks.7.self_attn.q.lora_B.my-adapter.weight", Q, "lora_up.weight"),
        ("lora_unet_blocks_7_self_attn_q.lora_up.weight", Q, "lora_up.weight"),
        ("lora_unet__blocks_7_self_attn_q.lora_up.weight", Q, "lora_up.weight"),
        ("blocks.7.self_attn.q.lora_A.default.weight", Q, "lora_down.weight"),
        ("pipe.dit.blocks.7.self_attn.q.lora_A.default.weight", Q, "lora_down.weight"),
        ("transformer.blocks.7.attn1.to_q.lora_A.weight", Q, "lora_down.weight"),
        ("base_model.model.blocks.7.self_attn.q.lora_B.weight", Q, "lora_up.weight"),
        ("base_model.model.transformer.blocks.7.attn1.to_q.lora_B.default.weight", Q, "lora_up.weight"),
        ("lycoris_blocks_7_self_attn_to_q.lokr_w1", Q, "lokr_w1"),
        ("lycoris_blocks_7_attn1_to_q.hada_w1_a", Q, "hada_w1_a"),
        ("transformer.blocks.7.attn1.processor.to_q_lora.up.weight", Q, "lora_up.weight"),
        ("transformer.blocks.7.attn2.to_out.0.lora_A.weight", "blocks.7.cross_attn.o", "lora_down.weight"),
        ("transformer.blocks.7.attn2.to_k.lora_A.weight", "blocks.7.cross_attn.k", "lora_down.weight"),
        ("lycoris_blocks_7_attn1_to_out_0.alpha", "blocks.7.self_attn.o", "alpha"),
        ("lycoris_blocks_7_attn1_to_out.alpha", "blocks.7.self_attn.o", "alpha"),
        ("transformer.blocks.7.attn2.add_k_proj.lora_B.weight", "blocks.7.cross_attn.k_img", "lora_up.weight"),
        ("transformer.blocks.7.attn2.add_v_proj.lora_B.bias", "blocks.7.cross_attn.v_img", "lora_up.bias"),
        ("transformer.blocks.7.attn2.norm_added_k.diff", "blocks.7.cross_attn.norm_k_img", "diff"),
        ("transformer.blocks.7.ffn.net.0.proj.lora_A.weight", "blocks.7.ffn.0", "lora_down.weight"),
        ("lora_unet_blocks_7_ffn_2.lora_down.weight", "blocks.7.ffn.2", "lora_down.weight"),
        ("transformer.blocks.7.norm2.diff", "blocks.7.norm3", "diff"),
        ("diffusion_model.blocks.7.norm3.diff_b", "blocks.7.norm3", "diff_b"),
        ("diffusion_model.blocks.7.norm3.w_norm", "blocks.7.norm3", "diff"),
        ("diffusion_model.blocks.7.diff_m", "blocks.7.modulation", "diff"),
        ("diffusion_model.head.diff_m", "head.modulation", "diff"),
        ("diffusion_model.blocks.7.modulation.diff", "blocks.7.modulation", "diff"),
        ("transformer.blocks.7.scale_shift_table.diff", "blocks.7.modulation", "diff"),
        ("transformer.scale_shift_table.diff", "head.modulation", "diff"),
        ("transformer.proj_out.lora_A.weight", "head.head", "lora_down.weight"),
        ("transformer.condition_embedder.time_proj.lora_A.weight", "time_projection.1", "lora_down.weight"),
        ("lora_unet_text_embedding_2.lora_down.weight", "text_embedding.2", "lora_down.weight"),
        ("diffusion_model.img_emb.proj.1.diff", "img_emb.proj.1", "diff"),
        (f"diffusion_model.{Q}.lora_magnitude_vector.default.weight", Q, "dora_scale"),
        (f"diffusion_model.{Q}.dora_scale", Q, "dora_scale"),
        (f"diffusion_model.{Q}.a1.weight", Q, "a1.weight"),
        (f"diffusion_model.{Q}.oft_blocks", Q, "oft_blocks"),
        (f"diffusion_model.{Q}.set_weight", Q, "set_weight"),
        (f"diffusion_model.{Q}.reshape_weight", Q, "reshape_weight"),
    ],
)
def test_every_spelling_is_read(key: str, layer: str, part: str) -> None:
    found = read_key(key, {})
    assert found is not None
    assert (found.layer, found.part) == (layer, part)


def test_every_diffusers_name_is_read_in_dots_and_underscores() -> None:
    layers = {f"blocks.12.{theirs}": f"blocks.12.{wan}" for theirs, wan in BLOCK_FROM_DIFFUSERS.items()}
    layers |= dict(TOP_FROM_DIFFUSERS)
    for theirs, wan in layers.items():
        for key in (f"transformer.{theirs}.alpha", f"lycoris_{theirs.replace('.', '_')}.alpha", f"{wan}.alpha"):
            found = read_key(key, {})
            assert found is not None
            assert found.layer == wan, key


def test_layers_beyond_wans_are_found_by_the_models_names() -> None:
    known = flat_names(["blocks.2.audio_attn.v", "audio_embedding.proj.0"])
    for key in ("lora_unet_blocks_2_audio_attn_v.alpha", "blocks.2.audio_attn.v.alpha"):
        found = read_key(key, known)
        assert found is not None
        assert found.layer == "blocks.2.audio_attn.v"
    unknown = read_key("diffusion_model.vace_blocks.0.self_attn.q.alpha", known)
    assert unknown is not None
    assert unknown.layer == "vace_blocks.0.self_attn.q"


@pytest.mark.parametrize("key", ["blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.lora_A.bias", "lora_A", "alpha"])
def test_other_keys_are_no_parts_of_a_lora(key: str) -> None:
    assert read_key(key, {}) is None


def test_the_blocks_of_other_models_are_not_taken_for_wans() -> None:
    found = read_key("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", {})
    assert found is not None
    assert found.layer == "transformer_blocks.0.attn1.to_q"
