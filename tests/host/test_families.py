"""The example workflow of every family, from files to a video, in the real host with the stock loaders.

The files have the true formats and names, are called as people have them, and hold random numbers at a tiny size: see
`tiny_files` and `tiny_encoders`. The pack `tiny_pack` gives this server smaller sizes of three encoders, which the host
does not take from their files. So these tests show that the graphs are whole, that files load without a missing name,
and what reaches the transformer; they cannot show that the pictures are good.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gloria_core.data.cache import Cache
from gloria_core.data.prepared import read_prepared
from gloria_core.media import probe
from gloria_core.sampling.prompts import parse
from launch.client import PromptError
from launch.server import PACK_NAME
from tests.core.data.footage import write_film
from tests.host import tiny_encoders, tiny_files
from tests.host.trainings import LORA, lora, with_footage
from tests.host.workflows import Prompt, changed, files_of, latents_of_run, mistakes, node_of, run_of, shipped, streams

if TYPE_CHECKING:
    from conftest import Host, HostStarter

pytestmark = pytest.mark.host

TRANSFORMERS = (
    ("wan2.1_i2v_480p_14B_fp8_scaled", tiny_files.I2V_21, True),
    ("wan2.1_i2v_720p_14B_fp8_scaled", tiny_files.I2V_21, True),
    ("wan2.2_i2v_high_noise_14B_fp8_scaled", tiny_files.I2V_22, True),
    ("wan2.2_i2v_low_noise_14B_fp8_scaled", tiny_files.I2V_22, True),
    ("wan2.2_ti2v_5B_fp16", tiny_files.TI2V_5B, False),
)

EARS = {
    "wav2vec2-base-960h.safetensors": tiny_encoders.CTC_HEAD,
    "wav2vec2-chinese-base_fp16.safetensors": tiny_encoders.PRETRAINING_HEADS,
}


def write_models(models: Path) -> None:
    """Every file that the example workflows name, where they look for it."""
    for seed, (name, wan, scaled) in enumerate(TRANSFORMERS, 21):
        tiny_files.write_wan(models / "diffusion_models" / f"{name}.safetensors", wan, seed, scaled=scaled)
    tiny_files.write_fantasytalking(models / "diffusion_models" / "fantasytalking_fp16.safetensors", 31)
    tiny_files.write_infinitetalk(models / "model_patches" / "wan2.1_infiniteTalk_single_fp16.safetensors", 32)
    lora = "lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors"
    tiny_files.write_lightx2v_lora(models / "loras" / lora, tiny_files.I2V_21, 33)
    tiny_encoders.write_umt5(models / "text_encoders" / "umt5_xxl_fp8_e4m3fn_scaled.safetensors", 1)
    tiny_encoders.write_clip_vision(models / "clip_vision" / "clip_vision_h.safetensors", 2)
    tiny_encoders.write_vae(models / "vae" / "wan_2.1_vae.safetensors", 3, wan22=False)
    tiny_encoders.write_vae(models / "vae" / "wan2.2_vae.safetensors", 4, wan22=True)
    ears = tiny_encoders.wav2vec2_base(11)
    for name, heads in EARS.items():
        weights = ears | tiny_files.half(tiny_files.random_weights(heads, 12))
        tiny_files.write(models / "audio_encoders" / name, weights)


@pytest.fixture(scope="module")
def host(start_host: HostStarter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server of this file's own, with the tiny files and the pack that shrinks."""
    base = tmp_path_factory.mktemp("families")
    pack = tiny_encoders.install_pack(base / "custom_nodes")
    write_models(base / "models")
    (base / "input").mkdir()
    picture = np.stack(np.meshgrid(np.arange(120), np.arange(160), indexing="ij"), -1).astype(np.uint8)
    Image.fromarray(np.dstack([picture, picture[..., :1] ^ picture[..., 1:]])).save(base / "input" / "example.png")
    try:
        with start_host(base, "--whitelist-custom-nodes", PACK_NAME, pack) as started:
            yield started
    finally:
        shutil.rmtree(base / "models")  # half a gigabyte, which pytest would keep


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


