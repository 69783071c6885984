"""The lock of a file that the system lets go of when its process ends, however it ends."""

import sys
import time
from pathlib import Path
from typing import IO

_TRIES, _PAUSE_S = 5, 0.05


def take(file: IO[bytes]) -> bool:
    """Take the lock of an open file, and tell whether it was to be had.

    Somebody may hold it for a moment, only to look whether it is held: that is waited for, a quarter of a second.
    """
    for _ in range(_TRIES):
        if _lock(file):
            return True
        time.sleep(_PAUSE_S)
    return False


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file; False where there is no such file."""
    try:
        with path.open("r+b") as file:
            if not _lock(file):
                return True
            release(file)
    except OSError:
        return False
    return False


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def release(file: IO[bytes]) -> None:
        """Let go of the lock."""
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(file: IO[bytes]) -> None:
        """Let go of the lock."""
        fcntl.flock(file, fcntl.LOCK_UN)
