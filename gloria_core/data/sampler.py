"""Which windows make a batch: clips of one size and length, drawn as the options say."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch

from ..errors import DatasetError
from ..sampling.chunks import frames_of
from ..types import AnchorRole
from .anchor_pool import AnchorPool, Slot
from .balance import draw_slot, pick, pick_from, uniform
from .options import FootageOptions
from .prepared import PreparedAnchor, PreparedClip, PreparedPiece

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
        every = range(1, self.piece.num_latents - self.length + 1)
        shown = {opening.offset for opening in self.piece.openings} or every
        possible = [offset for offset in every if offset in shown]
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
    """Draws batches from some clips; what a draw takes does not grow with their number.

    Args:
        clips: those that may be drawn.
        lengths: of windows in latents, longest first.
        options: the task's.
        pool: the pictures that clips can be given.

    Raises:
        DatasetError: no clip is as long as the shortest window, or none has a weight above 0.
    """

    def __init__(
        self, clips: Iterable[PreparedClip], lengths: Sequence[int], options: FootageOptions, pool: AnchorPool
    ) -> None:
        self.options = options
        self.too_short: list[str] = []
        main, other = list[Place](), list[Place]()
        for clip in clips:
            places = [place for piece in clip.pieces if (place := _placed(clip, piece, lengths)) is not None]
            (other if clip.regularisation else main).extend(places if clip.weight > 0 else ())
            if not places:
                self.too_short.append(clip.id)
        if not main and not other:
            raise DatasetError(
                f"No clip can be trained on: none has {4 * (lengths[-1] - 1) + 1} frames after preparing and a weight "
                f"above 0 (too short: {', '.join(self.too_short[:5]) or 'none'}). Use longer clips or shorter 'frames'."
            )
        self._main = _sorted(main, options, pool)
        self._regularisation = _sorted(other, options, pool)

    def draw(self, generator: torch.Generator) -> Drawn:
        """Draw a batch."""
        options = self.options
        wants = uniform(generator) < options.regularisation
        is_regularisation = bool(self._regularisation) and (wants or not self._main)
        shelves = self._regularisation if is_regularisation else self._main
        slot, shelf = _choose(shelves, options, generator)
        goes_on = uniform(generator) < options.prefix and bool(shelf.going.places)
        group = shelf.going if goes_on else shelf.starting
        lead = group.places[group.pick(generator)]
        chosen = [lead, *group.alike(lead.size).others(lead, options.batch_size - 1, generator)]
        prefix = options.prefix_latents if goes_on else int(uniform(generator) < options.start_image)
        prefix = prefix if prefix < lead.length else 0
        windows = tuple(Window(place, _offset(place, prefix, generator) if goes_on else 0) for place in chosen)
        return Drawn(windows, prefix, slot, is_regularisation)

    def beginnings(self, count: int) -> list[Window]:
        """Return the first window of each of the first clips; of regularisation clips only where there are no others.

        Args:
            count: of clips; there may be fewer.
        """
        shelf = (self._main or self._regularisation)[None]
        first: dict[str, Place] = {}
        for place in shelf.starting.places:
            first.setdefault(place.clip.id, place)
        return [Window(place, 0) for place in list(first.values())[:count]]


class _Group:
    """Places that are drawn by their weights and lengths."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        weights = [place.clip.weight * place.piece.num_latents for place in places]
        self._sums = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        self._by_size: dict[Size, _Group] = {}

    def pick(self, generator: torch.Generator) -> int:
        """Draw the index of a place."""
        return pick_from(self._sums, generator)

    def alike(self, size: Size) -> "_Group":
        """Return the places of one size and length."""
        if size not in self._by_size:
            self._by_size[size] = _Group([place for place in self.places if place.size == size])
        return self._by_size[size]

    def others(self, lead: Place, count: int, generator: torch.Generator) -> list[Place]:
        """Draw more places beside a first one; none twice before all were drawn."""
        chosen: list[Place] = []
        used = {lead}
        while len(chosen) < count:
            used = used if len(used) < len(self.places) else set()
            place = self._unused(used, generator)
            chosen.append(place)
            used.add(place)
        return chosen

    def _unused(self, used: Container[Place], generator: torch.Generator) -> Place:
        for _ in range(_TRIES):
            place = self.places[self.pick(generator)]
            if place not in used:
                return place
        left = _Group([place for place in self.places if place not in used])
        return left.places[left.pick(generator)]


_TRIES = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Shelf:
    """Places by what a window needs of them."""

    going: _Group
    """Those that a window can go on in."""
    starting: _Group
    """Those that begin where one prompt holds; all where none does."""


_Shelves = Mapping[Slot | str | None, _Shelf]
"""Shelves by slot or category; None for all places."""


def _sorted(places: Sequence[Place], options: FootageOptions, pool: AnchorPool) -> _Shelves:
    sorts: dict[Slot | str | None, list[Place]] = {None: list(places)} if places else {}
    for place in places:
        if options.balance == "category":
            sorts.setdefault(place.clip.category, []).append(place)
        elif options.balance == "anchors":
            for slot in pool.slots(place.clip):
                sorts.setdefault(slot, []).append(place)
    return {key: _shelf(found, options.prefix_latents) for key, found in sorts.items()}


def _shelf(places: Sequence[Place], prefix: int) -> _Shelf:
    going = [place for place in places if place.piece.num_latents > place.length > prefix]
    return _Shelf(_Group(going), _Group([place for place in places if place.starts_pure] or places))


def _choose(shelves: _Shelves, options: FootageOptions, generator: torch.Generator) -> tuple[Slot | None, _Shelf]:
    if options.balance == "category":
        categories = sorted(key for key in shelves if isinstance(key, str))
        return None, shelves[categories[pick([1.0] * len(categories), generator)]]
    slots = [key for key in shelves if isinstance(key, tuple)]
    slot = draw_slot(slots, [AnchorRole(role) for role in options.roles], generator) if slots else None
    return slot, shelves[slot]


def _placed(clip: PreparedClip, piece: PreparedPiece, lengths: Sequence[int]) -> Place | None:
    length = next((length for length in lengths if length <= piece.num_latents), None)
    return None if length is None else Place(clip, piece, length)


def _offset(place: Place, prefix: int, generator: torch.Generator) -> int:
    offsets = place.offsets(prefix)
    return offsets[pick([1.0] * len(offsets), generator)]


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
