"""Wan pipelines of the true structure and of no size, written by diffusers and transformers themselves."""

from __future__ import annotations

from pathlib import Path

import diffusers
import tokenizers
import torch
import transformers

TEXT_DIM = 32
_WORDS = [
    "a",
    "woman",
    "talks",
    "to",
    "the",
    "camera",
    ",",
    "soft",
    "light",
    "she",
    "smiles",
    "and",
    "turns",
    "her",
    "head",
    "static",
    "blurred",
    "worst",
    "quality",
]


def write_pipeline(
    folder: Path, *, wan22: bool = False, experts: bool = False, shift: float = 3.0, parts: bool = False
) -> Path:
    """Write a pipeline with random weights; `parts` spreads the transformer over several files."""
    torch.manual_seed(5)
    channels = 48 if wan22 else 16
    vae = small_vae(wan22=wan22)
    transformer = small_transformer(channels)
    second = small_transformer(channels) if experts else None
    encoder = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=64, d_model=TEXT_DIM, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1
        )
    ).eval()
    pipeline = diffusers.WanPipeline(
        tokenizer=small_tokenizer(),
        text_encoder=encoder,
        vae=vae,
        transformer=transformer,
        transformer_2=second,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=shift
        ),
        boundary_ratio=0.8 if experts else None,
        expand_timesteps=wan22,
    )
    pipeline.save_pretrained(folder, **({"max_shard_size": "400KB"} if parts else {}))
    return folder


def small_transformer(
    channels: int, in_channels: int = 0, image_dim: int | None = None
) -> diffusers.WanTransformer3DModel:
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=1,
        attention_head_dim=128,
        in_channels=in_channels or channels,
        out_channels=channels,
        text_dim=TEXT_DIM,
        freq_dim=64,
        ffn_dim=96,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        image_dim=image_dim,
        added_kv_proj_dim=128 if image_dim else None,
    ).eval()


def small_vae(*, wan22: bool) -> diffusers.AutoencoderKLWan:
    channels = 48 if wan22 else 16
    generator = torch.Generator().manual_seed(3)
    form = {
        "decoder_base_dim": 8,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    }
    vae = diffusers.AutoencoderKLWan(
        base_dim=8,
        z_dim=channels,
        latents_mean=torch.randn(channels, generator=generator).tolist(),
        latents_std=(torch.rand(channels, generator=generator) + 0.5).tolist(),
        **(form if wan22 else {}),
    )
    return vae.eval()


def small_tokenizer() -> transformers.PreTrainedTokenizerFast:
    pieces = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {word: 3 + place for place, word in enumerate(dict.fromkeys(_WORDS))}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(pieces, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
