"""How loud a film's sound is along the film, to be drawn."""

from itertools import pairwise

import numpy as np

from .film_sound import FilmSound
from .soundtrack import Soundtrack

LOUDEST = 100
"""Full scale."""


def sound_peaks(sound: FilmSound, seconds: float, count: int) -> list[int]:
    """Return the loudest sample in each of ``count`` equal parts of a film, 0 to ``LOUDEST``.

    Args:
        sound: what the film sounds like.
        seconds: length of the film; where the sound is shorter, silence or a repetition follows, as in the film.
        count: how many parts.

    Raises:
        MediaError: the sound is missing or cannot be read.
    """
    track = Soundtrack(sound.source, loop=sound.fit == "loop")
    try:
        bounds = [round(index * seconds * track.rate / count) for index in range(count + 1)]
        parts = (track.take(stop - start) for start, stop in pairwise(bounds))
        return [round(LOUDEST * min(1.0, float(np.abs(part).max(initial=0.0)))) for part in parts]
    finally:
        track.close()
