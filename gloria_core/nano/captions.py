"""Captions of the nano world: a small grammar in which every caption names a view and an emotion."""

from __future__ import annotations

import torch

from ..types import EXPRESSIONS, VIEWS

_EMOTION_WORDS = {
    "surprise": ("surprised", "surprise"),
    "angry": ("angry", "anger"),
    "disgust": ("disgusted", "disgust"),
    "fear": ("afraid", "fear"),
    "contempt": ("contemptuous", "contempt"),
    "sad": ("sad", "sadness"),
    "neutral": ("neutral", "neutral"),
    "happy": ("happy", "happiness"),
}
"""Adjective and second word of each emotion."""

_MOVES = {
    "front": ("turns to the front", "faces the camera", "looks at the camera", "turns to the camera"),
    "back": ("turns to the back", "shows the back", "turns away from the camera", "faces away"),
    "left": ("turns to the left", "faces left", "looks left", "turns left"),
    "right": ("turns to the right", "faces right", "looks right", "turns right"),
}
_STAYS = {
    "front": ("faces the camera", "looks at the camera", "stays at the front"),
    "back": ("shows the back", "faces away", "stays at the back"),
    "left": ("faces left", "looks left", "stays at the left"),
    "right": ("faces right", "looks right", "stays at the right"),
}
_ENDINGS = ("{move}, {word}", "{move} and is {word}", "{move} with {noun}", "{word}, {move}", "{move}, looking {word}")


def caption(view: str, emotion: str, previous_view: str | None = None, generator: torch.Generator | None = None) -> str:
    """One caption of a command.

    Args:
        view: what to turn to, one of VIEWS.
        emotion: one of EXPRESSIONS.
        previous_view: the view before; the same view is described as staying, another as turning.
        generator: chooses among the templates; without one the first is taken ("turns to the back, happy").
    """
    moves = _STAYS[view] if previous_view == view else _MOVES[view]
    word, noun = _EMOTION_WORDS[emotion]
    move, ending = _pick(moves, generator), _pick(_ENDINGS, generator)
    return ending.format(move=move, word=word, noun=noun)


def _pick(options: tuple[str, ...], generator: torch.Generator | None) -> str:
    return options[0 if generator is None else int(torch.randint(len(options), (), generator=generator))]


def words(text: str) -> tuple[str, ...]:
    """The words of a caption in lower case; commas and full stops are no words."""
    return tuple(text.lower().replace(",", " ").replace(".", " ").split())


def emotion_words() -> tuple[str, ...]:
    """Return every word that tells an emotion."""
    return tuple(sorted({word for pair in _EMOTION_WORDS.values() for word in pair}))


def _vocabulary() -> tuple[str, ...]:
    found = {word for table in (_MOVES, _STAYS) for view in VIEWS for move in table[view] for word in words(move)}
    found |= {word for emotion in EXPRESSIONS for word in (*_EMOTION_WORDS[emotion], emotion)}
    return tuple(sorted(found | {"and", "is", "with", "looking"}))


WORDS = _vocabulary()
"""The closed vocabulary, sorted."""
