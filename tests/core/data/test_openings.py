"""Models with image channels: where clips can begin, and what such a model is shown there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gloria_core.checkpoint import write_checkpoint
from gloria_core.config import ModelConfig
from gloria_core.data.cache import Cache
from gloria_core.data.folder import read_dataset
from gloria_core.data.openings import pictures_at, places_of
from gloria_core.data.prepare import PreparedDataset, prepare
from gloria_core.data.shots import Shot, read_shots
from gloria_core.data.task import FootageTask
from gloria_core.errors import ConfigError, DatasetError
from gloria_core.media import num_frames_in
from gloria_core.model import GloriaDiT, initialise
from gloria_core.nano.encoders import NanoEncoder
from gloria_core.sampling.known import known_mask, known_video
from gloria_core.train import objective
from gloria_core.types import TrainBatch
from tests.core.data.conftest import SIZES

CHANNELS, CLIP = 64, 20
WHOLE: dict[str, Any] = {"frames": [33], "roles": (), "balance": "none", "held_out": 0.0}
GOES_ON = {**WHOLE, "prefix": 1.0}
BEGINS = {**WHOLE, "prefix": 0.0, "start_image": 1.0}


class NanoPictures:
    """Known pictures through nano's codec, and a CLIP of no sense."""

    def __init__(self, encoder: NanoEncoder, clip_id: str, width: int = CLIP) -> None:
        self.encoder, self.clip_id, self.width = encoder, clip_id, width
        self.known: list[tuple[int, int]] = []

    def encode_known(self, frames: NDArray[np.uint8], num_latents: int) -> torch.Tensor:
        self.known.append((len(frames), num_latents))
        return encoded(frames, num_latents)

    def encode_seen(self, picture: NDArray[np.uint8]) -> torch.Tensor:
        return torch.full((3, self.width), float(picture.mean()) / 255)


class Seeing(NanoEncoder):
    """Nano's encoder for a model with image channels."""

    def __init__(self, clip_id: str = "clip", **changes: Any) -> None:
        super().__init__()
        self.pictures: NanoPictures = NanoPictures(NanoEncoder(), clip_id, **changes)  # type: ignore[assignment]


def encoded(frames: NDArray[np.uint8], num_latents: int) -> torch.Tensor:
    video = known_video(num_latents, torch.from_numpy(frames) / 255)
    return NanoEncoder()._bundle.codec.encode(video.movedim(-1, 0)[None] * 2 - 1)


def prepared(folder: Path, encoder: NanoEncoder, **changes: Any) -> PreparedDataset:
    manifest, _ = read_dataset(folder)
    return prepare(manifest, encoder, Cache(folder.parent / "cache"), replace(SIZES, **changes))


def seeing_model(path: Path, **changes: Any) -> ModelConfig:
    """Write random weights of a small network with image channels for nano's latents."""
    config = ModelConfig(
        **{
            "name": "seeing", "in_channels": 2 * CHANNELS + 4, "out_channels": CHANNELS, "dim": 48, "ffn_dim": 48,
            "num_heads": 2, "num_layers": 1, "text_dim": 64, "text_length": 10, "freq_dim": 16, "clip_dim": CLIP,
            "clip_length": 3, "codec": "nano", "fps": 16.0, "chunk_latents": 9, "prefix": "given", **changes,
        }
    )  # fmt: skip
    network = GloriaDiT(config)
    generator = torch.Generator().manual_seed(0)
    initialise(network, generator)
    awake = {name: w + 0.05 * torch.randn(w.shape, generator=generator) for name, w in network.state_dict().items()}
    write_checkpoint(path, awake, config)
    return config


def task(folder: Path, options: dict[str, Any], **changes: Any) -> FootageTask:
    weights = folder.parent / "seeing.safetensors"
    seeing_model(weights, **changes)
    return FootageTask(manifest=str(folder), cache=str(folder.parent / "cache"), weights=str(weights), **options)


def frames_of_clip(folder: Path, batch: TrainBatch, frames: range) -> NDArray[np.uint8]:
    shot = Shot("", tuple(frames), (48, 64))
    [(_, pixels)] = read_shots(folder / f"{batch.names[0]}.mp4", [shot])
    return pixels


def offset_of(batch: TrainBatch, trained: FootageTask) -> int:
    """The latent that a clip begins with, found by its second latent, which nobody changes."""
    [clip] = [clip for clip in trained._prepared.clips if clip.id == batch.names[0]]
    whole = trained._cache.get(clip.pieces[0].key)["latents"].float()
    found = [i for i in range(whole.shape[2] - 8) if torch.equal(whole[:, :, i + 1], batch.latents[:, :, 1])]
    return found[0]


def loss(trained: FootageTask, batch: TrainBatch) -> torch.Tensor:
    drawn = objective.held_out_draw(batch, torch.Generator().manual_seed(0))
    return objective.clip_losses(trained.modules(), batch, drawn)


