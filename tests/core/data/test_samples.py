"""Samples while a training goes on: a sheet and a film that show the same, and nothing of the training changed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gloria_core.data import samples
from gloria_core.data.__main__ import main
from gloria_core.data.cache import Cache, DamagedEntryError
from gloria_core.data.folder import read_dataset
from gloria_core.data.prepare import prepare
from gloria_core.data.prepared import read_prepared, write_prepared
from gloria_core.data.samples import SOUND_RATE, Sample, frames_by_codec, write_samples
from gloria_core.data.sheet import Guided, sample_clips
from gloria_core.data.task import FootageTask
from gloria_core.errors import CheckpointError, ConfigError, DatasetError
from gloria_core.events import read_events
from gloria_core.media import iter_frames, probe, read_audio
from gloria_core.media.clip import write_clip
from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.nano.codec import load_codec
from gloria_core.nano.encoders import NanoEncoder
from gloria_core.nano.task import NanoTask
from gloria_core.sampling.guidance import Guidance
from gloria_core.train.config import from_table
from gloria_core.train.live_bytes import LiveBytes
from gloria_core.train.loop import train
from gloria_core.train.state import latest_checkpoint, load_checkpoint
from tests.core.data.conftest import SIZES

Write = Callable[..., Path]
DECODER = "gloria_core.nano.codec:load_codec"
CELL = 3
"""How many times the sheet enlarges nano's frames."""


@pytest.fixture
def ready(nano_folder: Path, encoder: NanoEncoder) -> dict[str, Any]:
    """Options of a task on a prepared folder, with a prompt to sample."""
    manifest, _ = read_dataset(nano_folder)
    cache = nano_folder.parent / "cache"
    prepare(manifest, encoder, Cache(cache), SIZES, sample_prompts=["turns to the left, happy"])
    options = {"manifest": str(nano_folder), "cache": str(cache), "weights": str(WEIGHTS_FILE), "decoder": DECODER}
    return {**options, "sample_steps": 2}


def film_of(path: Path) -> np.ndarray:
    return np.concatenate(list(iter_frames(path)))


def sampled(task: FootageTask, path: Path) -> tuple[Image.Image, np.ndarray]:
    """Write samples; return the sheet and the film's frames (F, H, W, 3)."""
    dit = task.modules()["dit"].eval()
    with torch.no_grad():
        task.sample_sheet({"dit": dit}, 0, path)
    with Image.open(path) as sheet:
        return sheet.convert("RGB"), film_of(path.with_suffix(".mp4"))


def test_the_film_plays_the_true_clips_beside_what_the_sheet_shows(
    ready: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def watched(target: Path, frames: Iterable[np.ndarray], *more: Any) -> None:
        write_clip(target, (written.append(part) or part for part in frames), *more)

    monkeypatch.setattr(samples, "write_clip", watched)
    sheet, film = sampled(FootageTask(**ready), tmp_path / "samples" / "step-1.png")
    assert film.shape == (3 * 33, 64, 2 * 48, 3)  # two clips and a prompt, true and made
    assert sheet.size == (9 * 48 * CELL, 3 * 2 * 64 * CELL)
    small = np.asarray(sheet.resize((sheet.width // CELL, sheet.height // CELL), Image.Resampling.NEAREST))
    shown = small.reshape(3, 2, 64, 9, 48, 3).transpose(0, 3, 2, 1, 4, 5).reshape(3, 9, 64, 96, 3)
    of_latents = [0, *range(2, 33, 4)]  # the only frame of the first latent, the second of each other
    frames = np.concatenate(written)
    assert np.array_equal(frames.reshape(3, 33, 64, 96, 3)[:, of_latents], shown)
    assert np.abs(film.astype(int) - frames.astype(int)).mean() < 8, "the film is compressed, nothing else"
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"step-1.png", "step-1.mp4"}


def test_the_true_side_is_the_footage_and_it_sounds_like_it(
    ready: dict[str, Any], nano_folder: Path, tmp_path: Path
) -> None:
    task = FootageTask(**ready, sample_clips=1)
    _, film = sampled(task, tmp_path / "a.png")
    take = film_of(nano_folder / "take-1.mp4")[:33]
    assert np.abs(film[:33, :, :48].astype(int) - take.astype(int)).mean() < 12, "nano's codec is lossy"
    assert np.abs(film[:33, :, :48].astype(int) - np.roll(take, 16, 0).astype(int)).mean() > 12
    heard, rate = read_audio(tmp_path / "a.mp4", sample_rate=16000)
    source, _ = read_audio(nano_folder / "take-1.mp4", sample_rate=rate)
    count = round(33 / 16 * rate)
    a, b = heard[0, 800 : count - 800], source.mean(0)[800 : count - 800]
    assert torch.corrcoef(torch.stack((a, b)))[0, 1] > 0.9


def test_samples_are_the_same_every_time_and_follow_seed_text_and_guidance(
    ready: dict[str, Any], tmp_path: Path
) -> None:
    def made(name: str, **more: Any) -> np.ndarray:
        return sampled(FootageTask(**{**ready, **more}), tmp_path / f"{name}.png")[1][:, :, 48:].astype(int)

    first = made("first")
    assert np.array_equal(first, made("again"))
    for name, more in (("seed", {"sample_seed": 5}), ("steps", {"sample_steps": 3}), ("text", {"sample_guidance": 4.0}),
                       ("sound", {"sample_audio_guidance": 3.0})):  # fmt: skip
        assert np.abs(made(name, **more) - first).mean() > 0.2, name


def test_a_guided_sample_is_the_formulas(ready: dict[str, Any]) -> None:
    """One step: noise less the velocity, which is mixed of three passes as the paper's 4.3 says."""
    task = FootageTask(**ready)
    dit, batch = task.modules()["dit"].eval(), replace(task.batch(0, 0, 1), num_prefix=0)
    assert batch.context is not None
    assert batch.audio is not None
    empty = torch.zeros(1, batch.context.shape[1], batch.context.shape[2])
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))

    def velocity(context: Tensor, audio: Tensor) -> Tensor:
        made: Tensor = dit(noise, torch.tensor([1000.0]), context, anchors=batch.anchors, audio=audio)
        return made

    with torch.no_grad():
        silence = torch.zeros_like(batch.audio)
        nothing, text, full = (
            velocity(rows, sound)
            for rows, sound in ((empty, silence), (batch.context, silence), (batch.context, batch.audio))
        )
        wanted = noise - (nothing + 4.0 * (text - nothing) + 2.0 * (full - text))
        guided = Guided(Guidance(text_scale=4.0, audio_scale=2.0), empty)
        found = sample_clips(dit, batch, batch.context, steps=1, shift=1.0, guided=guided)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="needs the empty text"):
        Guided(Guidance(text_scale=4.0))


