"""Footage through a Wan pipeline of diffusers and transformers, and the commands that need no ComfyUI."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gloria_core.config import AudioConfig
from gloria_core.data import pipeline_encoder
from gloria_core.data.__main__ import main
from gloria_core.data.cache import Cache
from gloria_core.data.pipeline_encoder import PipelineEncoder
from gloria_core.data.task import FootageTask
from gloria_core.errors import AudioError, CheckpointError, ConfigError
from gloria_core.train import objective
from tests.core.render.tiny_pipeline import small_transformer, write_pipeline

pytestmark = pytest.mark.slow  # diffusers and transformers take seconds to import

Write = Callable[..., Path]
CLIP = 20


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


@pytest.fixture
def seeing(pipeline: Path, tmp_path: Path) -> Path:
    """The pipeline of an image-to-video model, without CLIP vision."""
    made = Path(shutil.copytree(pipeline, tmp_path / "i2v"))
    shutil.rmtree(made / "transformer")
    small_transformer(16, 36, image_dim=CLIP).save_pretrained(made / "transformer")
    return made


def write_clip_vision(pipeline: Path, width: int = CLIP) -> None:
    torch.manual_seed(3)
    config = transformers.CLIPVisionConfig(
        hidden_size=width, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28,
        patch_size=14, projection_dim=8,
    )  # fmt: skip
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(pipeline / "image_encoder")


def test_an_image_to_video_model_is_prepared_and_trained(seeing: Path, folder: Path, tmp_path: Path) -> None:
    write_clip_vision(seeing)
    cache = tmp_path / "cache"
    arguments = ["prepare", str(folder), "--cache", str(cache), "--pipeline", str(seeing), "--size", "64x64"]
    assert main([*arguments, "--prefix-latents", "2"]) == 0
    options = {"manifest": str(folder), "cache": str(cache), "frames": [17], "roles": (), "prefix_latents": 2}
    task = FootageTask(**options, weights=str(seeing / "transformer"), prefix=1.0)
    batch = task.batch(0, 0, 1)
    assert task.config.prefix == "given"
    assert batch.image is not None
    assert batch.image.shape == (1, 20, 5, 8, 8)
    assert batch.image[0, :4].amax(dim=(0, 2, 3)).tolist() == [1, 1, 0, 0, 0]
    assert batch.clip_fea is not None
    assert batch.clip_fea.shape == (1, 5, CLIP)
    drawn = objective.held_out_draw(batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert objective.clip_losses(task.modules(), batch, drawn).isfinite().all()


def test_clip_vision_sees_as_transformers_own_network_does(seeing: Path) -> None:
    write_clip_vision(seeing)
    pictures = PipelineEncoder(seeing).pictures
    assert pictures is not None
    picture = np.random.default_rng(1).integers(0, 255, (28, 28, 3), np.uint8)
    network = transformers.CLIPVisionModelWithProjection.from_pretrained(seeing / "image_encoder")
    ready = transformers.CLIPImageProcessor(do_resize=False, do_center_crop=False)(picture, return_tensors="pt")
    with torch.no_grad():
        states = network(**ready, output_hidden_states=True).hidden_states
    assert torch.allclose(pictures.encode_seen(picture), states[-2][0], atol=1e-5)


def test_known_pictures_are_followed_by_grey(seeing: Path) -> None:
    write_clip_vision(seeing)
    encoder = PipelineEncoder(seeing)
    assert encoder.pictures is not None
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    known = encoder.pictures.encode_known(frames, 5)
    assert known.shape == (1, 16, 5, 4, 4)
    assert torch.allclose(known[:, :, :2], encoder.encode_video(frames), atol=1e-4)
    grey = encoder.pictures._vae.encode(torch.full((17, 32, 32, 3), 0.5))
    assert not torch.allclose(known[:, :, 2:], grey[:, :, 2:], atol=1e-2), "the filler leans on what is known"


@pytest.mark.parametrize(
    ("width", "kind", "told"),
    [(0, CheckpointError, "has no folder image_encoder: download it"), (16, ConfigError, "gives 16 numbers")],
)
def test_clip_vision_that_does_not_fit_is_told(seeing: Path, width: int, kind: type[Exception], told: str) -> None:
    if width:
        write_clip_vision(seeing, width)
    with pytest.raises(kind, match=told):
        PipelineEncoder(seeing)


def test_plain_wav2vec2_is_prepared_for_ears_to_come(pipeline: Path, folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    tiny = transformers.Wav2Vec2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, do_stable_layer_norm=True,
        feat_extract_norm="layer",
    )  # fmt: skip
    transformers.Wav2Vec2Model(tiny).save_pretrained(tmp_path / "ears")
    arguments = ["prepare", str(folder), "--cache", str(tmp_path / "c"), "--pipeline", str(pipeline), "--size", "64x64"]
    assert main([*arguments, "--audio-encoder", str(tmp_path / "ears")]) == 0
    task = FootageTask(
        manifest=str(folder), cache=str(tmp_path / "c"), weights=str(pipeline / "transformer"), frames=[17],
        audio="new", preset="stage1",
    )  # fmt: skip
    assert task.config.audio == AudioConfig(kind="wav2vec2", feature_dim=24)
    batch = task.batch(0, 0, 1)
    assert batch.audio is not None
    assert batch.audio.shape == (1, 5, 8, 24)
    assert float(batch.audio.std()) > 0.1


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper-groups"])
def test_ears_that_need_an_encoder_ask_for_it(kind: str) -> None:
    with pytest.raises(AudioError, match="--audio-encoder"):
        pipeline_encoder._listener(kind, None, torch.device("cpu"))


def test_nanos_encoder_goes_through_the_command_too(nano_folder: Path, tmp_path: Path) -> None:
    arguments: list[Any] = ["prepare", nano_folder, "--cache", tmp_path / "c"]
    encoder = ["--encoder", "gloria_core.nano.encoders:NanoEncoder"]
    assert main([str(argument) for argument in arguments] + encoder) == 0
