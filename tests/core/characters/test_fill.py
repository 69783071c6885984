"""Panels, frames and proposals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from gloria_core.anchors.analysis import YAW_OF_VIEW, Seen
from gloria_core.characters.crop import propose_crop
from gloria_core.characters.fill import fill_from_pictures, fill_from_sheet, fill_from_video, keys_for
from gloria_core.characters.measure import sharpness
from gloria_core.characters.sheet import find_panels, grid_panels
from gloria_core.characters.slots import KEYS
from gloria_core.errors import AnchorError, ConfigError
from gloria_core.types import VIEWS


def figure(seed: int, size: tuple[int, int] = (80, 160)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def sheet(columns: int, rows: int, gap: int = 20, colour: str = "white") -> Image.Image:
    made = Image.new("RGB", (columns * (80 + gap) + gap, rows * (160 + gap) + gap), colour)
    for row in range(rows):
        for column in range(columns):
            made.paste(figure(row * columns + column), (gap + column * (80 + gap), gap + row * (160 + gap)))
    return made


@pytest.mark.parametrize(("columns", "rows"), [(4, 1), (3, 1), (2, 2), (4, 2), (5, 1), (4, 3)])
@pytest.mark.parametrize("colour", ["white", "black", "#88aa99"])
def test_panels_between_gutters_are_found(columns: int, rows: int, colour: str) -> None:
    found = find_panels(sheet(columns, rows, colour=colour))
    assert found.grid == (columns, rows)
    for number, box in enumerate(found.boxes):
        left, top = 20 + number % columns * 100, 20 + number // columns * 180
        assert np.abs(np.array(box) - (left, top, left + 80, top + 160)).max() <= 2


def test_rows_may_differ_and_captions_are_no_panels() -> None:
    made = Image.new("RGB", (420, 420), "white")
    for column in range(4):
        made.paste(figure(column), (20 + column * 100, 20))
    ImageDraw.Draw(made).text((30, 190), "front     side", fill="black")
    for column in range(2):
        made.paste(figure(9 + column), (20 + column * 120, 230))
    found = find_panels(made)
    assert len(found.boxes) == 6
    assert found.grid is None


def test_panels_that_touch_need_a_grid() -> None:
    made = Image.fromarray(np.concatenate([np.asarray(figure(i)) for i in range(4)], axis=1))
    assert find_panels(made).grid == (1, 1)
    assert grid_panels(made.size, 4, 1).boxes[2] == (160, 0, 240, 160)
    assert fill_from_sheet(made, (4, 1)).grid == (4, 1)
    for grid in ((0, 1), (65, 1), (8, 9), (4, 999)):
        with pytest.raises(AnchorError, match="grid"):
            grid_panels(made.size, *grid)


def test_panels_go_by_their_number() -> None:
    found = fill_from_sheet(sheet(4, 1))
    assert found.by == "position"
    assert dict(found.proposal) == {
        "views.front": "panel-1", "views.right": "panel-2", "views.back": "panel-3", "views.left": "panel-4",
    }  # fmt: skip
    assert [c.scores for c in found.candidates] == [{f"views.{v}": 0.5} for v in ("front", "right", "back", "left")]
    assert keys_for(1) == ("global",)
    assert keys_for(5)[0] == keys_for(9)[0] == "global"
    assert sorted(keys_for(13)) == sorted(KEYS) == sorted(keys_for(20))
    for count in range(1, 14):
        assert len(set(keys_for(count))) == count


def test_pictures_go_where_they_are_told() -> None:
    pictures = [figure(i) for i in range(3)]
    found = fill_from_pictures(pictures, ("views.back", "global"))
    assert dict(found.proposal) == {"views.back": "panel-1", "global": "panel-2"}
    with pytest.raises(AnchorError, match="no slot 'back'"):
        fill_from_pictures(pictures, ("back",))
    with pytest.raises(AnchorError, match="twice"):
        fill_from_pictures(pictures, ("global", "global"))
    with pytest.raises(AnchorError, match="no picture"):
        fill_from_pictures([])


def turning(count: int = 80) -> Iterator[NDArray[np.uint8]]:
    """Four stands of a figure, and a blurred frame before each."""
    for start in range(0, count, 8):
        frames = []
        for index in range(start, start + 8):
            picture = figure(index * 4 // count, (40, 60))
            frames.append(np.asarray(picture.filter(ImageFilter.GaussianBlur(4)) if index % 4 == 0 else picture))
        yield np.stack(frames)


def test_a_video_is_taken_for_one_turn_and_says_how_unsure_that_is() -> None:
    found = fill_from_video(turning, 10.0)
    assert found.by == "position"
    assert set(found.proposal) == {"global", *(f"views.{view}" for view in VIEWS)}
    images = {candidate.id: candidate for candidate in found.candidates}
    assert 5 >= len({found.proposal[f"views.{view}"] for view in VIEWS}) >= 4
    for key, identity in found.proposal.items():
        assert images[identity].scores[key] == pytest.approx(0.1)
        assert sharpness(images[identity].image) > 0.5, "a blurred frame was taken"
    times = [candidate.at_s for candidate in found.candidates]
    assert times == sorted(times)
    assert len(times) <= 13


def test_a_video_of_one_still_picture_has_one_candidate_for_each_place_and_no_more() -> None:
    still = np.asarray(figure(1))
    found = fill_from_video(lambda: iter([np.stack([still] * 20)]), 10.0)
    assert len(found.candidates) <= 5
    with pytest.raises(AnchorError, match="no frame"):
        fill_from_video(lambda: iter(()), 10.0)


def test_where_an_analysis_sees_the_view_it_decides() -> None:
    order = ("back", "left", "front", "right")
    pictures = [figure(i) for i in range(4)]
    shown = {np.asarray(p).tobytes(): view for p, view in zip(pictures, order, strict=True)}

    def analysis(pixels: NDArray[np.uint8]) -> Seen:
        view = shown[pixels.tobytes()]
        return Seen(yaw=YAW_OF_VIEW[view] + 10.0, expressions={"happy": 0.9} if view == "front" else {})

    found = fill_from_pictures(pictures, analysis=analysis)
    assert found.by == "analysis"
    assert dict(found.proposal) == {
        "global": "panel-3", "views.front": "panel-3", "views.back": "panel-1", "views.left": "panel-2",
        "views.right": "panel-4", "expressions.happy": "panel-3",
    }  # fmt: skip
    assert all(0 < score <= 1 for c in found.candidates for score in c.scores.values())


def test_crops_are_proposed_by_what_can_be_told() -> None:
    page = Image.new("RGB", (400, 400), "white")
    page.paste(figure(1, (100, 300)), (150, 50))
    (x, y, width, height), by = propose_crop(page, "body")
    assert by == "background"
    assert (x, y, width, height) == pytest.approx((0.365, 0.095, 0.27, 0.81), abs=0.01)
    (_, top, wide, tall), by = propose_crop(page, "head")
    assert by == "background"
    assert top == pytest.approx(y, abs=0.03)
    assert tall < 0.3
    assert wide < 0.3
    for preset in ("body", "head"):
        (x, y, width, height), by = propose_crop(figure(3, (300, 200)), preset)
        assert by == "centre"
        assert min(x, y) >= 0
        assert x + width <= 1
        assert y + height <= 1
    assert propose_crop(page, "whole") == ((0.0, 0.0, 1.0, 1.0), "centre")
    seen = Seen(face=(0.4, 0.1, 0.2, 0.2))
    (x, *_), by = propose_crop(page, "head", lambda pixels: seen)
    assert by == "analysis"
    assert x == pytest.approx(0.392)
    with pytest.raises(ConfigError, match="no crop 'feet'"):
        propose_crop(page, "feet")


def test_where_an_analysis_sees_nobody_the_order_decides() -> None:
    found = fill_from_sheet(sheet(4, 1), analysis=lambda pixels: Seen())
    assert found.by == "position"
    assert found.proposal == fill_from_sheet(sheet(4, 1)).proposal


def test_slots_take_the_part_that_was_found() -> None:
    seen = Seen(yaw=0.0, expressions={"sad": 1.0}, face=(0.25, 0.0, 0.5, 0.25), body=(0.1, 0.0, 0.8, 0.9))
    found = fill_from_pictures([figure(1)], analysis=lambda pixels: seen)
    sizes = {key: picture.size for key, picture in found.pictures().items()}
    assert sizes == {"global": (80, 160), "views.front": (70, 150), "expressions.sad": (44, 42)}
    small = Seen(yaw=0.0, expressions={"sad": 1.0}, face=(0.4, 0.0, 0.2, 0.1))
    assert "expressions.sad" not in fill_from_pictures([figure(1)], analysis=lambda pixels: small).proposal


def test_a_head_alone_is_the_last_choice_for_a_view() -> None:
    head, body = figure(1), figure(2)
    face = (0.3, 0.0, 0.4, 0.3)

    def analysis(pixels: NDArray[np.uint8]) -> Seen:
        whole = pixels.tobytes() == np.asarray(body).tobytes()
        return Seen(yaw=0.0 if not whole else 20.0, face=face, body=(0.0, 0.0, 1.0, 1.0) if whole else None)

    assert fill_from_pictures([head, body], analysis=analysis).proposal["views.front"] == "panel-2"
    assert fill_from_pictures([head], analysis=analysis).proposal["views.front"] == "panel-1"
