"""What each latent frame hears: a window of feature rows around the pixel frames that it decodes to.

Windows stand on the clock of the whole video, so a chunk hears what the video hears there. Three rules (peers.md,
section B) belong to the audio branches' projections:

- ``gloria`` and ``humo``: latent i hears pixel frames 4i-5 .. 4i+2; frames outside the video are padding.
- ``multitalk``: the same frames, the ends of the sound repeated beyond it, and a mark on the first latent.
- ``fantasytalking``: the encoder's own rows, as many as the frame rate asks for; beyond the sound are rows of zeros.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from ..config import MULTITALK_FIRST, AudioConfig
from ..errors import AudioError
from ..types import AudioFeatures

WINDOW = 8
"""Pixel frames in a window: the four that a latent decodes to, with context."""
_STRIDE = 4
_FIRST = -5
_MARGIN = 4
"""Rows that FantasyTalking adds at each side of a range."""
WAV2VEC_RATE = 50.0
"""Rows a second of wav2vec 2.0."""


def windows(features: AudioFeatures, start_latent: int, num_latents: int) -> Tensor:
    """Cut Gloria's windows for a run of latents, at their absolute places in the whole video.

    Latent i >= 1 decodes to pixel frames 4i-3 .. 4i and hears 4i-5 .. 4i+2; latent 0 decodes to frame 0 and hears
    -2 .. 2, with padding in the slots before. Frames outside the video are the
    features' ``padding`` row, or zeros.
    Paper: 4.2; the sizes are ours.

    Args:
        features: rows (F, A) of the whole video.
        start_latent: absolute index of the first latent.
        num_latents: latents T.

    Returns:
        (T, 8, A), on the features' device and in their dtype.

    Raises:
        AudioError: a negative index, no latents, or features that are not rows of pixel frames.
    """
    rows = _rows(features, start_latent, num_latents)
    if features.rows_per_second is not None:
        raise AudioError(
            f"The sound was encoded to {features.rows_per_second:g} rows a second for another kind of audio branch; "
            "encode it again with the model that is to hear it."
        )
    padding = rows.new_zeros(rows.shape[1]) if features.padding is None else features.padding.to(rows)
    frames = _frames(start_latent, num_latents, rows.device)
    inside = (frames >= 0) & (frames < rows.shape[0])
    return torch.where(inside[..., None], rows[frames.clamp(0, rows.shape[0] - 1)], padding)  # (T, 8, A)


def branch_windows(audio: AudioConfig, features: AudioFeatures, start_latent: int, num_latents: int) -> Tensor:
    """Cut the windows that an audio branch was trained with; see the module's docstring for the rules.

    Args:
        audio: the branch.
        features: of the whole video, from the branch's own extractor.
        start_latent: absolute index of the first latent.
        num_latents: latents T.

    Returns:
        (T, W, window_dim), on the features' device and in their dtype.

    Raises:
        AudioError: the features are of another extractor, the index is negative, or there are no latents.
    """
    if features.frames.ndim == 2 and features.frames.shape[1] != audio.feature_dim:
        raise AudioError(
            f"The sound was encoded to {features.frames.shape[1]} numbers a row; this model hears {audio.feature_dim} "
            f"({audio.kind}): connect the model to the Audio Encoder, with the encoder that the model needs."
        )
    if audio.projection == "fantasytalking":
        return _row_windows(features, start_latent, num_latents)
    if audio.projection == "multitalk":
        return _marked_windows(features, start_latent, num_latents)
    return windows(features, start_latent, num_latents)


def silent_windows(audio: AudioConfig, fps: float, start_latent: int, num_latents: int) -> Tensor:
    """Return the windows (T, W, window_dim) that stand for "no sound", as a branch was trained: zeros.

    FantasyTalking leaves its branch out, which zeros do. MultiTalk and HuMo project zeros like any window. Gloria's
    training drops sound so.

    Args:
        audio: the branch.
        fps: frame rate of the video.
        start_latent: absolute index of the first latent.
        num_latents: latents T.
    """
    width = row_window_length(fps) if audio.projection == "fantasytalking" else audio.window
    silence = torch.zeros(num_latents, width, audio.window_dim)
    if audio.projection == "multitalk":
        silence[..., -1] = _marks(start_latent, num_latents, silence)
    return silence


def row_range(latent: int, rows_per_frame: Fraction) -> tuple[int, int]:
    """Return the first and the last row, both included, that FantasyTalking lets a latent hear.

    The authors cut single clips of L rows and F frames with p = L / F rows a frame: the centre of latent i >= 1 is
    floor(p (4i - 1)) - 1, with h = floor(2p) rows at each side; latent 0 hears the 2h + 1 rows that end where latent 1
    begins; and four rows are added at each side. On the clock of a whole video p is the encoder's rate over the frame
    rate. A clip's L is always a little below that (the encoder's field of view is cut off at the end), so wherever the
    product is a whole number the clip's is just below it: hence the greatest integer *below*, in place of floor.

    Args:
        latent: index in the whole video.
        rows_per_frame: p.
    """
    half = _below(2 * rows_per_frame)
    centre = _below(rows_per_frame * (_STRIDE * max(latent, 1) - 1)) - 1
    first, last = centre - half, centre + half
    if latent == 0:
        first, last = first - 2 * half, first
    return first - _MARGIN, last + _MARGIN


def row_window_length(fps: float) -> int:
    """Return how many rows W FantasyTalking's windows have at a frame rate."""
    first, last = row_range(1, _rows_per_frame(WAV2VEC_RATE, fps))
    return last - first + 1


