"""A loss that counts the face more: where it is, latent by latent."""

from bisect import bisect_left

import torch
from torch import Tensor

from ..sampling.chunks import frames_of
from .pictures import Fit
from .prepared import PreparedClip, PreparedPiece


def loss_weight(
    clip: PreparedClip, piece: PreparedPiece, latents: range, face: float, mask: Tensor | None = None
) -> Tensor:
    """Return how much each latent of a window counts.

    Args:
        clip: its faces.
        piece: which the window is of.
        latents: the window, in the piece.
        face: weight of the face; all else has 1 before the mean is brought to 1.
        mask: how much of each latent (h, w) is face, 0..1, in place of boxes.

    Returns:
        (1, T, h, w) with a mean of 1.
    """
    inside = torch.zeros(len(latents), piece.height, piece.width)
    if mask is not None:
        inside[:] = mask
    elif clip.faces:
        fit = Fit(piece.box, piece.width, piece.height)
        for index, latent in enumerate(latents):
            shown = frames_of(range(latent, latent + 1))
            inside[index] = _box_share(_face_at(clip, piece.start + shown.start + len(shown) // 2), fit)
    weight = 1 + (face - 1) * inside
    return (weight / weight.mean())[None]


def _face_at(clip: PreparedClip, frame: int) -> tuple[int, int, int, int]:
    """Return the box whose frame is nearest."""
    frames = [face.frame for face in clip.faces]
    after = min(bisect_left(frames, frame), len(frames) - 1)
    before = max(after - 1, 0)
    return clip.faces[before if frame - frames[before] <= frames[after] - frame else after].box


def _box_share(box: tuple[int, int, int, int], fit: Fit) -> Tensor:
    """Return which share of each latent a box covers (h, w)."""
    left, top, right, bottom = fit.place((box[0], box[1], box[0] + box[2], box[1] + box[3]))
    across = _overlap(left * fit.width, right * fit.width, fit.width)
    down = _overlap(top * fit.height, bottom * fit.height, fit.height)
    return down[:, None] * across[None]


def _overlap(start: float, stop: float, count: int) -> Tensor:
    cells = torch.arange(count, dtype=torch.float32)
    return ((cells + 1).clamp(max=stop) - cells.clamp(min=start)).clamp(min=0)
