"""What training shows a model with image channels, against what sampling shows it; and encoders outside of the host."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import comfy.audio_encoders.audio_encoders
import comfy.clip_vision
import numpy as np
import pytest
import torch
from check_clip_embedding import DINO
from check_clip_embedding import encoder as clip_of
from gloria_pack.gloria_core.audio import state_features
from gloria_pack.gloria_core.audio.encoders import open_encoder
from gloria_pack.gloria_core.checkpoint import write_checkpoint
from gloria_pack.gloria_core.config import AudioConfig
from gloria_pack.gloria_core.data.buckets import Sizes
from gloria_pack.gloria_core.data.cache import Cache
from gloria_pack.gloria_core.data.folder import read_dataset
from gloria_pack.gloria_core.data.openings import pictures_at, with_pictures
from gloria_pack.gloria_core.data.pipeline_pictures import PipelinePictures
from gloria_pack.gloria_core.data.prepare import prepare
from gloria_pack.gloria_core.data.task import FootageTask
from gloria_pack.gloria_core.errors import ConfigError
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.long_video import PrefixMode, chunk_job
from gloria_pack.gloria_core.types import TrainBatch
from gloria_pack.nodes.host import sound
from gloria_pack.nodes.host.dataset import HostEncoder
from gloria_pack.nodes.host.guider import ChunkPrompts
from gloria_pack.nodes.host.image_channels import ImageChannels
from gloria_pack.nodes.host.nano import load_nano
from gloria_pack.nodes.host.training_pictures import HostPictures
from safetensors.torch import save_file
from tiny_wan import draw, ours, text, tiny, wan_vae, weights
from torch import Tensor
from transformers import Wav2Vec2Config

SIDE, LENGTH, PREFIX = 32, 6, 2


def film(count: int, seed: int = 3) -> np.ndarray:
    """Smooth pictures (F, 32, 32, 3) that move."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear").movedim(1, -1)
    return (torch.cat([smooth.roll(i, dims=2) for i in range(count)]) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.inference_mode():
        return wan_vae("wan2.1")


def sampling_shows(patcher: Any, vae: Any, pictures: np.ndarray, prefix: Tensor | None, clip: Any = None) -> Any:
    """Mask and image latents (1, 20, T, h, w) and CLIP's tokens that a chunk is sampled with."""
    chunk = plan(53, LENGTH, PREFIX)[0 if len(pictures) == 1 else 1]
    mode = PrefixMode(patcher.model.gloria.prefix)
    job = chunk_job(chunk, (1, 16, 4, 4), 0, mode, prefix, ChunkPrompts(text(1), None))
    start = torch.from_numpy(pictures[:1]).float() / 255 if chunk.index == 0 else None
    shows = ImageChannels(vae, None, last_chunk=9, start=start, clip_start=clip)
    options = shows(job if chunk.index == 0 else replace(job, pictures=pictures))
    given = {"noise": job.noise, "device": torch.device("cpu"), **options}
    conds = patcher.model.extra_conds(**given)
    seen = conds["clip_fea"].cond if "clip_fea" in conds else None
    return patcher.model.concat_cond(**given), seen


@pytest.mark.parametrize("mode", ["given", "held"])
@pytest.mark.parametrize(("offset", "known"), [(0, 1), (5, PREFIX)], ids=["begins", "goes-on"])
def test_training_shows_what_sampling_shows(vae: Any, mode: str, offset: int, known: int) -> None:
    patcher = ours(tiny("i2v_a14b", prefix=mode))
    frames = film(49)
    raw = vae.encode(torch.from_numpy(frames).float() / 255)
    clean = patcher.model.process_latent_in(raw.clone())[:, :, offset : offset + LENGTH]
    where = pictures_at(offset, known)
    shown = frames[where.start : where.stop]
    encoder = HostPictures(patcher.model, vae, None)
    whole = encoder.encode_known(shown, 13 - offset)  # as it is prepared: to the end of the piece
    batch = with_pictures(
        TrainBatch(clean, num_prefix=known), whole[:, :, :LENGTH], patcher.model.gloria, goes_on=offset > 0
    )
    prefix = raw[:, :, offset : offset + known] if mode == "held" or offset else None
    expected, _ = sampling_shows(patcher, vae, shown, prefix)
    assert batch.image is not None
    assert torch.allclose(batch.image, expected, atol=1e-5)
    assert float(batch.image[:, :4].sum()) == 4 * 16 * known
    assert float(expected[:, 4:].std()) > 0.1


def write(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir()
    with av.open(str(folder / "a.mp4"), "w") as container:
        video = container.add_stream("libx264rgb", rate=16, options={"crf": "0"})
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "rgb24"
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())


def test_a_dataset_through_the_host_trains_what_sampling_shows(tmp_path: Path, vae: Any) -> None:
    """From footage over the cache to a batch; 257 tokens of CLIP as the stock node sees the first picture."""
    config = tiny("i2v", chunk_latents=LENGTH)
    patcher, clip = ours(config), clip_of(tmp_path)
    _, nano_clip, _ = load_nano("as trained")
    frames = film(49)
    write(tmp_path / "set", frames)
    encoder = HostEncoder(patcher, vae, nano_clip, clip_vision=clip)
    manifest, _ = read_dataset(tmp_path / "set")
    sizes = Sizes(fps=16, areas=(SIDE * SIDE,), prefix_latents=PREFIX)
    prepare(manifest, encoder, Cache(tmp_path / "cache"), sizes)
    write_checkpoint(tmp_path / "i2v.safetensors", weights(config), config)
    common = {"manifest": str(tmp_path / "set"), "cache": str(tmp_path / "cache"), "roles": (), "balance": "none"}
    made = {"weights": str(tmp_path / "i2v.safetensors"), "prefix_latents": PREFIX, "frames": [21], **common}
    for options, offsets in (({"prefix": 0.0, "start_image": 1.0}, (0,)), ({"prefix": 1.0}, (1, 5))):
        batch = FootageTask(**made, **options).batch(0, 0, 1)
        assert batch.image is not None
        assert batch.clip_fea is not None
        expected = []
        for offset in offsets:
            where = pictures_at(offset, PREFIX if offset else 1)
            seen = clip.encode_image(torch.from_numpy(frames[:1]).float() / 255, crop=False)
            prefix = torch.zeros(1, 16, PREFIX, 4, 4) if offset else None  # given: only its pictures are looked at
            expected.append(sampling_shows(patcher, vae, frames[where.start : where.stop], prefix, seen))
        halves = {"rtol": 2e-3, "atol": 5e-3}  # as the cache keeps numbers
        assert any(torch.allclose(batch.image, image, **halves) for image, _ in expected)
        assert torch.allclose(batch.clip_fea, expected[0][1].float(), **halves)


def clip_folder(folder: Path, clip: comfy.clip_vision.ClipVisionModel) -> Path:
    """The host's CLIP as transformers writes it, in a pipeline's folder."""
    made = folder / "image_encoder"
    made.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "architectures": ["CLIPVisionModelWithProjection"]}))
    save_file({name: t.float().contiguous() for name, t in clip.model.state_dict().items()}, made / "model.safetensors")
    return folder


