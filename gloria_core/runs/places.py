"""Which files that a run names may be followed: those that lie below the output folder, behind whatever links."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_inside(path: Path, root: Path) -> bool:
    """Tell whether a path leads below a folder when every link in it is followed."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself; a name that no file can have
        return False


def is_file_inside(path: Path, root: Path) -> bool:
    """Tell whether a path is a file below a folder when every link in it is followed."""
    return is_inside(path, root) and path.is_file()


def finished_video(told: Mapping[str, Any], root: Path) -> Path | None:
    """Return the video that a run.json names, or None where it is not there or could lead elsewhere.

    Args:
        told: what run.json says; anybody may have written it.
        root: the output folder, which the video must lie in.
    """
    path = named_video(told, root)
    return path if path is not None and path.is_file() else None


def named_video(told: Mapping[str, Any], root: Path) -> Path | None:
    """Return the video that a run.json names, whether it is there or not; None where it could lead elsewhere."""
    video = told.get("video")
    path = Path(video) if isinstance(video, str) and video else None
    return path if path is not None and path.is_absolute() and is_inside(path, root) else None
