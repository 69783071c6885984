"""What is drawn for a batch: which clip next, and which of its character's pictures go with it. Paper: 4.1, 7.2."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..anchors.superset import draw_anchor_frame
from ..types import AnchorRole
from .anchor_pool import Slot
from .prepared import ELSEWHERE, PreparedAnchor

VIEW_SHARES: Mapping[str, float] = {"front": 29.6, "back": 17.3, "left": 27.9, "right": 25.2}
"""How often each view is learned from, in percent. Paper: table 5."""
EXPRESSION_SHARES: Mapping[str, float] = {
    "surprise": 15.0, "angry": 8.2, "disgust": 13.7, "fear": 10.1, "contempt": 13.6, "neutral": 8.1, "happy": 14.6,
    "sad": 16.7,
}  # fmt: skip
"""How often each expression is learned from, in percent. Paper: table 6."""
SHARES: Mapping[AnchorRole, Mapping[str, float]] = {
    AnchorRole.VIEW: VIEW_SHARES,
    AnchorRole.EXPRESSION: EXPRESSION_SHARES,
}


def uniform(generator: torch.Generator) -> float:
    """Draw a number from 0 to below 1."""
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def pick(weights: Sequence[float], generator: torch.Generator) -> int:
    """Draw an index in proportion to weights of which at least one is above 0."""
    return pick_from(torch.tensor(weights, dtype=torch.float64).cumsum(0), generator)


def pick_from(sums: Tensor, generator: torch.Generator) -> int:
    """Draw an index in proportion to weights of which the running sums (n,) are given, float64."""
    place = torch.searchsorted(sums, uniform(generator) * float(sums[-1]), right=True)
    return min(int(place), len(sums) - 1)


def draw_slot(present: Iterable[Slot], roles: Sequence[AnchorRole], generator: torch.Generator) -> Slot | None:
    """Draw the slot that a batch is to teach: a view or an expression equally often, then by the paper's shares.

    Args:
        present: slots that some clip has a picture for.
        roles: those to choose from.
        generator: the source of randomness.

    Returns:
        The slot; None where there is none of these roles.
    """
    there = set(present)
    chosen = [role for role in roles if role in SHARES and any(slot[0] == role for slot in there)]
    if not chosen:
        return None
    role = chosen[pick([1.0] * len(chosen), generator)]
    slots = [slot for slot in SHARES[role] if (role, slot) in there]
    return role, slots[pick([SHARES[role][slot] for slot in slots], generator)]


def draw_anchor(
    anchors: Sequence[PreparedAnchor],
    window: range,
    num_source_frames: int,
    outside: float,
    min_gap: int,
    generator: torch.Generator,
) -> tuple[PreparedAnchor, bool]:
    """Draw one of the pictures of a slot (superset content anchoring).

    Args:
        anchors: the slot's pictures, at least one.
        window: frames of the source video that are trained on.
        num_source_frames: of the whole source video.
        outside: 0..1, how often a picture from outside of the window is taken where there is one.
        min_gap: frames that lie between the window and a picture from outside, where such a picture is there.
        generator: the source of randomness.

    Returns:
        The picture, and whether it is from outside of the window. One whose frame is not known counts as such.
    """
    end = max(num_source_frames, window.stop, *(anchor.frame + 1 for anchor in anchors))
    by_frame = {end + index if a.frame == ELSEWHERE else a.frame: a for index, a in enumerate(anchors)}
    near = range(max(0, window.start - min_gap), window.stop + min_gap)
    fit = [frame for frame in by_frame if frame in window or frame not in near] or list(by_frame)
    drawn = draw_anchor_frame(end + len(anchors), window, outside, generator, candidates=fit)
    return by_frame[drawn.frame], drawn.is_outside
