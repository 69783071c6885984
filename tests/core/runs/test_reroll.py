import pytest

from gloria_core.errors import PlanError
from gloria_core.runs.reroll import Reroll, by_chunk, parse_rerolls
from tests.core.runs.shelf import CHUNKS

FPS = 16.0


def one(text: str) -> Reroll:
    [line] = parse_rerolls(text)
    return line.reroll


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2", Reroll(attempt=1)),
        ("chunk 2", Reroll(attempt=1)),
        ("2 try 3", Reroll(attempt=3)),
        ("2 seed 99", Reroll(seed=99)),
        ("2 seed=99 bridge", Reroll(seed=99, bridge=True)),
        ("2 onward", Reroll(bridge=False)),
        ("2 take 1", Reroll(take=1)),
        ("2 prompt turns left, angry", Reroll(attempt=0, prompt="turns left, angry")),
        ("2 seed 5 prompt a bridge, take 3 of them", Reroll(attempt=0, seed=5, prompt="a bridge, take 3 of them")),
        ("2 anchors global, back bridge", Reroll(attempt=0, anchors="global, back", bridge=True)),
        ("2 try 2 prompt: smiles", Reroll(attempt=2, prompt="smiles")),
    ],
)
def test_what_a_line_says(text: str, wanted: Reroll) -> None:
    assert one(text) == wanted


def test_places_by_number_and_by_time() -> None:
    lines = parse_rerolls("3 seed 1\n\n0:02.5 try 2\n")
    assert [line.number for line in lines] == [1, 3]
    assert {index: r.seed for index, r in by_chunk(lines, CHUNKS, FPS).items()} == {2: 1, 1: None}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x", "line 1"),
        ("1\nfoo", "line 2"),
        ("2 sed 3", "cannot be read"),
        ("2 seed", "takes a whole number from 0"),
        ("2 seed -1", "takes a whole number"),
        ("2 try 0", "takes a whole number from 1"),
        ("2 take 1.5", "takes a whole number"),
        ("2 take 1 seed 2", "leave"),
        ("2 seed 1 try 2", "give one of them"),
        ("2 bridge onward", "give one of them"),
        ("2 seed 1 seed 2", "twice"),
        ("2 prompt", "nothing follows"),
        ("2 anchors", "nothing follows"),
        ("2 bridge 3", "stands alone"),
        (f"2 seed {1 << 64}", "takes a whole number"),
    ],
)
def test_lines_that_cannot_be_read(text: str, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        parse_rerolls(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "no chunk 0; the video has 1 to 3"),
        ("4", "no chunk 4"),
        ("1:00", "the video ends at 0:03.75"),
        ("1\n0:00", "named twice"),
    ],
)
def test_places_that_are_not_there(text: str, told: str) -> None:
    with pytest.raises(PlanError, match=told):
        by_chunk(parse_rerolls(text), CHUNKS, FPS)
