from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.errors import PlanError
from gloria_core.sampling.anchor_schedule import GROUPS, KNOWN, SLOTS, AnchorSchedule, parse_anchor_schedule
from gloria_core.sampling.chunks import Chunk, chunk_at, frames_of, plan
from gloria_core.sampling.prompts import parse, prompt_for_chunk
from gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet

FPS = 16.0
CHUNKS = plan(700, 9)  # they begin at 0, 2.0625, 3.3125, 4.5625, ... s


def character(*words: str) -> AnchorSet:
    def anchor(word: str) -> Anchor:
        role = AnchorRole.VIEW if word in VIEWS else AnchorRole.EXPRESSION
        return Anchor(AnchorRole.GLOBAL if word == "global" else role, "" if word == "global" else word, LATENT.clone())

    return AnchorSet(tuple(anchor(word) for word in words or SLOTS))


LATENT = torch.zeros(1, 4, 1, 2, 2)
ALL = character()


def attached(schedule: AnchorSchedule, chunk: Chunk, anchors: AnchorSet = ALL) -> dict[str, float]:
    return {a.slot or "global": a.strength for a in schedule.for_chunk(anchors, chunk, FPS)}


def at(seconds: float) -> Chunk:
    return chunk_at(CHUNKS, seconds, FPS)


TEXT = """0:00 all
0:12 global, views, -back
0:20 all, views*1.5, happy*0.5

0:30 global, happy / 0:40 none"""


def test_the_words_say_what_is_attached() -> None:
    schedule = parse_anchor_schedule(TEXT)
    assert attached(schedule, at(1)) == dict.fromkeys(SLOTS, 1.0)
    assert attached(schedule, at(15)) == {"global": 1.0, "front": 1.0, "left": 1.0, "right": 1.0}
    later = attached(schedule, at(25))
    assert [later[view] for view in VIEWS] == [1.5] * 4
    assert (later["global"], later["happy"], later["sad"]) == (1.0, 0.5, 1.0)
    assert attached(schedule, at(33)) == {"global": 1.0, "happy": 1.0}
    assert attached(schedule, at(42)) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-back, -left", set(SLOTS) - {"back", "left"}),
        ("0:00 -expressions, happy", {"global", *VIEWS, "happy"}),
        ("Global,Happy * .5", {"global", "happy"}),
        ("all, happy*0", set(SLOTS) - {"happy"}),
        ("0 views", set(VIEWS)),
        ("expressions", set(EXPRESSIONS)),
    ],
)
def test_the_ways_to_write_what_is_attached(text: str, words: set[str]) -> None:
    assert set(attached(parse_anchor_schedule(text), CHUNKS[0])) == words


def test_the_later_word_counts() -> None:
    assert attached(parse_anchor_schedule("back*2, views"), CHUNKS[0])["back"] == 1.0
    assert attached(parse_anchor_schedule("views, back*2"), CHUNKS[0])["back"] == 2.0


@pytest.mark.parametrize("text", ["", " \n / ", "0:00 all", "0:30 none"])
def test_where_nothing_changes_the_set_is_the_same_object(text: str) -> None:
    assert parse_anchor_schedule(text).for_chunk(ALL, CHUNKS[0], FPS) is ALL


def test_latents_stay_the_same_objects() -> None:
    schedule = parse_anchor_schedule("0:00 views*2 / 0:00-0:01 hide back")
    for anchor in schedule.for_chunk(ALL, CHUNKS[0], FPS):
        assert anchor.latent is next(a.latent for a in ALL if a.slot == anchor.slot)


def test_an_anchors_own_strength_and_hiding_stay() -> None:
    own = AnchorSet((replace(ALL.anchors[1], strength=0.5, hidden=(range(8, 9),)),))
    [front] = parse_anchor_schedule("0:00 front*3 / 0:00-0:00.01 hide front").for_chunk(own, CHUNKS[0], FPS)
    assert (front.strength, front.hidden) == (1.5, (range(8, 9), range(0, 1)))


@given(st.floats(0.01, 40.0), st.sampled_from(["nearest", "early", "late"]))
def test_cues_move_as_prompts_do(start_s: float, snap: str) -> None:
    text = f"{start_s:.4f}"
    anchors, cues = parse_anchor_schedule(f"all / {text} none"), parse(f"all / {text} none")
    for chunk in CHUNKS:
        some = len(anchors.for_chunk(ALL, chunk, FPS, snap)) > 0
        assert some == (prompt_for_chunk(cues, chunk, FPS, snap) == "all")


