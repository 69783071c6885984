"""The nano word encoder as a CLIP for the stock text nodes."""

from __future__ import annotations

import logging
from typing import Any

import comfy.sd
import pytest
import torch
from gloria_pack.gloria_core.nano.bundle import load_bundle
from gloria_pack.nodes.host.text import build_clip, encode_texts


@pytest.fixture(scope="module")
def clip() -> comfy.sd.CLIP:
    return build_clip(load_bundle().text_encoder)


def encode(clip: comfy.sd.CLIP, text: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))  # what CLIPTextEncode does


def test_a_prompt_becomes_rows_of_the_models_width(clip: comfy.sd.CLIP) -> None:
    config = load_bundle().config
    [[rows, options]] = encode(clip, "turns to the back, happy")
    assert rows.shape == (1, config.text_length, config.text_dim)
    assert options["pooled_output"] is None


def test_prompts_differ_and_case_does_not_matter(clip: comfy.sd.CLIP) -> None:
    left, right = encode(clip, "turns to the left")[0][0], encode(clip, "turns to the right")[0][0]
    assert (left - right).abs().max() > 1e-3
    assert torch.equal(left, encode(clip, "Turns to the LEFT")[0][0])


def test_unknown_words_are_named_once_in_the_log(clip: comfy.sd.CLIP, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = encode(clip, "turns to the zebra left quickly")[0][0]
    messages = [record.getMessage() for record in caplog.records if "does not know" in record.getMessage()]
    assert len(messages) == 1
    assert "'zebra'" in messages[0]
    assert "'quickly'" in messages[0]
    assert torch.isfinite(rows).all()
    caplog.clear()
    encode(clip, "turns to the left")
    assert not caplog.records


def test_an_empty_prompt_is_a_prompt(clip: comfy.sd.CLIP) -> None:
    assert torch.isfinite(encode(clip, "")[0][0]).all()


def test_the_object_is_cloned_and_saved_as_the_host_does(clip: comfy.sd.CLIP) -> None:
    other = clip.clone()
    assert torch.equal(encode(other, "happy")[0][0], encode(clip, "happy")[0][0])
    assert other.get_sd()
    assert other.get_ram_usage() > 0


def test_texts_of_a_schedule_are_encoded_by_name(clip: comfy.sd.CLIP) -> None:
    made = encode_texts(clip, {"happy", "sad"})
    assert set(made) == {"happy", "sad"}
    assert torch.equal(made["sad"][0][0], encode(clip, "sad")[0][0])
