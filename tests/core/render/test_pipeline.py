"""Wan pipelines in Diffusers' layout, with random weights that diffusers and transformers wrote themselves."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from gloria_core.errors import GloriaError
from gloria_core.render import packages
from gloria_core.render.job import read_job
from gloria_core.render.keep import Keep
from gloria_core.render.render import dry_run, render
from gloria_core.render.stream import to_bytes
from gloria_core.render.wan_text import WanTexts, cleaned
from gloria_core.render.wan_vae import WanVae, decode_step
from gloria_core.sampling.schedule import simple_sigmas
from gloria_core.sampling.seeds import chunk_noise
from tests.core.render.tiny_pipeline import small_transformer, write_pipeline

SIZE = 64
JOB: dict[str, Any] = {
    "version": 1,
    "prompts": "0:00 a woman talks",
    "negative": "worst quality",
    "width": SIZE,
    "height": SIZE,
    "seconds": 0.8,
    "chunk_latents": 4,
    "overlap_latents": 2,
    "steps": 3,
    "seed": 11,
    "text_guidance": 3.0,
    "run": "film",
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("pipelines")
    return {
        "2.1": write_pipeline(base / "wan21", shift=5.0),
        "2.2": write_pipeline(base / "wan22", wan22=True),
        "experts": write_pipeline(base / "a14b", experts=True, parts=True),
    }


def written(folder: Path, pipeline: Path, **settings: Any) -> Path:
    model = {"diffusers": str(pipeline)} | settings.pop("model", {})
    path = folder / "job.json"
    path.write_text(json.dumps(JOB | {"model": model} | settings), encoding="utf-8")
    return path


def made(path: Path) -> tuple[list[str], list[Tensor]]:
    """Render a job; returns what was said and the chunks' latents."""
    lines: list[str] = []
    render(read_job(path), lines.append)
    files = sorted((path.parent / "output" / "gloria_runs" / "film" / "chunks").glob("*.safetensors"))
    return lines, [load_file(file)["latent_tensor"] for file in files]


@pytest.mark.parametrize("kind", ["2.1", "2.2", "experts"])
def test_one_chunk_is_what_diffusers_own_pipeline_makes(tmp_path: Path, pipelines: dict[str, Path], kind: str) -> None:
    """The pipeline is given our noise, and our noise levels through its own Euler scheduler."""
    _, [ours, *_] = made(written(tmp_path, pipelines[kind]))
    pipeline = diffusers.WanPipeline.from_pretrained(pipelines[kind])
    sigmas = simple_sigmas(3, 5.0 if kind == "2.1" else 3.0)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=sigmas[:-1].tolist())
    levels = {"sigmas": scheduler.sigmas, "timesteps": scheduler.timesteps}
    scheduler.set_timesteps = lambda *_args, **_options: scheduler.__dict__.update(levels)  # type: ignore[method-assign]
    pipeline.scheduler = scheduler
    torch.testing.assert_close(scheduler.sigmas, sigmas)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a woman talks",
        negative_prompt="worst quality",
        width=SIZE,
        height=SIZE,
        num_frames=13,
        num_inference_steps=3,
        guidance_scale=3.0,
        latents=chunk_noise(11, tuple(ours.shape)),
        output_type="latent",
        max_sequence_length=512,
    ).frames
    assert float(theirs.std()) > 0.1
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def statistics(vae: WanVae) -> tuple[Tensor, Tensor]:
    config = vae.vae.config
    return tuple(torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))


