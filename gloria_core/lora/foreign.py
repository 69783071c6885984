"""Telling what a file is that is no LoRA for a Wan model, from the names in it."""

import re
from collections.abc import Sequence

_SIGNS: tuple[tuple[str, str], ...] = (
    (r"double_blocks|single_blocks|single_transformer_blocks", "it is a LoRA for Flux or HunyuanVideo"),
    (
        r"(?:down|up|input|output)_blocks[._]|mid(?:dle)?_block[._]",
        "it is a LoRA for Stable Diffusion (1.5 or SDXL)",
    ),
    (r"joint_blocks", "it is a LoRA for Stable Diffusion 3"),
    (r"transformer_blocks[._]", "it is a LoRA for LTX-Video, Qwen-Image or another model, not for Wan"),
    (r"(?:^|[._])layers[._]\d+[._](?:attention|feed_forward)", "it is a LoRA for Lumina or Z-Image"),
    (r"^(?:first_stage_model\.|vae\.)|(?:^|\.)(?:encoder|decoder)\.(?:conv|down|up|middle)", "it is a VAE"),
)
"""What names give away, the surest sign first."""

_WHOLE = re.compile(r"(?:^|\.)(?:blocks\.\d+\.(?:self_attn|attn1)\.\w+(?:\.0)?|patch_embedding)\.weight$")
_TEXT_ENCODER = re.compile(r"^(?:lora_te|text_encoders?|te\d?[._]|text_model|clip_)")


def what_it_is(keys: Sequence[str]) -> str:
    """Return what a file of these keys is, as half a sentence, or an empty text where the names tell nothing."""
    if keys and all(_TEXT_ENCODER.search(key) for key in keys):
        return "it is a LoRA for a text encoder alone, which the host's own Load LoRA node can load"
    if any(_WHOLE.search(key) for key in keys):
        return "it is a whole model, not a LoRA: move it to models/diffusion_models and choose it in Load Gloria DiT"
    return next((what for sign, what in _SIGNS if any(re.search(sign, key) for key in keys)), "")