def test_clip_of_transformers_sees_what_the_hosts_sees(tmp_path: Path, vae: Any) -> None:
    clip = clip_of(tmp_path)
    config = tiny("i2v")
    theirs = HostPictures(ours(config).model, vae, clip)
    own = PipelinePictures(clip_folder(tmp_path, clip), None, config, torch.device("cpu"))
    picture = film(1, seed=7)[0][:, :20]  # not square: it is squeezed
    seen, expected = own.encode_seen(picture), theirs.encode_seen(picture)
    assert seen.shape == (257, 1280)
    assert torch.allclose(seen, expected, atol=1e-4)
    assert not torch.allclose(seen, theirs.encode_seen(film(1, seed=8)[0]), atol=0.1)
    assert own.clip_id


@pytest.mark.parametrize(
    ("changes", "connected", "told"),
    [
        ({}, False, "connect Load CLIP Vision with clip_vision_h.safetensors to 'clip_vision'"),
        ({"clip_dim": 64}, True, "CLIP vision gives 1280 numbers .* was trained with 64"),
    ],
)
def test_clip_that_does_not_fit_is_refused(
    tmp_path: Path, vae: Any, changes: dict[str, Any], connected: bool, told: str
) -> None:
    model = ours(tiny("i2v", **changes)).model
    with pytest.raises(ConfigError, match=told):
        HostPictures(model, vae, clip_of(tmp_path) if connected else None)


