"""Sizes, lengths and clocks."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gloria_core.data.buckets import Sizes, areas_for, areas_of, bucket_size, cut, num_frames, on_clock, shown_frames
from gloria_core.errors import ConfigError

RATES = st.sampled_from([Fraction(8), Fraction(16), Fraction(24), Fraction(30000, 1001), Fraction(60)])


@given(st.integers(16, 4000), st.integers(16, 4000), st.integers(3000, 900_000), st.sampled_from([16, 32]))
def test_a_bucket_is_on_the_grid_and_near_its_area(width: int, height: int, area: int, grid: int) -> None:
    wide, high = bucket_size(width, height, area, grid)
    assert wide % grid == 0
    assert high % grid == 0
    assert wide * high <= 1.05 * area


@pytest.mark.parametrize(
    ("source", "expected"),
    [((1920, 1080), (864, 480)), ((1080, 1920), (480, 864)), ((640, 480), (736, 544)), ((1000, 1000), (640, 640))],
)
def test_usual_shapes_at_the_papers_area(source: tuple[int, int], expected: tuple[int, int]) -> None:
    assert bucket_size(*source, 832 * 480, 16) == expected


def test_a_source_is_not_enlarged_where_a_smaller_bucket_fits() -> None:
    assert areas_for(640, 480, (200_000, 300_000, 900_000)) == (200_000, 300_000)
    assert areas_for(64, 48, (200_000, 900_000)) == (200_000,)


def test_sizes_as_people_write_them() -> None:
    assert areas_of("832x480, 480 x 272", "wan2.1") == (399360, 130560)
    assert areas_of(" ", "nano") == (3072,)
    for wrong in ("832", "832x", "axb", "0x9"):
        with pytest.raises(ConfigError, match="write it as 832x480"):
            areas_of(wrong, "wan2.1")


@given(st.integers(0, 300), st.integers(1, 200), RATES, RATES)
def test_each_frame_shown_is_the_nearest_in_time(start: int, length: int, source: Fraction, fps: Fraction) -> None:
    part = range(start, start + length)
    first, shown = shown_frames(part, source, fps)
    for number, frame in enumerate(shown, first):
        assert frame in part
        assert abs(Fraction(frame) / source - Fraction(number) / fps) <= Fraction(1, 2) / source
    seconds = Fraction(length) / source
    assert abs(len(shown) - seconds * fps) <= 1 + fps / source / 2  # nothing is shown before the first instant


@given(st.integers(0, 300), st.integers(1, 100), st.integers(1, 100), RATES, RATES)
def test_parts_of_a_film_that_meet_show_no_frame_of_the_clock_twice(
    start: int, left: int, right: int, source: Fraction, fps: Fraction
) -> None:
    middle = start + left
    first, before = shown_frames(range(start, middle), source, fps)
    second, after = shown_frames(range(middle, middle + right), source, fps)
    assert (first + len(before) == second) or not after or not before
    assert on_clock(0, source, fps) == 0


@given(st.integers(1, 2000), st.integers(1, 30), st.integers(0, 60))
def test_pieces_are_equal_apart_and_of_4k_and_1_frames(count: int, shortest: int, more: int) -> None:
    sizes = Sizes(fps=16, areas=(3072,), shortest=shortest, longest=num_frames(shortest + more + 3))
    pieces = cut(count, sizes)
    assert len({len(piece) for piece in pieces}) <= 1
    for piece in pieces:
        assert len(piece) % 4 == 1
        assert len(piece) <= sizes.longest
        assert piece.stop <= count
    assert all(a.stop <= b.start for a, b in itertools.pairwise(pieces))


@pytest.mark.parametrize(
    "changes", [{"areas": ()}, {"fps": 0}, {"areas": (9,)}, {"longest": 80}, {"shortest": 200}, {"shortest": 0}]
)
def test_sizes_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Sizes(**{"fps": 16.0, "areas": (3072,), **changes})  # type: ignore[arg-type]
