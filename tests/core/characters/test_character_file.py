"""Character files: what goes in comes out, and what others made is read with care."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gloria_core.characters.board import parse_board
from gloria_core.characters.character_file import Character, StoredPicture, read_character, read_slots, write_character
from gloria_core.characters.pictures import encoded
from gloria_core.characters.read import board_pictures, character_pictures
from gloria_core.characters.shelf import (
    NoCharacterError,
    check_id,
    find_character,
    list_characters,
    save_board,
    thumbnail,
    unpack,
)
from gloria_core.errors import MediaError
from gloria_core.runs.digest import digest_of


def png(seed: int = 0) -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 48, 3), np.uint8)))


@pytest.fixture
def mira() -> Character:
    return Character(
        name="Mira",
        notes="red coat",
        pictures={
            "global": StoredPicture(data=png(), label="scene.png", crop=(0.1, 0.0, 0.8, 1.0)),
            "views.left": StoredPicture(data=png(1), label="left.png"),
            "expressions.happy": StoredPicture(data=png(1), label="again.png", as_is=True),
        },
        vae="abc",
        latents={"global": torch.randn(1, 16, 1, 8, 4)},
    )


def test_what_goes_in_comes_out(mira: Character, tmp_path: Path) -> None:
    path = tmp_path / "new" / "Mira.gloria"
    write_character(path, mira)
    read = read_character(path)
    assert (read.name, read.notes, read.vae) == ("Mira", "red coat", "abc")
    assert list(read.pictures) == list(mira.pictures)
    for key, stored in mira.pictures.items():
        other = read.pictures[key]
        assert (other.data, other.label, other.crop, other.as_is) == (
            stored.data, stored.label, stored.crop, stored.as_is,
        )  # fmt: skip
    assert torch.equal(read.latents["global"], mira.latents["global"])
    assert not read_character(path, with_latents=False).latents
    assert read_slots(path) == ("Mira", ("global", "views.left", "expressions.happy"))
    assert path.read_bytes().count(b"IHDR") == 2, "one picture in two slots is stored once"
    assert [picture.name for picture in character_pictures(read)] == ["global", "left view", "happy expression"]


def test_writing_fails_without_a_trace(mira: Character, tmp_path: Path) -> None:
    path = tmp_path / "Mira.gloria"
    write_character(path, mira)
    before = path.read_bytes()
    with pytest.raises(MediaError, match="cannot hold"):
        write_character(path, replace(mira, latents={"global": torch.zeros(1, dtype=torch.complex64)}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["Mira.gloria"]


def story_of(**changes: Any) -> dict[str, Any]:
    slots = {"global": {"picture": digest_of(png()), "label": "a.png"}}
    return {"version": 1, "name": "Mira", "notes": "", "vae": "", "slots": slots, **changes}


def slot(**changes: Any) -> dict[str, Any]:
    return story_of(slots={"global": {"picture": digest_of(png()), **changes}})


def tensors(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"picture." + digest_of(png()): torch.frombuffer(bytearray(png()), dtype=torch.uint8), **more}


HOSTILE: list[tuple[Any, dict[str, torch.Tensor], str]] = [
    (story_of(version=2), tensors(), "Update Gloria"),
    (story_of(version="1"), tensors(), "no version"),
    (story_of(version=True), tensors(), "no version"),
    (story_of(version=0), tensors(), "no version"),
    ([], tensors(), "no version"),
    (story_of(slots=[]), tensors(), "incomplete"),
    (story_of(vae=5), tensors(), "incomplete"),
    (story_of(name=5), tensors(), "'name'"),
    (story_of(name="x" * 200), tensors(), "letters"),
    (story_of(slots={"views.lft": {"picture": digest_of(png())}}), tensors(), "views.lft"),
    (story_of(slots={"../../x": {"picture": digest_of(png())}}), tensors(), "is none"),
    (story_of(slots={"global": {"picture": "../../etc/passwd"}}), tensors(), "no picture"),
    (story_of(slots={"global": {}}), tensors(), "no picture"),
    (story_of(slots={"global": "a"}), tensors(), "no picture"),
    (story_of(slots={"global": {"picture": "0" * 32}}), tensors(), "missing"),
    (slot(crop=[0, 0, 5, 5]), tensors(), "crop"),
    (slot(crop="all"), tensors(), "crop"),
    (slot(label=5), tensors(), "'global'"),
    (slot(as_is="yes"), tensors(), "'global'"),
    (story_of(), {"picture." + digest_of(png()): torch.zeros(4)}, "float32"),
    (story_of(), {"picture." + digest_of(png()): torch.zeros(4, 4, dtype=torch.uint8)}, "uint8"),
    (story_of(), {"picture." + digest_of(png()): torch.zeros(4, dtype=torch.uint8)}, "not the one"),
    (story_of(), tensors(other=torch.zeros(1)), "'other'"),
    (story_of(), tensors(**{"latent.views.front": torch.zeros(1, 4, 1, 2, 2)}), "latent.views.front"),
    (story_of(), tensors(**{"latent.global": torch.zeros(4, 4)}), "latent.global"),
    (story_of(), tensors(**{"latent.global": torch.zeros(1, 4, 1, 2, 2, dtype=torch.uint8)}), "latent.global"),
    (story_of(), tensors(**{"latent.global": torch.zeros(1, 0, 1, 2, 2)}), "latent.global"),
]


@pytest.mark.parametrize(("story", "stored", "words"), HOSTILE)
def test_hostile_files(story: Any, stored: dict[str, torch.Tensor], words: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.gloria"
    save_file(stored, path, {"gloria.character": json.dumps(story)})
    with pytest.raises(MediaError) as told:
        read_character(path)
    assert words in str(told.value)
    assert len(str(told.value)) < 600


def no_file(path: Path) -> None:
    path.unlink()


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def huge_header(path: Path) -> None:
    path.write_bytes((50_000_000).to_bytes(8, "little") + b"{" + b" " * 1000)


def deep_story(path: Path) -> None:
    save_file(tensors(), path, {"gloria.character": "[" * 100_000})


def weights(path: Path) -> None:
    save_file({"a": torch.zeros(1)}, path)


def pickled(path: Path) -> None:
    torch.save({"a": 1}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_file, "cannot be read"),
        (cut_off, "cut"),
        (huge_header, "no character"),
        (deep_story, "not readable"),
        (weights, "no character file"),
        (pickled, "damaged"),
        (empty, "damaged"),
    ],
)
def test_damaged_files(damage: Callable[[Path], None], words: str, mira: Character, tmp_path: Path) -> None:
    path = tmp_path / "Mira.gloria"
    write_character(path, mira)
    damage(path)
    with pytest.raises(MediaError, match=words):
        read_character(path)
    with pytest.raises(MediaError):
        read_slots(path)


@pytest.mark.parametrize("name", ["Mira", "Mira Lee", "Zoë-2", "名前", "a.b_c"])
def test_names(name: str) -> None:
    assert check_id(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", ".", "a/b", "a\\b", "/a", "C:a", "a\x00", "a\n", "CON", "nul", " a", "a ", "-a",
     "x" * 300, "a\u202eb"],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(MediaError, match="no name for a character"):
        check_id(name)


def test_the_shelf(mira: Character, tmp_path: Path) -> None:
    folder, inputs = tmp_path / "gloria_characters", tmp_path / "input"
    inputs.mkdir()
    (inputs / "scene.png").write_bytes(png(5))
    board = parse_board('{"name":"Mira Lee","notes":"n","global":{"image":"scene.png","crop":[0,0,0.5,1]}}')
    assert list_characters([folder]) == []
    assert save_board(board, lambda name: inputs / name, folder, "Mira Lee", overwrite=False) == "Mira Lee"
    with pytest.raises(MediaError, match="already"):
        save_board(board, lambda name: inputs / name, folder, "Mira Lee", overwrite=False)
    save_board(board, lambda name: inputs / name, folder, "Mira Lee", overwrite=True)
    with pytest.raises(MediaError, match="empty"):
        save_board(parse_board("{}"), lambda name: inputs / name, folder, "Other", overwrite=False)
    write_character(folder / "Mira.gloria", mira)
    (folder / "broken.gloria").write_bytes(b"no")
    outside = tmp_path / "outside.gloria"
    write_character(outside, mira)
    (folder / "linked.gloria").symlink_to(outside)
    told = list_characters([folder])
    assert [(c["id"], c["slots"]) for c in told] == [
        ("Mira", ["global", "views.left", "expressions.happy"]),
        ("Mira Lee", ["global"]),
    ]
    for identity in ("linked", "nobody"):
        with pytest.raises(NoCharacterError):
            find_character([folder], identity)
    path = find_character([folder], "Mira Lee")
    assert thumbnail(path)[8:12] == b"WEBP"
    opened = unpack(read_character(path), inputs)
    assert opened.name == "Mira Lee"
    assert opened.slots["global"].crop == (0.0, 0.0, 0.5, 1.0)
    assert (inputs / opened.slots["global"].image).read_bytes() == png(5)
    before = {file: file.stat().st_mtime_ns for file in inputs.rglob("*.png")}
    assert unpack(read_character(path), inputs) == opened
    assert {file: file.stat().st_mtime_ns for file in inputs.rglob("*.png")} == before
    first, second = board_pictures(board, lambda n: inputs / n), board_pictures(opened, lambda n: inputs / n)
    assert torch.equal(first[0].image, second[0].image)


def test_pictures_of_a_hostile_file_stay_below_the_input_folder(mira: Character, tmp_path: Path) -> None:
    inputs, elsewhere = tmp_path / "input", tmp_path / "elsewhere"
    (inputs / "gloria").mkdir(parents=True)
    elsewhere.mkdir()
    board = unpack(replace(mira, name="../../../etc"), inputs)
    assert all(place.image.startswith("gloria/") and ".." not in place.image for place in board.slots.values())
    assert unpack(replace(mira, name="..."), inputs).slots["global"].image.startswith("gloria/character/")
    (inputs / "gloria" / "Mira").symlink_to(elsewhere)
    with pytest.raises(MediaError, match="leads elsewhere"):
        unpack(mira, inputs)
    bad = {"global": StoredPicture(data=b"<script>alert(1)</script>", label="x.html")}
    with pytest.raises(MediaError, match="no picture"):
        unpack(Character(name="evil", pictures=bad), inputs)
    assert not list(elsewhere.iterdir())
    assert not (inputs / "gloria" / "evil").exists()
