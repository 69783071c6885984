"""Which windows make a batch: clips of one size and length, drawn as the options say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import torch

from ..errors import DatasetError
from ..sampling.chunks import frames_of
from ..types import AnchorRole
from .balance import Slot, draw_slot, pick, slots_of, uniform
from .options import FootageOptions
from .prepared import ELSEWHERE, PreparedAnchor, PreparedClip, PreparedPiece

Size = tuple[int, int, int]
"""Height, width and length in latents."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A piece of a clip, and how many of its latents are used at once."""

    clip: PreparedClip
    piece: PreparedPiece
    length: int

    @property
    def size(self) -> Size:
        """Height, width and length in latents."""
        return self.piece.height, self.piece.width, self.length

    def offsets(self, prefix: int) -> list[int]:
        """Return where windows with a prefix can begin: where one prompt holds for all that is generated, or at all."""
        possible = list(range(1, self.piece.num_latents - self.length + 1))
        return [offset for offset in possible if self._is_pure(offset, offset + prefix)] or possible

    @property
    def starts_pure(self) -> bool:
        """Whether one prompt holds for all of the window that the piece begins with."""
        return self._is_pure(0, 0)

    def _is_pure(self, offset: int, first: int) -> bool:
        """Tell whether one prompt holds from latent ``first`` to the end of a window."""
        made = frames_of(range(first, offset + self.length))
        changes = (prompt.frame - self.piece.start for prompt in self.clip.prompts[1:])
        return not any(made.start < change < made.stop for change in changes)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Latents of a piece that are trained on at once."""

    place: Place
    offset: int

    @property
    def latents(self) -> range:
        """The latents, in the piece."""
        return range(self.offset, self.offset + self.place.length)

    @property
    def frames(self) -> range:
        """The frames that they stand for, in the source video."""
        inside = frames_of(self.latents)
        return range(self.place.piece.start + inside.start, self.place.piece.start + inside.stop)

    def text_key(self, prefix: int) -> str:
        """Return the text that holds for most of what is generated behind a prefix."""
        made = range(self.frames.start + len(frames_of(range(self.offset, self.offset + prefix))), self.frames.stop)
        prompts = self.place.clip.prompts
        ends = [*(prompt.frame for prompt in prompts[1:]), made.stop]
        starts = [made.start, *(prompt.frame for prompt in prompts[1:])]
        shared = [min(end, made.stop) - max(start, made.start) for start, end in zip(starts, ends, strict=True)]
        return prompts[shared.index(max(shared))].text_key


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What a batch is made of."""

    windows: tuple[Window, ...]
    num_prefix: int
    slot: Slot | None
    """The slot that the batch is to teach."""
    is_regularisation: bool


class Sampler:
    """Draws batches from some clips.

    Args:
        clips: those that may be drawn.
        lengths: of windows in latents, longest first.
        options: the task's.

    Raises:
        DatasetError: no clip is as long as the shortest window, or none has a weight above 0.
    """

    def __init__(self, clips: Iterable[PreparedClip], lengths: Sequence[int], options: FootageOptions) -> None:
        self.options = options
        self.too_short: list[str] = []
        self._main: list[Place] = []
        self._regularisation: list[Place] = []
        for clip in clips:
            places = [place for piece in clip.pieces if (place := _placed(clip, piece, lengths)) is not None]
            (self._regularisation if clip.regularisation else self._main).extend(places if clip.weight > 0 else ())
            if not places:
                self.too_short.append(clip.id)
        if not self._main and not self._regularisation:
            raise DatasetError(
                f"No clip can be trained on: none has {4 * (lengths[-1] - 1) + 1} frames after preparing and a weight "
                f"above 0 (too short: {', '.join(self.too_short[:5]) or 'none'}). Use longer clips or shorter 'frames'."
            )

    def draw(self, generator: torch.Generator) -> Drawn:
        """Draw a batch."""
        options = self.options
        wants = uniform(generator) < options.regularisation
        is_regularisation = bool(self._regularisation) and (wants or not self._main)
        places = self._regularisation if is_regularisation else self._main
        slot = None
        if options.balance == "category":
            places = _of_one_category(places, generator)
        elif options.balance == "anchors":
            roles = [AnchorRole(role) for role in options.roles]
            slot = draw_slot({slot for place in places for slot in slots_of(place.clip)}, roles, generator)
            places = [place for place in places if slot is None or slot in slots_of(place.clip)]
        going = [place for place in places if _can_go_on(place, options.prefix_latents)]
        goes_on = uniform(generator) < options.prefix and bool(going)
        places = going if goes_on else [place for place in places if place.starts_pure] or places
        lead = places[_pick(places, generator)]
        fitting = [place for place in places if place.size == lead.size]
        chosen = [lead, *_draw_others(fitting, lead, options.batch_size - 1, generator)]
        prefix = options.prefix_latents if goes_on else int(uniform(generator) < options.start_image)
        prefix = prefix if prefix < lead.length else 0
        windows = tuple(Window(place, _offset(place, prefix, generator) if goes_on else 0) for place in chosen)
        return Drawn(windows, prefix, slot, is_regularisation)


