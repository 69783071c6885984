"""What stops a file from being written, in the words of whoever has to do something about it."""

import errno
from pathlib import Path

import av

from ..errors import MediaError

FAILURES = (av.FFmpegError, OSError, ValueError, MemoryError)
"""What encoding and writing can end with; MediaError is a ValueError."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def explained(path: Path, error: Exception) -> MediaError:
    """Return a failure to write a file as an error that names the file, the reason and the way out."""
    if isinstance(error, MediaError):
        return error
    code = getattr(error, "errno", None)
    if code in _FULL:
        reason, remedy = "the disk is full", "Free some space or choose another folder."
    elif code == errno.EROFS:
        reason, remedy = "the folder can only be read", "Choose another folder."
    elif isinstance(error, PermissionError):
        reason, remedy = "this user may not", "Close programs that show it, or choose another folder."
    else:
        reason, remedy = str(error), "Choose another folder or size."
    told = MediaError(f"{path.absolute()} could not be written: {reason}. {remedy}")
    told.__cause__ = error
    return told
