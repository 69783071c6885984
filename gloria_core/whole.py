"""Files that appear under their name only when they are whole."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import CheckpointError, GloriaError


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
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise kind(f"{path.name} cannot be written ({reason}): {advice}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
