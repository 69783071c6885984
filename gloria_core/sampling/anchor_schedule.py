"""An anchor schedule: which anchors a video heeds from which moment, how much, and when one is hidden, as text.

An example, one entry on each line or several with " / " between them:

    0:00 all
    0:12 global, views, -back
    0:20 all, views*1.5, happy*0.5
    0:12-0:15.5 hide back, front
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..errors import PlanError
from ..types import EXPRESSIONS, VIEWS, Anchor, AnchorSet
from .chunks import Chunk, frames_of
from .prompts import TIME, Snap, check_order, clock, entries, last_begun, nearest_word, seconds

SLOTS = ("global", *VIEWS, *EXPRESSIONS)
"""Words for single anchors."""

GROUPS: Mapping[str, tuple[str, ...]] = {"all": SLOTS, "views": VIEWS, "expressions": EXPRESSIONS, "none": ()}
"""Words for several anchors at once, and for none."""

KNOWN = (*GROUPS, *SLOTS)
"""All words of a schedule, for messages."""

_CUE = re.compile(rf"(?P<time>{TIME})s?(?=\s|$)\s*(?P<terms>.*)", re.DOTALL)
_INTERVAL = re.compile(rf"(?P<start>{TIME})s?\s*[-\u2013]\s*(?P<stop>{TIME})s?(?=\s|$)\s*(?P<terms>.*)", re.DOTALL)
_HIDE = re.compile(r"hide\b\s*(?P<terms>.*)", re.DOTALL | re.IGNORECASE)
_TERM = re.compile(r"(?P<minus>-?)\s*(?P<word>[^\s*\-]+)\s*(?:\*\s*(?P<strength>\S+))?")
_NUMBER = re.compile(r"\d{1,5}(?:\.\d{0,5})?|\.\d{1,5}")


@dataclass(frozen=True, slots=True)
class AnchorCue:
    """Which anchors are attached from a second on, by their words, with their strengths."""

    start_s: float
    strengths: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Hiding:
    """An interval of the video, in seconds, in which some anchors are hidden."""

    start_s: float
    stop_s: float
    words: frozenset[str]

    def latents(self, chunk: Chunk, fps: float) -> frozenset[int]:
        """Return the chunk's latent frames, from 0 on, that show any part of the interval."""
        shown = ((index, frames_of(range(latent, latent + 1))) for index, latent in enumerate(chunk.latents))
        first, end = self.start_s * fps + 1e-6, self.stop_s * fps - 1e-6
        return frozenset(index for index, frames in shown if frames.start < end and frames.stop > first)


@dataclass(frozen=True, slots=True)
class AnchorSchedule:
    """What a video heeds when. Before the first cue, and without any, all anchors are attached."""

    cues: tuple[AnchorCue, ...] = ()
    hidings: tuple[Hiding, ...] = ()
    words: tuple[str, ...] = ()
    """The words of single anchors and groups in the schedule, each once."""

    def for_chunk(self, anchors: AnchorSet, chunk: Chunk, fps: float, snap: Snap | str = Snap.NEAREST) -> AnchorSet:
        """Return the anchors of one chunk, with their strengths and the latent frames that they are hidden from.

        Cues move to a start of a chunk as prompts do. A hiding does not move: it holds for every latent frame that
        shows a part of it. An anchor that is hidden from the whole chunk is left out.

        Args:
            anchors: all of the character's; their own strengths and hidings stay and are joined by the schedule's.
            chunk: a chunk of the video.
            fps: pictures a second.
            snap: to which chunk cues move.

        Returns:
            A part of ``anchors`` with the same latents, by which a cache knows them again; ``anchors`` itself where the
            schedule changes nothing.
        """
        index = last_begun([cue.start_s for cue in self.cues], chunk, fps, snap)
        strengths = self.cues[index].strengths if index >= 0 else dict.fromkeys(SLOTS, 1.0)
        hidings = [(hiding.words, hiding.latents(chunk, fps)) for hiding in self.hidings]
        heeded = []
        for anchor in anchors:
            hidden = frozenset[int]().union(*(latents for words, latents in hidings if word_of(anchor) in words))
            strength = anchor.strength * strengths.get(word_of(anchor), 0.0)
            if strength > 0 and len(hidden) < chunk.num_latents:
                heeded.append(_changed(anchor, strength, hidden))
        unchanged = len(heeded) == len(anchors) and all(a is b for a, b in zip(heeded, anchors, strict=True))
        return anchors if unchanged else AnchorSet(tuple(heeded))

    def later(self, seconds: float) -> "AnchorSchedule":
        """Return the same for a video before which something else is shown; what holds first holds from its start."""
        if not seconds:
            return self
        cues = [replace(cue, start_s=cue.start_s + seconds if cue.start_s else 0.0) for cue in self.cues]
        hidings = [replace(h, start_s=h.start_s + seconds, stop_s=h.stop_s + seconds) for h in self.hidings]
        return AnchorSchedule(tuple(cues), tuple(hidings), self.words)

    def missing(self, anchors: AnchorSet) -> tuple[str, ...]:
        """Return a sentence for each word of the schedule that means none of the character's anchors."""
        have = {word_of(anchor) for anchor in anchors}
        told = ", ".join(word for word in SLOTS if word in have) or "none"
        return tuple(
            f'The anchor schedule names "{word}", but the character has no such anchor (it has: {told}).'
            for word in self.words
            if word not in ("all", "none") and not have.intersection(GROUPS.get(word, (word,)))
        )