def test_held_out_clips_are_shown_where_there_are_any(ready: dict[str, Any], tmp_path: Path) -> None:
    both, held = FootageTask(**ready, sample_clips=2), FootageTask(**ready, sample_clips=2, held_out_ids=["take-2"])
    assert [window.place.clip.id for window, _ in both._sampled()] == ["take-1", "take-2", "take-1"]
    assert [window.place.clip.id for window, _ in held._sampled()] == ["take-2", "take-2"]
    [first, *_] = [batch for _, batch in both._sampled()]
    assert first.num_prefix == 0, "nothing of the true clip is given"
    assert first.anchors is not None
    assert len(first.anchors) == 13
    given = FootageTask(**ready, start_image=1.0)._sampled()[0][1]
    assert given.num_prefix == 1, "a model that is always given the first picture is given it here too"
    _, film = sampled(FootageTask(**ready, sample_clips=0), tmp_path / "prompt.png")
    assert len(film) == 33, "the prompt alone"


@pytest.mark.parametrize("change", [{"decoder": ""}, {"sample_clips": 0}])
def test_nothing_is_written_where_nothing_can_be_shown(
    ready: dict[str, Any], nano_folder: Path, encoder: NanoEncoder, tmp_path: Path, change: dict[str, Any]
) -> None:
    manifest, _ = read_dataset(nano_folder)
    prepare(manifest, encoder, Cache(Path(ready["cache"])), SIZES)
    task = FootageTask(**{**ready, **change})
    task.sample_sheet(task.modules(), 0, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_footage_that_went_away_makes_the_film_silent(ready: dict[str, Any], nano_folder: Path, tmp_path: Path) -> None:
    task = FootageTask(**ready)
    for path in nano_folder.iterdir():
        path.unlink()
    sampled(task, tmp_path / "a.png")
    assert not probe(tmp_path / "a.mp4").has_audio


def test_a_damaged_prompt_is_left_out_and_named(
    ready: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = FootageTask(**ready)
    [key], get = task._prepared.sample_text_keys, task._cache.get

    def damaged(wanted: str) -> dict[str, Tensor]:
        if wanted == key:
            raise DamagedEntryError(key, "its numbers are not those that were written")
        return get(wanted)

    monkeypatch.setattr(task._cache, "get", damaged)
    with caplog.at_level(logging.WARNING):
        _, film = sampled(task, tmp_path / "a.png")
    assert len(film) == 2 * 33
    assert "of the clip a sample prompt: it is left out" in caplog.text


def test_guidance_needs_the_empty_text_and_says_so_before_the_training(ready: dict[str, Any]) -> None:
    cache = Cache(Path(ready["cache"]))
    [path] = cache.sets.glob("*.json")
    write_prepared(cache, replace(read_prepared(path), empty_text_key=""))
    FootageTask(**ready)
    with pytest.raises(DatasetError, match=r"sample_guidance is 5, .* prepare it again"):
        FootageTask(**ready, sample_guidance=5.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"vae": "wan.safetensors"}, "Both decoder and vae"),
        ({"decoder": "", "vae": "none.safetensors"}, "no weights file"),
        ({"decoder": "nothing:here"}, "cannot be imported"),
        ({"sample_steps": 0}, "sample_steps is 0"),
        ({"vae_device": "cuda:1"}, "vae_device is 'cuda:1'"),
        ({"sample_guidance": -1.0}, "guidance scale is -1"),
        ({"sample_guidance": math.nan}, "sample_guidance is nan; it must lie between"),
        ({"sample_seed": 2**64}, "sample_seed is 18446744073709551616; it must lie between"),
        ({"min_gap_s": math.inf}, "min_gap_s is inf; it must lie between"),
    ],
)
def test_what_cannot_be_is_told_before_the_training(
    ready: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, CheckpointError), match=told):
        FootageTask(**{**ready, **change}).modules()


