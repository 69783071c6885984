"""Files that appear under their name only when they are whole."""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import CheckpointError, GloriaError

_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def partial_of(path: Path) -> Path:
    """Return where a file lies that is not whole yet."""
    return path.with_name(path.name + ".partial")


def take_name(partial: Path, path: Path) -> None:
    """Give a finished file its name, in place of any that has it, so that the name outlasts a power cut too.

    Raises:
        OSError: the disk refuses.
    """
    os.replace(partial, path)
    if os.name == "nt":  # folders cannot be forced to the disk there
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # nor on some network disks
            os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def written_whole(
    path: Path,
    *,
    kind: type[GloriaError] = CheckpointError,
    advice: str = "free some space or choose another folder",
) -> Iterator[Path]:
    """Give a temporary path to write to; afterwards the file is forced to the disk and takes its name.

    Whatever is raised on the way leaves no temporary file, and a file that had the name before as it was.

    Args:
        path: the file's name; its folder is made.
        kind: what is raised where the disk refuses.
        advice: what a person can do then.

    Raises:
        GloriaError: of the given kind, in place of the system's or safetensors' own error.
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        take_name(partial, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        if getattr(error, "errno", None) in _FORBIDDEN:
            advice = "choose a folder that may be written to"
        raise kind(f"{path} cannot be written ({reason}): {advice}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
