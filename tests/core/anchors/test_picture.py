"""Pictures on the grid of a model."""

from __future__ import annotations

import pytest
import torch

from gloria_core.anchors.picture import AnchorPicture, on_grid
from gloria_core.errors import AnchorError
from gloria_core.types import AnchorRole


def picture(height: int, width: int) -> AnchorPicture:
    pixels = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(1))
    return AnchorPicture(AnchorRole.VIEW, "left", pixels)


def test_a_picture_on_the_grid_is_left_alone() -> None:
    given = picture(32, 48)
    assert on_grid(given, 16) is given.image


@pytest.mark.parametrize(("size", "expected"), [((30, 50), (32, 48)), ((9, 9), (16, 16)), ((100, 33), (96, 32))])
def test_sides_are_rounded_to_the_nearest(size: tuple[int, int], expected: tuple[int, int]) -> None:
    made = on_grid(picture(*size), 16)
    assert made.shape == (1, *expected, 3)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_what_hangs_over_is_cut_evenly_and_nothing_is_squeezed() -> None:
    given = picture(32, 36)
    assert torch.equal(on_grid(given, 16), given.image[:, :, 2:34])


def test_small_pictures_and_unknown_slots_are_refused_by_name() -> None:
    with pytest.raises(AnchorError, match="The picture for the left view anchor"):
        on_grid(picture(7, 30), 16)
    with pytest.raises(AnchorError, match="no view anchor called 'above'"):
        AnchorPicture(AnchorRole.VIEW, "above", torch.zeros(1, 16, 16, 3))
