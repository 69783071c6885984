"""Filling a board from a sheet, a row of pictures or a video: candidates, and which of them goes where."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..anchors.analysis import PictureAnalysis, Seen
from ..errors import AnchorError
from ..types import EXPRESSIONS, VIEWS
from .board import Crop
from .crop import with_margin
from .measure import difference, grey, sharpness
from .pictures import cut
from .sheet import Panels, Pixels, find_panels, grid_panels
from .slots import GLOBAL, KEYS

MOST_FRAMES = 3000
"""Of a video that are looked at, from its start."""
_MOST_LOOKED_AT = 120
"""Frames that are compared, spread evenly."""
_MOST_CANDIDATES = len(KEYS)
_TURN = tuple(f"views.{view}" for view in ("front", "right", "back", "left"))
_MOODS = tuple(f"expressions.{name}" for name in EXPRESSIONS)
_BY_NUMBER: Mapping[int, tuple[str, ...]] = {
    1: (GLOBAL,),
    2: ("views.front", "views.back"),
    3: ("views.front", "views.right", "views.back"),
    4: _TURN,
    5: (GLOBAL, *_TURN),
    8: _MOODS,
    9: (GLOBAL, *_MOODS),
    12: (*_TURN, *_MOODS),
}
"""Which slots the panels of a sheet are for, in the order of reading, by how many there are."""
_BY_PLACE, _BY_TIME = 0.5, 0.1
"""Scores where nothing was seen: a sheet's order is a habit, a video's turn is a guess."""
_LEAST = 0.3
"""Score below which an analysed picture is not proposed."""
_LEAST_FACE = 32
"""Pixels of a face's shorter side below which its expression is not proposed: two tokens."""

