import pytest
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.errors import PlanError
from gloria_core.sampling.chunks import plan
from gloria_core.sampling.guidance import Guidance
from gloria_core.sampling.prompts import (
    PromptCue,
    Snap,
    clock,
    cue_for_chunk,
    cue_starts,
    lost_cues,
    parse,
    prompt_for_chunk,
)

CHUNKS = plan(200, 9)  # at 16 frames a second they begin at 0, 2.0625, 3.3125, 4.5625, ... s
FPS = 16.0


@pytest.mark.parametrize(
    "text",
    [
        "0:00 turns to the left, happy / 0:12 angry / 1:02:03.5 sad",
        "0:00 turns to the left, happy\n0:12 angry\n\n1:02:03.5 sad\n",
        "0 turns to the left, happy\r\n12 angry /\n3723.5 sad",
        "turns to the left, happy / 12s angry/1:02:03.5 sad",
    ],
)
def test_the_ways_to_write_one_schedule(text: str) -> None:
    assert parse(text) == (
        PromptCue(0.0, "turns to the left, happy"),
        PromptCue(12.0, "angry"),
        PromptCue(3723.5, "sad"),
    )


@pytest.mark.parametrize("text", ["smiling and/or talking", "24/7 open", "a man, 30 years old"])
def test_a_plain_prompt_is_a_schedule(text: str) -> None:
    assert parse(text) == (PromptCue(0.0, text),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n / \n", "empty"),
        ("0:00 a\n0:10 b\n0:10 c", "line 3: 0:10 does not come after 0:10"),
        ("0:00 a / 0:10 b / 0:05 c", "line 1, part 3: 0:05 does not come after 0:10"),
        ("0:00 a\nturns", 'line 2: "turns" does not begin with a time'),
        ("0:00 a / turns", 'line 1, part 2: "turns"'),
        ("0:00", 'line 1: no prompt follows the time "0:00"'),
        ("0:00 a\n\n0:20", "line 3: no prompt"),
        ("0:05 a", "line 1: the first prompt begins at 0:05"),
        ("3 people talk", 'if "3" is part of the prompt, write 0:00 before it'),
        ("0:00 a\n0:75 b", 'line 2: "0:75" is not a time'),
        ("0:00 a\n1:5 b", 'line 2: "1:5" is not a time'),
        ("0:00 a\n1:60:00 b", 'line 2: "1:60:00" is not a time'),
        ("1:2:3:4 a", "does not begin with a time"),
        ("-1 a", "does not begin with a time"),
        ("0:00 a\n99999999999999999999 b", "line 2"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse(text)
    assert words in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        cues = parse(text)
    except PlanError:
        return
    assert cues[0].start_s == 0
    assert all(cue.text for cue in cues)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True))
def test_times_written_by_clock_are_read_back(hundredths: list[int]) -> None:
    times = [0.0, *(h / 100 for h in sorted(hundredths) if h)]
    cues = parse("\n".join(f"{clock(s)} prompt {s}" for s in times))
    assert [cue.start_s for cue in cues] == pytest.approx(times)


def test_cues_move_to_the_nearest_start_of_a_chunk() -> None:
    cues = parse("0:00 a / 2.6 b / 4.0 c")
    assert [prompt_for_chunk(cues, chunk, FPS) for chunk in CHUNKS[:5]] == [
        "a",
        "b",  # 2.6 s is nearer to 2.0625 s than to 3.3125 s
        "b",  # 4.0 s is nearer to 4.5625 s than to 3.3125 s
        "c",
        "c",
    ]
    assert cue_starts(cues, CHUNKS, FPS) == (0.0, 2.0625, 4.5625)


@given(st.floats(0.01, 11.0))
def test_snapping_is_never_off_by_more_than_half_a_chunk(start_s: float) -> None:
    cues = (PromptCue(0.0, "a"), PromptCue(start_s, "b"))
    starts = [chunk.frames.start / FPS for chunk in CHUNKS]
    nearest = min(starts, key=lambda s: (round(abs(s - start_s), 5), s))
    seen = cue_starts(cues, CHUNKS, FPS)[1]
    assert seen == nearest


def test_where_no_cue_has_begun_the_first_holds() -> None:
    assert prompt_for_chunk((PromptCue(30.0, "late"),), CHUNKS[0], FPS) == "late"


def test_cues_that_are_never_seen_are_told() -> None:
    cues = parse("0:00 a / 0:05 b / 5.1 c / 1:00 d")
    second, last = lost_cues(cues, CHUNKS, FPS)
    assert '0:05 ("b") is never seen' in second
    assert "0:00, 0:02.06" in second
    assert '1:00 ("d") is never seen: the video ends at 0:12.5' in last
    assert lost_cues(parse("a / 0:05 b"), CHUNKS, FPS) == ()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65.5, "1:05.5"), (3723.05, "1:02:03.05"), (59.999, "1:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("text", "cue"),
    [
        ("0:00 [text 3, audio 2] turns around", PromptCue(0.0, "turns around", 3.0, 2.0)),
        ("0:00 [text=3] turns", PromptCue(0.0, "turns", 3.0, None)),
        ("[ Audio : 0.5,TEXT=1. ]turns", PromptCue(0.0, "turns", 1.0, 0.5)),
        ("0:00 [audio 0] turns [text 3]", PromptCue(0.0, "turns [text 3]", None, 0.0)),
    ],
)
def test_guidance_scales_stand_before_a_prompt(text: str, cue: PromptCue) -> None:
    assert parse(text) == (cue,)


