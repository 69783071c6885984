"""Where runs and finished videos lie below an output folder."""

import re
from pathlib import Path

from ..errors import MediaError
from .digest import digest_of
from .folder import check_name

RUNS = "gloria_runs"
"""Folder of all runs below the output folder."""
_MOST_LETTERS = 80
"""Of a name that is made from a file's."""


def run_name(name: str, prefix: str) -> str:
    """Return the name of a run.

    Args:
        name: as it was given; empty makes one from ``prefix``: ``gloria/video`` becomes ``gloria_video``.
        prefix: folder and name of the video.

    Raises:
        PlanError: the name could lead elsewhere, or is none on every system.
    """
    return check_name(name.strip() or _from_prefix(prefix))


def _from_prefix(prefix: str) -> str:
    name = re.sub(r"[^\w.-]+", "_", prefix).strip("._-") or "video"
    if len(name) <= _MOST_LETTERS and len(name.encode()) <= 2 * _MOST_LETTERS:
        return name
    return f"{name[: _MOST_LETTERS // 2].strip('._-')}-{digest_of(name)[:8]}"  # two long ones that begin alike differ


def next_video(output: Path, prefix: str) -> Path:
    """Return the next free video file for a prefix: ``gloria/video`` gives ``gloria/video_00001_.mp4``.

    Args:
        output: the output folder.
        prefix: folder and name of the video below it; the folder is made.

    Raises:
        MediaError: the prefix leads out of the output folder, or its folder cannot be made.
    """
    root, place = output.resolve(), (output / prefix).resolve()
    if not place.is_relative_to(root) or place == root or prefix.endswith(("/", "\\")):
        raise MediaError(
            f"The file name {prefix!r} leads out of the output folder, or is a folder; use a name such as "
            "'gloria/video'."
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"The folder {place.parent} cannot be made ({error.strerror}); choose another one.") from error
    numbered = re.compile(re.escape(place.name) + r"_(\d+)_?\..*")
    taken = [int(found[1]) for file in place.parent.iterdir() if (found := numbered.fullmatch(file.name))]
    return place.parent / f"{place.name}_{max(taken, default=0) + 1:05}_.mp4"
