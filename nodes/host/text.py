"""The nano word encoder as the host's CLIP, for the stock text nodes."""

import logging
from collections.abc import Iterable
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from torch import Tensor, nn

from ...gloria_core.nano.text import tokenize
from ..sockets import Conditioning

_KEY = "gloria_nano"
_log = logging.getLogger(__name__)


class _WordTokenizer:
    """Words to ids, in the lists of (id, weight) pairs that the host passes between tokenizer and encoder."""

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        **_options: Any,  # noqa: ANN401 - the host's signature
    ) -> dict[str, list[list[tuple[int, float]]]]:
        """Return one row of pairs; words that the model never learned are left out and named in the log."""
        ids, unknown = tokenize(text)
        if unknown:
            _log.warning(
                "Gloria nano does not know %s in the prompt %r and leaves it out. Its words are listed in the "
                "node's help.",
                ", ".join(repr(word) for word in unknown),
                text,
            )
        return {_KEY: [[(int(word), 1.0) for word in ids]]}

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the words are part of the code."""
        return {}


class _WordModel(nn.Module):
    """The encoder with the methods that the host calls."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.dtypes = {torch.float32}

    def encode_token_weights(self, tokens: dict[str, list[list[tuple[int, float]]]]) -> tuple[Tensor, None]:
        """Return text rows (B, L, D) and no pooled vector."""
        device = next(self.encoder.parameters()).device
        ids = torch.tensor([[word for word, _ in row] for row in tokens[_KEY]], dtype=torch.long, device=device)
        return self.encoder(ids).float().to(comfy.model_management.intermediate_device()), None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Take no options: there are no layers to skip."""

    def reset_clip_options(self) -> None:
        """Take no options."""

    def load_sd(self, sd: dict[str, Tensor]) -> Any:  # noqa: ANN401 - torch's result
        """Load weights, for the host's sake."""
        return self.load_state_dict(sd, strict=False)


def build_clip(encoder: nn.Module) -> comfy.sd.CLIP:
    """Return a CLIP around the word encoder."""
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = _WordModel(encoder.eval())
    clip.tokenizer = _WordTokenizer()
    clip.patcher = comfy.model_patcher.ModelPatcher(
        clip.cond_stage_model,
        load_device=comfy.model_management.text_encoder_device(),
        offload_device=comfy.model_management.text_encoder_offload_device(),
    )
    clip.patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
    clip.patcher.is_clip = True
    clip.layer_idx = None
    clip.use_clip_schedule = False
    clip.tokenizer_options = {}
    clip.apply_hooks_to_conds = None
    return clip


def encode_texts(clip: comfy.sd.CLIP, texts: Iterable[str]) -> dict[str, Conditioning]:
    """Encode prompts with any CLIP, as CLIP Text Encode does."""
    return {text: clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in sorted(texts)}
