"""Which frames each latent hears."""

from __future__ import annotations

import pytest
import torch

from gloria_core.audio import windows
from gloria_core.errors import AudioError
from gloria_core.types import AudioFeatures


def counted(num_frames: int, padding: float | None = None) -> AudioFeatures:
    """Row f holds the number f."""
    rows = torch.arange(num_frames, dtype=torch.float32)[:, None].repeat(1, 3)
    return AudioFeatures(rows, 16.0, None if padding is None else torch.full((3,), padding))


def test_a_latent_hears_its_four_frames_with_context() -> None:
    cut = windows(counted(33), 2, 3)
    assert cut.shape == (3, 8, 3)
    assert cut[0, :, 0].tolist() == list(range(3, 11))
    assert cut[2, :, 0].tolist() == list(range(11, 19))


def test_the_first_latent_hears_three_frames_behind_padding() -> None:
    assert windows(counted(33, -7), 0, 1)[0, :, 0].tolist() == [-7, -7, -7, -7, -7, 0, 1, 2]


def test_beyond_the_end_is_padding() -> None:
    assert windows(counted(9, -7), 2, 1)[0, :, 0].tolist() == [3, 4, 5, 6, 7, 8, -7, -7]
    assert (windows(counted(9, -7), 50, 2) == -7).all()


def test_padding_is_zeros_unless_the_features_say_otherwise() -> None:
    assert windows(counted(9), 2, 1)[0, -2:].abs().max() == 0


def test_a_chunk_hears_what_the_whole_video_hears() -> None:
    features = counted(81, -7)
    assert torch.equal(windows(features, 9, 5), windows(features, 0, 21)[9:14])


def test_dtype_is_kept() -> None:
    features = AudioFeatures(torch.zeros(9, 3, dtype=torch.bfloat16), 16.0, torch.ones(3))
    assert windows(features, 0, 3).dtype == torch.bfloat16


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (0, 0)])
def test_impossible_runs_are_refused(start: int, count: int) -> None:
    with pytest.raises(AudioError, match="no windows"):
        windows(counted(9), start, count)


@pytest.mark.parametrize("shape", [(0, 3), (5,), (1, 5, 3)])
def test_features_that_are_not_rows_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="shape"):
        windows(AudioFeatures(torch.zeros(shape), 16.0), 0, 1)
