"""What latents hear in public audio branches, against the tables of peers.md (B1 to B3) and the authors' formulas."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from gloria_core.audio import branch_windows, silent_windows
from gloria_core.audio.windows import row_range, row_window_length
from gloria_core.config import AudioConfig
from gloria_core.errors import AudioError
from gloria_core.types import AudioFeatures

ROWS = AudioConfig(
    kind="wav2vec2-rows", feature_dim=3, dim=4, projection="fantasytalking", kv_bias=False, output="shared"
)
MULTITALK = AudioConfig(kind="wav2vec2-layers", feature_dim=3, dim=4, projection="multitalk", tokens=2, hidden=2)
HUMO = replace(MULTITALK, kind="whisper-groups", projection="humo")


def counted(num_rows: int, fps: float = 25.0, rate: float | None = None) -> AudioFeatures:
    """Row j holds the number j + 1, so that it is never a row of zeros."""
    rows = torch.arange(1, num_rows + 1, dtype=torch.float32)[:, None].repeat(1, 3)
    return AudioFeatures(rows, fps, rows_per_second=rate)


def heard(cut: Tensor) -> list[list[int]]:
    """The numbers of the rows in each window; None of them is a row of zeros."""
    return [[int(n) - 1 for n in window[:, 0] if n > 0] for window in cut]


# FantasyTalking. The table: frames, rate, rows, h, width, first ranges with their margins.
TABLE = [
    (81, 23, 175, 4, 17, [(-11, 5), (-3, 13), (6, 22), (14, 30)]),
    (81, 16, 252, 6, 21, [(-14, 6), (-2, 18), (10, 30), (23, 43)]),
    (81, 25, 161, 3, 15, [(-9, 5), (-3, 11), (5, 19), (13, 27)]),
    (125, 25, 249, 3, 15, [(-9, 5), (-3, 11), (5, 19), (13, 27)]),
    (125, 24, 259, 4, 17, [(-11, 5), (-3, 13), (5, 21), (13, 29)]),
    (125, 24, 260, 4, 17, [(-11, 5), (-3, 13), (5, 21), (13, 29)]),
]


@pytest.mark.parametrize(("frames", "fps", "rows", "half", "width", "ranges"), TABLE)
def test_the_table_of_row_ranges(
    frames: int, fps: int, rows: int, half: int, width: int, ranges: list[tuple[int, int]]
) -> None:
    """In a clip by itself, and on the clock of a video of any length."""
    for ratio in (Fraction(rows, frames), Fraction(50, fps)):
        assert [row_range(latent, ratio) for latent in range(4)] == ranges
    assert width == row_window_length(fps) == 2 * half + 9


def authors_ranges(rows: int, frames: int) -> list[tuple[int, int]]:
    """The authors' formula for a clip."""
    per_frame = rows / frames
    half = int(per_frame * 4 / 2)
    centres = [
        int((per_frame * ((i - 1) * 4 + 1) + per_frame * (i * 4 + 1)) / 2) - 1 for i in range(1, frames // 4 + 1)
    ]
    ranges = [(c - half, c + half) for c in centres]
    start = ranges[0][0]
    return [(a - 4, b + 4) for a, b in [(start - 2 * half, start), *ranges]]


@pytest.mark.parametrize(("frames", "fps"), [(81, 23), (81, 16), (81, 25), (125, 24), (125, 25), (49, 23), (81, 30)])
def test_a_clip_hears_what_the_authors_let_it_hear(frames: int, fps: int) -> None:
    rows = (int(frames / fps * 16000) - 400) // 320 + 1
    authors = authors_ranges(rows, frames)
    ours = [row_range(i, Fraction(rows, frames)) for i in range(len(authors))]
    whole = [(4 * i - 1) * rows % frames == 0 for i in range(1, len(authors))]
    for mine, theirs, exact in zip(ours[1:], authors[1:], whole, strict=True):
        assert theirs[0] - mine[0] == theirs[1] - mine[1] in ({0, 1} if exact else {0})
    # On the clock of a long video, a clip's last latents are at most one row (20 ms) from where its rounding puts them.
    video = [row_range(i, Fraction(50, fps)) for i in range(len(authors))]
    assert max(abs(mine[0] - theirs[0]) for mine, theirs in zip(video, authors, strict=True)) <= 1
    assert {b - a for a, b in video} == {b - a for a, b in authors}


def test_rows_beyond_the_sound_are_zeros() -> None:
    cut = branch_windows(ROWS, counted(40, 23, 50.0), 0, 8)
    assert cut.shape == (8, 17, 3)
    assert heard(cut)[:3] == [list(range(6)), list(range(14)), list(range(6, 23))]
    assert heard(cut)[4:] == [list(range(23, 40)), list(range(32, 40)), [], []]


@pytest.mark.parametrize("fps", [16.0, 23.0, 24.0, 25.0, 29.97])
@pytest.mark.parametrize("branch", [ROWS, MULTITALK, HUMO], ids=["fantasytalking", "multitalk", "humo"])
def test_a_chunk_hears_what_the_video_hears(branch: AudioConfig, fps: float) -> None:
    features = counted(400, fps, 50.0 if branch is ROWS else None)
    whole = branch_windows(branch, features, 0, 60)
    for start in (1, 28, 49):
        assert torch.equal(branch_windows(branch, features, start, 9), whole[start : start + 9])


def test_the_clock_does_not_creep() -> None:
    """After an hour a latent hears the rows around its own time."""
    for fps in (16, 23, 24, 25):
        latent = 3600 * fps // 4
        first, last = row_range(latent, Fraction(50, fps))
        assert abs((first + last) / 2 - 50 * (4 * latent - 1) / fps) <= 2


# MultiTalk and HuMo.


def test_multitalk_hears_the_table_and_repeats_the_ends() -> None:
    cut = branch_windows(MULTITALK, counted(16), 0, 5)
    assert cut.shape == (5, 8, 4)
    assert (cut[0, :3, :3] == 0).all()
    assert heard(cut[1:]) == [[0, *range(7)], list(range(3, 11)), [*range(7, 15)], [11, 12, 13, 14, 15, 15, 15, 15]]
    assert heard(cut[:1]) == [[0, 0, 0, 1, 2]]
    assert cut[..., -1].tolist() == [[1.0] * 8, *[[0.0] * 8] * 4]


def multitalk_by_parts(rows: Tensor, latents: int) -> list[Tensor]:
    """The authors' way: five rows around every frame, then halves and centres of them for each latent."""
    frames = 4 * (latents - 1) + 1
    around = torch.arange(frames)[:, None] + torch.arange(-2, 3)
    per_frame = rows[around.clamp(0, len(rows) - 1)]  # (frames, 5, A)
    parts = [per_frame[0]]
    for group in per_frame[1:].unflatten(0, (-1, 4)):
        middle = [group[i, 2:3] for i in (1, 2)]
        parts.append(torch.cat([group[0, :3], *middle, group[3, 2:]]))
    return parts


def test_multitalk_hears_what_the_authors_put_together() -> None:
    rows = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    cut = branch_windows(MULTITALK, AudioFeatures(rows, 25.0), 0, 9)[..., :3]
    parts = multitalk_by_parts(rows, 9)
    assert torch.equal(cut[0, 3:], parts[0])
    assert torch.equal(cut[1:], torch.stack(parts[1:]))


def test_humo_hears_the_table_behind_zeros() -> None:
    cut = branch_windows(HUMO, counted(12), 0, 4)
    assert (cut[..., 0] - 1).tolist() == [
        [-1, -1, -1, -1, -1, 0, 1, 2], [-1, 0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9, 10],
        [7, 8, 9, 10, 11, -1, -1, -1],
    ]  # fmt: skip


def test_silence_has_the_shape_of_sound_and_keeps_the_first_latents_mark() -> None:
    for branch, rate in ((ROWS, 50.0), (MULTITALK, None), (HUMO, None)):
        for start in (0, 3):
            cut, silent = (
                branch_windows(branch, counted(50, 24.0, rate), start, 4), silent_windows(branch, 24.0, start, 4)
            )  # fmt: skip
            assert silent.shape == cut.shape
            assert (silent[..., :3] == 0).all()
            assert torch.equal(silent[..., 3:], cut[..., 3:])


@pytest.mark.parametrize(
    ("branch", "features", "message"),
    [
        (ROWS, counted(9), "one row for each frame"),
        (HUMO, counted(9, rate=50.0), "50 rows a second"),
        (HUMO, AudioFeatures(torch.zeros(9, 4), 25.0), "4 numbers a row"),
        (MULTITALK, AudioFeatures(torch.zeros(0, 3), 25.0), "1 frame or more"),
    ],
)
def test_features_of_another_extractor_are_refused(branch: AudioConfig, features: AudioFeatures, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        branch_windows(branch, features, 0, 2)