def _placed(clip: PreparedClip, piece: PreparedPiece, lengths: Sequence[int]) -> Place | None:
    length = next((length for length in lengths if length <= piece.num_latents), None)
    return None if length is None else Place(clip, piece, length)


def _can_go_on(place: Place, prefix: int) -> bool:
    return place.piece.num_latents > place.length > prefix


def _offset(place: Place, prefix: int, generator: torch.Generator) -> int:
    offsets = place.offsets(prefix)
    return offsets[pick([1.0] * len(offsets), generator)]


def _pick(places: Sequence[Place], generator: torch.Generator) -> int:
    return pick([place.clip.weight * place.piece.num_latents for place in places], generator)


def _of_one_category(places: Sequence[Place], generator: torch.Generator) -> list[Place]:
    categories = sorted({place.clip.category for place in places})
    chosen = categories[pick([1.0] * len(categories), generator)]
    return [place for place in places if place.clip.category == chosen]


def _draw_others(places: Sequence[Place], lead: Place, count: int, generator: torch.Generator) -> list[Place]:
    """Draw more places beside the first; none twice before all were drawn."""
    chosen: list[Place] = []
    left = [place for place in places if place is not lead]
    while len(chosen) < count:
        left = left or list(places)
        chosen.append(left.pop(_pick(left, generator)))
    return chosen


def with_lent_anchors(clips: Iterable[PreparedClip]) -> list[PreparedClip]:
    """Return clips that have the views and expressions of all clips of their character.

    The global anchor is not lent: it shows the scene too.
    """
    clips = list(clips)
    pools: dict[str, dict[str, PreparedAnchor]] = {}
    for clip in clips:
        pool = pools.setdefault(clip.character, {})
        pool.update({a.key: replace(a, frame=ELSEWHERE) for a in clip.anchors if a.role != AnchorRole.GLOBAL})
    lent = []
    for clip in clips:
        own = {anchor.key for anchor in clip.anchors}
        more = [anchor for key, anchor in pools[clip.character].items() if clip.character and key not in own]
        lent.append(replace(clip, anchors=(*clip.anchors, *more)))
    return lent


def held_out_ids(clips: Sequence[PreparedClip], share: float, named: Sequence[str]) -> frozenset[str]:
    """Return the ids of the clips that are not trained on.

    By a share they are chosen by their ids alone, so that more clips never bring one of them into the training.

    Raises:
        DatasetError: a named one does not exist.
    """
    ids = [clip.id for clip in clips if not clip.regularisation]
    unknown = [name for name in named if name not in ids]
    if unknown:
        raise DatasetError(f"held_out_ids names {unknown[0]!r}, which is no clip of the dataset; check the id.")
    if named:
        return frozenset(named)
    count = max(round(share * len(ids)), 1) if share > 0 and len(ids) >= _ENOUGH else 0
    return frozenset(sorted(ids, key=lambda name: blake2b(name.encode()).digest())[:count])


_ENOUGH = 4
"""Clips from which on one is held out."""


def common_sizes(anchors: Sequence[Sequence[PreparedAnchor]]) -> list[tuple[int, int]]:
    """Return the sizes (height, width) in which all of several clips have pictures of a slot, largest first."""
    counts = Counter(size for own in anchors for size in {(anchor.height, anchor.width) for anchor in own})
    common = [size for size, count in counts.items() if count == len(anchors)]
    return sorted(common, key=lambda size: (-size[0] * size[1], size))