def test_clips_begin_at_the_start_and_at_every_fourth_latent() -> None:
    assert places_of(19, 4) == [(0, 1), (1, 4), (5, 4), (9, 4), (13, 4)]
    assert places_of(5, 4) == [(0, 1)], "a prefix of four would leave nothing to make"
    assert places_of(1, 4) == []
    assert pictures_at(0, 1) == range(1)
    assert pictures_at(5, 4) == range(20, 33)  # latents 5..8 hold the frames 17..32


def test_what_is_known_is_encoded_once_to_the_end_of_its_piece(nano_folder: Path) -> None:
    first, again = Seeing(), Seeing()
    found = prepared(nano_folder, first)
    assert sorted(set(first.pictures.known)) == [(1, 19), (13, 6), (13, 10), (13, 14), (13, 18)]
    for clip in found.prepared.clips:
        assert [opening.offset for opening in clip.pieces[0].openings] == [0, 1, 5, 9, 13]
        assert clip.pieces[0].seen_key
    assert Cache(nano_folder.parent / "cache").remove_unused() == 0
    prepared(nano_folder, again)
    assert again.pictures.known == []
    assert not any(
        piece.openings for clip in prepared(nano_folder, NanoEncoder()).prepared.clips for piece in clip.pieces
    )


@pytest.mark.parametrize("prefix", ["given", "held"])
def test_a_clip_that_goes_on_is_shown_the_pictures_before_it(nano_folder: Path, prefix: str) -> None:
    for path in nano_folder.glob("take-*.json"):  # with one prompt, clips can begin anywhere
        path.write_text('{"caption": "faces left"}', encoding="utf-8")
    prepared(nano_folder, Seeing())
    trained = task(nano_folder, GOES_ON, prefix=prefix)
    offsets = set()
    for step in range(8):
        batch = trained.batch(step, 0, 1)
        offset = offset_of(batch, trained)
        offsets.add(offset)
        known = encoded(frames_of_clip(nano_folder, batch, pictures_at(offset, 4)), 9)
        assert batch.image is not None
        mask, image = batch.image.split([4, CHANNELS], dim=1)
        assert torch.equal(mask[0, :, :, 0, 0], known_mask(9, 13))
        assert torch.allclose(image[:, :, 4:], known[:, :, 4:], atol=0.02)
        shown = batch.latents[:, :, :4] if prefix == "held" else known[:, :, :4]
        assert torch.allclose(image[:, :, :4], shown, atol=0.02)
    assert offsets == {1, 5, 9}
    assert batch.num_prefix == (4 if prefix == "held" else 0)
    assert loss(trained, batch).shape == (1,)


def test_a_given_prefix_is_made_anew_and_counts_by_its_share_of_the_video(nano_folder: Path) -> None:
    prepared(nano_folder, Seeing())
    trained = task(nano_folder, GOES_ON)
    batch = trained.batch(0, 0, 1)
    offset = offset_of(batch, trained)
    first = frames_of_clip(nano_folder, batch, range(4 * offset, 4 * offset + 1))
    assert torch.allclose(batch.latents[:, :, :1], NanoEncoder().encode_video(first), atol=0.02), "one picture fills it"
    assert batch.weight is not None
    share = batch.weight[0, 0, :, 0, 0]
    assert float(share.mean()) == pytest.approx(1)
    assert torch.allclose(share / share[-1], torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]))

    before = loss(trained, batch)
    elsewhere = batch.latents.clone()
    elsewhere[:, :, 0] += 1
    drawn = objective.held_out_draw(batch, torch.Generator().manual_seed(0))
    drawn.sigma.fill_(1.0)  # the network sees noise alone, so that only the loss could tell
    told = [
        objective.clip_losses(trained.modules(), replace(batch, latents=x), drawn) for x in (batch.latents, elsewhere)
    ]
    assert torch.allclose(*told)
    assert before.isfinite().all()


@pytest.mark.parametrize("prefix", ["given", "held"])
def test_a_video_begins_with_its_first_picture_and_what_clip_sees_in_it(nano_folder: Path, prefix: str) -> None:
    prepared(nano_folder, Seeing())
    trained = task(nano_folder, {**BEGINS, "batch_size": 2}, prefix=prefix)
    batch = trained.batch(0, 0, 1)
    picture = frames_of_clip(nano_folder, batch, range(1))
    assert batch.image is not None
    assert torch.allclose(batch.image[:1, 4:], encoded(picture, 9), atol=0.02)
    assert torch.equal(batch.image[0, :4, :, 0, 0], known_mask(9, 1))
    assert batch.num_prefix == (1 if prefix == "held" else 0)
    assert batch.weight is None
    assert batch.clip_fea is not None
    assert batch.clip_fea.shape == (2, 3, CLIP)
    assert torch.allclose(batch.clip_fea[0], NanoPictures(NanoEncoder(), "").encode_seen(picture[0]), atol=1e-3)
    without = replace(batch, clip_fea=None)
    assert not torch.allclose(loss(trained, batch), loss(trained, without)), "the network looks at it"


