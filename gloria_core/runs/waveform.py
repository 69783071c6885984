"""The waveform of a run's sound: measured once, when the run begins, and kept beside run.json for whoever draws it."""

from typing import Any

from ..media.peaks import sound_peaks
from .folder import RunFolder, read_json
from .job import RunJob

WAVEFORM = "waveform.json"
PEAKS = 600
"""How many there are: more than a page has pixels for."""


def keep_waveform(folder: RunFolder, job: RunJob[Any]) -> None:
    """Write how loud the film's sound is, unless that is on disk; without a sound there is no such file.

    Raises:
        MediaError: the sound cannot be read, or the disk refuses.
    """
    path = folder.path / WAVEFORM
    if job.sound is None:
        path.unlink(missing_ok=True)
        return
    seconds = float((job.chunks[-1].frames.stop - job.skipped_frames) / job.fps)
    measured = {"sound": job.sound_digest, "seconds": seconds}
    known = read_json(path)
    if job.sound_digest and {name: known.get(name) for name in measured} == measured:
        return
    folder.write_json(path, {**measured, "peaks": sound_peaks(job.sound, seconds, PEAKS)})
