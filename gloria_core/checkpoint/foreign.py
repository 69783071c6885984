"""What a file is when it is not a model that loads here, as data: its marks, its name, and what to do with it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import CheckpointError
from .files import some

_WAN_INSTEAD = "choose a Wan or Gloria model."


@dataclass(frozen=True, slots=True)
class Foreign:
    """A kind of file that is often mistaken for ours."""

    what: str
    marks: tuple[str, ...]
    """Regular expressions; each must be found in some name of the file. ^ and $ are a name's ends."""
    advice: str


KINDS = (
    Foreign(
        "a LoRA",
        (r"\.lora_(?:A|B|down|up|mid)\b|[._]lora[._](?:up|down)\.|\.lora_linear_layer\.|\.hada_w1_a|\.lokr_w[12]|"
         r"\.diff(?:_b|_m)?$",),
        "choose a Wan model here, put this file into models/loras, and load it with Gloria LoRA behind this node.",
    ),
    Foreign("a training checkpoint", (r"^model\.dit\.",), "export the run first, and choose the exported file."),
    Foreign("an SDXL checkpoint", (r"(?:^|\.)input_blocks\.\d", r"label_emb\.|^conditioner\."), _WAN_INSTEAD),
    Foreign("a Stable Diffusion checkpoint", (r"(?:^|\.)input_blocks\.\d",), _WAN_INSTEAD),
    Foreign("a ControlNet", (r"^(?:control_model|controlnet\w*|zero_convs)\.",), _WAN_INSTEAD),
    Foreign("a HunyuanVideo model", (r"txt_in\.individual_token_refiner\.",), _WAN_INSTEAD),
    Foreign("a Flux model", (r"(?:^|\.)(?:double_blocks|single_transformer_blocks)\.\d",), _WAN_INSTEAD),
    Foreign("a Stable Diffusion 3 model", (r"(?:^|\.)joint_blocks\.\d",), _WAN_INSTEAD),
    Foreign("a Qwen-Image model", (r"transformer_blocks\.\d+\.img_mod\.",), _WAN_INSTEAD),
    Foreign("an LTX-Video model", (r"(?:^|\.)adaln_single\.", r"patchify_proj|caption_projection"), _WAN_INSTEAD),
    Foreign("a CogVideoX model", (r"(?:^|\.)patch_embed\.proj\.", r"transformer_blocks\.\d"), _WAN_INSTEAD),
    Foreign(
        "a VAE",
        (r"(?:^|\.)(?:encoder|decoder)\.(?:middle\.\d|conv_in\.|mid\.|mid_block\.|up_blocks|down\.\d)",),
        "put it into models/vae and load it with Load VAE; " + _WAN_INSTEAD,
    ),
    Foreign("a diffusion model of the U-Net kind", (r"(?:^|\.)down_blocks\.\d", r"(?:^|\.)mid_block\."), _WAN_INSTEAD),
    Foreign(
        "a T5 text encoder",
        (r"(?:^|\.)(?:encoder\.block\.\d+\.layer\.\d+\.SelfAttention|enc\.blk\.\d+\.attn_q)\.|"
         r"^blocks\.\d+\.pos_embedding\.embedding\.",),
        "put it into models/text_encoders and load it with Load CLIP, type wan; here " + _WAN_INSTEAD,
    ),
    Foreign(
        "a CLIP vision encoder",
        (r"(?:^|\.)(?:vision_model\.encoder\.layers|visual\.transformer)\.",),
        "put it into models/clip_vision and load it with Load CLIP Vision; here " + _WAN_INSTEAD,
    ),
    Foreign(
        "a CLIP text encoder",
        (r"(?:^|\.)text_model\.encoder\.layers\.",),
        "load it with Load CLIP; here " + _WAN_INSTEAD,
    ),
    Foreign(
        "a wav2vec2 audio encoder",
        (r"(?:^|\.)feature_extractor\.conv_layers\.",),
        "put it into models/audio_encoders and load it with Load Audio Encoder; here " + _WAN_INSTEAD,
    ),
    Foreign(
        "a Whisper audio encoder",
        (r"(?:^|\.)encoder\.layers\.\d+\.self_attn\.", r"(?:^|\.)encoder\.conv1\."),
        "put it into models/audio_encoders and load it with Load Audio Encoder; here " + _WAN_INSTEAD,
    ),
    Foreign(
        "an audio branch without a video model",
        (r"audio_cross_attn|cross_attn\.(?:processor\.)?k_proj\.|^proj_model\.|^audio_attn|\.audio_attn\.",),
        "choose the video model that it was made for here, and load this file with Gloria Load Audio Branch.",
    ),
    Foreign("a language model", (r"(?:^|\.)layers\.\d+\.self_attn\.q_proj\.|^blk\.\d+\.attn_q\.",), _WAN_INSTEAD),
)  # fmt: skip
"""Kinds of files that hold no Wan transformer, the particular before the general."""

