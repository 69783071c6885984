"""Encoders and VAEs with the true names, for the host's stock loaders.

Some sizes the host takes from the file, such as the width of the Wan 2.1 VAE; for others it has a fixed description: 24
layers of UMT5-XXL, 32 of CLIP-H, the widths of the Wan 2.2 VAE. Random files of those sizes would weigh 9 GB. So the
server of the tests that use these files has the pack `tiny_pack`, which hands it smaller descriptions of the same
architectures, and the files follow those. wav2vec2-base is written at its full size.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from tests.host.tiny_files import Shapes, fp8_scaled, half, linear, norm, random_weights, write

PACK = Path(__file__).with_name("tiny_pack")


def _described(name: str) -> dict[str, Any]:
    return json.loads((PACK / name).read_text(encoding="utf-8"))


UMT5 = _described("umt5_config_xxl.json")
"""UMT5-XXL with all its layers and its full width between them; thin inside."""

CLIP_H = _described("clip_vision_config_h.json")
"""CLIP-H with its full width and its 257 rows; 3 layers of 32."""

VAE_WIDTH = _described("wan_2.2_vae.json")["dim"]


def install_pack(custom_nodes: Path) -> str:
    """Put the pack where a server finds it; returns the name by which the server can be told to load it."""
    shutil.copytree(PACK, custom_nodes / PACK.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return PACK.name


def sentencepiece_model() -> bytes:
    """Train a tokenizer with UMT5's special pieces on a few sentences: pad 0, end 1, unknown 2, no start."""
    sentences = [
        "a woman talks to the camera, soft light, she smiles and turns her head",
        "static, blurred details, subtitles, worst quality, low quality, ugly, deformed",
        "the quick brown fox jumps over the lazy dog 0123456789",
    ]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 20), model_writer=written, vocab_size=96, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=False, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def write_umt5(path: Path, seed: int) -> None:
    """Write the text encoder as ``umt5_xxl_fp8_e4m3fn_scaled`` has it: quantised, with its tokenizer inside."""
    width, inner, hidden = UMT5["d_model"], UMT5["d_kv"] * UMT5["num_heads"], UMT5["d_ff"]
    shapes: Shapes = {"shared.weight": (UMT5["vocab_size"], width), "encoder.final_layer_norm.weight": (width,)}
    for index in range(UMT5["num_layers"]):
        attention, feed = f"encoder.block.{index}.layer.0", f"encoder.block.{index}.layer.1"
        shapes |= {f"{attention}.SelfAttention.{name}.weight": (inner, width) for name in "qkv"}
        shapes[f"{attention}.SelfAttention.o.weight"] = (width, inner)
        shapes[f"{attention}.SelfAttention.relative_attention_bias.weight"] = (32, UMT5["num_heads"])
        shapes |= {f"{feed}.DenseReluDense.{name}.weight": (hidden, width) for name in ("wi_0", "wi_1")}
        shapes[f"{feed}.DenseReluDense.wo.weight"] = (width, hidden)
        shapes |= {f"{layer}.layer_norm.weight": (width,) for layer in (attention, feed)}
    weights = random_weights(shapes, seed)
    tables = {name: weights.pop(name).half() for name in list(weights) if name.endswith("attention_bias.weight")}
    tokenizer = torch.tensor(list(sentencepiece_model()), dtype=torch.uint8)
    write(path, fp8_scaled(weights) | tables | {"spiece_model": tokenizer})


def write_clip_vision(path: Path, seed: int) -> None:
    """Write the picture encoder; of layer 30 there is one norm, by which the host recognises CLIP-H."""
    root, width, hidden = "vision_model", CLIP_H["hidden_size"], CLIP_H["intermediate_size"]
    shapes: Shapes = {
        f"{root}.embeddings.class_embedding": (width,),
        f"{root}.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{root}.embeddings.position_embedding.weight": (257, width),
        **norm(f"{root}.pre_layrnorm", width),
        **norm(f"{root}.post_layernorm", width),
        "visual_projection.weight": (CLIP_H["projection_dim"], width),
        **norm(f"{root}.encoder.layers.30.layer_norm1", width),
    }
    for index in range(CLIP_H["num_hidden_layers"]):
        layer = f"{root}.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{name}", width, width)
        shapes |= norm(f"{layer}.layer_norm1", width) | norm(f"{layer}.layer_norm2", width)
        shapes |= linear(f"{layer}.mlp.fc1", hidden, width) | linear(f"{layer}.mlp.fc2", width, hidden)
    write(path, half(random_weights(shapes, seed)))


CTC_HEAD: Shapes = linear("lm_head", 32, 768)
"""What the English wav2vec2-base-960h has beside the encoder."""

PRETRAINING_HEADS: Shapes = {
    "quantizer.codevectors": (1, 640, 128),
    **linear("quantizer.weight_proj", 640, 512),
    **linear("project_hid", 256, 768),
    **linear("project_q", 256, 256),
}
"""What the Chinese wav2vec2-base has beside the encoder."""


