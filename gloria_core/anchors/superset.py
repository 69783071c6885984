"""Superset Content Anchoring: a training clip's anchors come from the whole source video. Paper: 4.4.

An anchor from inside the clip can be copied into it; one from outside has to be understood.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..errors import ConfigError


@dataclass(frozen=True, slots=True)
class AnchorFrame:
    """The source frame that an anchor is taken from."""

    frame: int
    is_outside: bool
    """Whether the frame lies outside of the training clip."""


def draw_anchor_frame(
    num_source_frames: int,
    clip: range,
    outside_probability: float,
    generator: torch.Generator,
    *,
    candidates: Iterable[int] | None = None,
) -> AnchorFrame:
    """Draw the frame that one anchor of a training clip is taken from.

    Where one of the two sides has no frame (the clip is the whole video, or no candidate lies there) the other is
    taken; ``is_outside`` tells what was drawn, not what was wished for.

    Args:
        num_source_frames: pixel frames of the source video.
        clip: the training clip's frames, a non-empty part of the source's.
        outside_probability: 0..1, how often the frame comes from outside of the clip.
        generator: the source of randomness; two numbers are taken from it in every case, so that no setting changes
            the draws that follow.
        candidates: the frames that show what the anchor is for (a view, an expression); None means all frames.

    Raises:
        ConfigError: an argument breaks its rule, or no candidate is left.
    """
    if not 0.0 <= outside_probability <= 1.0:
        raise ConfigError(
            f"The probability of anchors from outside the clip is {outside_probability}; it must be in 0..1."
        )
    if clip.step != 1 or not clip or clip.start < 0 or clip.stop > num_source_frames:
        raise ConfigError(
            f"The clip is frames {clip.start}..{clip.stop} (end not included) of a video of {num_source_frames}; it "
            "must be a non-empty part of it."
        )
    wish, place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    inside, outside = _sides(num_source_frames, clip, candidates)
    is_outside = bool(outside) and (wish < outside_probability or not inside)
    frames = outside if is_outside else inside
    if not frames:
        raise ConfigError("There is no frame to take the anchor from; give at least one candidate inside of the video.")
    return AnchorFrame(frames[int(place * len(frames))], is_outside)


def _sides(num_source_frames: int, clip: range, candidates: Iterable[int] | None) -> tuple[list[int], list[int]]:
    if candidates is None:
        return [*clip], [*range(clip.start), *range(clip.stop, num_source_frames)]
    known = sorted({frame for frame in candidates if 0 <= frame < num_source_frames})
    return [f for f in known if f in clip], [f for f in known if f not in clip]