@pytest.mark.parametrize("name", EARS)
def test_stock_audio_encoder(host: Host, name: str) -> None:
    prompt: dict[str, Any] = {
        "1": {"class_type": "AudioEncoderLoader", "inputs": {"audio_encoder_name": name}},
        "2": {"class_type": "EmptyAudio", "inputs": {"duration": 0.5, "sample_rate": 16000, "channels": 1}},
        "3": {"class_type": "AudioEncoderEncode", "inputs": {"audio_encoder": ["1", 0], "audio": ["2", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}},
    }
    host.queue(prompt)
    assert "missing audio encoder" not in host.log()


FAMILIES = ("wan21_fantasytalking", "wan21_infinitetalk", "wan22_ti2v_5b", "wan22_a14b", "wan21_lightx2v")
SPEAKING = ("wan21_fantasytalking", "wan21_infinitetalk")
SIDE = 64
CHUNK, OVERLAP = 6, 4
"""Latents: a first chunk of 21 frames, and a second one that adds 8."""
FRAMES = 29


def quick(name: str) -> Prompt:
    """An example workflow as it is shipped, at a tiny size: two chunks of two steps, with a prompt each."""
    prompt = changed(shipped(name), "ImageScale", width=SIDE, height=SIDE)
    sampler = node_of(prompt, "GloriaChunkedLongSampler")["inputs"]
    rate = sampler["fps"] or {"wan22_ti2v_5b": 24.0}.get(name, 16.0)
    steps = {"wan22_a14b": 4}.get(name, 2)  # with two, both would be the high-noise expert's
    sampler.update(width=SIDE, height=SIDE, seconds=FRAMES / rate, steps=steps)
    sampler.update(chunk_latents=CHUNK, overlap_latents=OVERLAP)
    if name in SPEAKING:  # the whole speech would take long to encode
        encoder = node_of(prompt, "GloriaAudioEncoder")["inputs"]
        short = {"audio": encoder["audio"], "start_index": 0.0, "duration": 3.0}
        prompt["short"] = {"class_type": "TrimAudioDuration", "inputs": short}
        encoder["audio"] = ["short", 0]
    schedule = node_of(prompt, "GloriaPromptSchedule")["inputs"]
    schedule["schedule"] = re.sub(r"^0:0[56]", "0:01", schedule["schedule"], flags=re.MULTILINE)
    return prompt


@dataclass
class Film:
    """What came of an example workflow."""

    entry: dict[str, Any]
    path: Path
    latents: torch.Tensor
    """(1, C, T, h, w) of the whole video."""
    said: str
    """What the host printed meanwhile."""
    calls: list[dict[str, torch.Tensor]]
    """What the transformer was given, call by call."""
    low_calls: list[dict[str, torch.Tensor]]
    """The same of the second expert."""


def make(host: Host, prompt: Prompt, name: str) -> Film:
    """Run a graph, with a listener before each model input of the long sampler."""
    begun = len(host.log())
    sampler = node_of(prompt, "GloriaChunkedLongSampler")["inputs"]
    for key in {"model", "model_low_noise"} & set(sampler):
        listener = {"model": sampler[key], "name": f"{name}_{key}"}
        prompt[f"listen {key}"] = {"class_type": "TinyListen", "inputs": listener}
        sampler[key] = [f"listen {key}", 0]
    entry = host.queue(prompt)
    [video] = set(files_of(entry, host.base / "output", ".mp4"))  # told by the sampler and by the player
    calls, low_calls = (
        [load_file(path) for path in sorted((host.base / "output" / "heard").glob(f"{name}_{key}_0*"))]
        for key in ("model", "model_low_noise")
    )
    return Film(
        entry=entry,
        path=video,
        latents=latents_of_run(run_of(entry, host.base / "output")),
        said=host.log()[begun:],
        calls=calls,
        low_calls=low_calls,
    )


@pytest.fixture(scope="module")
def films(host: Host) -> Callable[[str], Film]:
    """The film of each example workflow, made when it is first asked for."""
    return functools.cache(lambda name: make(host, quick(name), name))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_is_whole(host: Host, name: str) -> None:
    assert mistakes(shipped(name), host.client.get("/object_info")) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_from_files_to_a_video(films: Callable[[str], Film], name: str) -> None:
    film = films(name)
    made = streams(film.path)
    assert made["frames"] == FRAMES
    assert made["size"] == (SIDE, SIDE)
    assert ("audio" in made["kinds"]) == (name in SPEAKING)
    assert made["rate"] == {"wan21_fantasytalking": 23, "wan21_infinitetalk": 25, "wan22_ti2v_5b": 24}.get(name, 16)
    assert film.latents.shape[2] == 8
    assert torch.isfinite(film.latents).all()
    assert film.latents.std(dim=(2, 3, 4)).min() > 0.01
    heads = "unexpected audio encoder"  # wav2vec2's own, which nothing needs
    said = [line for line in film.said.lower().splitlines() if heads not in line]
    assert not [line for line in said if "missing" in line or "unexpected" in line or "not loaded" in line]


def test_pictures_and_padding_rows_reach_the_transformer(host: Host, films: Callable[[str], Film]) -> None:
    """Of Wan 2.1 I2V: the mask and the picture beside the noise, CLIP's rows, and all 512 rows of text."""
    [first, *_] = films("wan21_lightx2v").calls
    prompt = {key: node for key, node in quick("wan21_lightx2v").items() if key in {"4", "5", "6", "7"}}
    prompt["keep"] = {"class_type": "TinyKeepRows", "inputs": {"name": "scene", "picture": ["5", 0]}}
    host.queue(prompt)
    assert torch.allclose(first["clip_fea"], heard(host, "scene")["penultimate"], atol=1e-3)
    assert first["context"].shape[1:] == (512, 4096)
    [cue, *_] = parse(node_of(quick("wan21_lightx2v"), "GloriaPromptSchedule")["inputs"]["schedule"])
    length = tiny_encoders.tokens_of(cue.text)
    assert first["context"][:, :length].abs().amax(dim=-1).min() > 0
    assert first["context"][:, length:].abs().max() == 0
    assert first["x"].shape[1] == 36
    known = first["x"][0, 16:20].mean(dim=(0, 2, 3))
    assert known[0] == 1
    assert known[1:CHUNK].abs().max() == 0


def test_the_second_chunk_is_shown_the_end_of_the_first(films: Callable[[str], Film]) -> None:
    calls = films("wan21_lightx2v").calls
    known = calls[-1]["x"][0, 16:20].mean(dim=(0, 2, 3))
    assert known[:CHUNK].tolist() == [1] * OVERLAP + [0] * (CHUNK - OVERLAP)


def test_the_5b_holds_its_first_picture_clean(films: Callable[[str], Film]) -> None:
    first, second, *_ = (call["x"][0] for call in films("wan22_ti2v_5b").calls)
    assert torch.equal(first[:, 0], second[:, 0])
    assert (first[:, 1:CHUNK] - second[:, 1:CHUNK]).abs().mean() > 0.01


def test_the_experts_change_over_by_noise_level(films: Callable[[str], Film]) -> None:
    film = films("wan22_a14b")
    assert film.calls
    assert film.low_calls
    assert min(call["timestep"].max() for call in film.calls) >= 900
    assert max(call["timestep"].max() for call in film.low_calls) < 900


def test_all_of_the_lora_is_used(films: Callable[[str], Film]) -> None:
    film = films("wan21_lightx2v")
    [text] = [shown["text"][0] for shown in film.entry["outputs"].values() if "text" in shown]
    assert re.search(r"\b(\d+) of \1 keys used", text), text


@pytest.mark.parametrize("name", SPEAKING)
def test_another_sound_makes_another_film(host: Host, films: Callable[[str], Film], name: str) -> None:
    moved = changed(quick(name), "GloriaAudioEncoder", sync_offset=-1.0)
    other = make(host, moved, f"{name}_moved")
    assert (other.latents - films(name).latents).abs().mean() > 1e-4


def training(clip_vision: bool) -> dict[str, Any]:
    """An I2V file is prepared for, and a LoRA of it is trained, by the nodes alone."""
    name = "wan2.1_i2v_480p_14B_fp8_scaled.safetensors"
    umt5 = {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan", "device": "default"}
    links = {"model": ["1", 0], "vae": ["2", 0], "clip": ["3", 0]}
    sizes = {"footage": "noise", "resolution": "64x64", "fps": 0.0, "longest_frames": 33, "shortest_frames": 17}
    given = {**LORA, "weights": name, "rank": 2, "steps": 2, "frames": 17, "job": "pictures", "layers": "identity"}
    made: dict[str, Any] = {
        "1": {
            "class_type": "GloriaLoadDiT",
            "inputs": {"weights": name, "weight_dtype": "default", "attention": "as trained"},
        },
        "2": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
        "3": {"class_type": "CLIPLoader", "inputs": umt5},
        "4": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "clip_vision_h.safetensors"}},
        "5": {"class_type": "GloriaPrepareDataset", "inputs": {**links, **sizes}},
        "6": {"class_type": "GloriaTrainLoRA", "inputs": {"dataset": ["5", 0], **given}},
    }
    if clip_vision:
        made["5"]["inputs"]["clip_vision"] = ["4", 0]
    return made