def wav2vec2_base(seed: int) -> dict[str, Tensor]:
    """Return wav2vec2-base at its full size, 12 layers of 768: 190 MB in fp16."""
    shapes: Shapes = {"masked_spec_embed": (768,)}
    for index, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        shapes[f"feature_extractor.conv_layers.{index}.conv.weight"] = (512, 512 if index else 1, kernel)
    shapes |= norm("feature_extractor.conv_layers.0.layer_norm", 512)
    shapes |= norm("feature_projection.layer_norm", 512) | linear("feature_projection.projection", 768, 512)
    shapes |= {
        "encoder.pos_conv_embed.conv.bias": (768,),
        "encoder.pos_conv_embed.conv.weight_g": (1, 1, 128),
        "encoder.pos_conv_embed.conv.weight_v": (768, 48, 128),
        **norm("encoder.layer_norm", 768),
    }
    for index in range(12):
        layer = f"encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.attention.{name}", 768, 768)
        shapes |= norm(f"{layer}.layer_norm", 768) | norm(f"{layer}.final_layer_norm", 768)
        shapes |= linear(f"{layer}.feed_forward.intermediate_dense", 3072, 768)
        shapes |= linear(f"{layer}.feed_forward.output_dense", 768, 3072)
    return half(random_weights({f"wav2vec2.{name}": shape for name, shape in shapes.items()}, seed))


def _res_block(name: str, before: int, after: int) -> Shapes:
    shapes: Shapes = {
        f"{name}.residual.0.gamma": (before, 1, 1, 1),
        f"{name}.residual.2.weight": (after, before, 3, 3, 3),
        f"{name}.residual.2.bias": (after,),
        f"{name}.residual.3.gamma": (after, 1, 1, 1),
        f"{name}.residual.6.weight": (after, after, 3, 3, 3),
        f"{name}.residual.6.bias": (after,),
    }
    if before != after:
        shapes |= {f"{name}.shortcut.weight": (after, before, 1, 1, 1), f"{name}.shortcut.bias": (after,)}
    return shapes


def _middle(name: str, width: int) -> Shapes:
    return {
        **_res_block(f"{name}.0", width, width),
        f"{name}.1.norm.gamma": (width, 1, 1),
        f"{name}.1.to_qkv.weight": (3 * width, width, 1, 1),
        f"{name}.1.to_qkv.bias": (3 * width,),
        f"{name}.1.proj.weight": (width, width, 1, 1),
        f"{name}.1.proj.bias": (width,),
        **_res_block(f"{name}.2", width, width),
    }


def _conv(name: str, after: int, before: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (after, before, kernel, kernel, kernel), f"{name}.bias": (after,)}


def _resample(name: str, before: int, after: int, time_factor: int) -> Shapes:
    """A step in size; `time_factor` 2 doubles time, 1 halves it, 0 leaves it."""
    shapes: Shapes = {f"{name}.resample.1.weight": (after, before, 3, 3), f"{name}.resample.1.bias": (after,)}
    if time_factor:
        shapes[f"{name}.time_conv.weight"] = (time_factor * before, before, 3, 1, 1)
        shapes[f"{name}.time_conv.bias"] = (time_factor * before,)
    return shapes


def vae_shapes(*, wan22: bool, width: int = VAE_WIDTH) -> Shapes:
    """Names and shapes of a Wan VAE; 2.2 groups its blocks by size, packs 2 x 2 pixels, and has 48 channels."""
    channels, pixels = (48, 12) if wan22 else (16, 3)
    top = 4 * width
    shapes: Shapes = {
        **_conv("encoder.conv1", width, pixels),
        **_middle("encoder.middle", top),
        "encoder.head.0.gamma": (top, 1, 1, 1),
        **_conv("encoder.head.2", 2 * channels, top),
        **_conv("conv1", 2 * channels, 2 * channels, 1),
        **_conv("conv2", channels, channels, 1),
        **_conv("decoder.conv1", top, channels),
        **_middle("decoder.middle", top),
        "decoder.head.0.gamma": (width, 1, 1, 1),
        **_conv("decoder.head.2", pixels, width),
    }
    return shapes | _path("encoder", wan22, width) | _path("decoder", wan22, width)


def _path(side: str, wan22: bool, width: int) -> Shapes:
    """The way down or up through four sizes, with a step after each of the first three."""
    down = side == "encoder"
    stack = "downsamples" if down else "upsamples"
    widths = [width * m for m in ((1, 1, 2, 4, 4) if down else (4, 4, 4, 2, 1))]
    shapes: Shapes = {}
    flat = 0
    for stage in range(4):
        before, after = widths[stage], widths[stage + 1]
        if not down and not wan22 and stage:
            before //= 2  # there each step up has halved the width already
        in_time = stage in (1, 2) if down else stage in (0, 1)
        for index in range((2 if down else 3) + (stage < 3)):
            place = f"{side}.{stack}.{stage}.{stack}.{index}" if wan22 else f"{side}.{stack}.{flat}"
            flat += 1
            if index < (2 if down else 3):
                shapes |= _res_block(place, before, after)
                before = after
            else:
                halved = after // 2 if not down and not wan22 else after
                shapes |= _resample(place, after, halved, (1 if down else 2) if in_time else 0)
    return shapes


def write_vae(path: Path, seed: int, *, wan22: bool) -> None:
    """Write a VAE in fp16."""
    write(path, half(random_weights(vae_shapes(wan22=wan22), seed)))


def tokens_of(text: str) -> int:
    """Number of tokens of a prompt with its end, by the tokenizer that `write_umt5` puts into the file."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(), add_eos=True)
    return len(processor.encode(text))
