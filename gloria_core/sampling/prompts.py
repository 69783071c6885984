"""A prompt schedule: which prompt holds from which moment, written as text.

An example: "0:00 smiling, talks to the camera / 0:12 [text 3, audio 2] turns to the back / 0:20 angry". In the brackets
stand guidance scales that hold with that prompt.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum

from ..errors import PlanError
from .chunks import Chunk, boundaries_s, frames_of
from .guidance import Guidance

TIME = r"\d{1,5}(?::\d{1,5}){0,2}(?:\.\d{1,5})?"
"""Seconds ("12", "12.5"), "m:ss" or "h:mm:ss", as a regular expression; `seconds` reads what it finds."""

_SEPARATOR = re.compile(r"(?:^|\s)/(?:\s|$)|/(?=\d+:\d\d)")
_ENTRY = re.compile(rf"(?P<time>{TIME})s?(?=\s|$)\s*(?P<text>.*)", re.DOTALL)
_LOOKS_TIMED = re.compile(r"[-+\d:.]*\d[\d:.]*[a-z]?(?=\s|$)")
_BRACKETS = re.compile(r"\[(?P<scales>[^\[\]]*)\]\s*(?P<text>.*)", re.DOTALL)
_SCALE = re.compile(r"(?P<word>[^\W\d]\w*)\s*[\s=:]\s*(?P<number>[-+]?\d+(?:\.\d*)?|[-+]?\.\d+)")
_SCALES = ("text", "audio")
_OPEN_BRACKET = re.compile(r"\[\s*(?:text|audio)\s*[\s=:]\s*[-+.\d][^\]]*$", re.IGNORECASE)
_BEGINS_LIKE_A_SCALE = re.compile(r"(?:text|audio)(?:\s*$|\s*[\s=:]\s*[-+.\d])", re.IGNORECASE)


class Snap(StrEnum):
    """To which chunk a cue moves. A chunk is made at once, so that what it is made from can change only between two."""

    NEAREST = "nearest"
    """To the nearest start of a chunk, in a tie to the earlier one."""
    EARLY = "early"
    """To the start of the chunk that shows the cue's moment: the moment is certainly under the cue."""
    LATE = "late"
    """To the first start of a chunk that is not before the cue's moment: nothing before it is under the cue."""


@dataclass(frozen=True, slots=True)
class PromptCue:
    """A prompt and the second from which it holds."""

    start_s: float
    text: str
    text_scale: float | None = None
    """Text guidance of the chunks under this prompt; None leaves what the sampler has."""
    audio_scale: float | None = None
    """Audio guidance of the chunks under this prompt; None leaves what the sampler has."""

    def guidance(self, own: Guidance) -> Guidance:
        """Return the sampler's own guidance with the scales that this cue sets."""
        return Guidance(
            text_scale=own.text_scale if self.text_scale is None else self.text_scale,
            audio_scale=own.audio_scale if self.audio_scale is None else self.audio_scale,
        )


def parse(text: str) -> tuple[PromptCue, ...]:
    """Read a prompt schedule.

    Args:
        text: entries "TIME PROMPT", one on each line or several on a line with " / " between them. TIME is seconds
            ("12", "12.5"), "m:ss" or "h:mm:ss". The first entry may leave its time out and then begins at 0:00, so that
            a plain prompt is a schedule too. A prompt may begin with guidance scales, "[text 3, audio 2]" or one of
            the two; brackets that hold no word with a number are part of the prompt.

    Returns:
        The cues in order; the first begins at 0.

    Raises:
        PlanError: no entry, a time or a scale that cannot be read, an entry without a prompt, times that do not rise.
            It names the line.
    """
    cues: list[PromptCue] = []
    for line, entry in entries(text):
        place = f"Prompt schedule, {line}"
        cue = _cue(place, entry, is_first=not cues)
        if cues:
            check_order(place, cues[-1].start_s, cue.start_s)
        cues.append(cue)
    if not cues:
        raise PlanError('The prompt schedule is empty; write for example "0:00 smiling / 0:12 turns to the back".')
    return tuple(cues)


def later(cues: Sequence[PromptCue], seconds: float) -> tuple[PromptCue, ...]:
    """Return cues for a video before which something else is shown; the first still holds from the beginning."""
    return tuple(replace(cue, start_s=cue.start_s + seconds if cue.start_s else 0.0) for cue in cues)


