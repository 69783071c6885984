"""Preparing a dataset: what is encoded, what is not encoded again, what is left out and named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from gloria_core.data.buckets import Sizes
from gloria_core.data.cache import Cache
from gloria_core.data.folder import read_dataset
from gloria_core.data.manifest import Manifest, read_line
from gloria_core.data.prepare import PreparedDataset, prepare
from gloria_core.errors import DatasetError
from gloria_core.nano.encoders import NanoEncoder
from tests.core.data.conftest import SIZES

Write = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]


class Counting(NanoEncoder):
    """Nano's encoder, which tells what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.videos: list[tuple[int, ...]] = []
        self.texts: list[str] = []
        self.sounds = 0

    def encode_video(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        self.videos.append(frames.shape)
        return super().encode_video(frames)

    def encode_text(self, texts: list[str]) -> list[torch.Tensor]:
        self.texts += texts
        return super().encode_text(texts)

    def encode_audio(self, waveform: torch.Tensor, sample_rate: int, fps: float) -> Any:
        self.sounds += 1
        return super().encode_audio(waveform, sample_rate, fps)


def of_lines(root: Path, *lines: dict[str, Any]) -> Manifest:
    values = [{"id": str(index), **line} for index, line in enumerate(lines)]
    return Manifest(root, tuple(read_line(json.dumps(value), "line") for value in values))


def prepared(root: Path, encoder: NanoEncoder | None = None, sizes: Sizes = SIZES) -> PreparedDataset:
    manifest, _ = read_dataset(root)
    return prepare(manifest, encoder or NanoEncoder(), Cache(root.parent / "cache"), sizes)


def test_latents_are_those_of_the_codec(nano_folder: Path, encoder: NanoEncoder) -> None:
    found = prepared(nano_folder, encoder)
    clip = found.prepared.clips[0]
    [piece] = clip.pieces
    assert (piece.start, piece.num_latents, piece.height, piece.width) == (0, 19, 8, 6)
    latents = Cache(nano_folder.parent / "cache").get(piece.key)["latents"]
    assert latents.shape == (1, 64, 19, 8, 6)
    rows = Cache(nano_folder.parent / "cache").get(clip.audio_key)["rows"]
    assert abs(len(rows) - 73) <= 1
    assert [prompt.frame for prompt in clip.prompts] == [0, 33, 53]
    assert not found.problems


def test_nothing_is_encoded_twice(nano_folder: Path) -> None:
    shutil.copy(nano_folder / "take-1.mp4", nano_folder / "copy.mp4")
    first, again = Counting(), Counting()
    before = prepared(nano_folder, first)
    assert sum(shape[0] > 1 for shape in first.videos) == 2  # the copy is the same content
    assert len(first.texts) == len(set(first.texts))
    after = prepared(nano_folder, again)
    assert (again.videos, again.texts, again.sounds) == ([], [], 0)
    assert (after.num_encoded, after.num_reused) == (0, before.num_encoded)
    assert after.path == before.path


def test_a_changed_picture_or_caption_encodes_only_itself(nano_folder: Path, picture: Write) -> None:
    prepared(nano_folder)
    picture(nano_folder / "left.png")
    (nano_folder / "take-1.json").write_text(json.dumps({"caption": "faces left, sad"}), encoding="utf-8")
    counting = Counting()
    prepared(nano_folder, counting)
    assert counting.videos == [(1, 64, 48, 3)]
    assert counting.texts == ["faces left, sad"]


def test_another_encoder_encodes_again_beside_the_first(nano_folder: Path) -> None:
    one, other = prepared(nano_folder), Counting()
    other.video_id = "another"
    two = prepared(nano_folder, other)
    assert other.videos
    assert not other.texts
    assert one.path != two.path
    assert one.path.exists()


def test_what_an_interruption_finished_is_kept(nano_folder: Path) -> None:
    done: list[int] = []

    def stop(count: int, total: int, what: str) -> None:
        if count == 5:
            done.append(count)
            raise KeyboardInterrupt

    manifest, _ = read_dataset(nano_folder)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, NanoEncoder(), Cache(nano_folder.parent / "cache"), SIZES, stop)
    assert done
    assert prepared(nano_folder).num_reused == 5