@pytest.mark.parametrize("prefix", ["given", "held"])
def test_samples_begin_with_the_first_picture(nano_folder: Path, tmp_path: Path, prefix: str) -> None:
    prepared(nano_folder, Seeing())
    options = {"decoder": "gloria_core.nano.codec:load_codec", "sample_steps": 1, "sample_clips": 1}
    trained = task(nano_folder, options, prefix=prefix)
    [(window, batch)] = trained._sampled()
    assert (window.offset, batch.num_prefix) == (0, 1 if prefix == "held" else 0)
    assert batch.image is not None
    assert torch.equal(batch.image[0, :4, :, 0, 0], known_mask(9, 1))
    trained.sample_sheet({"dit": trained.modules()["dit"].eval()}, 0, tmp_path / "a.png")
    assert num_frames_in(tmp_path / "a.mp4") == 33


def test_where_nothing_is_known_nothing_is_shown(nano_folder: Path) -> None:
    prepared(nano_folder, Seeing())
    batch = task(nano_folder, {**WHOLE, "prefix": 0.0, "start_image": 0.0}).batch(0, 0, 1)
    assert batch.image is not None
    assert batch.image.shape == (1, 4 + CHANNELS, 9, 8, 6)
    assert not batch.image.any()
    assert batch.clip_fea is None


def test_a_model_without_image_channels_trains_on_the_same_dataset_as_before(nano_folder: Path) -> None:
    prepared(nano_folder, NanoEncoder())
    plain = {"in_channels": CHANNELS, "clip_dim": 0, "prefix": "held"}
    before = task(nano_folder, GOES_ON, **plain).batch(3, 0, 1)
    prepared(nano_folder, Seeing())
    for path in (nano_folder.parent / "cache" / "sets").iterdir():
        if '"pictures_id": ""' in path.read_text():
            path.unlink()  # only the one with pictures is left
    after = task(nano_folder, GOES_ON, **plain).batch(3, 0, 1)
    assert torch.equal(before.latents, after.latents)
    assert after.image is None


def test_the_set_that_a_model_needs_is_found_among_others(nano_folder: Path) -> None:
    for encoder in (Seeing(), Seeing(clip_id=""), NanoEncoder()):  # the latest is not always the right one
        prepared(nano_folder, encoder)
    assert task(nano_folder, BEGINS).batch(0, 0, 1).clip_fea is not None
    assert task(nano_folder, BEGINS, clip_dim=0).batch(0, 0, 1).clip_fea is None


@pytest.mark.parametrize(
    ("encoder", "options", "kind", "told"),
    [
        (NanoEncoder(), {}, DatasetError, "prepared without them: prepare it again with this model"),
        (Seeing(clip_id=""), {}, DatasetError, "through CLIP too, and the dataset was prepared without"),
        (Seeing(width=16), {}, DatasetError, "CLIP vision gives 16 numbers .* was trained with 20"),
        (Seeing(), {"prefix_latents": 3}, ConfigError, "go on from 4 latents: set it to 4, or .* --prefix-latents 3"),
    ],
)
def test_a_dataset_that_does_not_go_with_the_model_is_refused(
    nano_folder: Path, encoder: NanoEncoder, options: dict[str, Any], kind: type[Exception], told: str
) -> None:
    prepared(nano_folder, encoder)
    with pytest.raises(kind, match=told):
        task(nano_folder, {**GOES_ON, **options})


def test_a_prefix_of_another_length_is_prepared_where_it_is_asked_for(nano_folder: Path) -> None:
    prepared(nano_folder, Seeing(), prefix_latents=2)
    batch = task(nano_folder, {**GOES_ON, "prefix_latents": 2}).batch(0, 0, 1)
    assert batch.image is not None
    assert torch.equal(batch.image[0, :4, :, 0, 0], known_mask(9, 5))


def test_other_image_channels_than_wans_are_refused(nano_folder: Path) -> None:
    prepared(nano_folder, Seeing())
    with pytest.raises(ConfigError, match="takes 144 input channels; training makes a latent of 64, a mask of 4"):
        task(nano_folder, BEGINS, in_channels=144).modules()


def test_a_damaged_opening_costs_its_own_piece(nano_folder: Path) -> None:
    prepared(nano_folder, Seeing())
    trained = task(nano_folder, {**GOES_ON, "memory_mb": 0})
    lost = trained._prepared.clips[0].pieces[0].openings[2].key
    shards = nano_folder.parent / "cache" / "shards"
    wanted = trained._cache.get(lost)["latents"].numpy().tobytes()[:64]
    for path in shards.iterdir():
        content = bytearray(path.read_bytes())
        place = content.find(wanted)
        if place >= 0:
            content[place] ^= 255
            path.write_bytes(bytes(content))
    names = {trained.batch(step, 0, 1).names for step in range(12)}
    assert trained.num_lost == 1
    assert ("take-2",) in names
    assert trained.batch(99, 0, 1).names == ("take-2",)
