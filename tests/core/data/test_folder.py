"""A plain folder as a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gloria_core.data.folder import read_dataset, slot_of
from gloria_core.data.manifest import read_line, write_manifest
from gloria_core.errors import DatasetError
from gloria_core.types import AnchorRole

Write = Callable[..., Path]


def touch(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_captions_come_from_text_json_and_tables(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        touch(tmp_path / f"{name}.mp4")
    touch(tmp_path / "a.txt", "a walks\n")
    touch(tmp_path / "b.json", json.dumps({"prompts": [{"frame": 0, "text": "b"}], "fps": 25, "category": "far"}))
    touch(tmp_path / "captions.csv", 'file,caption\nc.mp4,"c, and\nmore"\n')
    touch(tmp_path / "captions.jsonl", json.dumps({"file_name": "films\\d.mp4", "text": "d"}) + "\n")
    manifest, problems = read_dataset(tmp_path)
    told = {clip.id: [prompt.text for prompt in clip.prompts] for clip in manifest.clips}
    assert told == {"a": ["a walks"], "b": ["b"], "c": ["c, and\nmore"], "d": ["d"], "e": []}
    assert manifest.clips[1].fps == 25
    assert manifest.clips[1].category == "far"
    assert not problems


def test_pictures_are_named_by_slot_for_all_clips_or_for_one(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "front.png", "Front-2.PNG", "global.jpg", "b.happy.webp", "b.mask.png", "a.wav"):
        touch(tmp_path / name)
    manifest, problems = read_dataset(tmp_path)
    a, b = manifest.clips
    assert [(x.role, x.slot, x.picture) for x in a.anchors] == [
        ("view", "front", "Front-2.PNG"), ("view", "front", "front.png"), ("global", "", "global.jpg")
    ]  # fmt: skip
    assert [x.slot for x in b.anchors] == ["happy", "front", "front", ""]
    assert (a.audio, b.audio, a.mask, b.mask) == ("a.wav", "own", "", "b.mask.png")
    assert not problems


def test_a_folder_inside_is_a_character_and_one_is_of_others(tmp_path: Path) -> None:
    for name in ("mira/a.mp4", "mira/left.png", "bruno/a.mp4", "regularisation/x.mp4"):
        touch(tmp_path / name)
    manifest, _ = read_dataset(tmp_path)
    assert [(clip.id, clip.character, clip.regularisation, len(clip.anchors)) for clip in manifest.clips] == [
        ("bruno/a", "bruno", False, 0),
        ("mira/a", "mira", False, 1),
        ("regularisation/x", "", True, 0),
    ]


def test_a_manifest_in_the_folder_is_read_instead(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    write_manifest(tmp_path / "manifest.jsonl", [read_line('{"id": "only", "video": "a.mp4"}', "")])
    manifest, _ = read_dataset(tmp_path)
    assert [clip.id for clip in manifest.clips] == ["only"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("frnt.png", "Name it front.png"),
        ("hapy.jpg", "Name it happy.jpg"),
        ("portrait.png", "Name it by one of: global, front"),
        ("c.happy.png", "there is no clip called 'c'"),
    ],
)
def test_pictures_under_wrong_names_are_told_with_the_nearest_one(tmp_path: Path, name: str, told: str) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / name)
    _, [problem] = read_dataset(tmp_path)
    assert problem.where == name
    assert told in str(problem)


def test_two_videos_of_one_name_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "a.mkv")
    touch(tmp_path / "a.mp4")
    manifest, [problem] = read_dataset(tmp_path)
    assert len(manifest.clips) == 1
    assert "the same name" in problem.what


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "has no clips"),
        ({"a.mp4": "", "a.json": "{"}, "a.json is not JSON"),
        ({"a.mp4": "", "a.json": '{"id": "b"}'}, "has the field 'id'"),
        ({"a.mp4": "", "a.json": '{"capton": "b"}'}, "did you mean 'caption'"),
        ({"a.mp4": "", "captions.csv": "name,words\na.mp4,x\n"}, "line 2: a clip or its caption is missing"),
        ({"a.mp4": "", "captions.csv": f'file,caption\na.mp4,"{"x" * 200_000}'}, "captions.csv is no table"),
        ({"a.mp4": "", "captions.jsonl": "[" * 100_000}, "captions.jsonl, line 1 is not JSON"),
        ({"a.mp4": "", "a.json": "[" * 100_000}, "a.json is not JSON"),
        ({"a.mp4": "", "captions.jsonl": "x\n"}, "captions.jsonl, line 1 is not JSON"),
    ],
)
def test_a_folder_that_cannot_be_read(tmp_path: Path, files: dict[str, str], told: str) -> None:
    for name, text in files.items():
        touch(tmp_path / name, text)
    with pytest.raises(DatasetError, match=told):
        read_dataset(tmp_path)


def test_names_of_slots() -> None:
    assert slot_of("GLOBAL") == (AnchorRole.GLOBAL, "")
    assert slot_of("left 12") == (AnchorRole.VIEW, "left")
    assert slot_of("leftover") is None