def test_a_lora_of_an_image_to_video_file_is_trained_by_the_nodes(host: Host) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (33, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    folder = host.base / "input" / "noise"
    folder.mkdir()
    write_film(folder / "a.mp4", frames, 16)
    with pytest.raises(PromptError, match=r"connect Load CLIP Vision with clip_vision_h\.safetensors"):
        host.queue(training(clip_vision=False))
    host.queue(training(clip_vision=True))
    [written] = (host.base / "output" / "loras" / "gloria").glob("pictures*.safetensors")
    changes = load_file(written)
    assert any(key.endswith("lora_B.weight") and float(value.abs().max()) > 0 for key, value in changes.items())
    folder = host.base / "output" / "gloria_training"
    cache = Cache(folder / "cache")
    prepared = next(p for p in map(read_prepared, cache.sets.glob("*.json")) if [clip.id for clip in p.clips] == ["a"])
    [piece] = prepared.clips[0].pieces
    assert [opening.offset for opening in piece.openings] == [0, 1]
    assert cache.get(piece.seen_key)["rows"].shape == (257, 1280)


@pytest.mark.slow
def test_a_training_of_the_5b_shows_its_samples_through_the_vaes_own_file(host: Host, star: Path) -> None:
    with_footage(host, star)
    weights, vae = "wan2.2_ti2v_5B_fp16.safetensors", "wan2.2_vae.safetensors"
    graph = lora(
        "5b", weights=weights, steps=1, rank=1, layers="identity", frames=5, sample_every=1, sample_vae=vae,
        more_settings="task.options.sample_steps = 1\ntask.options.sample_clips = 1",
    )  # fmt: skip
    umt5 = {"clip_name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "type": "wan", "device": "default"}
    graph["1"] = {"class_type": "GloriaLoadDiT", "inputs": {"weights": weights, "attention": "as trained"}}
    graph["4"] = {"class_type": "VAELoader", "inputs": {"vae_name": vae}}
    graph["5"] = {"class_type": "CLIPLoader", "inputs": umt5}
    graph["2"]["inputs"] |= {"clip": ["5", 0], "vae": ["4", 0], "resolution": "64x64", "longest_frames": 17}
    entry = host.queue(graph)
    assert entry["outputs"]["3"]["text"][0].startswith("5b: finished, step 1 of 1")
    film = probe(host.base / "output" / "gloria_training" / "5b" / "samples" / "step-00000001.mp4")
    assert (film.num_frames, film.has_audio) == (5, True)
    assert film.width % 64 == 0, "two pictures of whole patches, side by side"
    told = (host.base / "output" / "gloria_training" / "5b" / "config.toml").read_text(encoding="utf-8")
    assert "sample_guidance = 5.0" in told
    assert "sample_audio_guidance = 5.0" in told
