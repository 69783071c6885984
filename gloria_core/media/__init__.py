"""Video and sound files: look at them, read them, write them as a stream. Nothing here knows a model."""

from .container import MediaInfo, probe
from .film import FilmWriter
from .film_sound import FilmSound, SoundFit
from .frames import iter_frames
from .original import OriginalSound
from .segment import exact_rate, num_frames_in
from .sound import read_audio, write_audio

__all__ = [
    "FilmSound",
    "FilmWriter",
    "MediaInfo",
    "OriginalSound",
    "SoundFit",
    "exact_rate",
    "iter_frames",
    "num_frames_in",
    "probe",
    "read_audio",
    "write_audio",
]