@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_a_stream_is_one_long_decoding_bit_for_bit(pipelines: dict[str, Path], kind: str) -> None:
    vae = WanVae(pipelines[kind], torch.device("cpu"))
    latents = torch.randn(1, vae.channels, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    shape = (1, -1, 1, 1, 1)
    mean, std = (
        torch.tensor(values).view(shape) for values in (vae.vae.config.latents_mean, vae.vae.config.latents_std)
    )
    with torch.inference_mode():
        expected = to_bytes(vae.vae.decode(latents * std + mean).sample)
    decoder = vae.decoder()
    first = [*decoder.frames(latents[:, :, :2])]
    state = decoder.snapshot()
    rest = [*decoder.frames(latents[:, :, 2:])]
    assert [len(frames) for frames in (*first, *rest)] == [1, 4, 4, 4, 4, 4]
    assert np.array_equal(np.concatenate([*first, *rest]), expected)
    decoder.restore(state)
    assert np.array_equal(np.concatenate([*decoder.frames(latents[:, :, 2:])]), expected[5:])
    decoder.reset()
    decoder.warm(latents[:, :, :3])
    assert np.array_equal(np.concatenate([*decoder.frames(latents[:, :, 3:])]), expected[9:])
    assert len(np.unique(expected)) > 100


@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_a_stream_in_floats_is_exact_too(pipelines: dict[str, Path], kind: str) -> None:
    """Bytes could hide small differences."""
    vae = WanVae(pipelines[kind], torch.device("cpu")).vae
    latents = torch.randn(1, vae.config.z_dim, 5, 4, 4, generator=torch.Generator().manual_seed(4))
    memory: list[object] = []
    with torch.inference_mode():
        steps = [decode_step(vae, latents[:, :, i : i + 1], memory) for i in range(5)]
        assert torch.equal(torch.cat(steps, dim=2), vae.decode(latents).sample)


@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_pictures_are_encoded_to_normalised_latents(pipelines: dict[str, Path], kind: str) -> None:
    vae = WanVae(pipelines[kind], torch.device("cpu"))
    frames = torch.rand(5, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    found = vae.encode(frames)
    assert found.shape == (1, vae.channels, 2, SIZE // vae.stride, SIZE // vae.stride)
    with torch.inference_mode():
        raw = vae.vae.encode((frames * 2 - 1).permute(3, 0, 1, 2).unsqueeze(0)).latent_dist.mode()
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.vae.config.latents_mean, vae.vae.config.latents_std)
    )
    torch.testing.assert_close(found * std + mean, raw, atol=1e-5, rtol=1e-5)


def test_text_is_encoded_as_diffusers_does(tmp_path: Path, pipelines: dict[str, Path]) -> None:
    texts = WanTexts(pipelines["2.1"], "", Keep(tmp_path, writes=True), torch.device("cpu"), torch.float32)
    prompt = "a woman  talks &amp;amp; smiles \n"
    rows = texts([prompt, ""])
    pipeline = diffusers.WanPipeline.from_pretrained(pipelines["2.1"])
    theirs, empty = pipeline.encode_prompt(prompt, "", max_sequence_length=512)
    assert rows[prompt].shape == (1, 512, 32)
    torch.testing.assert_close(rows[prompt], theirs)
    torch.testing.assert_close(rows[""], empty)
    assert cleaned(prompt) == "a woman talks & smiles"


def test_encoded_texts_are_kept_and_the_encoder_is_not_needed_again(
    tmp_path: Path, pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Keep(tmp_path / "kept", writes=True)
    first = WanTexts(pipelines["2.1"], "w", keep, torch.device("cpu"), torch.float32)(["a woman", "talks"])
    monkeypatch.setattr(packages, "transformers", lambda: pytest.fail("the encoder was loaded"))
    again = WanTexts(pipelines["2.1"], "w", keep, torch.device("cpu"), torch.float32)(["talks", "a  woman"])
    assert torch.equal(again["a  woman"], first["a woman"])
    assert torch.equal(again["talks"], first["talks"])


def test_what_is_kept_may_be_damaged_or_only_read(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "kept", writes=True)
    value = torch.arange(6.0)
    assert torch.equal(keep.made("a", lambda: value), value)
    [file] = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(keep.made("a", lambda: value + 1), value + 1)
    reader = Keep(tmp_path / "elsewhere", writes=False)
    assert torch.equal(reader.made("a", lambda: value), value)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", ["2.1", "2.2", "experts"])
def test_a_film_is_taken_up_where_it_was_stopped(tmp_path: Path, pipelines: dict[str, Path], kind: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    settings = {"seconds": 1.6, "prompts": "0:00 a woman talks / 0:00.8 she smiles"}
    lines, whole = made(written(tmp_path / "one", pipelines[kind], **settings))
    assert len(whole) > 2
    assert not any("on disk" in line for line in lines)
    shutil.copytree(tmp_path / "one" / "output", tmp_path / "two" / "output")
    chunks = tmp_path / "two" / "output" / "gloria_runs" / "film" / "chunks"
    for file in chunks.glob(f"{len(whole) - 1:04}*"):
        file.unlink()
    path = written(tmp_path / "two", pipelines[kind], **settings)
    said: list[str] = []
    dry_run(read_job(path), said.append)
    assert f"Chunk {len(whole)} is made for the first time." in said
    lines, again = made(path)
    assert f"chunk 1 of {len(whole)}: on disk" in lines
    assert all(map(torch.equal, again, whole))


def test_anchors_and_a_start_picture(tmp_path: Path, pipelines: dict[str, Path]) -> None:
    """They are attached as for any weights; a film begins with its picture."""
    pixels = torch.randint(0, 256, (SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    Image.fromarray(pixels.numpy()).save(tmp_path / "scene.png")
    anchors = {"global": "scene.png", "left": "scene.png"}
    path = written(tmp_path, pipelines["2.1"], anchors=anchors, start_image="global", width=0, height=0)
    _, [first, *_] = made(path)
    vae = WanVae(pipelines["2.1"], torch.device("cpu"))
    assert torch.equal(first[:, :, :1], vae.encode(pixels.float()[None] / 255.0))


def test_the_pipelines_own_shift_and_boundary(tmp_path: Path, pipelines: dict[str, Path]) -> None:
    path = written(tmp_path, pipelines["experts"])
    made(path)
    told = json.loads((tmp_path / "output" / "gloria_runs" / "film" / "run.json").read_text(encoding="utf-8"))
    assert told["chunks"][0]["inputs"]["boundary"]["words"] == "0.8"
    lines, _ = made(written(tmp_path, pipelines["experts"], boundary=0.9))
    assert any("its boundary changed (0.8 -> 0.9)" in line for line in lines)
    lines, _ = made(written(tmp_path, pipelines["experts"], model={"shift": 7.0}, boundary=0.9))
    assert any("its sampler changed" in line for line in lines)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("vae", "lacks vae"),
        ("tokenizer", "lacks tokenizer"),
        ("tokenizer/tokenizer.json", "text encoder in"),
        ("vae/diffusion_pytorch_model.safetensors", "VAE in"),
        ("text_encoder/model.safetensors", "text_encoder"),
        ("transformer/diffusion_pytorch_model.safetensors", "transformer"),
    ],
)
def test_parts_that_are_missing(tmp_path: Path, pipelines: dict[str, Path], broken: str, message: str) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipelines["2.1"], folder)
    path = folder / broken
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(GloriaError) as refused:
        made(written(tmp_path, folder))
    assert message in str(refused.value)


def test_parts_of_two_pipelines(tmp_path: Path, pipelines: dict[str, Path]) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipelines["2.1"], folder)
    shutil.rmtree(folder / "vae")
    shutil.copytree(pipelines["2.2"] / "vae", folder / "vae")
    with pytest.raises(GloriaError, match="latents of 48 channels; its transformer works with 16"):
        made(written(tmp_path, folder))


def test_weights_with_image_channels_are_refused_in_words(tmp_path: Path, pipelines: dict[str, Path]) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipelines["2.1"], folder)
    shutil.rmtree(folder / "transformer")
    small_transformer(16, in_channels=36).save_pretrained(folder / "transformer")
    with pytest.raises(GloriaError, match="is given its start through image channels"):
        made(written(tmp_path, folder))


def test_sound_needs_ears(tmp_path: Path, pipelines: dict[str, Path]) -> None:
    speech = Path(__file__).resolve().parents[3] / "gloria_core" / "nano" / "speech" / "demo.flac"
    with pytest.raises(GloriaError, match="was made without ears"):
        made(written(tmp_path, pipelines["2.1"], audio=str(speech)))


def test_missing_packages_are_named(
    tmp_path: Path, pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(GloriaError, match=r"needs the package diffusers, .* pip install diffusers"):
        made(written(tmp_path, pipelines["2.1"]))
