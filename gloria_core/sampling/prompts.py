"""A prompt schedule: which prompt holds from which moment, written as text.

An example: "0:00 smiling, talks to the camera / 0:12 turns to the back / 0:20 angry".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import PlanError
from .chunks import Chunk, boundaries_s, frames_of

_SEPARATOR = re.compile(r"(?:^|\s)/(?:\s|$)|/(?=\d+:\d\d)")
_ENTRY = re.compile(r"(?P<time>\d{1,5}(?::\d{1,5}){0,2}(?:\.\d{1,5})?)s?(?=\s|$)\s*(?P<text>.*)", re.DOTALL)
_LOOKS_TIMED = re.compile(r"[-+\d:.]*\d[\d:.]*[a-z]?(?=\s|$)")


@dataclass(frozen=True, slots=True)
class PromptCue:
    """A prompt and the second from which it holds."""

    start_s: float
    text: str


def parse(text: str) -> tuple[PromptCue, ...]:
    """Read a prompt schedule.

    Args:
        text: entries "TIME PROMPT", one on each line or several on a line with " / " between them. TIME is seconds
            ("12", "12.5"), "m:ss" or "h:mm:ss". The first entry may leave its time out and then begins at 0:00, so that
            a plain prompt is a schedule too.

    Returns:
        The cues in order; the first begins at 0.

    Raises:
        PlanError: no entry, a time that cannot be read, an entry without a prompt, times that do not rise. It names the
            line.
    """
    entries = [
        (f"line {number}" + (f", part {part}" if len(pieces) > 1 else ""), piece.strip())
        for number, line in enumerate(text.splitlines(), 1)
        for pieces in [_SEPARATOR.split(line)]
        for part, piece in enumerate(pieces, 1)
        if piece.strip()
    ]
    if not entries:
        raise PlanError('The prompt schedule is empty; write for example "0:00 smiling / 0:12 turns to the back".')
    cues: list[PromptCue] = []
    for place, entry in entries:
        cue = _cue(place, entry, is_first=not cues)
        if cues and cue.start_s <= cues[-1].start_s:
            raise PlanError(
                f"Prompt schedule, {place}: {clock(cue.start_s)} does not come after {clock(cues[-1].start_s)}; put "
                "the entries in order of time, each at a time of its own."
            )
        cues.append(cue)
    return tuple(cues)


def prompt_for_chunk(cues: Sequence[PromptCue], chunk: Chunk, fps: float) -> str:
    """Return the prompt of a chunk, every cue moved to the nearest start of a chunk (in a tie to the earlier one).

    A chunk has one prompt; moved like this it is the one that holds at the middle of the pictures that the chunk makes.
    Where no cue has begun, the first holds.
    """
    return cues[_cue_index(cues, chunk, fps)].text


def cue_starts(cues: Sequence[PromptCue], chunks: Sequence[Chunk], fps: float) -> tuple[float | None, ...]:
    """Return for each cue the second from which it is seen, moved to a chunk's start, or None if it never is."""
    starts: list[float | None] = [None] * len(cues)
    for chunk, start_s in reversed(list(zip(chunks, boundaries_s(chunks, fps)[:-1], strict=True))):
        starts[_cue_index(cues, chunk, fps)] = start_s
    return tuple(starts)


def lost_cues(cues: Sequence[PromptCue], chunks: Sequence[Chunk], fps: float) -> tuple[str, ...]:
    """Return a sentence for each cue that is never seen, because of the next cue or because the video ends."""
    bounds = boundaries_s(chunks, fps)
    changes = ", ".join(clock(s) for s in bounds[:5]) + (", ..." if len(bounds) > 5 else "")
    return tuple(
        f'The prompt at {clock(cue.start_s)} ("{cue.text}") is never seen: '
        + (
            f"the video ends at {clock(bounds[-1])}."
            if cue.start_s >= bounds[-1]
            else f"a prompt can change only where a chunk begins ({changes}), and another one takes its chunk."
        )
        for cue, start_s in zip(cues, cue_starts(cues, chunks, fps), strict=True)
        if start_s is None
    )


def clock(seconds: float) -> str:
    """Return a time as m:ss or h:mm:ss, with a fraction where it has one."""
    hundredths = round(seconds * 100)
    whole, fraction = divmod(hundredths, 100)
    minutes, s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"
    return text + f".{fraction:02}".rstrip("0") if fraction else text


def _cue_index(cues: Sequence[PromptCue], chunk: Chunk, fps: float) -> int:
    shown = frames_of(chunk.new_latents)
    middle_s = (shown.start + shown.stop) / (2 * fps)
    begun = [index for index, cue in enumerate(cues) if cue.start_s <= middle_s + 1e-6]
    return begun[-1] if begun else 0


def _cue(place: str, entry: str, *, is_first: bool) -> PromptCue:
    match = _ENTRY.match(entry)
    if match is None:
        if is_first and not _LOOKS_TIMED.match(entry):
            return PromptCue(0.0, entry)
        raise PlanError(
            f'Prompt schedule, {place}: "{entry}" does not begin with a time; write "12", "0:12" or "1:02:30", a '
            "space, and the prompt."
        )
    start_s = _seconds(place, match["time"])
    if not match["text"]:
        raise PlanError(f'Prompt schedule, {place}: no prompt follows the time "{match["time"]}"; write one behind it.')
    if is_first and start_s > 0:
        raise PlanError(
            f"Prompt schedule, {place}: the first prompt begins at {clock(start_s)}, so the video would begin without "
            f'one; begin at 0:00 (if "{match["time"]}" is part of the prompt, write 0:00 before it).'
        )
    return PromptCue(start_s, match["text"])


def _seconds(place: str, text: str) -> float:
    parts = text.split(":")
    for part in parts[1:]:
        if len(part.split(".")[0]) != 2 or float(part) >= 60:
            raise PlanError(
                f'Prompt schedule, {place}: "{text}" is not a time; minutes and seconds behind a colon have two digits '
                "and go up to 59, as in 1:05 or 1:02:30."
            )
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))
