import numpy as np
import pytest
import torch

from gloria_core.errors import GloriaError
from gloria_core.evaluate.colour import ColourStatistics, lab, reduced, resized
from gloria_core.evaluate.embedding import COLOUR_GRID, NamedEmbedding
from tests.core.evaluate.drawn import Frames


def flat(*colour: int) -> Frames:
    return np.full((1, 24, 40, 3), colour, np.uint8)


def scene() -> Frames:
    """Smooth blobs, 90 x 160."""
    small = np.random.default_rng(3).integers(0, 256, (1, 6, 10, 3), dtype=np.uint8)
    return resized(small, (160, 90))


@pytest.mark.parametrize(
    ("colour", "expected"),
    [  # published Lab values of the sRGB primaries at D65
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_has_the_published_values(colour: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    found = lab(flat(*colour))
    assert found.shape == (1, 3, 24, 40)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor(expected), atol=0.05, rtol=0)


def test_statistics_of_a_flat_picture() -> None:
    grey = ColourStatistics.of(flat(119, 119, 119))
    assert grey.mean == pytest.approx((50.03, 0, 0), abs=0.1)
    assert grey.spread == pytest.approx((0, 0, 0), abs=1e-3)
    assert grey.similarity(grey) == 1
    assert grey.similarity(ColourStatistics.of(flat(255, 255, 255))) == pytest.approx(np.exp(-50 / 40), abs=0.01)


def test_a_flash_changes_no_statistics() -> None:
    calm = flat(90, 120, 60).repeat(7, axis=0)
    flash = calm.copy()
    flash[3] = 255
    assert ColourStatistics.of(flash) == ColourStatistics.of(calm)


def test_the_grids_vectors_have_length_one() -> None:
    vectors = COLOUR_GRID(np.concatenate([flat(0, 0, 0), flat(255, 255, 255)]))
    assert vectors.shape == (2, 224)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_small_motion_changes_little_and_other_places_much() -> None:
    picture = scene()
    here, moved, turned = COLOUR_GRID(np.concatenate([picture, np.roll(picture, 3, axis=2), picture[:, ::-1, ::-1]]))
    assert here @ moved > 0.995
    assert here @ turned < here @ moved - 0.03


def test_edges_in_other_directions_are_told_apart() -> None:
    stripes = np.zeros((1, 96, 96, 3), np.uint8)
    stripes[:, :, (np.arange(96) // 6) % 2 == 0] = 200
    upright, lying = COLOUR_GRID(np.concatenate([stripes, stripes.transpose(0, 2, 1, 3)]))
    assert upright @ lying < 0.9


def test_small_pictures_are_not_enlarged_and_large_ones_keep_their_shape() -> None:
    assert reduced(scene(), 224).shape == (1, 90, 160, 3)
    assert reduced(scene(), 45).shape == (1, 45, 80, 3)


def test_shrinking_takes_the_mean() -> None:
    checks = np.zeros((1, 8, 8, 3), np.uint8)
    checks[:, ::2, ::2], checks[:, 1::2, 1::2] = 200, 200
    assert np.unique(resized(checks, (4, 4))).tolist() == [100]


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(3, 4), torch.full((1, 4), torch.nan)])
def test_functions_that_return_no_vectors_are_named(wrong: torch.Tensor) -> None:
    with pytest.raises(GloriaError, match="mine returned the shape"):
        NamedEmbedding("mine", lambda frames: wrong)(scene())


def test_a_floor_of_one_is_refused() -> None:
    with pytest.raises(GloriaError, match="below 1"):
        NamedEmbedding("mine", lambda frames: torch.zeros(1, 1), floor=1.0)