def test_frames_of_another_rate_are_the_nearest_in_time(tmp_path: Path, film: Write, encoder: NanoEncoder) -> None:
    film(tmp_path / "a.mp4", num_frames=48, fps=24)
    manifest = of_lines(tmp_path, {"video": "a.mp4", "frames": [6, 48]})
    seen: list[NDArray[np.uint8]] = []

    class Seeing(NanoEncoder):
        def encode_video(self, frames: NDArray[np.uint8]) -> torch.Tensor:
            seen.append(frames)
            return super().encode_video(frames)

    found = prepare(manifest, Seeing(), Cache(tmp_path / "cache"), SIZES)
    [piece] = found.prepared.clips[0].pieces
    assert piece.start == 4  # frame 6 of 24 is frame 4 of 16
    shown = [round(float(frame.mean()) / 4) for frame in seen[0]]
    assert shown[:6] == [6, 8, 9, 11, 12, 14]
    assert len(shown) == 25


def test_long_films_are_cut_and_each_size_is_made(tmp_path: Path, film: Write) -> None:
    film(tmp_path / "a.mp4", num_frames=70, size=(96, 128))
    sizes = Sizes(fps=16, areas=(48 * 64, 96 * 128), longest=33, shortest=9)
    found = prepare(of_lines(tmp_path, {"video": "a.mp4"}), NanoEncoder(), Cache(tmp_path / "cache"), sizes)
    pieces = found.prepared.clips[0].pieces
    assert [(p.start, p.num_latents, p.height, p.width) for p in pieces] == [
        (0, 6, 8, 6), (23, 6, 8, 6), (46, 6, 8, 6), (0, 6, 16, 12), (23, 6, 16, 12), (46, 6, 16, 12)
    ]  # fmt: skip
    opening = [anchor for anchor in found.prepared.clips[0].anchors if anchor.opens]
    assert [anchor.frame for anchor in opening] == [0, 23, 46, 0, 23, 46]


def test_anchors_are_frames_crops_and_pictures(tmp_path: Path, film: Write, picture: Write) -> None:
    film(tmp_path / "a.mp4", num_frames=40)
    film(tmp_path / "b.mp4", num_frames=20)
    picture(tmp_path / "p.png", (200, 100))
    anchors = [
        {"role": "view", "slot": "left", "frame": 30, "crop": [0, 0, 32, 32]},
        {"role": "view", "slot": "back", "video": "b.mp4", "frame": 5},
        {"role": "expression", "slot": "sad", "picture": "p.png", "frame": 39},
        {"role": "global", "picture": "p.png"},
    ]
    manifest = of_lines(tmp_path, {"video": "a.mp4", "anchors": anchors})
    found = prepare(manifest, NanoEncoder(), Cache(tmp_path / "cache"), SIZES)
    told = {(a.role, a.slot): (a.frame, a.height, a.width) for a in found.prepared.clips[0].anchors}
    assert told == {
        ("view", "left"): (30, 4, 4),
        ("view", "back"): (-1, 8, 6),
        ("expression", "sad"): (39, 4, 10),
        ("global", ""): (-1, 8, 6),
    }
    latent = Cache(tmp_path / "cache").get(found.prepared.clips[0].anchors[0].key)["latents"]
    assert torch.allclose(latent.float(), NanoEncoder().encode_video(np.full((1, 32, 32, 3), 120, np.uint8)), atol=0.1)


def test_a_damaged_video_costs_its_own_clips_alone(nano_folder: Path, film: Write) -> None:
    good = film(nano_folder / "long.mp4", num_frames=400, size=(256, 256))
    content = good.read_bytes()
    (nano_folder / "noise.mp4").write_bytes(b"\x00" * 5000)
    (nano_folder / "empty.mp4").write_bytes(b"")
    good.write_bytes(content[: len(content) // 2])
    found = prepared(nano_folder)
    assert {clip.id for clip in found.prepared.clips} >= {"take-1", "take-2"}
    assert {"noise", "empty", "long"} <= {problem.where.split(" ")[0] for problem in found.problems}
    assert all(problem.stops for problem in found.problems)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"video": "none.mp4"}, "There is no file"),
        ({"video": "a.mp4", "frames": [0, 99]}, "has 33"),
        ({"video": "a.mp4", "frames": [0, 9]}, "the shortest piece has 17"),
        ({"video": "p.png"}, "no moving pictures|decoded|not a sound or video"),
        ({"video": "a.mp4", "audio": "none.wav"}, "cannot be read"),
        ({"video": "a.mp4", "mask": "none.png"}, "cannot be read"),
    ],
)
def test_a_dataset_of_one_bad_clip_tells_why(
    tmp_path: Path, film: Write, picture: Write, line: dict[str, Any], told: str
) -> None:
    film(tmp_path / "a.mp4")
    picture(tmp_path / "p.png")
    with pytest.raises(DatasetError, match=told):
        prepare(of_lines(tmp_path, line), NanoEncoder(), Cache(tmp_path / "cache"), SIZES)


