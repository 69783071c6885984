"""Wan's text encoder, UMT5, from a Diffusers folder."""

import gc
import html
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..runs.digest import digest_of
from . import packages
from .keep import Keep

LENGTH = 512
"""Tokens of a prompt; what comes behind is cut off. Source: wan.md, UMT5-XXL encoder."""

_log = logging.getLogger(__name__)


class WanTexts:
    """Encodes prompts as Wan was trained: cleaned, cut to 512 tokens, padding set to zeros after encoding.

    The encoder is loaded for the texts that are not kept yet, and let go again: it is larger than most transformers.

    Args:
        folder: of the pipeline.
        weights: digest of the encoder's weights.
        keep: where rows are kept.
        device: where the encoder runs.
        dtype: in what.
    """

    def __init__(self, folder: Path, weights: str, keep: Keep, device: torch.device, dtype: torch.dtype) -> None:
        self._folder, self._weights, self._keep = folder, weights, keep
        self._device, self._dtype = device, dtype

    def __call__(self, texts: Iterable[str]) -> Mapping[str, Tensor]:
        """Return the rows (1, 512, D) of each text; CheckpointError where encoder or tokenizer cannot be loaded."""
        keys = {text: digest_of("text", self._weights, str(self._dtype), cleaned(text)) for text in texts}
        known = {text: self._keep.get(key) for text, key in keys.items()}
        missing = [text for text, rows in known.items() if rows is None]
        fresh = self._encoded(missing) if missing else {}
        made = {text: self._keep.put(keys[text], rows) for text, rows in fresh.items()}
        return {text: rows for text, rows in known.items() if rows is not None} | made

    @torch.inference_mode()
    def _encoded(self, texts: Iterable[str]) -> dict[str, Tensor]:
        transformers = packages.transformers()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
            encoder = transformers.UMT5EncoderModel.from_pretrained(
                self._folder / "text_encoder", dtype=self._dtype, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise CheckpointError(
                f"The text encoder in {self._folder} cannot be loaded ({str(error)[:300]}): the folders text_encoder "
                "and tokenizer of the pipeline must be whole."
            ) from error
        encoder = encoder.to(self._device).eval()
        found = {text: self._rows(tokenizer, encoder, text) for text in texts}
        del encoder
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return found

    def _rows(self, tokenizer: Any, encoder: Any, text: str) -> Tensor:  # noqa: ANN401 - of transformers
        given = tokenizer(
            cleaned(text),
            padding="max_length",
            max_length=LENGTH,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = given.attention_mask.to(self._device)
        rows = encoder(given.input_ids.to(self._device), mask).last_hidden_state
        rows[:, int(mask.sum()) :] = 0
        return rows.cpu().clone()


def cleaned(text: str) -> str:
    """Return a prompt as Wan's own code cleans it: mended, without HTML's escapes, with single spaces.

    Mending broken letters and curly quotes takes the package ftfy; where it is missing, a text that has other letters
    than ASCII's is encoded as it is written, and the log says so.
    """
    if not text.isascii():
        mender = packages.ftfy()
        if mender is not None:
            text = mender.fix_text(text)
        else:
            _log.warning("The package ftfy is not installed: the prompt %r is encoded as it is written.", text[:60])
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()
