"""How a long video is cut into chunks: integers only, no tensors.

A causal video codec makes latent 0 from pixel frame 0, and latent i >= 1 from the frames 4i - 3 .. 4i. A chunk is what
the network makes at once. Each chunk but the first begins with the last latents of the one before (its prefix):

    chunk 0  [ 0 ............. 8 ]
    chunk 1            [ 5 6 7 8 | 9 ........ 13 ]
    chunk 2                           [ 10 .. 13 | 14 ........ 18 ]
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PlanError

STRIDE = 4
"""Pixel frames in each latent frame after the first, for every supported codec. Source: spec.md, axes."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a long video. All ranges are half-open and count from the start of the whole video."""

    index: int
    latents: range
    """Latent frames that the network works on, its prefix among them."""
    num_prefix: int
    """Latent frames at the start that the chunk before has made already; 0 in the first chunk."""
    frames: range
    """Pixel frames that this chunk adds to the video; in the last chunk cut at the video's end."""

    @property
    def new_latents(self) -> range:
        """The latent frames that this chunk makes, also those beyond the video's end."""
        return self.latents[self.num_prefix :]

    @property
    def num_latents(self) -> int:
        """Length T of the chunk, the prefix included."""
        return len(self.latents)


def frames_of(latents: range) -> range:
    """Return the pixel frames that a range of latent frames decodes to."""
    return range(_first_frame(latents.start), _first_frame(latents.stop))


def num_latents_for(num_frames: int) -> int:
    """Return the smallest number of latent frames that decode to at least ``num_frames`` pixel frames."""
    return -(-(num_frames - 1) // STRIDE) + 1


def num_frames_for(seconds: float, fps: float) -> int:
    """Return the number of pixel frames nearest to a duration; PlanError where there is none."""
    _check_fps(fps)
    if not (math.isfinite(seconds) and seconds > 0):
        raise PlanError(f"The video's length is {seconds} s; it must be longer than 0 s.")
    num_frames = math.floor(seconds * fps + 0.5)
    if num_frames < 1:
        raise PlanError(
            f"A video of {seconds} s has no frame at {fps} frames a second; make it at least {1 / fps:.3g} s long."
        )
    return num_frames


def check_spacing(chunk_latents: int, anchor_spacing: int) -> None:
    """Refuse chunks longer than the distance between two anchors' positions, in latent frames.

    The network tells anchors apart by their distance in time to the video's frames alone; in a longer chunk two anchors
    would stand at the same distance. Raises PlanError. Source: spec.md, content anchors, row "position".
    """
    if chunk_latents > anchor_spacing:
        longest = frames_of(range(anchor_spacing)).stop
        raise PlanError(
            f"A chunk of {chunk_latents} latent frames ({frames_of(range(chunk_latents)).stop} pictures) is too long: "
            f"this model's anchors stand {anchor_spacing} positions apart, and a longer chunk would confuse them. "
            f"Use chunks of at most {anchor_spacing} latent frames ({longest} pictures)."
        )


def plan(
    num_frames: int,
    chunk_latents: int,
    prefix_latents: int = 4,
    *,
    anchor_spacing: int | None = None,
    ends_with_video: bool = False,
) -> tuple[Chunk, ...]:
    """Cut a video into chunks of equal length that overlap by a prefix.

    The last chunk has the full length too, because that is what the network was trained on; its surplus frames are cut.
    Where the network is given the video's last picture that cannot be: the picture must stand at the chunk's end. With
    ``ends_with_video`` the last chunk reaches further back instead, over a longer prefix, and ends with the video:

        chunk 0  [ 0 ............. 8 ]
        chunk 1              [ 6 7 8 | 9 ..... 14 ]     a video of 15 latents; with a prefix of 2 it would be 7 .. 15

    Args:
        num_frames: pixel frames of the video, at least 1.
        chunk_latents: latent frames of a chunk, its prefix included; more than ``prefix_latents``.
        prefix_latents: latent frames that a chunk shares with the one before, at least 1.
        anchor_spacing: the model's smallest distance between two anchors (``AnchorConfig.smallest_spacing``), to refuse
            chunks that are too long for it (see `check_spacing`).
        ends_with_video: whether the last chunk ends with the video's last frame. A video of one chunk is then as short
            as it needs to be.

    Returns:
        The chunks in order. Their ``frames`` are contiguous and add up to exactly [0, num_frames).

    Raises:
        PlanError: an argument breaks its rule.

    Paper: 4.3.
    """
    if num_frames < 1:
        raise PlanError(f"The video has {num_frames} frames; it needs at least 1.")
    if prefix_latents < 1:
        raise PlanError(f"The prefix is {prefix_latents} latent frames; chunks are joined by at least 1 (usually 4).")
    if chunk_latents <= prefix_latents:
        raise PlanError(
            f"A chunk of {chunk_latents} latent frames has no room beside its prefix of {prefix_latents}; use chunks "
            f"of at least {prefix_latents + 1}, better {4 * prefix_latents} or more."
        )
    if anchor_spacing is not None:
        check_spacing(chunk_latents, anchor_spacing)
    num_latents = num_latents_for(num_frames)
    num_new = chunk_latents - prefix_latents
    num_chunks = 1 + -(-max(0, num_latents - chunk_latents) // num_new)
    starts = [index * num_new for index in range(num_chunks)]
    if ends_with_video:
        if frames_of(range(num_latents)).stop != num_frames:
            raise PlanError(
                f"The video has {num_frames} frames; to end with a given picture it needs 4k+1: use "
                f"{frames_of(range(num_latents - 1)).stop} or {frames_of(range(num_latents)).stop}."
            )
        starts[-1] = max(0, num_latents - chunk_latents)
        chunk_latents = min(chunk_latents, num_latents)
    stops = [start + chunk_latents for start in starts]
    return tuple(
        _chunk(index, range(start, start + chunk_latents), stops[index - 1] - start if index else 0, num_frames)
        for index, start in enumerate(starts)
    )


def boundaries_s(chunks: Sequence[Chunk], fps: float) -> tuple[float, ...]:
    """Return the second at which each chunk begins to show, and at the end the second at which the video ends."""
    _check_fps(fps)
    return (*(chunk.frames.start / fps for chunk in chunks), chunks[-1].frames.stop / fps)


def chunk_at(chunks: Sequence[Chunk], seconds: float, fps: float) -> Chunk:
    """Return the chunk that makes the picture shown at a time; PlanError where the time is outside of the video."""
    end_s = boundaries_s(chunks, fps)[-1]
    if not 0 <= seconds < end_s:
        raise PlanError(f"There is no picture at {seconds:g} s; the video goes from 0 s to {end_s:g} s.")
    frame = min(math.floor(seconds * fps + 1e-6), chunks[-1].frames.stop - 1)
    return chunks[bisect_right(chunks, frame, key=lambda chunk: chunk.frames.start) - 1]


def _chunk(index: int, latents: range, num_prefix: int, num_frames: int) -> Chunk:
    shown = frames_of(latents[num_prefix:])
    return Chunk(index, latents, num_prefix, range(shown.start, min(shown.stop, num_frames)))


def _first_frame(latent: int) -> int:
    return max(0, STRIDE * (latent - 1) + 1)


def _check_fps(fps: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise PlanError(f"The frame rate is {fps}; it must be above 0 (16, 24 and 25 are usual).")