def word_of(anchor: Anchor) -> str:
    """Return the word by which a schedule names an anchor: its slot, or ``global``."""
    return anchor.slot or "global"


def parse_anchor_schedule(text: str) -> AnchorSchedule:
    """Read an anchor schedule.

    Args:
        text: entries "TIME ANCHORS" and "TIME-TIME hide ANCHORS"; TIME as in a prompt schedule. ANCHORS are words with
            commas between them: all, views, expressions, none, global, and the name of every view and expression.
            "-back" takes one away ("-back" alone: all but that), "happy*0.5" sets a strength, where 1 is neutral and 0
            leaves the anchor out. Each entry with one time says anew what is attached from then on; the first may
            leave its time out. No text is a schedule that changes nothing.

    Raises:
        PlanError: an entry that cannot be read, an unknown word, times that do not rise. It names line and word.
    """
    cues: list[AnchorCue] = []
    hidings: list[Hiding] = []
    words: list[str] = []
    for line, entry in entries(text):
        place = f"Anchor schedule, {line}"
        interval = _INTERVAL.match(entry)
        if interval is not None:
            hidings.append(_hiding(place, interval, words))
            continue
        cue = _cue(place, entry, words, is_first=not cues)
        if cues:
            check_order(place, cues[-1].start_s, cue.start_s)
        cues.append(cue)
    return AnchorSchedule(tuple(cues), tuple(hidings), tuple(dict.fromkeys(words)))


def _cue(place: str, entry: str, words: list[str], *, is_first: bool) -> AnchorCue:
    match = _CUE.match(entry)
    if match is None and not (is_first and not entry[0].isdigit()):
        raise PlanError(
            f'{place}: "{entry}" does not begin with a time; write for example "0:12 global, views" or "0:12-0:15 '
            'hide back".'
        )
    start_s = seconds(place, match["time"]) if match else 0.0
    terms = match["terms"] if match else entry
    if _HIDE.match(terms):
        raise PlanError(
            f'{place}: an anchor is hidden from one time to another; write for example "{clock(start_s)}-'
            f'{clock(start_s + 3)} {terms}".'
        )
    return AnchorCue(start_s, _strengths(place, terms, words))


def _hiding(place: str, match: re.Match[str], words: list[str]) -> Hiding:
    start_s, stop_s = seconds(place, match["start"]), seconds(place, match["stop"])
    if stop_s <= start_s:
        raise PlanError(f"{place}: {clock(stop_s)} does not come after {clock(start_s)}; put the earlier time first.")
    hide = _HIDE.match(match["terms"])
    if hide is None:
        raise PlanError(
            f'{place}: between two times an anchor can only be hidden; write "{clock(start_s)}-{clock(stop_s)} hide '
            f'back", or one time only to say what is attached from then on.'
        )
    if "*" in hide["terms"]:
        raise PlanError(
            f'{place}: "{hide["terms"]}" gives a strength to a hidden anchor; take it away, or write an entry with one '
            "time for another strength."
        )
    strengths = _strengths(place, hide["terms"], words)
    return Hiding(start_s, stop_s, frozenset(strengths))


def _strengths(place: str, text: str, words: list[str]) -> dict[str, float]:
    """Read words with commas between them, from the left to the right, and append those that are named to ``words``."""
    if not text.strip(" ,"):
        raise PlanError(f'{place}: no anchor follows the time; write for example "all" or "global, views".')
    terms = [term.strip() for term in text.split(",") if term.strip()]
    strengths = dict.fromkeys(SLOTS, 1.0) if terms[0].startswith("-") else {}
    for term in terms:
        match = _TERM.fullmatch(term)
        word = match["word"].lower() if match else term.lower()
        if match is None or word not in KNOWN:
            raise PlanError(_unknown(place, term, word))
        if match["minus"] and match["strength"]:
            raise PlanError(f'{place}: "{term}" takes an anchor away and gives it a strength; do one of the two.')
        strength = _strength(place, term, match["strength"])
        words.append(word)
        for slot in GROUPS.get(word, (word,)):
            if match["minus"]:
                strengths.pop(slot, None)
            else:
                strengths[slot] = strength
    return strengths


def _strength(place: str, term: str, text: str | None) -> float:
    if text is None:
        return 1.0
    if not _NUMBER.fullmatch(text):
        raise PlanError(
            f'{place}: "{term}" has the strength "{text}"; it must be a number of 0 or more, as in happy*0.5 (1 is '
            "neutral)."
        )
    return float(text)


def _unknown(place: str, term: str, word: str) -> str:
    pieces = word.split()
    if len(pieces) > 1 and all(piece.lstrip("-") in KNOWN for piece in pieces):
        return f'{place}: there is no comma in "{term}"; write "{", ".join(pieces)}".'
    guess = nearest_word(word.strip("-* "), KNOWN)
    return f'{place}: "{term}" is no anchor{guess}; the words are: {", ".join(KNOWN)}.'


def _changed(anchor: Anchor, strength: float, hidden: frozenset[int]) -> Anchor:
    """Return an anchor with a strength and more hidden frames; the same one where that changes nothing."""
    if strength == anchor.strength and not hidden:
        return anchor
    return replace(anchor, strength=strength, hidden=(*anchor.hidden, *_ranges(sorted(hidden))))


def _ranges(indices: Sequence[int]) -> tuple[range, ...]:
    """Join rising numbers to ranges."""
    runs = [[index for _, index in run] for _, run in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])]
    return tuple(range(run[0], run[-1] + 1) for run in runs)