@pytest.mark.parametrize(
    ("anchor", "told"),
    [
        ({"slot": "left", "picture": "none.png"}, "There is no picture"),
        ({"slot": "left", "picture": "a.mp4"}, "not a picture"),
        ({"slot": "left", "frame": 99}, "frame 99 is not in a.mp4"),
        ({"slot": "left", "frame": 3, "crop": [0, 0, 99, 9]}, "reaches beyond its 48 x 64"),
        ({"slot": "left", "frame": 3, "video": "none.mp4"}, "There is no file"),
    ],
)
def test_a_bad_anchor_is_left_out_and_named(tmp_path: Path, film: Write, anchor: dict[str, Any], told: str) -> None:
    film(tmp_path / "a.mp4")
    manifest = of_lines(tmp_path, {"video": "a.mp4", "anchors": [{"role": "view", **anchor}]})
    found = prepare(manifest, NanoEncoder(), Cache(tmp_path / "cache"), SIZES)
    assert all(a.role == "global" for a in found.prepared.clips[0].anchors)
    [problem] = found.problems
    assert told in problem.what


def test_a_sound_that_cannot_be_read_is_left_out_and_named(tmp_path: Path, film: Write) -> None:
    film(tmp_path / "a.mp4")
    (tmp_path / "a.wav").write_bytes(b"RIFF" + b"\x00" * 60)
    found = prepared(tmp_path)
    assert found.prepared.clips[0].audio_key == ""
    assert "a.wav" in found.problems[0].where


KILLED = """
import sys
from gloria_core.data import cache
cache._SHARD_BYTES = 1  # every entry in a shard of its own
from gloria_core.data.__main__ import main
main(["prepare", sys.argv[1], "--cache", sys.argv[2], "--encoder", "gloria_core.nano.encoders:NanoEncoder"])
"""


def test_a_killed_preparation_goes_on_to_the_same_latents(nano_folder: Path, tmp_path: Path) -> None:
    whole = prepared(nano_folder)
    index = tmp_path / "killed" / "index.jsonl"
    command = [sys.executable, "-c", KILLED, str(nano_folder), str(index.parent)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (index.exists() and index.read_bytes().count(b'"key"') >= 3):
        time.sleep(0.002)
    process.kill()
    process.wait()
    manifest, _ = read_dataset(nano_folder)
    again = prepare(manifest, NanoEncoder(), Cache(index.parent), SIZES)
    assert again.num_reused >= 3
    assert again.prepared == whole.prepared
    keys = [piece.key for clip in whole.prepared.clips for piece in clip.pieces]
    for key in keys:
        kept = Cache(tmp_path / "cache").get(key)["latents"]
        assert torch.equal(Cache(index.parent).get(key)["latents"], kept)


def test_a_mask_is_brought_to_the_latents(tmp_path: Path, film: Write, encoder: NanoEncoder) -> None:
    film(tmp_path / "a.mp4")
    mask = np.zeros((64, 48, 3), np.uint8)
    mask[:16] = 255
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    found = prepared(tmp_path, encoder)
    [piece] = found.prepared.clips[0].pieces
    kept = Cache(tmp_path.parent / "cache").get(piece.mask_key)["mask"].float()
    assert torch.equal(kept, torch.cat([torch.ones(2, 6), torch.zeros(6, 6)]))


def test_tidying_keeps_all_that_was_prepared(nano_folder: Path, encoder: NanoEncoder) -> None:
    manifest, _ = read_dataset(nano_folder)
    cache = Cache(nano_folder.parent / "cache")
    found = prepare(manifest, encoder, cache, SIZES, sample_prompts=("she smiles",))
    assert cache.remove_unused() == 0
    assert all(key in cache for key in found.prepared.sample_text_keys)
