"""Foreseeing what a run will cost: by what is on the disk already, and by what its host says of memory."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import MediaError
from .chunk_file import ChunkFileError, ChunkRecord, Ingredients, read_record
from .folder import RunFolder, Take, read_json
from .forecast import SOUND_BYTES_A_SECOND, Disk, Forecast, latent_bytes, seconds_for, sized, video_bytes
from .job import RunJob, Script
from .reuse import Decision

_SAME = ("model", "sampler", "size", "guidance")
"""Ingredients on which the time of a chunk depends; of the anchors their roles count, which their words tell."""
_RUNS, _TAKES = 12, 6
"""Of how many other runs, the last ones, and of how many takes of each the time is looked at."""


def foresee(
    job: RunJob[Any], folder: RunFolder, takes: Sequence[Take], scripts: Sequence[Script[Any]], plan: Sequence[Decision]
) -> Forecast:
    """Return what a run will cost.

    Args:
        job: what is wanted.
        folder: where it lives.
        takes: the finished chunks in it.
        scripts: what each chunk is made from.
        plan: what is done about each.

    Raises:
        MediaError: what is certain to be written does not fit onto the disk.
    """
    made = [decision.chunk for decision in plan if decision.take is None]
    a_frame = _bytes_a_frame(job, folder)
    num_frames = job.chunks[-1].frames.stop - job.skipped_frames
    sound = 0 if job.sound is None else round(num_frames / float(job.fps) * SOUND_BYTES_A_SECOND)
    disk = Disk(
        latents=sum(latent_bytes(chunk.num_latents, job.shape) for chunk in made),
        segments=video_bytes(sum(len(chunk.frames) for chunk in made), job.size, a_frame),
        film=video_bytes(num_frames, job.size, a_frame) + sound,
        free=shutil.disk_usage(folder.path).free,
    )
    if disk.latents > disk.free:
        raise MediaError(
            f"The latents of {len(made)} chunks take {sized(disk.latents)}, and {sized(disk.free)} of the disk of "
            f"{folder.path} are free. Free some space, choose another output folder (--output-directory), or make the "
            "video shorter."
        )
    known = _seconds_of_alike(folder, takes, scripts[made[0].index].ingredients, made[0].num_latents) if made else []
    return Forecast(disk=disk, memory=job.memory, seconds=seconds_for(len(made), known), by_chunks=len(known))


def _bytes_a_frame(job: RunJob[Any], folder: RunFolder) -> float | None:
    """Return what a frame of this film took so far on average; None where there is none of this size."""
    told = read_json(folder.settings)
    if told.get("size") != list(job.size):
        return None
    try:
        found = [(entry["end_s"] - entry["start_s"], entry["segment"]) for entry in told["chunks"]]
        sizes = [(seconds, _size(folder.segments / segment)) for seconds, segment in found]
        num_frames = round(sum(seconds for seconds, size in sizes if size) * job.fps)
    except (KeyError, TypeError, ValueError, OverflowError):  # something else has written it
        return None
    return sum(size for _, size in sizes) / num_frames if num_frames > 0 else None


def _seconds_of_alike(folder: RunFolder, takes: Sequence[Take], wanted: Ingredients, num_latents: int) -> list[float]:
    """Return how long chunks like a wanted one took: of this run, or else of the others beside it."""
    own = [_seconds(take) for take in takes if _is_alike(take.record, wanted, num_latents)]
    if own:
        return own
    others = (take for take in _takes_beside(folder.path) if _is_alike(take.record, wanted, num_latents))
    return [_seconds(take) for take in others]


def _is_alike(record: ChunkRecord, wanted: Ingredients, num_latents: int) -> bool:
    have = record.ingredients
    if record.latents[1] - record.latents[0] != num_latents or not set(_SAME) <= set(have) & set(wanted):
        return False
    if any(have[name].digest != wanted[name].digest for name in _SAME):
        return False
    return "anchors" not in wanted or ("anchors" in have and have["anchors"].words == wanted["anchors"].words)


def _seconds(take: Take) -> float:
    """Return how long a take took, with its decoding where that is known."""
    decoding = read_json(take.seen_path).get("seconds", 0.0)
    return take.record.seconds + (decoding if isinstance(decoding, int | float) else 0.0)


def _takes_beside(run: Path) -> Iterator[Take]:
    """Yield the last takes of the runs beside one, the run that changed last first."""
    beside = (path for path in run.parent.glob("*/run.json") if path.parent != run)
    for story in sorted(beside, key=_changed, reverse=True)[:_RUNS]:
        files = (story.parent / "chunks").glob("*.take-*.safetensors")
        for file in sorted(files, key=_changed, reverse=True)[:_TAKES]:
            try:
                yield Take(file, read_record(file))
            except ChunkFileError:
                continue


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it was deleted while it was looked for
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
