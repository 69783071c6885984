"""Boards as people and hostile people write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gloria_core.characters.board import MOST_BYTES, Board, BoardError, Slot, parse_board, read_board
from gloria_core.characters.slots import KEYS, key_of, role_and_slot, spoken
from gloria_core.types import SLOTS

FULL = {
    "version": 1,
    "name": "Mira",
    "notes": "red coat",
    "global": {"image": "gloria/mira/scene.png", "crop": [0.1, 0.0, 0.8, 1.0]},
    "views": {"front": {"image": "gloria/mira/front.png"}, "back": "gloria/mira/back.png"},
    "expressions": {"happy": {"image": "gloria/mira/happy.png", "crop": [0.2, 0.1, 0.5, 0.5]}},
}


def test_every_slot_has_a_key_and_back() -> None:
    places = [(role, slot) for role, slots in SLOTS.items() for slot in slots]
    assert [role_and_slot(key) for key in KEYS] == places
    assert [key_of(*place) for place in places] == list(KEYS)
    assert spoken("views.left") == "left view"
    assert spoken("global") == "global picture"


def test_a_full_board_is_read_and_written_the_same() -> None:
    board = parse_board(json.dumps(FULL))
    assert list(board.slots) == ["global", "views.front", "views.back", "expressions.happy"]
    assert board.slots["global"] == Slot("gloria/mira/scene.png", (0.1, 0.0, 0.8, 1.0))
    assert board.slots["views.back"] == Slot("gloria/mira/back.png")
    assert parse_board(board.to_json()).to_json() == board.to_json()
    assert board.to_json() == parse_board(json.dumps(dict(reversed(FULL.items())))).to_json()


@pytest.mark.parametrize("text", ["", "  \n", "{}", '{"version":1}', '{"views":{}}', '{"global":null}'])
def test_an_empty_board(text: str) -> None:
    assert dict(parse_board(text).slots) == {}


def test_a_crop_of_everything_is_none() -> None:
    assert parse_board('{"global":{"image":"a.png","crop":[0,0,1,1]}}').slots["global"].crop is None
    assert parse_board('{"global":{"image":"a.png","crop":null}}').slots["global"].crop is None


def in_view(value: Any) -> str:
    return json.dumps({"version": 1, "views": {"left": value}})


BAD_SLOTS: list[tuple[Any, str]] = [
    ("", "empty"), ("  ", "empty"), (5, "a number"), (True, "true or false"), ([], "a list"), ({}, "no 'image'"),
    ({"image": 3}, "no 'image'"), ({"image": "a.png", "crops": []}, "did you mean 'crop'"),
    ("../a.png", "'..'"), ("a/../../b.png", "'..'"), ("./a.png", "'.'"), ("a//b.png", "empty part"),
    ("/etc/passwd", "input folder"), ("~/a.png", "input folder"), ("C:/a.png", "input folder"),
    ("c:a.png", "input"),
    ("\\\\server\\a.png", "backslashes"), ("a\\b.png", "backslashes"), ("http://x/a.png", "input folder"),
    ("file:///a.png", "input folder"), ("a\x00.png", "no file name"), ("a\n.png", "no file name"),
    ("a /b", "no file name"),
    ("a./b", "no file name"), ("x" * 1001, "1000 letters"), ("a\u202eb.png", "no file name"),
    ({"image": "a.png", "crop": [0, 0, 1]}, "four numbers"), ({"image": "a.png", "crop": "all"}, "four numbers"),
    ({"image": "a.png", "crop": [0, 0, "1", 1]}, "four numbers"), ({"image": "a.png", "crop": [0, 0, True, 1]}, "four"),
    ({"image": "a.png", "crop": [-0.1, 0, 1, 1]}, "leads out"),
    ({"image": "a.png", "crop": [0.5, 0, 0.6, 1]}, "leads out"),
    ({"image": "a.png", "crop": [0, 0, 0, 1]}, "empty"),
    ({"image": "a.png", "crop": [0, 0, 10**400, 1]}, "from 0 to 1"),
    ({"image": "a.png", "crop": [0, 0, -1, 1]}, "empty"), ({"image": "a.png", "crop": [0, 0, 1, 5]}, "from 0 to 1"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "words"), BAD_SLOTS)
def test_a_bad_slot_is_named_and_spares_the_others(value: Any, words: str) -> None:
    text = json.dumps({"views": {"left": value, "back": "b.png"}})
    board, wrong = read_board(text)
    assert list(board.slots) == ["views.back"]
    assert list(wrong) == ["views.left"]
    assert words in str(wrong["views.left"])
    assert "left view" in str(wrong["views.left"]) or "views.left" in str(wrong["views.left"])
    with pytest.raises(BoardError) as told:
        parse_board(text)
    assert told.value.slot == "views.left"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "a list"),
        ("3", "a number"),
        ('"x"', "text"),
        ("null", "null"),
        ("{", "line 1"),
        ('{"views": {"lft": "a.png"}}', "did you mean 'left'"),
        ('{"view": {}}', "did you mean 'views'"),
        ('{"glbal": "a.png"}', "did you mean 'global'"),
        ('{"zzz": 1}', "It has: version"),
        ('{"views": []}', "a list"),
        ('{"views": "a.png"}', "text"),
        ('{"version": 2}', "Update Gloria"),
        ('{"version": "1"}', "write"),
        ('{"version": true}', "write"),
        ('{"version": 0}', "write"),
        ('{"name": 3}', "a number"),
        ('{"name": "%s"}' % ("x" * 101), "100"),
        ('{"views": {"left": "a.png", "left": "b.png"}}', "twice"),
        ('{"global": {"image": "a.png", "crop": [NaN, 0, 1, 1]}}', "NaN"),
        ('{"global": {"image": "a.png", "crop": [0, 0, Infinity, 1]}}', "Infinity"),
        ("[" * 100_000, "deep"),
        ('{"global":' * 20_000, "deep"),
        ('{"version": %s}' % ("9" * 5000), "cannot be read"),
        ('{"notes": "%s"}' % ("x" * 10_000_000), f"{MOST_BYTES:,}"),
    ],
)  # fmt: skip
def test_a_bad_board_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(BoardError) as told:
        parse_board(text)
    assert words in str(told.value)
    assert len(str(told.value)) < 600


def test_the_largest_board_is_small() -> None:
    slots = {key: Slot("gloria/" + "x" * 200 + ".png", (0.1, 0.1, 0.5, 0.5)) for key in KEYS}
    text = Board(name="x" * 100, notes="y" * 20_000, slots=slots).to_json()
    assert len(text) < MOST_BYTES
    assert list(parse_board(text).slots) == list(KEYS)
