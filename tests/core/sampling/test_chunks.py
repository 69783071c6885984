from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.errors import PlanError
from gloria_core.sampling.chunks import (
    Chunk,
    boundaries_s,
    check_spacing,
    chunk_at,
    frames_of,
    num_frames_for,
    num_latents_for,
    plan,
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, tuple[Chunk, ...]]:
    num_frames = draw(st.integers(1, 5000))
    prefix_latents = draw(st.integers(1, 12))
    chunk_latents = draw(st.integers(prefix_latents + 1, prefix_latents + 60))
    return num_frames, chunk_latents, prefix_latents, plan(num_frames, chunk_latents, prefix_latents)


@given(plans())
def test_every_frame_is_made_exactly_once_and_in_order(case: tuple[int, int, int, tuple[Chunk, ...]]) -> None:
    num_frames, _, _, chunks = case
    assert [frame for chunk in chunks for frame in chunk.frames] == list(range(num_frames))
    assert all(len(chunk.frames) > 0 for chunk in chunks)


@given(plans())
def test_every_prefix_is_the_end_of_the_chunk_before(case: tuple[int, int, int, tuple[Chunk, ...]]) -> None:
    _, _, prefix_latents, chunks = case
    assert chunks[0].num_prefix == 0
    for before, after in pairwise(chunks):
        assert after.num_prefix == prefix_latents
        assert after.latents[: after.num_prefix] == before.latents[-prefix_latents:]
        assert after.new_latents.start == before.new_latents.stop


@given(plans())
def test_every_chunk_has_the_trained_length(case: tuple[int, int, int, tuple[Chunk, ...]]) -> None:
    _, chunk_latents, _, chunks = case
    assert {chunk.num_latents for chunk in chunks} == {chunk_latents}
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


@given(plans())
def test_frames_are_those_that_the_new_latents_decode_to(case: tuple[int, int, int, tuple[Chunk, ...]]) -> None:
    num_frames, _, _, chunks = case
    for chunk in chunks:
        decoded = frames_of(chunk.new_latents)
        assert chunk.frames == range(decoded.start, min(decoded.stop, num_frames))
    assert chunks[-1].latents.stop >= num_latents_for(num_frames)


def test_a_minute_of_the_small_world_by_hand() -> None:
    chunks = plan(960, 9, 4)
    assert chunks[0] == Chunk(0, range(0, 9), 0, range(0, 33))
    assert chunks[1] == Chunk(1, range(5, 14), 4, range(33, 53))
    assert len(chunks) == 48
    assert chunks[-1].frames == range(953, 960)


def test_a_video_that_ends_with_a_chunk_needs_no_more() -> None:
    assert len(plan(33, 9)) == 1
    assert len(plan(34, 9)) == 2


def test_one_latent_holds_the_first_frame_and_each_further_one_four() -> None:
    assert [num_latents_for(n) for n in (1, 2, 5, 6, 81)] == [1, 2, 2, 3, 21]
    assert [frames_of(range(i, i + 1)) for i in range(3)] == [range(0, 1), range(1, 5), range(5, 9)]


@pytest.mark.parametrize(
    ("num_frames", "chunk_latents", "prefix_latents", "words"),
    [
        (0, 9, 4, "0 frames"),
        (-5, 9, 4, "-5 frames"),
        (100, 4, 4, "at least 5"),
        (100, 0, 4, "chunk of 0"),
        (100, 9, 0, "prefix is 0"),
    ],
)
def test_impossible_plans_are_refused(num_frames: int, chunk_latents: int, prefix_latents: int, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        plan(num_frames, chunk_latents, prefix_latents)


def test_chunks_longer_than_the_anchors_spacing_are_refused() -> None:
    assert plan(100, 40, anchor_spacing=40)
    with pytest.raises(PlanError, match=r"41 latent frames.*at most 40 latent frames"):
        plan(100, 41, anchor_spacing=40)
    check_spacing(40, 40)


@given(plans(), st.sampled_from([1.0, 16.0, 23.976, 24.0, 25.0, 30.0]), st.floats(0, 1, exclude_max=True))
def test_the_chunk_at_a_time_makes_the_picture_shown_then(
    case: tuple[int, int, int, tuple[Chunk, ...]], fps: float, part: float
) -> None:
    num_frames, _, _, chunks = case
    frame = int(part * num_frames)
    assert frame in chunk_at(chunks, frame / fps, fps).frames


def test_a_frames_own_time_finds_it_in_spite_of_rounding() -> None:
    chunks = plan(200, 2, 1)
    for frame in (29, 97, 113):
        assert frame / 23.976 * 23.976 < frame
        assert chunk_at(chunks, frame / 23.976, 23.976).frames.start == frame


def test_boundaries_in_seconds() -> None:
    assert boundaries_s(plan(60, 9), 16.0) == (0.0, 33 / 16, 53 / 16, 60 / 16)


@pytest.mark.parametrize("seconds", [-0.1, 3.75, 100.0])
def test_times_outside_of_the_video_are_refused(seconds: float) -> None:
    with pytest.raises(PlanError, match=r"from 0 s to 3\.75 s"):
        chunk_at(plan(60, 9), seconds, 16.0)


def test_frames_for_a_duration() -> None:
    assert num_frames_for(60.0, 16.0) == 960
    assert num_frames_for(10.0, 23.976) == 240
    assert num_frames_for(600.0, 24000 / 1001) == 14386


@pytest.mark.parametrize(
    ("seconds", "fps"), [(0.0, 16.0), (-1.0, 16.0), (float("nan"), 16.0), (1.0, 0.0), (0.001, 16.0)]
)
def test_durations_without_a_frame_are_refused(seconds: float, fps: float) -> None:
    with pytest.raises(PlanError):
        num_frames_for(seconds, fps)


@given(plans())
def test_a_plan_may_end_exactly_with_the_video(case: tuple[int, int, int, tuple[Chunk, ...]]) -> None:
    num_frames, chunk_latents, prefix_latents, _ = case
    num_frames = frames_of(range(num_latents_for(num_frames))).stop
    usual, fitted = (
        plan(num_frames, chunk_latents, prefix_latents),
        plan(num_frames, chunk_latents, prefix_latents, ends_with_video=True),
    )
    assert fitted[-1].latents.stop == num_latents_for(num_frames)
    assert fitted[:-1] == usual[:-1]
    assert fitted[-1].new_latents.start == usual[-1].new_latents.start
    assert fitted[-1].frames == usual[-1].frames
    assert fitted[-1].num_latents == min(chunk_latents, num_latents_for(num_frames))
    for before, after in pairwise(fitted):
        assert prefix_latents <= after.num_prefix < before.num_latents
        assert after.latents[: after.num_prefix] == before.latents[-after.num_prefix :]


def test_only_whole_latents_end_with_a_given_picture() -> None:
    with pytest.raises(PlanError, match=r"80 frames.*use 77 or 81"):
        plan(80, 9, ends_with_video=True)
