"""The example workflow of every family, from files to a video, in the real host with the stock loaders.

The files have the true formats and names, are called as people have them, and hold random numbers at a tiny size: see
`tiny_files` and `tiny_encoders`. The pack `tiny_pack` gives this server smaller sizes of three encoders, which the host
does not take from their files. So these tests show that the graphs are whole, that files load without a missing name,
and what reaches the transformer; they cannot show that the pictures are good.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from launch.server import PACK_NAME
from tests.host import tiny_encoders
from tests.host.workflows import files_of

if TYPE_CHECKING:
    from conftest import Host, HostStarter

pytestmark = pytest.mark.host


def write_models(models: Path) -> None:
    """Every file that the example workflows name, where they look for it."""
    tiny_encoders.write_umt5(models / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", 1)
    tiny_encoders.write_clip_vision(models / "clip_vision" / "clip_vision_h.safetensors", 2)
    tiny_encoders.write_vae(models / "vae" / "wan_2.1_vae.safetensors", 3, wan22=False)
    tiny_encoders.write_vae(models / "vae" / "wan2.2_vae.safetensors", 4, wan22=True)
    ears = {
        "wav2vec2-base-960h": tiny_encoders.CTC_HEAD,
        "wav2vec2-chinese-base_fp16": tiny_encoders.PRETRAINING_HEADS,
    }
    for seed, (name, heads) in enumerate(ears.items(), 5):
        tiny_encoders.write_wav2vec2_base(models / "audio_encoders" / f"{name}.safetensors", seed, heads)


@pytest.fixture(scope="module")
def host(start_host: HostStarter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server of this file's own, with the tiny files and the pack that shrinks."""
    base = tmp_path_factory.mktemp("families")
    pack = tiny_encoders.install_pack(base / "custom_nodes")
    write_models(base / "models")
    (base / "input").mkdir()
    picture = np.stack(np.meshgrid(np.arange(120), np.arange(160), indexing="ij"), -1).astype(np.uint8)
    Image.fromarray(np.dstack([picture, picture[..., :1] ^ picture[..., 1:]])).save(base / "input" / "example.png")
    with start_host(base, "--whitelist-custom-nodes", PACK_NAME, pack) as started:
        yield started
    shutil.rmtree(base / "models")


def heard(host: Host, name: str) -> dict[str, torch.Tensor]:
    return load_file(host.base / "output" / "heard" / f"{name}.safetensors")


TEXT = "a woman talks to the camera, soft light"


def test_stock_text_encoder_keeps_the_padding_rows(host: Host) -> None:
    prompt: dict[str, Any] = {
        "1": {
            "class_type": "CLIPLoader",
            "inputs": {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan", "device": "default"},
        },
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 0], "text": TEXT}},
        "3": {"class_type": "TinyKeepRows", "inputs": {"name": "text", "text": ["2", 0]}},
    }
    host.queue(prompt)
    rows = heard(host, "text")["text"]
    length = tiny_encoders.tokens_of(TEXT)
    assert rows.shape == (1, 512, 4096)
    assert rows[0, :length].abs().amin(dim=0).max() > 0
    assert rows[0, length:].abs().max() == 0
    assert "clip missing" not in host.log()


def test_stock_clip_vision_gives_the_states_before_the_last_layer(host: Host) -> None:
    prompt: dict[str, Any] = {
        "1": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "clip_vision_h.safetensors"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "3": {"class_type": "CLIPVisionEncode", "inputs": {"clip_vision": ["1", 0], "image": ["2", 0], "crop": "none"}},
        "4": {"class_type": "TinyKeepRows", "inputs": {"name": "picture", "picture": ["3", 0]}},
    }
    host.queue(prompt)
    rows = heard(host, "picture")
    assert rows["penultimate"].shape == (1, 257, 1280)
    assert (rows["penultimate"] - rows["last"]).abs().mean() > 0.01
    assert "missing clip vision" not in host.log()


@pytest.mark.parametrize(
    ("name", "channels", "stride"), [("wan_2.1_vae.safetensors", 16, 8), ("wan2.2_vae.safetensors", 48, 16)]
)
def test_stock_vae(host: Host, name: str, channels: int, stride: int) -> None:
    prefix = {"filename_prefix": f"test/vae{channels}"}
    scale = {"image": ["2", 0], "upscale_method": "lanczos", "width": 96, "height": 64, "crop": "center"}
    prompt: dict[str, Any] = {
        "1": {"class_type": "VAELoader", "inputs": {"vae_name": name}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "3": {"class_type": "ImageScale", "inputs": scale},
        "4": {"class_type": "VAEEncode", "inputs": {"pixels": ["3", 0], "vae": ["1", 0]}},
        "5": {"class_type": "SaveLatent", "inputs": {"samples": ["4", 0], **prefix}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 0]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], **prefix}},
    }
    entry = host.queue(prompt)
    [latent] = files_of(entry, host.base / "output", ".latent")
    assert load_file(latent)["latent_tensor"].shape == (1, channels, 1, 64 // stride, 96 // stride)
    [picture] = files_of(entry, host.base / "output", ".png")
    assert Image.open(picture).size == (96, 64)
    assert "Missing VAE keys" not in host.log()


@pytest.mark.parametrize("name", ["wav2vec2-base-960h.safetensors", "wav2vec2-chinese-base_fp16.safetensors"])
def test_stock_audio_encoder(host: Host, name: str) -> None:
    prompt: dict[str, Any] = {
        "1": {"class_type": "AudioEncoderLoader", "inputs": {"audio_encoder_name": name}},
        "2": {"class_type": "EmptyAudio", "inputs": {"duration": 0.5, "sample_rate": 16000, "channels": 1}},
        "3": {"class_type": "AudioEncoderEncode", "inputs": {"audio_encoder": ["1", 0], "audio": ["2", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    }
    host.queue(prompt)
    assert "missing audio encoder" not in host.log()