@pytest.mark.parametrize("text", ["turns [text 3] around", "[happy] a man", "[text on a wall] a man", "[] a", "[a, b"])
def test_other_brackets_belong_to_the_prompt(text: str) -> None:
    assert parse(text) == (PromptCue(0.0, text),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0:00 a\n0:12 [txt 3] b", 'line 2: "txt 3" sets no guidance (did you mean "text"?); write [text 3]'),
        ("0:00 [text 3, cfg 2] b", '"cfg 2" sets no guidance; write'),
        ("0:00 [text 3,] b", '"" sets no guidance'),
        ("0:00 [text -3] b", "line 1: the text guidance is -3; it must be 0 or more"),
        ("0:00 [text] b", '"text" gives no scale'),
        ("0:00 [text 3 audio 2] b", '"text 3 audio 2" gives no scale; write one number'),
        ("0:00 [text 3, text 4] b", "sets text twice"),
        ("0:00 [text 3]", 'no prompt follows "[text 3]"'),
    ],
)
def test_mistakes_in_scales_are_named(text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse(text)
    assert words in str(caught.value)


def test_a_cue_changes_only_the_scales_that_it_names() -> None:
    own = Guidance(text_scale=2.0, audio_scale=4.0)
    assert PromptCue(0.0, "a").guidance(own) == own
    assert PromptCue(0.0, "a", text_scale=0.0).guidance(own) == Guidance(text_scale=0.0, audio_scale=4.0)
    assert PromptCue(0.0, "a", 3.0, 1.0).guidance(own) == Guidance(text_scale=3.0, audio_scale=1.0)


def test_the_chunks_cue_carries_its_scales() -> None:
    cues = parse("0:00 a / 0:03 [text 3] b")
    assert [cue_for_chunk(cues, chunk, FPS).text_scale for chunk in CHUNKS[:4]] == [None, None, 3.0, 3.0]


@pytest.mark.parametrize(
    ("snap", "start_s", "seen"),
    [
        (Snap.NEAREST, 2.6, "abbb"),  # nearer to 2.0625 s than to 3.3125 s
        (Snap.NEAREST, 2.8, "aabb"),
        (Snap.EARLY, 2.8, "abbb"),  # the chunk from 2.0625 s on shows it
        (Snap.LATE, 2.6, "aabb"),
        ("late", 2.6, "aabb"),
    ],
)
def test_where_a_cue_moves_is_asked_for(snap: str, start_s: float, seen: str) -> None:
    cues = (PromptCue(0.0, "a"), PromptCue(start_s, "b"))
    assert "".join(prompt_for_chunk(cues, chunk, FPS, snap) for chunk in CHUNKS[:4]) == seen


@given(st.floats(0.01, 10.0))
def test_early_has_the_moment_in_it_and_late_nothing_before_it(start_s: float) -> None:
    cues = (PromptCue(0.0, "a"), PromptCue(start_s, "b"))
    starts = [chunk.frames.start / FPS for chunk in CHUNKS]
    early, late = (cue_starts(cues, CHUNKS, FPS, snap) for snap in ("early", "late"))
    assert early[1] == max(s for s in starts if s <= start_s + 1e-6)
    assert late[1] == min(s for s in starts if s >= start_s - 1e-6)


def test_a_moment_that_is_a_start_moves_nowhere() -> None:
    cues = (PromptCue(0.0, "a"), PromptCue(CHUNKS[2].frames.start / FPS, "b"))
    for snap in Snap:
        assert cue_starts(cues, CHUNKS, FPS, snap)[1] == 3.3125


def test_late_cues_of_the_last_chunk_are_told() -> None:
    [told] = lost_cues(parse("a / 0:12.4 b"), CHUNKS, FPS, "late")
    assert "the last chunk begins at 0:12.06" in told
    assert lost_cues(parse("a / 0:12.4 b"), CHUNKS, FPS, "early") == ()
    [told] = lost_cues(parse("a / 0:12.6 b"), CHUNKS, FPS, "early")
    assert "the video ends at 0:12.5" in told


def test_an_unknown_snap_is_refused() -> None:
    with pytest.raises(PlanError, match="'soon'; use one of: nearest, early, late"):
        prompt_for_chunk(parse("a"), CHUNKS[0], FPS, "soon")


def test_many_lost_prompts_are_counted() -> None:
    schedule = "0:00 a\n" + "\n".join(f"1:{second:02} b" for second in range(10))
    told = lost_cues(parse(schedule), CHUNKS, FPS)
    assert len(told) == 3
    assert told[-1] == "8 more prompts, up to 1:09, are never seen."
