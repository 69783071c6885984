"""What a render tells while it works: plain lines, one for each chunk."""

from collections.abc import Callable, Mapping

from ..runs.forecast import Forecast
from ..runs.job import ChunkNews, Frames
from ..runs.reuse import Decision, told
from ..runs.video import size_line
from ..sampling.chunks import Chunk
from ..sampling.prompts import clock
from .prepare import Prepared

Say = Callable[[str], None]
"""Told a line without its end."""


def plan_lines(prepared: Prepared, decisions: list[Decision], notes: list[str]) -> list[str]:
    """Return sentences about the size of a video, and about what of it is on disk and what is made."""
    video = prepared.video
    size = size_line(video.chunks, video.shape, video.size, video.fps, prepared.anchors)
    return [size, *prepared.notes, *notes, *told(decisions)]


class LineWatch:
    """Tells a run as lines.

    Args:
        say: told each line.
        lines: gives the plan's sentences from the decisions and the notes.
        num_chunks: of the whole video.
    """

    def __init__(self, say: Say, lines: Callable[[list[Decision], list[str]], list[str]], num_chunks: int) -> None:
        self._say, self._lines, self._num_chunks = say, lines, num_chunks
        self._to_make = num_chunks
        self._made: list[float] = []
        self._cost: list[str] = []

    def foreseen(self, forecast: Forecast) -> None:
        """Hear what the run will cost, before its plan."""
        self._cost = forecast.lines()

    def planned(self, decisions: list[Decision], notes: list[str]) -> None:
        """Tell what will be done."""
        self._to_make = sum(decision.take is None for decision in decisions)
        for line in [*self._lines(decisions, notes), *self._cost]:
            self._say(line)

    def checkpoint(self) -> None:
        """Go on: a render is stopped by signals."""

    def shown(self, chunk: Chunk, frames: Frames) -> None:
        """Hear of frames; there is nobody to show them to."""

    def drifting(self, chunk: Chunk, drift: Mapping[str, float], attempt: int) -> None:
        """Tell that a chunk is sampled again."""
        self._say(
            f"chunk {chunk.index + 1} drifts (similarity {drift['similarity']:.3f}); it is sampled again with another "
            f"seed (attempt {attempt + 1})."
        )

    def finished(self, news: ChunkNews) -> None:
        """Tell that a chunk is part of the film."""
        number = f"chunk {news.record.index + 1} of {self._num_chunks}"
        if news.reused:
            self._say(f"{number}: on disk")
            return
        self._made.append(news.seconds)
        self._to_make -= 1
        left = sum(self._made) / len(self._made) * max(0, self._to_make)
        self._say(f"{number}: {news.seconds:.1f} s, {news.record.prompt!r}; about {clock(round(left))} left")