Frames = Callable[[], Iterator[NDArray[np.uint8]]]
"""Gives batches (n, H, W, 3) of a video from its start, as often as it is called."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Candidate:
    """A picture that could go into a slot."""

    id: str
    image: Image.Image
    at_s: float | None = None
    """Seconds from the video's start."""
    box: Pixels | None = None
    """Place on the sheet."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """0..1, by the keys of slots."""
    crops: Mapping[str, Crop] = field(default_factory=dict)
    """What the slots of ``views`` and of ``expressions`` take of it, where the body or the face was found."""

    def crop_for(self, key: str) -> Crop | None:
        """Return what a slot takes of it; None is the whole picture."""
        return self.crops.get(key.partition(".")[0])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Filling:
    """What was found, and what goes where."""

    candidates: tuple[Candidate, ...]
    proposal: Mapping[str, str]
    """Slots and the ids of their candidates."""
    by: str
    """``analysis``, or ``position`` where nothing was seen."""
    grid: tuple[int, int] | None = None

    def pictures(self) -> dict[str, Image.Image]:
        """Return what is proposed for each slot, cropped."""
        known = {candidate.id: candidate for candidate in self.candidates}
        chosen = {key: known[identity] for key, identity in self.proposal.items()}
        return {key: cut(candidate.image, candidate.crop_for(key)) for key, candidate in chosen.items()}


def keys_for(count: int) -> tuple[str, ...]:
    """Return the slots for so many pictures, in their order.

    1 is the global picture, 5 and 9 begin with it, 8 are the expressions, 13 and more all slots; any other number fills
    the views in turntable order (front, right, back, left), then the expressions.
    """
    if count >= len(KEYS):
        return (GLOBAL, *_TURN, *_MOODS)
    return _BY_NUMBER.get(count, (*_TURN, *_MOODS)[:count])


def fill_from_sheet(
    sheet: Image.Image, grid: tuple[int, int] | None = None, analysis: PictureAnalysis | None = None
) -> Filling:
    """Cut a sheet into panels and propose a slot for each.

    Args:
        sheet: upright RGB.
        grid: columns and rows; None finds the panels.
        analysis: finds people; None goes by the order of the panels.

    Raises:
        AnchorError: the grid does not fit the sheet.
    """
    panels: Panels = grid_panels(sheet.size, *grid) if grid else find_panels(sheet)
    pictures = [sheet.crop(box) for box in panels.boxes]
    return _filled(pictures, boxes=panels.boxes, grid=panels.grid, analysis=analysis)


def fill_from_pictures(
    pictures: Sequence[Image.Image], keys: Sequence[str] = (), analysis: PictureAnalysis | None = None
) -> Filling:
    """Propose a slot for each of some pictures.

    Args:
        pictures: upright RGB.
        keys: the slots that they are for, in their order; empty goes by their number.
        analysis: finds people where no keys are given.

    Raises:
        AnchorError: there is no picture, or a slot is named that is none or twice.
    """
    _check_keys(keys)
    return _filled(pictures, keys=keys, analysis=None if keys else analysis)


def fill_from_video(frames: Frames, fps: float, analysis: PictureAnalysis | None = None) -> Filling:
    """Pick the sharpest and most different frames of a video.

    Without an analysis the character is taken to turn round once, to the right first: the views are the sharpest frames
    near the start, a quarter, half and three quarters of the video. The scores say how little that is worth.

    Args:
        frames: the video.
        fps: its frame rate.
        analysis: finds people.

    Raises:
        AnchorError: the video has no frame.
    """
    known = _looked_at(frames)
    turn = _of_a_turn(known) if analysis is None else {}
    chosen = _different(known, {*turn.values()})
    pictures = _pick(frames, [known[place].index for place in chosen])
    identities = {place: f"frame-{known[place].index + 1}" for place in chosen}
    candidates = tuple(
        Candidate(
            id=identities[place],
            image=picture,
            at_s=round(known[place].index / fps, 3) if fps else None,
            scores={key: _BY_TIME for key, other in turn.items() if other == place},
        )
        for place, picture in zip(chosen, pictures, strict=True)
    )
    if analysis is not None:
        return _analysed(candidates, analysis, None) or fill_from_video(frames, fps)
    return Filling(candidates=candidates, proposal={key: identities[p] for key, p in turn.items()}, by="position")


def _filled(
    pictures: Sequence[Image.Image],
    *,
    boxes: Sequence[Pixels] = (),
    keys: Sequence[str] = (),
    grid: tuple[int, int] | None = None,
    analysis: PictureAnalysis | None,
) -> Filling:
    if not pictures:
        raise AnchorError("There is no picture to fill the board from.")
    order = tuple(keys) or keys_for(len(pictures))
    places = dict(enumerate(order))
    candidates = tuple(
        Candidate(
            id=f"panel-{i + 1}",
            image=picture,
            box=boxes[i] if boxes else None,
            scores={places[i]: 1.0 if keys else _BY_PLACE} if i in places else {},
        )
        for i, picture in enumerate(pictures)
    )
    if analysis is not None and (found := _analysed(candidates, analysis, grid)):
        return found
    proposal = {key: candidates[i].id for i, key in places.items() if i < len(candidates)}
    return Filling(candidates=candidates, proposal=proposal, by="position", grid=grid)


def _check_keys(keys: Sequence[str]) -> None:
    for key in keys:
        if key not in KEYS:
            raise AnchorError(f"There is no slot {key[:40]!r}; the slots are: {', '.join(KEYS)}.")
        if list(keys).count(key) > 1:
            raise AnchorError(f"The slot '{key}' is named twice; each takes one picture.")


def _analysed(
    candidates: Iterable[Candidate], analysis: PictureAnalysis, grid: tuple[int, int] | None
) -> Filling | None:
    """Propose the best-scored candidate for each slot; one picture may show a view and an expression, not two views.

    None where nothing that is seen fits a slot.
    """
    scored = tuple(_scored(candidate, analysis(np.asarray(candidate.image))) for candidate in candidates)
    proposal: dict[str, str] = {}
    ranked = sorted(((s, key, c.id) for c in scored for key, s in c.scores.items()), key=lambda entry: -entry[0])
    for score, key, identity in ranked:
        used = {other for known, other in proposal.items() if known.partition(".")[0] == key.partition(".")[0]}
        if score >= _LEAST and key not in proposal and identity not in used:
            proposal[key] = identity
    if not proposal:
        return None
    return Filling(
        candidates=scored, proposal={k: proposal[k] for k in KEYS if k in proposal}, by="analysis", grid=grid
    )


def _scored(candidate: Candidate, seen: Seen) -> Candidate:
    boxes = {"views": seen.body, "expressions": seen.face}
    crops = {group: with_margin(box) for group, box in boxes.items() if box is not None}
    return replace(candidate, scores=_scores(seen, candidate.image), crops=crops)


def _scores(seen: Seen, image: Image.Image) -> dict[str, float]:
    quality = 0.5 + 0.5 * sharpness(image)
    whole = 0.5 if seen.face is not None and seen.body is None else 1.0  # a head alone hardly shows a view
    scores = {f"views.{view}": seen.view_score(view) * quality * whole for view in VIEWS}
    if seen.face is None or min(seen.face[2] * image.width, seen.face[3] * image.height) >= _LEAST_FACE:
        scores |= {f"expressions.{name}": seen.expressions.get(name, 0.0) * quality for name in EXPRESSIONS}
    scores[GLOBAL] = scores["views.front"]
    return {key: round(score, 3) for key, score in scores.items() if score > 0}


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    index: int
    sharpness: float
    small: NDArray[np.float32]


def _looked_at(frames: Frames) -> list[_Known]:
    """Return what is known of at most _MOST_LOOKED_AT frames; the step doubles while the video goes on."""
    kept: list[_Known] = []
    step, index = 1, 0
    for batch in frames():
        for frame in batch:
            if index >= MOST_FRAMES:
                return kept
            if index % step == 0:
                image = Image.fromarray(frame)
                kept.append(_Known(index, sharpness(image), grey(image.resize((32, 32), Image.Resampling.BOX))))
            if len(kept) > _MOST_LOOKED_AT:
                step *= 2
                kept = [known for known in kept if known.index % step == 0]
            index += 1
    if not kept:
        raise AnchorError("The video has no frame to fill the board from.")
    return kept


def _of_a_turn(known: list[_Known]) -> dict[str, int]:
    """Return the places in ``known`` of the global picture and of the views of one turn."""
    quarter, reach = len(known) / 4, max(1, len(known) // 16)
    found = {GLOBAL: 0}
    for number, key in enumerate(_TURN):
        middle = round(number * quarter)
        near = range(max(0, middle - reach), min(len(known), middle + reach + 1))
        found[key] = max(near, key=lambda place: (known[place].sharpness, -abs(place - middle)))
    found[GLOBAL] = found[_TURN[0]]
    return found


def _different(known: list[_Known], needed: set[int]) -> list[int]:
    """Return the places of the frames that differ most from each other, blurred ones last, in the order of time."""
    chosen = sorted(needed) or [max(range(len(known)), key=lambda place: known[place].sharpness)]
    nearest = [min(difference(frame.small, known[c].small) for c in chosen) for frame in known]
    while len(chosen) < min(_MOST_CANDIDATES, len(known)):
        best = max(range(len(known)), key=lambda place: nearest[place] * (0.25 + known[place].sharpness))
        if nearest[best] == 0.0:
            break
        chosen.append(best)
        nearest = [min(n, difference(f.small, known[best].small)) for n, f in zip(nearest, known, strict=True)]
    return sorted(chosen)


def _pick(frames: Frames, indices: list[int]) -> list[Image.Image]:
    """Return frames by their numbers, which rise."""
    found, wanted, index = [], set(indices), 0
    for batch in frames():
        for frame in batch:
            if index in wanted:
                found.append(Image.fromarray(frame))
            index += 1
        if len(found) == len(indices):
            break
    return found
