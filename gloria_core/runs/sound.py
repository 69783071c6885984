"""What a film is given of a sound: the user's own file where that is possible."""

import logging
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..media import FilmSound, OriginalSound, SoundFit
from .digest import digest_of

_log = logging.getLogger(__name__)


class Track(Protocol):
    """A sound as it was read."""

    @property
    def waveform(self) -> Tensor:
        """(channels, samples), full scale 1."""
        ...

    @property
    def sample_rate(self) -> int:
        """Samples a second."""
        ...

    @property
    def original(self) -> OriginalSound | None:
        """The file that it was read from; None where there is none."""
        ...


def film_sound(audio: Track, fit: SoundFit) -> FilmSound:
    """Return what a film sounds like: the user's own file where the sound is still its, otherwise the waveform.

    A sound that is repeated is always the waveform: no packet of a file ends just where its sound does.
    """
    original = audio.original if fit != "loop" else None
    if original is not None and not original.is_there():
        _log.warning(
            "Gloria: %s was changed or removed since it was loaded; the film's sound is encoded from what was read. "
            "Queue again to load it anew.",
            original.path,
        )
        original = None
    return FilmSound((audio.waveform, audio.sample_rate) if original is None else original.path, fit)


def sound_notes(sound: FilmSound | None) -> list[str]:
    """Say where a file's sound cannot go into the film as it is."""
    if sound is None or isinstance(sound.source, tuple) or sound.is_copied:
        return []
    return [
        f"The sound of {Path(sound.source).name} is encoded to AAC, because an MP4 file cannot hold it as it is; AAC, "
        "MP3, FLAC and Opus go into the film bit for bit."
    ]


def film_sound_digest(audio: Track, sound: FilmSound) -> str:
    """Return the digest of a film's sound by its content: the same on every machine, wherever the file lies."""
    size = audio.original.num_bytes if audio.original is not None and not isinstance(sound.source, tuple) else 0
    return digest_of(audio.waveform, audio.sample_rate, sound.fit, *([size] if size else []))
