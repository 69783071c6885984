"""Batches of footage: what they hold, that they come again, and that the trainer learns from them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gloria_core.audio import branch_windows, mel_features
from gloria_core.checkpoint import read_checkpoint, write_checkpoint
from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.data.cache import Cache, DamagedEntryError
from gloria_core.data.folder import read_dataset
from gloria_core.data.prepare import prepare
from gloria_core.data.task import FootageTask
from gloria_core.errors import ConfigError, DatasetError, GloriaError
from gloria_core.media import read_audio
from gloria_core.model import GloriaDiT
from gloria_core.nano.bundle import WEIGHTS_FILE
from gloria_core.nano.encoders import NanoEncoder
from gloria_core.train import objective
from gloria_core.train.config import ObjectiveConfig, from_table
from gloria_core.train.loop import train
from gloria_core.types import AnchorRole, TrainBatch
from tests.core.data.conftest import SIZES


@pytest.fixture
def ready(nano_folder: Path, encoder: NanoEncoder) -> dict[str, Any]:
    """Options of a task on a prepared folder."""
    return prepared(nano_folder, encoder)


def prepared(folder: Path, encoder: NanoEncoder) -> dict[str, Any]:
    manifest, _ = read_dataset(folder)
    prepare(manifest, encoder, Cache(folder.parent / "cache"), SIZES)
    return {"manifest": str(folder), "cache": str(folder.parent / "cache"), "weights": str(WEIGHTS_FILE)}


def losses(task: FootageTask, batch: TrainBatch) -> torch.Tensor:
    drawn = objective.held_out_draw(batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        return objective.clip_losses(task.modules(), batch, drawn)


def alike(a: TrainBatch, b: TrainBatch) -> bool:
    same = torch.equal(a.latents, b.latents) and a.num_prefix == b.num_prefix and a.names == b.names
    return same and (a.anchors is None) == (b.anchors is None) and a.metrics == b.metrics


def test_a_batch_has_all_that_the_objective_needs(ready: dict[str, Any]) -> None:
    task = FootageTask(**ready, batch_size=3, drop_role=0.0, drop_slot=0.0)
    batch = task.batch(0, 0, 1)
    assert batch.latents.shape == (3, 64, 9, 8, 6)
    assert batch.context is not None and batch.context.shape[0] == 3  # noqa: PT018 - narrows the type
    assert batch.audio is not None and batch.audio.shape == (3, 9, 8, 32)  # noqa: PT018 - narrows the type
    assert batch.anchors is not None and len(batch.anchors) == 13  # noqa: PT018 - narrows the type
    assert batch.anchors.batch_size == 1  # all clips share the folder's pictures
    assert batch.words is None
    assert losses(task, batch).shape == (3,)
    with torch.no_grad():
        objective.clip_losses(
            task.modules(), batch, objective.draw(batch, ObjectiveConfig(), torch.Generator().manual_seed(0))
        )


def test_batches_come_again_whenever_and_by_whomever_they_are_asked_for(ready: dict[str, Any]) -> None:
    one, other = FootageTask(**ready), FootageTask(**ready)
    assert alike(one.batch(7, 0, 1), other.batch(7, 0, 1))
    assert alike(one.batch(3, 1, 2), one.batch(7, 0, 1))  # one stream, whatever the number of processes
    assert not alike(one.batch(0, 0, 1), one.batch(1, 0, 1))
    assert not alike(one.batch(7, 0, 1), FootageTask(**ready, seed=1).batch(7, 0, 1))


def test_a_window_hears_what_it_shows(ready: dict[str, Any], nano_folder: Path) -> None:
    task = FootageTask(**ready, prefix=1.0, held_out=0.0)
    waveform, rate = read_audio(nano_folder / "take-1.mp4")
    whole = mel_features(waveform, rate, fps=16, num_frames=80)
    assert task.config.audio is not None
    for step in range(12):
        batch = task.batch(step, 0, 1)
        if batch.names == ("take-1",):
            break
    else:
        pytest.fail("take-1 was never drawn")
    piece = Cache(Path(ready["cache"])).get(task._prepared.clips[0].pieces[0].key)["latents"].float()
    [offset] = [i for i in range(1, 11) if torch.equal(piece[:, :, i : i + 9], batch.latents)]
    expected = branch_windows(task.config.audio, whole, offset, 9)
    assert batch.audio is not None
    assert torch.allclose(batch.audio[0], expected, atol=2e-2)


def test_held_out_clips_are_never_trained_on(ready: dict[str, Any]) -> None:
    task = FootageTask(**ready, held_out_ids=("take-2",))
    assert task.num_held_out == 4
    assert {task.batch(step, 0, 1).names for step in range(20)} == {("take-1",)}
    first = task.held_out(0)
    assert first.names == ("take-2",)
    assert alike(first, FootageTask(**ready, held_out_ids=("take-2",), seed=5).held_out(0))
    assert FootageTask(**ready).num_held_out == 0  # two clips are too few
    alone = FootageTask(**ready)
    with pytest.raises(ConfigError, match="No clip is held out"):
        alone.held_out(0)


def test_the_cache_alone_is_enough(ready: dict[str, Any], nano_folder: Path) -> None:
    before = FootageTask(**ready).batch(0, 0, 1)
    for path in nano_folder.iterdir():
        path.unlink()
    [prepared_file] = (nano_folder.parent / "cache" / "sets").iterdir()
    assert alike(FootageTask(**{**ready, "manifest": str(prepared_file)}).batch(0, 0, 1), before)


def test_stages_show_what_the_paper_shows(ready: dict[str, Any]) -> None:
    first = FootageTask(**ready, preset="stage1")
    assert all(first.batch(step, 0, 1).anchors is None for step in range(10))
    assert all(first.batch(step, 0, 1).num_prefix <= 1 for step in range(10))
    second = [FootageTask(**ready, preset="stage2").batch(step, 0, 1) for step in range(10)]
    assert {anchor.role for batch in second for anchor in batch.anchors or ()} == {AnchorRole.GLOBAL}
    assert {batch.num_prefix for batch in second} == {0, 1, 4}
    third = [FootageTask(**ready, preset="stage3").batch(step, 0, 1) for step in range(20)]
    kinds = [{a.role for a in batch.anchors or ()} - {AnchorRole.GLOBAL} for batch in third]
    assert all(len(kind) <= 1 for kind in kinds)
    assert {AnchorRole.VIEW} in kinds
    assert {AnchorRole.EXPRESSION} in kinds
    both = [FootageTask(**ready, preset="stage3-both", drop_role=0.0).batch(step, 0, 1) for step in range(5)]
    assert all(len({a.role for a in batch.anchors or ()}) == 3 for batch in both)


def test_a_cache_whose_shards_are_gone_is_to_be_prepared_again(ready: dict[str, Any]) -> None:
    task = FootageTask(**ready, memory_mb=0)
    for path in (Path(ready["cache"]) / "shards").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"no clip is left: prepare the dataset again"):
        task.batch(0, 0, 1)


def test_a_damaged_entry_in_the_middle_is_left_out_counted_and_named(
    ready: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(Path(ready["cache"]))
    task = FootageTask(**ready, memory_mb=0)
    lost = task._prepared.clips[0].pieces[0].key
    entries = {key: cache.get(key) for clip in task._prepared.clips for key in [p.key for p in clip.pieces]}
    for path in (Path(ready["cache"]) / "shards").iterdir():
        content = bytearray(path.read_bytes())
        place = content.find(entries[lost]["latents"].numpy().tobytes()[:64])
        content[place] ^= 255
        path.write_bytes(bytes(content))
    with caplog.at_level(logging.WARNING):
        names = {task.batch(step, 0, 1).names for step in range(12)}
    assert names == {("take-2",)}
    assert task.num_lost == 1
    assert task.batch(0, 0, 1).metrics["lost"] == 1
    assert "of the clip take-1: it is left out" in caplog.text
    both = FootageTask(**ready, memory_mb=0, held_out_ids=("take-1",))
    assert both.num_held_out == 4
    with pytest.raises(ConfigError, match="No clip is held out"):
        both.held_out(0)


def test_a_damaged_mask_is_left_out_and_its_clip_stays(
    nano_folder: Path, encoder: NanoEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (48, 64), 255).save(nano_folder / "take-1.mask.png")
    task = FootageTask(**prepared(nano_folder, encoder), memory_mb=0, face_weight=4.0)
    masks = {piece.mask_key for clip in task._prepared.clips for piece in clip.pieces} - {""}
    assert len(masks) == 1
    real, asked = Cache.get, 0

    def get(cache: Cache, key: str) -> dict[str, torch.Tensor]:
        nonlocal asked
        if key in masks:
            asked += 1
            assert asked < 3, "it is asked for again and again"
            raise DamagedEntryError(key, "The shard is gone.")
        return real(cache, key)

    monkeypatch.setattr(Cache, "get", get)
    names = {task.batch(step, 0, 1).names for step in range(12)}
    assert names == {("take-1",), ("take-2",)}
    assert task.num_lost == 1


def test_faces_and_regularisation_weigh_the_loss(nano_folder: Path, encoder: NanoEncoder) -> None:
    told = json.loads((nano_folder / "take-1.json").read_text())
    told["faces"] = [{"frame": 0, "box": [12, 0, 24, 32]}]
    (nano_folder / "take-1.json").write_text(json.dumps(told))
    ready = prepared(nano_folder, encoder)
    batch = FootageTask(**ready, face_weight=3.0, held_out_ids=("take-2",)).batch(0, 0, 1)
    assert batch.weight is not None and batch.weight.shape == (1, 1, 9, 8, 6)  # noqa: PT018 - narrows the type
    assert float(batch.weight.mean()) == pytest.approx(1)
    (nano_folder / "regularisation").mkdir()
    (nano_folder / "take-2.mp4").rename(nano_folder / "regularisation" / "other.mp4")
    ready = prepared(nano_folder, encoder)
    task = FootageTask(**ready, regularisation=0.5, regularisation_weight=0.25)
    weights = {b.names[0]: b.weight for b in (task.batch(step, 0, 1) for step in range(20))}
    assert weights["take-1"] is None
    assert float(weights["regularisation/other"].mean()) == 0.25


def test_a_model_without_ears_gets_new_ones(ready: dict[str, Any], tmp_path: Path) -> None:
    deaf = deaf_nano(tmp_path / "deaf.safetensors")
    assert FootageTask(**{**ready, "weights": str(deaf)}).batch(0, 0, 1).audio is None
    task = FootageTask(**{**ready, "weights": str(deaf)}, audio="new", preset="stage1")
    assert task.config.audio == AudioConfig(kind="mel", feature_dim=32)
    dit = task.modules()["dit"]
    assert isinstance(dit, GloriaDiT)
    batch = task.batch(0, 0, 1)
    with_ears = losses(task, batch)
    without = FootageTask(**{**ready, "weights": str(deaf)})
    assert torch.allclose(with_ears, losses(without, batch), atol=1e-5)  # silent at first
    assert any("audio" in name for name in task.new_parameters[0].split("."))
    with pytest.raises(ConfigError, match="has an audio branch already"):
        FootageTask(**ready, audio="new").modules()


def deaf_nano(path: Path) -> Path:
    weights, config = read_checkpoint(WEIGHTS_FILE)
    kept = {name: t for name, t in weights.items() if "audio" not in name}
    values = json.loads(config.to_json())
    values["audio"] = None
    write_checkpoint(path, kept, ModelConfig.from_mapping(values))
    return path


def test_the_trainer_learns_from_a_folder(ready: dict[str, Any], tmp_path: Path) -> None:
    config = from_table(
        {
            "run": {"out": str(tmp_path / "run"), "total_steps": 6, "device": "cpu"},
            "task": {"target": "gloria_core.data.task:FootageTask", "options": {
                **ready, "batch_size": 2, "preset": "character", "decoder": "gloria_core.nano.codec:load_codec"}},
            "optim": {"lr": 1e-4, "warmup_steps": 1},
            "log": {"log_every": 1, "held_out_every": 0, "sample_every": 6, "checkpoint_every": 0},
        }
    )  # fmt: skip
    assert train(config).finished
    assert (tmp_path / "run" / "samples" / "step-00000006.png").is_file()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"frames": [32]}, "use 29 or 33"),
        ({"superset": 2.0}, "superset is 2.0"),
        ({"roles": ["views"]}, "roles is 'views'"),
        ({"preset": "stage4"}, "preset is 'stage4'"),
        ({"supreset": 1.0}, "did you mean task.options.superset"),
        ({"frames": [197]}, "No clip can be trained on"),
        ({"weights": "none.safetensors"}, "no weights file"),
        ({"manifest": "nowhere.jsonl"}, "cannot be read"),
        ({"cache": "elsewhere"}, "was not prepared"),
        ({"held_out_ids": ["take-9"]}, "'take-9', which is no clip"),
        ({"decoder": "nothing:here"}, "cannot be imported"),
    ],
)
def test_bad_options_are_told(
    ready: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def use() -> None:
        task = FootageTask(**{**ready, **changes})
        task.sample_sheet(task.modules(), 0, tmp_path / "sheet.png")

    with pytest.raises(GloriaError, match=told):
        use()


def test_a_manifest_that_changed_has_to_be_prepared_again(ready: dict[str, Any], nano_folder: Path) -> None:
    (nano_folder / "take-1.json").write_text(json.dumps({"caption": "new"}))
    with pytest.raises(DatasetError, match="was changed since: prepare it again"):
        FootageTask(**ready)


def test_footage_for_another_latent_space_is_refused(ready: dict[str, Any], nano_folder: Path) -> None:
    for path in (nano_folder.parent / "cache" / "sets").iterdir():
        path.write_text(path.read_text().replace('"codec": "nano"', '"codec": "wan2.1"'))
    with pytest.raises(DatasetError, match=r"the VAE of 'wan2.1'; the model works in 'nano'"):
        FootageTask(**ready)


def test_sound_of_another_kind_is_refused(ready: dict[str, Any], nano_folder: Path) -> None:
    for path in (nano_folder.parent / "cache" / "sets").iterdir():
        path.write_text(path.read_text().replace('"audio_kind": "mel"', '"audio_kind": "wav2vec2"'))
    with pytest.raises(ConfigError, match="prepared as 'wav2vec2'; this model hears 'mel'"):
        FootageTask(**ready)


def test_a_stage_that_needs_sound_refuses_footage_without(nano_folder: Path, encoder: NanoEncoder) -> None:
    for name in ("take-1", "take-2"):
        told = json.loads((nano_folder / f"{name}.json").read_text())
        (nano_folder / f"{name}.json").write_text(json.dumps({**told, "audio": "none"}))
    ready = prepared(nano_folder, encoder)
    with pytest.raises(DatasetError, match="No clip has sound"):
        FootageTask(**ready, preset="stage1")
    batch = FootageTask(**ready).batch(0, 0, 1)
    assert batch.audio is not None
    assert float(batch.audio.abs().max()) == 0