def _below(value: Fraction) -> int:
    return math.ceil(value) - 1


def _rows_per_frame(rate: float, fps: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001) / Fraction(fps).limit_denominator(1001)


def _row_windows(features: AudioFeatures, start_latent: int, num_latents: int) -> Tensor:
    """Cut FantasyTalking's windows; rows beyond the sound are zeros, and every row stays in its place.

    The authors move the rows inside the sound to the front, which attention without positions cannot tell.
    """
    rows = _rows(features, start_latent, num_latents)
    if features.rows_per_second is None:
        raise AudioError(
            "The sound was encoded to one row for each frame for another kind of audio branch; encode it again with "
            "the model that is to hear it."
        )
    ratio = _rows_per_frame(features.rows_per_second, features.fps)
    ranges = [row_range(latent, ratio) for latent in range(start_latent, start_latent + num_latents)]
    places = torch.tensor([list(range(first, last + 1)) for first, last in ranges], device=rows.device)  # (T, W)
    inside = (places >= 0) & (places < rows.shape[0])
    return rows[places.clamp(0, rows.shape[0] - 1)] * inside[..., None].to(rows)


def _marked_windows(features: AudioFeatures, start_latent: int, num_latents: int) -> Tensor:
    """Cut MultiTalk's windows; the video's first latent hears its last five rows alone, those before are zeros."""
    rows = _rows(features, start_latent, num_latents)
    frames = _frames(start_latent, num_latents, rows.device)
    cut = rows[frames.clamp(0, rows.shape[0] - 1)]  # (T, 8, A)
    marks = _marks(start_latent, num_latents, cut)  # (T, 1)
    before = torch.arange(WINDOW, device=rows.device) < WINDOW - MULTITALK_FIRST
    cut = torch.where((before & (marks != 0))[..., None], torch.zeros_like(cut), cut)
    return torch.cat([cut, marks[..., None].expand(-1, WINDOW, 1)], dim=2)  # (T, 8, A + 1)


def _marks(start_latent: int, num_latents: int, like: Tensor) -> Tensor:
    """Return (T, 1): 1 for the video's first latent, 0 for the others."""
    latents = torch.arange(start_latent, start_latent + num_latents, device=like.device)
    return (latents == 0).to(like)[:, None]


def _frames(start_latent: int, num_latents: int, device: torch.device) -> Tensor:
    """Return the pixel frames (T, 8) that latents hear, whether they exist or not."""
    latents = torch.arange(start_latent, start_latent + num_latents, device=device)
    return latents[:, None] * _STRIDE + _FIRST + torch.arange(WINDOW, device=device)


def _rows(features: AudioFeatures, start_latent: int, num_latents: int) -> Tensor:
    rows = features.frames
    if rows.ndim != 2 or rows.shape[0] == 0:
        raise AudioError(
            f"The audio features have the shape {tuple(rows.shape)}; give (frames, features), 1 frame or more."
        )
    if start_latent < 0 or num_latents < 1:
        raise AudioError(
            f"There are no windows for {num_latents} latents from {start_latent} on; count from 0, take 1 or more."
        )
    return rows