def hidden_latents(schedule: AnchorSchedule, word: str) -> set[int]:
    """The latent frames of the video in which an anchor is hidden, and in no chunk seen."""
    hidden, seen = set(), set()
    for chunk in CHUNKS:
        found = next((a for a in schedule.for_chunk(ALL, chunk, FPS) if a.slot == word), None)
        for index, latent in enumerate(chunk.latents):
            is_hidden = found is None or any(index in frames for frames in found.hidden)
            (hidden if is_hidden else seen).add(latent)
    assert not hidden & seen
    return hidden


def test_a_hiding_does_not_move() -> None:
    schedule = parse_anchor_schedule("0:12-0:15.5 hide back, front / 0:15 – 0:16s hide back")
    back, front = hidden_latents(schedule, "back"), hidden_latents(schedule, "front")
    assert front == set(range(48, 63))  # pictures 192 to 247; latent 48 shows 189 to 192, latent 62 shows 245 to 248
    assert back == set(range(48, 65))
    assert hidden_latents(schedule, "left") == set()
    assert attached(schedule, at(13.5))["left"] == 1.0


@given(st.integers(0, 3000), st.integers(1, 600))
def test_a_hiding_holds_for_all_that_shows_a_part_of_it(start: int, length: int) -> None:
    start_s, stop_s = start / 100, (start + length) / 100
    hidden = hidden_latents(parse_anchor_schedule(f"{start_s}-{stop_s} hide views, -left"), "back")
    shown = {i for i in range(CHUNKS[-1].latents.stop) for f in frames_of(range(i, i + 1))
             if f / FPS < stop_s - 1e-5 and (f + 1) / FPS > start_s + 1e-5}  # fmt: skip
    assert hidden == shown
    assert hidden


def test_hidden_from_a_whole_chunk_is_left_out() -> None:
    schedule = parse_anchor_schedule("0:00-1:00 hide happy")
    assert all("happy" not in attached(schedule, chunk) for chunk in CHUNKS)
    assert attached(schedule, CHUNKS[0]) == dict.fromkeys((w for w in SLOTS if w != "happy"), 1.0)


def test_words_without_an_anchor_are_told() -> None:
    schedule = parse_anchor_schedule("0:00 all, -sad / 0:10 views, left*2, happy / 0:03-0:05 hide fear, left")
    told = schedule.missing(character("global", "front", "happy"))
    assert [sentence.split('"')[1] for sentence in told] == ["sad", "left", "fear"]
    assert "it has: global, front, happy" in told[0]
    assert schedule.missing(ALL) == ()
    assert ['"views"' in sentence for sentence in parse_anchor_schedule("views").missing(character("happy"))] == [True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0:00 all\n0:12 bakc", 'line 2: "bakc" is no anchor (did you mean "back"?); the words are: all, views, '),
        ("0:00 zebra", '"zebra" is no anchor; the words are:'),
        ("0:00 all / 0:12 -hapy", 'line 1, part 2: "-hapy" is no anchor (did you mean "happy"?)'),
        ("0:00 happy sad", 'there is no comma in "happy sad"; write "happy, sad"'),
        ("0:00 happy*-1", 'the strength "-1"; it must be a number of 0 or more'),
        ("0:00 happy*loud", 'the strength "loud"'),
        ("0:00 happy*", '"happy*" is no anchor (did you mean "happy"?)'),
        ("0:00 -happy*2", '"-happy*2" takes an anchor away and gives it a strength'),
        ("0:00", "no anchor follows the time"),
        ("0:00 ,", "no anchor follows the time"),
        ("0:00 all\n0:00 none", "line 2: 0:00 does not come after 0:00"),
        ("0:00 all\nviews", 'line 2: "views" does not begin with a time'),
        ("0:75 all", 'line 1: "0:75" is not a time'),
        ("1:2:3:4 all", "does not begin with a time"),
        ("0:12 hide back", 'hidden from one time to another; write for example "0:12-0:15 hide back"'),
        ("hide back", 'write for example "0:00-0:03 hide back"'),
        ("0:12-0:10 hide back", "0:10 does not come after 0:12; put the earlier time first"),
        ("0:12-0:15 back", 'can only be hidden; write "0:12-0:15 hide back"'),
        ("0:12-0:15 hide", "no anchor follows"),
        ("0:12-0:15 hide back*0.5", "gives a strength to a hidden anchor"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_anchor_schedule(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith("Anchor schedule, line ")


_PIECES = st.sampled_from([*KNOWN, "-", "*", ",", " ", "/", "0:12", "1.5", "hide", "\n", "x"])


@given(st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=12).map("".join)))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        schedule = parse_anchor_schedule(text)
    except PlanError:
        return
    assert len(schedule.for_chunk(ALL, CHUNKS[3], FPS)) <= len(SLOTS)
    assert set(schedule.words) <= {*SLOTS, *GROUPS}