def test_a_sampled_training_is_bit_for_bit_the_same(ready: dict[str, Any], tmp_path: Path) -> None:
    def run(name: str, every: int) -> Path:
        options = {key: value for key, value in ready.items() if every or key != "decoder"}
        train(
            from_table(
                {
                    "run": {"out": str(tmp_path / name), "total_steps": 3, "device": "cpu"},
                    "task": {"target": "gloria_core.data.task:FootageTask", "options": options},
                    "method": {"kind": "lora", "rank": 2, "preset": "identity"},
                    "log": {"log_every": 1, "held_out_every": 0, "sample_every": every, "checkpoint_every": 0},
                }
            )
        )
        return tmp_path / name

    plain, watched = run("plain", 0), run("watched", 1)
    losses = [[event["loss"] for event in read_events(r / "events.jsonl", "train")] for r in (plain, watched)]
    assert losses[0] == losses[1]
    one, other = (load_checkpoint(latest_checkpoint(r))["dit"] for r in (plain, watched))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    told = [event["path"] for event in read_events(watched / "events.jsonl", "sample")]
    assert told == [f"samples/step-{step:08d}.png" for step in (1, 2, 3)]
    assert len(list((watched / "samples").glob("*.mp4"))) == 3


def test_samples_hold_no_second_copy_of_the_weights(ready: dict[str, Any], tmp_path: Path) -> None:
    task = FootageTask(**ready)
    dit = task.modules()["dit"].eval()
    weights = sum(parameter.nbytes for parameter in dit.parameters())
    with torch.no_grad(), LiveBytes([*dit.parameters(), *dit.buffers()]) as live:
        task.sample_sheet({"dit": dit}, 0, tmp_path / "a.png")
    assert live.peak < weights


def test_clips_of_other_sizes_fit_into_one_film(tmp_path: Path) -> None:
    codec = load_codec()

    def clip(frames: int, height: int, width: int, sound: Tensor | None) -> Sample:
        latents = codec.encode(torch.rand(1, 3, frames, height, width) * 2 - 1)
        return Sample(latents, latents, sound)

    tone = torch.ones(1, SOUND_RATE)
    clips = [clip(5, 64, 48, None), clip(9, 48, 64, tone), clip(1, 64, 48, None)]
    write_samples(clips, frames_by_codec(codec), tmp_path / "a.png", 16)
    film = film_of(tmp_path / "a.mp4")
    assert film.shape == (15, 64, 96, 3)
    assert film[7, :12].max() < 20, "black above and below"
    heard, rate = read_audio(tmp_path / "a.mp4")
    loud = heard.abs()[0] > 0.1
    assert not loud[: round(0.28 * rate)].any()
    assert loud[round(0.4 * rate) : round(0.8 * rate)].all()


def test_nano_itself_shows_its_clips_as_a_film(tmp_path: Path) -> None:
    task = NanoTask(num_characters=4)
    with torch.no_grad():
        task.sample_sheet({name: module.eval() for name, module in task.modules().items()}, 0, tmp_path / "a.png")
    assert film_of(tmp_path / "a.mp4").shape[1:] == (64, 96, 3)
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.height == 2 * 6 * 64 * CELL


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_wan_weights_are_shown_through_their_vae(
    kind: str, film: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.core.render.tiny_pipeline import write_pipeline

    pipeline = write_pipeline(tmp_path / "wan", wan22=kind == "2.2")
    for index, name in enumerate("ab"):
        film(tmp_path / "set" / f"{name}.mp4", sound=0.3, shade=index, size=(64, 64))
        (tmp_path / "set" / f"{name}.txt").write_text("a woman talks", encoding="utf-8")
    command = ["prepare", str(tmp_path / "set"), "--cache", str(tmp_path / "cache"), "--pipeline", str(pipeline)]
    assert main([*command, "--size", "64x64", "--sample-prompt", "she smiles"]) == 0
    options = {"manifest": str(tmp_path / "set"), "cache": str(tmp_path / "cache"), "frames": [9], "sample_steps": 1}
    options |= {"weights": str(pipeline / "transformer"), "vae": str(pipeline / "vae"), "sample_guidance": 3.0}
    task = FootageTask(**options)
    sheet, played = sampled(task, tmp_path / "a.png")
    assert played.shape == (3 * 9, 64, 128, 3)
    assert sheet.size == (3 * 64 * 2, 3 * 2 * 64 * 2)
    assert probe(tmp_path / "a.mp4").has_audio
    other = write_pipeline(tmp_path / "other", wan22=kind != "2.2")
    with pytest.raises(CheckpointError, match="channels; the model works with"):
        FootageTask(**{**options, "vae": str(other / "vae")})
    (pipeline / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="diffusion_pytorch_model"):
        FootageTask(**options)
