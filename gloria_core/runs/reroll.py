"""Re-rolls: which chunks are made again, and how, written as text.

    7                               chunk 7 with another seed
    0:24 try 3                      the chunk shown at 0:24, its third other seed
    7 seed 99 bridge                with a seed of your own; the later chunks stay
    7 prompt turns left, angry      with another prompt
    7 anchors global, back          with other anchors
    7 take 1                        back to the first take that is on disk

A line says what is wanted, not what is to be done: as long as it stands there its take is used, and without it the film
is what it was before.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import PlanError
from ..sampling.chunks import Chunk, chunk_at
from ..sampling.prompts import clock

ONWARD, BRIDGE = "make later chunks anew", "bridge back to them"
"""What becomes of the chunks behind one that is rolled again."""

_WHERE = re.compile(
    r"(?:chunk\s+)?(?P<chunk>\d{1,6})(?=\s|$)|(?P<time>\d{1,5}(?::\d{2}){1,2}(?:\.\d{1,5})?)(?=\s|$)", re.I
)
_WORDS = re.compile(r"\b(try|seed|take|bridge|onward|anchors|prompt)\b", re.IGNORECASE)
_NUMBERS = ("try", "seed", "take")
_TEXTS = ("anchors", "prompt")
_MOST_SEED = (1 << 64) - 1
_HELP = "write for example '7', '0:24 try 2', '7 seed 99 bridge', '7 prompt turns left' or '7 take 1'"


@dataclass(frozen=True, slots=True)
class Reroll:
    """How one chunk is made again."""

    attempt: int = 1
    """Which other seed: 0 is the film's own, 1 the first other one."""
    seed: int | None = None
    """A seed of the user's own, in place of ``attempt``."""
    take: int | None = None
    """A take that is on disk."""
    bridge: bool | None = None
    """Whether the chunk leads back to the later chunks as they are; None leaves it to the node's setting."""
    anchors: str | None = None
    """An entry of an anchor schedule."""
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class RerollLine:
    """A re-roll and where it was written."""

    number: int
    chunk: int | None
    """The chunk's number, from 1."""
    time_s: float | None
    """Or a moment that it shows."""
    reroll: Reroll


def parse_rerolls(text: str) -> tuple[RerollLine, ...]:
    """Read re-rolls, one a line; empty lines are none.

    Raises:
        PlanError: a line cannot be read. It names the line, what stands there, and what may.
    """
    return tuple(_line(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip())


def by_chunk(lines: Iterable[RerollLine], chunks: Sequence[Chunk], fps: float) -> dict[int, Reroll]:
    """Return each re-roll by the index of its chunk.

    Raises:
        PlanError: the video has no such chunk or moment, or a chunk is named twice.
    """
    found: dict[int, Reroll] = {}
    for line in lines:
        index = _index(line, chunks, fps)
        if index in found:
            raise PlanError(f"Re-roll, line {line.number}: chunk {index + 1} is named twice; give each chunk one line.")
        found[index] = line.reroll
    return found


def _index(line: RerollLine, chunks: Sequence[Chunk], fps: float) -> int:
    if line.time_s is not None:
        end_s = chunks[-1].frames.stop / fps
        if line.time_s >= end_s:
            raise PlanError(
                f"Re-roll, line {line.number}: there is no picture at {clock(line.time_s)}; the video ends at "
                f"{clock(end_s)}."
            )
        return chunk_at(chunks, line.time_s, fps).index
    assert line.chunk is not None  # one of the two is given
    if not 1 <= line.chunk <= len(chunks):
        raise PlanError(
            f"Re-roll, line {line.number}: there is no chunk {line.chunk}; the video has 1 to {len(chunks)}."
        )
    return line.chunk - 1


def _line(number: int, line: str) -> RerollLine:
    place = f"Re-roll, line {number}"
    match = _WHERE.match(line)
    if match is None:
        raise PlanError(f'{place}: "{line}" does not begin with a chunk\'s number or a time; {_HELP}.')
    values = _values(place, line[match.end() :].strip())
    given = [word for word in (*_NUMBERS, *_TEXTS) if word in values]
    if "take" in values and len(given) > 1:
        raise PlanError(f"{place}: 'take' brings back what is on disk, with all it was made from; leave {given} out.")
    if "seed" in values and "try" in values:
        raise PlanError(f"{place}: 'try' and 'seed' both choose the seed; give one of them.")
    if "bridge" in values and "onward" in values:
        raise PlanError(f"{place}: 'bridge' keeps the later chunks and 'onward' makes them anew; give one of them.")
    bridge = True if "bridge" in values else False if "onward" in values else None
    keeps_seed = any(word in values for word in _TEXTS) and "try" not in values
    reroll = Reroll(
        attempt=int(values.get("try", 0 if keeps_seed else 1)),
        seed=int(values["seed"]) if "seed" in values else None,
        take=int(values["take"]) if "take" in values else None,
        bridge=bridge,
        anchors=values.get("anchors"),
        prompt=values.get("prompt"),
    )
    chunk, time_s = match["chunk"], match["time"]
    return RerollLine(number, int(chunk) if chunk else None, _seconds(time_s) if time_s else None, reroll)


def _values(place: str, rest: str) -> dict[str, str]:
    """Return the words behind the place and what follows each; a prompt takes all that follows it."""
    values: dict[str, str] = {}
    while rest:
        match = _WORDS.match(rest)
        if match is None:
            raise PlanError(f'{place}: "{rest}" cannot be read; {_HELP}.')
        word, rest = match[1].lower(), rest[match.end() :].lstrip(" =:")
        if word in values:
            raise PlanError(f"{place}: '{word}' is given twice.")
        following = None if word == "prompt" else _WORDS.search(rest)
        value, rest = (rest[: following.start()], rest[following.start() :]) if following else (rest, "")
        values[word] = _value(place, word, value.strip(" ,"))
    return values


def _value(place: str, word: str, value: str) -> str:
    if word in _TEXTS and not value:
        raise PlanError(f"{place}: nothing follows '{word}'.")
    if word in _NUMBERS:
        least = 0 if word == "seed" else 1
        if not value.isdecimal() or not least <= int(value) <= _MOST_SEED:
            raise PlanError(f"{place}: \"{value}\" follows '{word}', which takes a whole number from {least}.")
    elif word not in _TEXTS and value:
        raise PlanError(f"{place}: \"{value}\" follows '{word}', which stands alone.")
    return value


def _seconds(text: str) -> float:
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(text.split(":"))))
