"""Which finished chunks on disk serve a video as it is wanted now, and why the others are made anew."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import PlanError
from ..sampling.chunks import Chunk
from .chunk_file import ChunkRecord, Ingredient, Ingredients
from .folder import Take

BRIDGE = "way back"
"""Ingredient of a chunk that leads back to the latents which the next one went on from before."""
_LONGEST = 60


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A chunk as it is wanted."""

    chunk: Chunk
    ingredients: Ingredients
    """All that it is made from, but for what comes before it."""
    take: int | None = None
    """A take on disk that was chosen by its number, whatever it was made from."""
    bridge: bool = False
    """Whether it is to lead back to the later chunks as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What is done about one chunk."""

    chunk: Chunk
    take: Take | None
    """The take on disk that serves; None makes it."""
    reason: str = ""
    """Why it is made: a clause that follows "because". Empty where nothing was there before."""
    follows: bool = False
    """Whether there are takes, and the only reason is that the chunk before is made anew."""
    back_to: Take | None = None
    """The take that this one leads back to, be it there or made."""


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """The finished chunks of a run, to find the fitting ones among."""

    takes: Sequence[Take]
    _by_index: dict[int, list[Take]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for take in self.takes:
            self._by_index.setdefault(take.record.index, []).append(take)

    def of(self, index: int) -> list[Take]:
        """Return the takes of a chunk, the oldest first."""
        return self._by_index.get(index, [])

    def find(self, wish: Wish, prefix: str) -> Take | None:
        """Return the newest take that was made as wished and goes on from a certain prefix.

        Raises:
            PlanError: a take was chosen by number that is not there or goes on from something else.
        """
        if wish.take is not None:
            return self._chosen(wish, prefix)
        fitting = [t for t in self.of(wish.chunk.index) if _goes_on(t.record, wish.chunk, prefix)]
        return next((t for t in reversed(fitting) if not differences(t.record.ingredients, wish.ingredients)), None)

    def _chosen(self, wish: Wish, prefix: str) -> Take:
        number, takes = wish.chunk.index + 1, self.of(wish.chunk.index)
        take = next((t for t in takes if t.record.take == wish.take), None)
        if take is None:
            have = ", ".join(str(t.record.take) for t in takes) or "none"
            raise PlanError(f"There is no take {wish.take} of chunk {number} on disk; there are: {have}.")
        if not _goes_on(take.record, wish.chunk, prefix):
            raise PlanError(
                f"Take {wish.take} of chunk {number} goes on from another take of the chunk before, or from another "
                "plan: choose that take too, or make the chunk again."
            )
        return take


def decide(wishes: Sequence[Wish], plain: Sequence[Wish], shelf: Shelf, start: str) -> list[Decision]:
    """Decide for every chunk of a video, as far as it can be known before any is made.

    Args:
        wishes: the video as it is wanted.
        plain: the same without re-rolls; what a bridge leads back to.
        shelf: what is on disk.
        start: digest of the latents that the video begins with; empty where it begins freely.

    Raises:
        PlanError: a chosen take does not fit.
    """
    before = _walk([(wish, None) for wish in plain], shelf, start) if any(wish.bridge for wish in wishes) else []
    targets = [_target(wish, before) for wish in wishes]
    return _walk(list(zip(wishes, targets, strict=True)), shelf, start)


def bridged(wish: Wish, back_to: Take | None) -> Wish:
    """Return a wish with the ingredient that makes it a bridge, where it leads back to a take."""
    if back_to is None:
        return wish
    way = Ingredient(back_to.record.tail, f"back to take {back_to.record.take}")
    return Wish(wish.chunk, {**wish.ingredients, BRIDGE: way}, wish.take, wish.bridge)


def differences(have: Ingredients, wanted: Ingredients) -> list[str]:
    """Return the names of the ingredients that differ, those of the wanted ones first."""
    names = [*wanted, *(name for name in have if name not in wanted)]
    return [name for name in names if _digest(have, name) != _digest(wanted, name)]


def _walk(wanted: list[tuple[Wish, Take | None]], shelf: Shelf, start: str) -> list[Decision]:
    decisions: list[Decision] = []
    prefix: str | None = start  # None: not known before it is made
    for wish, back_to in wanted:
        wish = bridged(wish, back_to)
        take = None if prefix is None and wish.take is None else shelf.find(wish, prefix or "")
        if take is not None:
            decisions.append(Decision(wish.chunk, take, back_to=back_to))
            prefix = take.record.tail
            continue
        takes = shelf.of(wish.chunk.index)
        reason = _reason(wish, takes)
        decisions.append(Decision(wish.chunk, None, reason, bool(takes) and not reason, back_to))
        prefix = back_to.record.tail if back_to is not None else None
    return decisions


def _target(wish: Wish, before: Sequence[Decision]) -> Take | None:
    """Return the take that a bridge leads back to: the chunk's own in a video whose next chunk is there too."""
    index = wish.chunk.index
    if not wish.bridge or wish.take is not None or index + 1 >= len(before) or before[index + 1].take is None:
        return None
    return before[index].take


def _goes_on(record: ChunkRecord, chunk: Chunk, prefix: str) -> bool:
    place = (chunk.latents.start, chunk.latents.stop)
    return record.latents == place and record.num_prefix == chunk.num_prefix and record.prefix == prefix


def _reason(wish: Wish, takes: Sequence[Take]) -> str:
    """Say what sets a wish apart from the take that comes nearest to it; empty where nothing but its past does."""
    nearest, fewest = None, None
    for take in reversed(takes):
        found = differences(take.record.ingredients, wish.ingredients)
        if fewest is None or len(found) < len(fewest):
            nearest, fewest = take.record, found
    if nearest is None or fewest is None:
        return ""
    place = (wish.chunk.latents.start, wish.chunk.latents.stop)
    changes = [_change(name, nearest.ingredients, wish.ingredients) for name in fewest]
    if nearest.latents != place or nearest.num_prefix != wish.chunk.num_prefix:
        changes.insert(0, "the plan of chunks changed")
    return ", ".join(changes)


def _change(name: str, have: Ingredients, wanted: Ingredients) -> str:
    if name == BRIDGE:
        return "it leads back to the later chunks" if name in wanted else "it no longer leads back"
    old, new = (_words(side, name) for side in (have, wanted))
    return f"its {name} changed" + (f" ({old} -> {new})" if (old or new) and old != new else "")


def _words(ingredients: Ingredients, name: str) -> str:
    words = ingredients[name].words if name in ingredients else "none"
    return words if len(words) <= _LONGEST else words[: _LONGEST - 3] + "..."


def _digest(ingredients: Ingredients, name: str) -> str:
    return ingredients[name].digest if name in ingredients else ""


def told(decisions: Iterable[Decision]) -> list[str]:
    """Return sentences about what is reused and what is made, and why."""
    listed = list(decisions)
    reused = [d.chunk.index + 1 for d in listed if d.take is not None]
    fresh = [d.chunk.index + 1 for d in listed if d.take is None and not d.follows and not d.reason]
    follows = [d.chunk.index + 1 for d in listed if d.follows]
    lines = []
    if reused:
        lines.append(f"{_chunks(reused)} on disk and used again.")
    by_reason: dict[str, list[int]] = {}
    for decision in listed:
        if decision.reason:
            by_reason.setdefault(decision.reason, []).append(decision.chunk.index + 1)
    lines += [f"{_chunks(numbers)} made anew: {reason}." for reason, numbers in by_reason.items()]
    if follows:
        lines.append(f"{_chunks(follows)} made anew because what comes before is another one.")
    if fresh:
        lines.append(f"{_chunks(fresh)} made for the first time.")
    return lines


def _chunks(numbers: Sequence[int]) -> str:
    """Return chunks as a person lists them, with the verb: "Chunk 3 is", "Chunks 1-4, 7 are"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
    return f"Chunk {text} is" if len(numbers) == 1 else f"Chunks {text} are"
