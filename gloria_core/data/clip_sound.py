"""The sound of a clip out of the footage itself, where that is still there: the cache keeps only what a model hears."""

from pathlib import Path

from torch import Tensor

from ..errors import DatasetError
from ..media import probe, read_audio
from .folder import read_dataset
from .manifest import NONE, OWN, Manifest


def footage_at(source: Path) -> Manifest | None:
    """Return the clips of a folder or a manifest; None where the footage is elsewhere, or went away."""
    if source.suffix == ".json":
        return None
    try:
        return read_dataset(source)[0]
    except DatasetError:
        return None


def clip_sound(footage: Manifest | None, clip_id: str, start_s: float, stop_s: float, rate: int) -> Tensor | None:
    """Return what is heard of a clip (1, samples); None where it has no sound, or none that can be reached.

    Args:
        footage: from `footage_at`.
        clip_id: the clip's.
        start_s: seconds from the source video's start.
        stop_s: where it ends.
        rate: samples a second.

    Raises:
        MediaError: the file that has the sound is damaged.
    """
    clip = next((clip for clip in footage.clips if clip.id == clip_id), None) if footage else None
    if footage is None or clip is None or clip.audio == NONE:
        return None
    path = footage.path(clip.video if clip.audio == OWN else clip.audio)
    if not path.is_file() or not probe(path).has_audio:
        return None
    waveform, _ = read_audio(path, sample_rate=rate, max_seconds=stop_s)
    return waveform[:, round(start_s * rate) :].mean(0, keepdim=True)