VARIANTS = (
    Foreign("Wan VACE", (r"(?:^|\.)vace_(?:patch_embedding|blocks)\.",), "choose the plain T2V or I2V model."),
    Foreign("a Wan camera-control model", (r"(?:^|\.)control_adapter\.",), "choose the plain I2V model."),
    Foreign("Wan S2V", (r"(?:^|\.)(?:casual_audio_encoder|audio_injector)\.",),
            "choose an I2V model and a sound branch for it."),
    Foreign("HuMo with its video model", (r"audio_cross_attn_wrapper|audio_proj_glob",),
            "choose Wan2.1 T2V here, and this file's sound branch with Gloria Load Audio Branch."),
    Foreign("Wan with MultiTalk's or InfiniteTalk's sound branch built in",
            (r"audio_cross_attn\.|multitalk_audio_proj\.",),
            "choose Wan2.1 I2V 14B here, and the sound branch with Gloria Load Audio Branch."),
    Foreign("Wan with FantasyTalking's sound branch built in", (r"cross_attn\.(?:processor\.)?k_proj\.",),
            "choose Wan2.1 I2V 14B here, and the sound branch with Gloria Load Audio Branch."),
    Foreign("Wan Animate", (r"(?:^|\.)(?:face_adapter|pose_patch_embedding|motion_encoder)\.",),
            "choose an I2V model."),
    Foreign("a Wan Fun-Control model", (r"(?:^|\.)ref_conv\.",), "choose Fun-InP or the plain I2V model."),
    Foreign("a Wan model that follows a camera path", (r"(?:^|\.)cam_encoder\.",), "choose the plain T2V model."),
    Foreign("a SkyReels model that takes the frame rate", (r"(?:^|\.)fps_embedding\.",), "choose a Wan model."),
    Foreign("a Wan model that follows a pose", (r"(?:^|\.)(?:dwpose_embedding|randomref_embedding_pose)\.",),
            "choose the plain I2V model."),
    Foreign("a bitsandbytes quantisation", (r"\.(?:absmax|quant_map|nested_absmax)$|\.quant_state\.",),
            "choose the fp8, bf16 or fp16 file of the same model, or a GGUF."),
    Foreign("an SVDQuant or AWQ quantisation", (r"\.(?:qweight|wscales|wtscale|smooth_factor)$",),
            "choose the fp8, bf16 or fp16 file of the same model, or a GGUF."),
)  # fmt: skip
"""Relatives of Wan with parts of their own, which do not run here, and quantisations that are not read."""

CHANNELS = {
    (48, 16): ("a Wan Fun-Control model", "choose Fun-InP or the plain I2V model"),
    (52, 16): ("a Wan2.2 Fun-Control model", "choose the plain A14B I2V model"),
    (32, 16): ("a Wan Fun-Camera model", "choose the plain I2V model"),
}
"""Relatives of Wan that only the channels of input and output give away."""


def recognise(names: Iterable[str], kinds: Iterable[Foreign]) -> Foreign | None:
    """Return the first kind all of whose marks are among the names, or None."""
    text = "\n".join(names)
    return next((kind for kind in kinds if all(re.search(mark, text, re.MULTILINE) for mark in kind.marks)), None)


def refusal(names: Iterable[str], what: str) -> CheckpointError:
    """Return the error for a file without a Wan transformer: what it is, or at least what it holds."""
    names = sorted(names)
    kind = recognise(names, KINDS)
    if kind:
        return CheckpointError(f"{what} is {kind.what}: {kind.advice}")
    count = "its only tensor is" if len(names) == 1 else f"its {len(names)} tensors are"
    held = f"{count} called {some(names)}" if names else "it holds no tensor at all"
    return CheckpointError(f"{what} is not a Gloria checkpoint and no Wan model: {held}. Choose another file.")
