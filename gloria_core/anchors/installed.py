"""The part that finds people in pictures: how it is found, asked, and left out where it fails."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import GloriaError
from ..types import EXPRESSIONS
from .analysis import Box, PictureAnalysis, Seen

GROUP = "gloria.picture_analysis"
"""Of the entry points that make an analysis when they are called, without arguments."""

Answer = Callable[[NDArray[np.uint8]], object]
"""What a part makes: takes a picture (H, W, 3), and answers a mapping with any of the names of `Seen`."""
T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class PartError(GloriaError):
    """A part that was installed beside Gloria fails; it is left out from then on."""


@dataclass(frozen=True, slots=True)
class Part:
    """An analysis that somebody installed."""

    name: str
    """For people: its own name, and where it is from."""
    make: Callable[[], Answer]
    """Loads it; called once, at the first use."""


def parts_of_packages() -> list[Part]:
    """Return the parts that Python packages bring, by their names."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return [Part(_name_of(point), lambda point=point: point.load()()) for point in found]  # type: ignore[misc]


def _name_of(point: EntryPoint) -> str:
    return f"{point.name} ({point.dist.name} {point.dist.version})" if point.dist else point.name


def seen_from(answer: object) -> Seen:
    """Return what a part answered, checked.

    Args:
        answer: a mapping with any of ``yaw``, ``expressions``, ``face`` and ``body``; None counts as left out.

    Raises:
        PartError: the answer is none of that, or a number in it is out of its range.
    """
    if not isinstance(answer, Mapping):
        raise PartError(f"it answers {type(answer).__name__} in place of a mapping such as {{'yaw': 90.0}}")
    unknown = [str(name)[:40] for name in answer if name not in ("yaw", "expressions", "face", "body")]
    if unknown:
        raise PartError(f"it answers '{unknown[0]}'; the names are yaw, expressions, face and body")
    yaw = answer.get("yaw")
    return Seen(
        yaw=None if yaw is None else _number("yaw", yaw) % 360.0,
        expressions=_expressions(answer.get("expressions")),
        face=_box("face", answer.get("face")),
        body=_box("body", answer.get("body")),
    )


def _expressions(scores: object) -> dict[str, float]:
    if scores is None:
        return {}
    if not isinstance(scores, Mapping):
        raise PartError("its 'expressions' are no mapping of names to scores")
    for name in scores:
        if name not in EXPRESSIONS:
            raise PartError(f"it answers the expression {str(name)[:40]!r}; the names are {', '.join(EXPRESSIONS)}")
    return {name: min(1.0, max(0.0, _number(name, score))) for name, score in scores.items()}


def _box(name: str, box: object) -> Box | None:
    """Return a box cut off at the picture's edges, as a detector's often reaches beyond them."""
    if box is None:
        return None
    if not isinstance(box, Iterable) or len(sides := list(box)) != 4:
        raise PartError(f"its '{name}' is no box of x, y, width and height")
    x, y, width, height = (_number(name, side) for side in sides)
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(1.0, x + width), min(1.0, y + height)
    if right <= left or bottom <= top:
        raise PartError(f"its '{name}' {[x, y, width, height]} lies outside the picture; boxes are fractions, 0 to 1")
    return left, top, right - left, bottom - top


def _number(name: str, value: Any) -> float:  # noqa: ANN401 - whatever a part answers
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise PartError(f"its '{name}' holds {str(value)[:40]!r}, which is no number")
    return number


@dataclass(frozen=True, slots=True, eq=False)
class _Used:
    name: str
    look: PictureAnalysis


@dataclass(slots=True, eq=False)
class InstalledAnalysis:
    """The first part that works. It is made at the first use; one that fails is left out, and the next one is tried."""

    find: Callable[[], Iterable[Part]] = parts_of_packages
    _rest: Iterator[Part] | None = None
    _used: _Used | None = None
    _problems: list[str] = field(default_factory=list)
    _lock: RLock = field(default_factory=RLock)
    """A part is made once, and asked from one thread at a time."""

    def use(self, act: Callable[[PictureAnalysis | None], T]) -> T:
        """Return what an act makes with the analysis, or with None where there is none that works.

        Args:
            act: is called anew where the part fails in it.
        """
        while (used := self._current()) is not None:
            try:
                return act(used.look)
            except PartError as error:
                self._leave_out(used, error)
        return act(None)

    def told(self) -> dict[str, object]:
        """Return ``name`` of the part that is used, or None, and ``problems``: a sentence for each that is left out."""
        with self._lock:
            used = self._current()
            return {"name": used.name if used else None, "problems": list(self._problems)}

    def _current(self) -> _Used | None:
        with self._lock:
            if self._rest is None:
                self._rest = iter(self.find())
            while self._used is None and (part := next(self._rest, None)) is not None:
                try:
                    self._used = _Used(part.name, self._asked(_tried(part.make)))
                    _LOG.info("Gloria looks at pictures with the analysis '%s'.", part.name)
                except PartError as error:
                    self._tell(part.name, error)
            return self._used

    def _asked(self, answer: Answer) -> PictureAnalysis:
        def look(picture: NDArray[np.uint8]) -> Seen:
            with self._lock:
                return _tried(lambda: seen_from(answer(picture)))

        return look

    def _leave_out(self, used: _Used, error: PartError) -> None:
        """Use a part no longer, unless another thread met its failure first."""
        with self._lock:
            if self._used is used:
                self._used = None
                self._tell(used.name, error)

    def _tell(self, name: str, error: PartError) -> None:
        problem = f"The picture analysis '{name}' is left out: {error}. Update or remove it, then start ComfyUI anew."
        self._problems.append(problem)
        _LOG.warning(problem, exc_info=error.__cause__)


def _tried(call: Callable[[], T]) -> T:
    """Call a part of others, or look at what it answers: its numbers and boxes may be of any type, and fail too."""
    try:
        return call()
    except PartError:
        raise
    except Exception as error:  # whatever fails in it: Gloria works on without
        raise PartError(f"{type(error).__name__}: {str(error)[:300]}") from error