def cue_for_chunk(cues: Sequence[PromptCue], chunk: Chunk, fps: float, snap: Snap | str = Snap.NEAREST) -> PromptCue:
    """Return the cue that a chunk is under, every cue moved to a start of a chunk (see `Snap`).

    Where no cue has begun, the first holds.
    """
    return cues[max(0, last_begun([cue.start_s for cue in cues], chunk, fps, snap))]


def prompt_for_chunk(cues: Sequence[PromptCue], chunk: Chunk, fps: float, snap: Snap | str = Snap.NEAREST) -> str:
    """Return the prompt of a chunk, every cue moved to a start of a chunk (see `Snap`).

    A chunk has one prompt. Where no cue has begun, the first holds.
    """
    return cue_for_chunk(cues, chunk, fps, snap).text


def cue_starts(
    cues: Sequence[PromptCue], chunks: Sequence[Chunk], fps: float, snap: Snap | str = Snap.NEAREST
) -> tuple[float | None, ...]:
    """Return for each cue the second from which it is seen, moved to a chunk's start, or None if it never is."""
    starts: list[float | None] = [None] * len(cues)
    for chunk, start_s in reversed(list(zip(chunks, boundaries_s(chunks, fps)[:-1], strict=True))):
        starts[max(0, last_begun([cue.start_s for cue in cues], chunk, fps, snap))] = start_s
    return tuple(starts)


_MOST_TOLD = 3


def lost_cues(
    cues: Sequence[PromptCue], chunks: Sequence[Chunk], fps: float, snap: Snap | str = Snap.NEAREST
) -> tuple[str, ...]:
    """Return a sentence for each cue that is never seen, because of the next cue or because the video ends.

    Beyond three, the first two are told and the others counted.
    """
    bounds = boundaries_s(chunks, fps)
    changes = ", ".join(clock(s) for s in bounds[:5]) + (", ..." if len(bounds) > 5 else "")
    starts = cue_starts(cues, chunks, fps, snap)

    def reason(index: int) -> str:
        if cues[index].start_s >= bounds[-1]:
            return f"the video ends at {clock(bounds[-1])}."
        if not any(start is not None for start in starts[index:]):
            return f"the last chunk begins at {clock(bounds[-2])}, and a prompt can change only where a chunk begins."
        return f"a prompt can change only where a chunk begins ({changes}), and another one takes its chunk."

    lost = [index for index, start in enumerate(starts) if start is None]
    shown = lost if len(lost) <= _MOST_TOLD else lost[: _MOST_TOLD - 1]
    told = [
        f'The prompt at {clock(cues[index].start_s)} ("{cues[index].text}") is never seen: {reason(index)}'
        for index in shown
    ]
    if len(shown) < len(lost):
        told.append(f"{len(lost) - len(shown)} more prompts, up to {clock(cues[lost[-1]].start_s)}, are never seen.")
    return tuple(told)


def clock(seconds: float) -> str:
    """Return a time as m:ss or h:mm:ss, with a fraction where it has one."""
    hundredths = round(seconds * 100)
    whole, fraction = divmod(hundredths, 100)
    minutes, s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"
    return text + f".{fraction:02}".rstrip("0") if fraction else text


def entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield the entries of a schedule, one on each line or several with " / " between, each with its place in words."""
    for number, line in enumerate(text.splitlines(), 1):
        pieces = _SEPARATOR.split(line)
        for part, piece in enumerate(pieces, 1):
            if piece.strip():
                yield f"line {number}" + (f", part {part}" if len(pieces) > 1 else ""), piece.strip()


def seconds(place: str, text: str) -> float:
    """Return the seconds of a text of the form `TIME`; PlanError, which begins with the place, where it is no time."""
    parts = text.split(":")
    for part in parts[1:]:
        if len(part.split(".")[0]) != 2 or float(part) >= 60:
            raise PlanError(
                f'{place}: "{text}" is not a time; minutes and seconds behind a colon have two digits and go up to 59, '
                "as in 1:05 or 1:02:30."
            )
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))


def check_order(place: str, before_s: float, start_s: float) -> None:
    """Refuse a cue that does not begin after the one before it; PlanError, which begins with the place."""
    if start_s <= before_s:
        raise PlanError(
            f"{place}: {clock(start_s)} does not come after {clock(before_s)}; put the entries in order of time, each "
            "at a time of its own."
        )


def last_begun(starts_s: Sequence[float], chunk: Chunk, fps: float, snap: Snap | str = Snap.NEAREST) -> int:
    """Return the index of the last of some moments that have begun when a chunk begins; -1 where none has.

    Args:
        starts_s: rising seconds, each moved to a start of a chunk.
        chunk: a chunk of the video.
        fps: pictures a second.
        snap: which start that is. It is the nearest one where a moment lies before the middle of what the chunk makes.

    Raises:
        PlanError: there is no such snap.
    """
    made = frames_of(chunk.new_latents)
    match _known_snap(snap):
        case Snap.NEAREST:
            latest_s = (made.start + made.stop) / (2 * fps) + 1e-6
        case Snap.EARLY:
            latest_s = (chunk.frames.stop / fps) - 1e-6
        case Snap.LATE:
            latest_s = made.start / fps + 1e-6
    return sum(start_s <= latest_s for start_s in starts_s) - 1


def nearest_word(word: str, known: Sequence[str]) -> str:
    """Return " (did you mean ...?)" with the known word that a wrong one comes near, or nothing."""
    close = get_close_matches(word.lower(), known, n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _known_snap(snap: Snap | str) -> Snap:
    try:
        return Snap(snap)
    except ValueError as error:
        known = ", ".join(Snap)
        raise PlanError(f"Cues cannot move {str(snap)!r}; use one of: {known}.") from error


def _cue(place: str, entry: str, *, is_first: bool) -> PromptCue:
    match = _ENTRY.match(entry)
    if match is None:
        if is_first and not _LOOKS_TIMED.match(entry):
            return _with_scales(place, 0.0, entry)
        raise PlanError(
            f'{place}: "{entry}" does not begin with a time; write "12", "0:12" or "1:02:30", a space, and the prompt.'
        )
    start_s = seconds(place, match["time"])
    if not match["text"]:
        raise PlanError(f'{place}: no prompt follows the time "{match["time"]}"; write one behind it.')
    if is_first and start_s > 0:
        raise PlanError(
            f"{place}: the first prompt begins at {clock(start_s)}, so the video would begin without one; begin at "
            f'0:00 (if "{match["time"]}" is part of the prompt, write 0:00 before it).'
        )
    return _with_scales(place, start_s, match["text"])


def _with_scales(place: str, start_s: float, text: str) -> PromptCue:
    """Read the guidance scales at the start of a prompt, if brackets with something like them are there."""
    if _OPEN_BRACKET.match(text):
        raise PlanError(f'{place}: the bracket of "{text}" is not closed; write for example "[text 3] happy".')
    match = _BRACKETS.match(text)
    parts = [part.strip() for part in match["scales"].split(",")] if match else []
    if match is None or not any(_SCALE.fullmatch(part) or _BEGINS_LIKE_A_SCALE.match(part) for part in parts):
        return PromptCue(start_s, text)
    scales: dict[str, float] = {}
    for part in parts:
        word, scale = _scale(place, part)
        if word in scales:
            raise PlanError(f'{place}: "[{match["scales"]}]" sets {word} twice; keep one of the two.')
        scales[word] = scale
    if not match["text"]:
        raise PlanError(f'{place}: no prompt follows "[{match["scales"]}]"; write one behind it.')
    return PromptCue(start_s, match["text"], scales.get("text"), scales.get("audio"))


def _scale(place: str, part: str) -> tuple[str, float]:
    match = _SCALE.fullmatch(part)
    word = match["word"].lower() if match else part.split()[0].lower() if part.split() else ""
    if word not in _SCALES:
        raise PlanError(
            f'{place}: "{part}" sets no guidance{nearest_word(word, _SCALES)}; write [text 3], [audio 2] or '
            "[text 3, audio 2] (if the brackets belong to the prompt, put a word before them)."
        )
    if match is None:
        raise PlanError(
            f'{place}: "{part}" gives no scale; write one number of 0 or more behind the word, and a comma before the '
            "next, as in [text 3, audio 2]."
        )
    scale = float(match["number"])
    if not math.isfinite(scale) or scale < 0:
        raise PlanError(f"{place}: the {word} guidance is {match['number']}; it must be 0 or more (1 is neutral).")
    return word, scale
