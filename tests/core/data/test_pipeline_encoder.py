"""Footage through a Wan pipeline of diffusers and transformers, and the commands that need no ComfyUI."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gloria_core.data import pipeline_encoder
from gloria_core.data.__main__ import main
from gloria_core.data.cache import Cache
from gloria_core.data.pipeline_encoder import PipelineEncoder
from gloria_core.data.task import FootageTask
from gloria_core.errors import AudioError
from tests.core.render.tiny_pipeline import write_pipeline

pytestmark = pytest.mark.slow  # diffusers and transformers take seconds to import

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of no size."""
    return write_pipeline(tmp_path_factory.mktemp("pipeline") / "wan")


@pytest.fixture
def folder(tmp_path: Path, film: Write, picture: Write) -> Path:
    """Two clips and a picture."""
    root = tmp_path / "set"
    for index, name in enumerate("ab"):
        film(root / f"{name}.mp4", sound=0.3, shade=index, size=(64, 64))
        (root / f"{name}.txt").write_text("a woman talks", encoding="utf-8")
    picture(root / "left.png")
    return root


def test_a_pipeline_encodes_as_its_parts_do(pipeline: Path) -> None:
    encoder = PipelineEncoder(pipeline)
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    latents = encoder.encode_video(frames)
    assert latents.shape == (1, 16, 2, 32 // encoder.stride_px, 32 // encoder.stride_px)
    rows = encoder.encode_text(["a woman talks", "she smiles"])
    assert [row.shape for row in rows] == [rows[0].shape] * 2
    again = PipelineEncoder(pipeline)
    assert (again.video_id, again.text_id) == (encoder.video_id, encoder.text_id)
    assert encoder.audio_id == ""


def test_the_command_prepares_what_the_task_reads(
    pipeline: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    arguments = ["prepare", str(folder), "--cache", str(cache), "--pipeline", str(pipeline), "--size", "64x64"]
    assert main(arguments) == 0
    task = FootageTask(
        manifest=str(folder), cache=str(cache), weights=str(pipeline / "transformer"), frames=[17], batch_size=2
    )
    batch = task.batch(0, 0, 1)
    assert batch.latents.shape[:3] == (2, 16, 5)
    assert batch.anchors is not None
    with torch.no_grad():
        made = task.modules()["dit"](
            batch.latents, torch.full((2,), 500.0), batch.context, anchors=batch.anchors, num_prefix=batch.num_prefix
        )
    assert made.shape == batch.latents.shape
    assert main(["tidy", "--cache", str(cache)]) == 0
    assert Cache(cache).verify() == []


def test_the_command_checks_and_draws(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(folder), "--size", "64x64", "--cache", str(tmp_path / "c"), "--sheet"]
    assert main([*arguments, str(tmp_path / "sheet.png")]) == 0
    assert "2 of 2 can be used" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").is_file()
    (folder / "b.mp4").write_bytes(b"")
    assert main([*arguments, str(tmp_path / "sheet.png")]) == 1
    assert "STOPS  b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "give --pipeline FOLDER"),
        (["--encoder", "nothing:Here"], "cannot be imported"),
        (["--pipeline", "nowhere"], "nowhere"),
    ],
)
def test_commands_that_cannot_be(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, more: list[str], told: str
) -> None:
    with caplog.at_level(logging.ERROR):
        assert main(["prepare", str(folder), "--cache", str(tmp_path / "c"), *more]) == 1
    assert told in caplog.text


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper-groups"])
def test_ears_that_need_an_encoder_ask_for_it(kind: str) -> None:
    with pytest.raises(AudioError, match="--audio-encoder"):
        pipeline_encoder._listener(kind, None, torch.device("cpu"))


def test_nanos_encoder_goes_through_the_command_too(nano_folder: Path, tmp_path: Path) -> None:
    arguments: list[Any] = ["prepare", nano_folder, "--cache", tmp_path / "c"]
    encoder = ["--encoder", "gloria_core.nano.encoders:NanoEncoder"]
    assert main([str(argument) for argument in arguments] + encoder) == 0
