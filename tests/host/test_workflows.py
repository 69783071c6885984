"""The shipped workflows, and our nodes among stock ones, in the real host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.host.workflows import (
    changed,
    chunk_latents,
    clip,
    files_of,
    minute,
    node_of,
    run_of,
    shipped,
    streams,
)

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host


def latent_of(entry: dict[str, Any], host: Host) -> torch.Tensor:
    [path] = files_of(entry, host.base / "output", ".latent")
    return load_file(path)["latent_tensor"]


def video_of(entry: dict[str, Any], host: Host) -> Path:
    return files_of(entry, host.base / "output", ".mp4")[-1]


def test_the_minute(host: Host) -> None:
    prompt = changed(shipped("gloria_minute"), "GloriaChunkedLongSampler", seconds=5.0, steps=2)
    made = streams(video_of(host.queue(prompt), host))
    assert made["kinds"] == {"video": "h264", "audio": "flac"}, "the bundled speech as it is"
    assert made["frames"] == 80
    assert made["rate"] == 16
    assert min(made["size"]) >= 384
    assert made["size"][0] > 384, "the strip is missing"


def test_progress_is_told_at_every_step(host: Host) -> None:
    host.queue(minute(seconds=5.0, seed=11))
    told = [data for event, data in host.events if event == "gloria.progress"]
    assert {data["node"] for data in told} == {"8"}
    assert {(data["chunks"], data["steps"]) for data in told} == {(4, 2)}
    assert [(d["chunk"], d["step"]) for d in told] == [(c, s) for c in range(1, 5) for s in (1, 2, 2)]
    assert told[0]["prompt"] == "faces the camera, happy"
    bars = [data for event, data in host.events if event == "progress"]
    assert bars[-1]["value"] == bars[-1]["max"] == 8


def test_the_single_clip(host: Host) -> None:
    made = streams(video_of(host.queue(shipped("gloria_single_clip")), host))
    assert made["kinds"]["video"] == "h264"
    assert made["frames"] == 33
    assert made["size"] == (384, 512)


def test_one_chunk_is_the_stock_samplers_clip(host: Host) -> None:
    single = host.queue(clip(seed=5))
    text = node_of(shipped("gloria_single_clip"), "KSampler")  # same settings
    schedule = next(
        n["inputs"]["text"] for n in clip().values() if n["class_type"] == "CLIPTextEncode" and n["inputs"]["text"]
    )
    long = minute(seconds=33 / 16, seed=5, sampler_name=text["inputs"]["sampler_name"], filename_prefix="test/one")
    long = changed(long, "GloriaPromptSchedule", schedule=schedule)
    long = changed(long, "GloriaChunkedLongSampler", start_image=None)  # the single clip begins with noise alone
    chunk = chunk_latents(run_of(host.queue(long), host.base / "output"), 0)
    assert torch.allclose(chunk, latent_of(single, host), atol=1e-4)


def test_latents_of_a_video_are_kept_in_the_stock_format(host: Host) -> None:
    entry = host.queue(minute(seconds=3.0, seed=21, filename_prefix="test/kept"))
    chunks = run_of(entry, host.base / "output") / "chunks"
    names = [f"000{index}.take-1.safetensors" for index in range(2)]
    assert [p.name for p in sorted(chunks.glob("*.safetensors"))] == names
    target = host.base / "input" / "again.latent"
    target.write_bytes((chunks / names[0]).read_bytes())
    again = {
        "1": {"class_type": "LoadLatent", "inputs": {"latent": "again.latent"}},
        "2": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0], "vae": ["2", 2]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "test/frames"}},
    }
    assert len(files_of(host.queue(again), host.base / "output", ".png")) == 33


def test_latents_are_left_out_if_asked(host: Host) -> None:
    entry = host.queue(minute(seconds=1.0, keep_latents=False, filename_prefix="test/bare"))
    assert video_of(entry, host).is_file()
    assert not run_of(entry, host.base / "output").exists()


def test_video_last_frame_and_folder_go_on_into_stock_nodes(host: Host) -> None:
    prompt = minute(seconds=1.0, seed=31)
    prompt["20"] = {
        "class_type": "SaveVideo",
        "inputs": {"video": ["8", 0], "filename_prefix": "test/saved", "format": "auto", "codec": "auto"},
    }
    prompt["21"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 1], "filename_prefix": "test/last"}}
    prompt["22"] = {"class_type": "PreviewAny", "inputs": {"source": ["8", 2]}}
    entry = host.queue(prompt)
    saved = [p for p in files_of(entry, host.base / "output", ".mp4") if p.name.startswith("saved")]
    assert streams(saved[0])["frames"] == 16
    assert len(files_of(entry, host.base / "output", ".png")) == 1
    assert Path(entry["outputs"]["22"]["text"][0]).name == "chunks"


def test_a_video_goes_on_from_a_last_frame(host: Host) -> None:
    free = minute(seconds=1.0, seed=41)
    video_of(host.queue(free), host)
    begun = changed(free, "GloriaChunkedLongSampler", start_image=["2", 0], filename_prefix="test/begun")
    first = chunk_latents(run_of(host.queue(begun), host.base / "output"), 0)[:, :, :1]
    encode = {
        "2": begun["2"],
        "1": begun["1"],
        "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "test/start"}},
    }
    assert torch.allclose(first, latent_of(host.queue(encode), host), atol=1e-5)


def test_one_conditioning_serves_instead_of_a_schedule(host: Host) -> None:
    prompt = minute(seconds=1.0, prompts=None, positive=["30", 0])
    prompt["30"] = {"class_type": "CLIPTextEncode", "inputs": {"text": "faces the camera", "clip": ["1", 1]}}
    assert streams(video_of(host.queue(prompt), host))["frames"] == 16


def test_sampler_and_sigmas_from_stock_nodes(host: Host) -> None:
    prompt = minute(seconds=1.0, seed=51, sampler=["31", 0], sigmas=["32", 0])
    prompt["31"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}}
    prompt["32"] = {
        "class_type": "BasicScheduler",
        "inputs": {"model": ["1", 0], "scheduler": "simple", "steps": 3, "denoise": 1.0},
    }
    host.queue(prompt)
    assert {data["steps"] for event, data in host.events if event == "gloria.progress"} == {3}


def test_both_guidances_change_the_video(host: Host) -> None:
    def latents(**inputs: Any) -> torch.Tensor:
        name = f"guidance-{len(inputs)}-{'-'.join(inputs)}"
        return chunk_latents(
            run_of(host.queue(minute(seconds=1.0, seed=61, run=name, **inputs)), host.base / "output"), 0
        )

    plain, text, audio = latents(), latents(text_guidance=3.0), latents(audio_guidance=3.0)
    assert (plain - text).abs().mean() > 1e-5
    assert (plain - audio).abs().mean() > 1e-5
    assert (text - audio).abs().mean() > 1e-5


def test_a_lora_from_a_file_changes_the_clip(host: Host) -> None:
    before = latent_of(host.queue(clip(seed=71)), host)
    generator = torch.Generator().manual_seed(0)
    path = host.base / "custom_nodes" / "gloria" / "gloria_core" / "nano" / "weights"
    [weights] = [p for p in path.glob("*.safetensors") if p.stem != "codec"] or [None]
    with safe_open(weights, "pt") as file:
        names = [n for n in file.keys() if n.endswith("self_attn.q.weight")]  # noqa: SIM118 - not a mapping
        shapes = {n: file.get_tensor(n).shape for n in names}
    lora = {}
    for name, (rows, columns) in shapes.items():
        stem = "diffusion_model." + name[name.index("blocks.") :].removesuffix(".weight")
        lora[f"{stem}.lora_A.weight"] = torch.randn(4, columns, generator=generator)
        lora[f"{stem}.lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    (host.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file(lora, host.base / "models" / "loras" / "probe.safetensors")
    prompt = clip(seed=71, model=["40", 0])
    prompt["40"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": ["1", 0], "lora_name": "probe.safetensors", "strength_model": 1.0},
    }
    after = latent_of(host.queue(prompt), host)
    assert (after - before).abs().mean() > 1e-3
    assert "lora key not loaded" not in host.log()


def test_model_sampling_sd3_changes_the_clip(host: Host) -> None:
    before = latent_of(host.queue(clip(seed=81)), host)
    prompt = clip(seed=81, model=["41", 0])
    prompt["41"] = {"class_type": "ModelSamplingSD3", "inputs": {"model": ["1", 0], "shift": 1.5}}
    assert (latent_of(host.queue(prompt), host) - before).abs().mean() > 1e-4


def test_a_batch_of_clips_with_guidance(host: Host) -> None:
    prompt = changed(clip(seed=91, cfg=2.0), "EmptyHunyuanLatentVideo", batch_size=2)
    made = latent_of(host.queue(prompt), host)
    assert made.shape[0] == 2
    assert (made[0] - made[1]).abs().mean() > 1e-2


def test_stock_vae_nodes_with_our_vae(host: Host) -> None:
    prompt = {
        "1": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
        "2": {"class_type": "GloriaNanoCharacter", "inputs": {"character": "Otto"}},
        "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["1", 2]}},
        "4": {
            "class_type": "VAEDecodeTiled",
            "inputs": {
                "samples": ["3", 0], "vae": ["1", 2],
                "tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8,
            },
        },
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "test/tiled"}},
    }  # fmt: skip
    assert len(files_of(host.queue(prompt), host.base / "output", ".png")) == 1


def test_anchors_by_hand_make_the_same_set(host: Host) -> None:
    ready = latent_of(host.queue(clip(seed=101)), host)
    prompt = changed(clip(seed=101), "GloriaAnchorSetBuilder", anchors=["60", 0])
    views = {"front": 0, "back": 1, "left": 2, "right": 3}
    moods = dict(
        zip(("surprise", "angry", "disgust", "fear", "contempt", "sad", "neutral", "happy"), range(8), strict=True)
    )
    for view, index in views.items():  # slots of the builder
        prompt[view] = {
            "class_type": "ImageFromBatch",
            "inputs": {"image": ["2", 2], "batch_index": index, "length": 1},
        }
        node_of(prompt, "GloriaAnchorSetBuilder")["inputs"][view] = [view, 0]
    chain: list[Any] | None = None
    for mood, index in moods.items():  # a chain of nodes
        prompt[mood] = {
            "class_type": "ImageFromBatch",
            "inputs": {"image": ["2", 3], "batch_index": index, "length": 1},
        }
        identity = "60" if mood == "happy" else f"chain-{mood}"
        inputs = {"image": [mood, 0], "expression": mood, **({"previous": chain} if chain else {})}
        prompt[identity] = {"class_type": "GloriaExpressionAnchor", "inputs": inputs}
        chain = [identity, 0]
    assert torch.allclose(latent_of(host.queue(prompt), host), ready, atol=1e-4)


def test_a_viewpoint_anchor_node_and_both_attention_modes(host: Host) -> None:
    for mode in ("joint", "cached"):
        prompt = changed(clip(seed=111), "GloriaNano", attention=mode)
        prompt["70"] = {"class_type": "GloriaViewpointAnchor", "inputs": {"image": ["2", 0], "view": "back"}}
        prompt = changed(prompt, "GloriaAnchorSetBuilder", anchors=["70", 0])
        assert torch.isfinite(latent_of(host.queue(prompt), host)).all()
    assert "was trained with" in host.log()


def test_the_bundled_weights_load_as_a_file_too(host: Host) -> None:
    before = latent_of(host.queue(clip(seed=121)), host)
    prompt = clip(seed=121, model=["80", 0])
    prompt["80"] = {
        "class_type": "GloriaLoadDiT",
        "inputs": {"weights": "gloria-nano (bundled)", "attention": "as trained"},
    }
    assert torch.allclose(latent_of(host.queue(prompt), host), before, atol=1e-5)
