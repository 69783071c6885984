from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gloria_core.errors import MediaError
from gloria_core.media.layout import LabelledPicture, asked_for, layout_named
from gloria_core.nano.captions import caption
from gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole


def frames(count: int, width: int = 48, height: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def pictures() -> list[LabelledPicture]:
    made = [LabelledPicture(AnchorRole.GLOBAL, "", frames(1)[0])]
    made += [LabelledPicture(AnchorRole.VIEW, view, frames(1)[0]) for view in VIEWS]
    return made + [LabelledPicture(AnchorRole.EXPRESSION, name, frames(1, 48, 32)[0]) for name in EXPRESSIONS]


def test_plain_frames_pass_unchanged() -> None:
    layout = layout_named("plain", (48, 64), [])
    given = frames(3)
    assert layout.size == (48, 64)
    assert np.array_equal(layout(given, "anything"), given)


@pytest.mark.parametrize(
    ("side", "size"), [(0, (50, 34)), (33, (50, 34)), (60, (98, 66)), (100, (196, 132)), (5000, (784, 528))]
)
def test_frames_are_enlarged_by_whole_numbers_to_even_sides(side: int, size: tuple[int, int]) -> None:
    layout = layout_named("plain", (49, 33), [], side)
    assert layout.size == size
    assert layout(frames(2, 49, 33), "").shape == (2, size[1], size[0], 3)


def test_an_enlarged_frame_keeps_its_picture() -> None:
    given = np.repeat(np.repeat(frames(1, 6, 8), 8, axis=1), 8, axis=2)
    shown = layout_named("plain", (48, 64), [], 384)(given, "")
    back = shown[:, 4::8, 4::8]
    assert np.abs(back.astype(int) - given.astype(int)).mean() < 20


def test_a_strip_stands_beside_the_enlarged_frames() -> None:
    layout = layout_named("strip", (48, 64), pictures())
    shown = layout(frames(2), "turns to the left, happy")
    width, height = layout.size
    assert min(width, height) >= 384
    assert shown.shape == (2, height, width, 3)
    assert np.array_equal(shown[:, :, :384], layout_named("plain", (48, 64), [], 384)(frames(2), ""))
    assert np.array_equal(shown[0, :, 384:], shown[1, :, 384:])


def test_the_strip_follows_the_prompt_and_remembers() -> None:
    layout = layout_named("strip", (48, 64), pictures())

    def strip(prompt: str) -> NDArray[np.uint8]:
        return layout(frames(1), prompt)[0, :, 384:]

    left, back = strip("turns to the left, happy"), strip("turns to the back, happy")
    assert not np.array_equal(left, back)
    assert np.array_equal(strip("turns to the left, happy"), left)
    angry = strip("angry")
    assert np.array_equal(angry, strip("angry"))
    strip("turns to the right")
    assert not np.array_equal(angry, strip("angry"))  # it still faces right


def test_a_strip_needs_no_picture_but_the_frames() -> None:
    layout = layout_named("strip", (48, 64), [])
    assert layout(frames(1), "").shape[1:3] == layout.size[::-1]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("emotion", EXPRESSIONS)
def test_captions_are_understood(view: str, emotion: str) -> None:
    assert asked_for(caption(view, emotion)) == (view, emotion)
    assert asked_for(caption(view, emotion, view)) == (view, emotion)


def test_words_that_mean_nothing_are_passed_over() -> None:
    assert asked_for("a walk in the rain") == (None, None)
    assert asked_for("turns away from the camera") == ("back", None)
    assert asked_for("first left, then the back") == ("back", None)


def test_unknown_layouts_and_sizes_are_refused() -> None:
    with pytest.raises(MediaError, match="plain, strip"):
        layout_named("mosaic", (48, 64), [])
    with pytest.raises(MediaError, match="-1 px"):
        layout_named("plain", (48, 64), [], -1)
