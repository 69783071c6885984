import pytest
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.errors import PlanError
from gloria_core.sampling.chunks import plan
from gloria_core.sampling.prompts import PromptCue, clock, cue_starts, lost_cues, parse, prompt_for_chunk

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
