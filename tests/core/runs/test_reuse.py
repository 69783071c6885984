import pytest

from gloria_core.errors import PlanError
from gloria_core.runs.chunk_file import Ingredient
from gloria_core.runs.reuse import Shelf, decide, told
from tests.core.runs.shelf import CHUNKS, take, wish

WHOLE = [
    take(0, prefix="", tail="a"),
    take(1, prefix="a", tail="b"),
    take(2, prefix="b", tail=""),
]


def numbers(decisions: list) -> list[int | None]:
    return [d.take.record.take if d.take else None for d in decisions]


def plain() -> list:
    return [wish(index) for index in range(3)]


def test_what_is_as_wished_is_used_again() -> None:
    found = decide(plain(), plain(), Shelf(WHOLE), "")
    assert numbers(found) == [1, 1, 1]
    assert told(found) == ["Chunks 1-3 are on disk and used again."]


def test_an_empty_folder() -> None:
    found = decide(plain(), plain(), Shelf([]), "")
    assert numbers(found) == [None] * 3
    assert told(found) == ["Chunks 1-3 are made for the first time."]


def test_a_killed_run_goes_on() -> None:
    found = decide(plain(), plain(), Shelf(WHOLE[:2]), "")
    assert numbers(found) == [1, 1, None]
    assert told(found) == ["Chunks 1-2 are on disk and used again.", "Chunk 3 is made for the first time."]


def test_a_changed_prompt_invalidates_its_chunk_and_what_follows_and_says_why() -> None:
    wishes = [wish(0), wish(1, prompt="turns to the left"), wish(2)]
    found = decide(wishes, wishes, Shelf(WHOLE), "")
    assert numbers(found) == [1, None, None]
    assert told(found) == [
        "Chunk 1 is on disk and used again.",
        "Chunk 2 is made anew: its prompt changed (walks -> turns to the left).",
        "Chunk 3 is made anew because what comes before is another one.",
    ]


def test_a_change_at_the_end_leaves_the_rest() -> None:
    wishes = [wish(0), wish(1), wish(2, seed="9")]
    assert numbers(decide(wishes, wishes, Shelf(WHOLE), "")) == [1, 1, None]


def test_another_beginning_invalidates_everything() -> None:
    found = decide(plain(), plain(), Shelf(WHOLE), "another start picture")
    assert numbers(found) == [None] * 3


def test_a_removed_ingredient_is_a_change() -> None:
    shelf = Shelf([take(0, prefix="", tail="a", sound="hello")])
    found = decide(plain(), plain(), shelf, "")
    assert found[0].reason == "its sound changed (hello -> none)"


def test_going_back_finds_the_earlier_take() -> None:
    second = take(1, number=2, prefix="a", tail="c", prompt="turns")
    shelf = Shelf([*WHOLE, second, take(2, number=2, prefix="c", tail="")])
    turned = [wish(0), wish(1, prompt="turns"), wish(2)]
    assert numbers(decide(turned, plain(), shelf, "")) == [1, 2, 2]
    assert numbers(decide(plain(), plain(), shelf, "")) == [1, 1, 1]


def test_the_newest_of_equals_is_taken() -> None:
    shelf = Shelf([*WHOLE, take(0, number=2, prefix="", tail="a")])
    assert numbers(decide(plain(), plain(), shelf, "")) == [2, 1, 1]


def test_a_bridge_keeps_the_later_chunks() -> None:
    wishes = [wish(0), wish(1, seed="9", bridge=True), wish(2)]
    found = decide(wishes, plain(), Shelf(WHOLE), "")
    assert numbers(found) == [1, None, 1]
    assert found[1].back_to is WHOLE[1]
    assert "seed changed" in found[1].reason
    assert "leads back" in found[1].reason


def test_a_bridge_that_is_made_is_found_again() -> None:
    made = take(1, number=2, prefix="a", tail="b", seed="9", way_back="")
    made.record.ingredients["way back"] = Ingredient("b", "back to take 1")
    wishes = [wish(0), wish(1, seed="9", bridge=True), wish(2)]
    found = decide(wishes, plain(), Shelf([*WHOLE, made]), "")
    assert numbers(found) == [1, 2, 1]


def test_without_a_later_chunk_there_is_nothing_to_lead_back_to() -> None:
    wishes = [wish(0), wish(1, seed="9", bridge=True), wish(2)]
    found = decide(wishes, plain(), Shelf(WHOLE[:2]), "")
    assert numbers(found) == [1, None, None]
    assert found[1].back_to is None


def test_a_take_by_its_number() -> None:
    other = take(1, number=2, prefix="a", tail="c", prompt="turns", seed="5")
    shelf = Shelf([*WHOLE, other, take(2, number=2, prefix="c", tail="")])
    wishes = [wish(0), wish(1, take=2), wish(2)]
    assert numbers(decide(wishes, plain(), shelf, "")) == [1, 2, 2]
    with pytest.raises(PlanError, match="no take 7 of chunk 2 on disk; there are: 1, 2"):
        decide([wish(0), wish(1, take=7), wish(2)], plain(), shelf, "")
    with pytest.raises(PlanError, match="goes on from another take"):
        decide([wish(0), wish(1), wish(2, take=2)], plain(), shelf, "")


def test_another_plan_of_chunks_is_told() -> None:
    longer = take(0, prefix="", tail="a")
    moved = plain()
    object.__setattr__(moved[0], "chunk", CHUNKS[0].__class__(0, range(13), 0, range(49)))
    found = decide(moved, moved, Shelf([longer]), "")
    assert "the plan of chunks changed" in found[0].reason