def test_another_picture_encoder_than_clip_is_refused(tmp_path: Path, vae: Any) -> None:
    with pytest.raises(ConfigError, match="is a Dinov2Model, not CLIP"):
        HostPictures(ours(tiny("i2v")).model, vae, clip_of(tmp_path, **DINO))


def test_a_model_without_image_channels_is_shown_nothing(vae: Any) -> None:
    _, nano_clip, _ = load_nano("as trained")
    assert HostEncoder(ours(tiny("t2v")), vae, nano_clip).pictures is None


# Plain wav2vec2, which Gloria's own ears were trained with.

LARGE = {"conv_norm": True, "conv_bias": True, "do_normalize": True, "do_stable_layer_norm": True}
BASE = {"conv_norm": False, "conv_bias": False, "do_normalize": False, "do_stable_layer_norm": False}


def wav2vec2(settings: dict[str, Any]) -> Any:
    encoder = comfy.audio_encoders.audio_encoders.AudioEncoderModel(
        {"model_type": "wav2vec2", "embed_dim": 64, "num_heads": 1, "num_layers": 2, **settings}
    )
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, value in encoder.get_sd().items():
        fan_in = max(1, torch.Size(value.shape[1:]).numel())
        made[name] = torch.randn(value.shape, generator=generator) * (2.0 / fan_in) ** 0.5
    encoder.load_sd(made)
    return encoder


def described(large: bool) -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=256, conv_bias=large,
        feat_extract_norm="layer" if large else "group", do_stable_layer_norm=large,
    )  # fmt: skip


@pytest.mark.parametrize("settings", [LARGE, BASE], ids=["large", "base"])
@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_wav2vec2_of_transformers_hears_what_the_hosts_hears(
    tmp_path: Path, settings: dict[str, Any], form: str, rate: int
) -> None:
    encoder = wav2vec2(settings)
    state = {name: value.contiguous() for name, value in encoder.get_sd().items()}
    path = tmp_path / ("model" if form == "folder" else "model.safetensors")
    if form == "folder":
        path.mkdir()
        described(settings is LARGE).save_pretrained(path)
        save_file(state, path / "model.safetensors", {"format": "pt"})
    else:  # as the host's own files are: with the name of the whole recogniser before each
        save_file({f"wav2vec2.{name}": value for name, value in state.items()}, path)
    wave = 0.2 * torch.sin(torch.arange(2 * rate) * (900 / rate)) + 0.01 * draw(2 * rate, seed=1)
    wave = torch.stack([wave, 0.5 * wave.roll(7)])
    theirs = sound.features_of(AudioConfig(kind="wav2vec2", feature_dim=64), encoder, wave, rate, 24.0)
    own = state_features(open_encoder(path), wave, rate, fps=24.0, num_frames=48)
    assert own.frames.shape == theirs.frames.shape == (48, 64)
    assert float(theirs.frames.std()) > 0.1
    assert float((own.frames - theirs.frames).abs().max()) < 1e-5
