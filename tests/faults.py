"""Ends its own process at a chosen moment of a chosen write, as the kernel or a power cut would; or fills the disk.

A write point is called "MOMENT DEED FILE #N", for example "half sync chunks/0001.take-1.safetensors.partial #1": the
N-th time that this is done to this file. Deeds are mkdir, open (to write), write, sync, replace (named by what it
becomes) and unlink. Moments are before, after and, for bytes, half: half of them are in the file. Libraries that write
by themselves (safetensors, FFmpeg) are met where their file is forced to the disk: half of it is cut off there.

The file is also a custom node pack without nodes: the tests put it into the `custom_nodes` of a server of their own,
where GLORIA_FAULT holds the point and GLORIA_FAULT_BELOW the folder to which file names are relative.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

NODE_CLASS_MAPPINGS: dict[str, type] = {}
DEEDS = ("mkdir", "replace", "unlink", "fsync")

_open = io.open
_done = {name: getattr(os, name) for name in DEEDS}


class Faults:
    """Counts write points below a folder, and ends the process at one of them.

    Args:
        below: only files in it are looked at, and named relative to it.
        die_at: the point to die at, in which * stands for anything; None only counts.
        full_at: the point from which on the disk is full.
    """

    def __init__(self, below: Path, die_at: str | None = None, *, full_at: str | None = None) -> None:
        self.below, self.die_at, self.full_at = os.path.realpath(below), die_at, full_at
        self.points: list[str] = []
        """All points that were passed, in order."""
        self._counts: Counter[str] = Counter()
        self._full = False
        self._lock = threading.Lock()
        self._paths: dict[int, str] = {}  # of file descriptors that are open for writing

    def install(self) -> None:
        """Watch this process's writes from now on."""
        for name in DEEDS:
            setattr(os, name, getattr(self, f"_{name}"))
        builtins.open = io.open = self._open_file  # type: ignore[assignment]

    def uninstall(self) -> None:
        """Let this process write as before."""
        for name, done in _done.items():
            setattr(os, name, done)
        builtins.open = io.open = _open

    def pass_by(self, moment: str, deed: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        """Count a point, and die where it is the chosen one."""
        name = os.path.relpath(path, self.below).replace(os.sep, "/")
        with self._lock:
            point = f"{moment} {deed} {name}"
            self._counts[point] += 1
            point = f"{point} #{self._counts[point]}"
            self.points.append(point)
            if self.die_at is not None and fnmatchcase(point, self.die_at):
                half()
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            self._full = self._full or point == self.full_at
            if self._full and moment != "after" and deed in ("open", "write", "sync", "replace"):
                half()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def concerns(self, path: object) -> str | None:
        """Return a path as text where it lies below the folder."""
        if not isinstance(path, str | os.PathLike):
            return None
        real = os.path.realpath(path)
        return real if real.startswith(self.below + os.sep) else None

    def _mkdir(self, path: Any, *more: Any, **named: Any) -> None:
        _done["mkdir"](path, *more, **named)
        if (name := self.concerns(path)) is not None:
            self.pass_by("after", "mkdir", name)

    def _unlink(self, path: Any, *more: Any, **named: Any) -> None:
        _done["unlink"](path, *more, **named)
        if not named.get("dir_fd") and (name := self.concerns(path)) is not None:
            self.pass_by("after", "unlink", name)

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        name = self.concerns(target)
        if name is not None:
            self.pass_by("before", "replace", name)
        _done["replace"](source, target, **named)
        if name is not None:
            self.pass_by("after", "replace", name)

    def _fsync(self, file: int) -> None:
        name = self._paths.get(file)
        if name is not None:
            self.pass_by("before", "sync", name)
            self.pass_by("half", "sync", name, lambda: os.truncate(name, os.path.getsize(name) // 2))
        _done["fsync"](file)
        if name is not None:
            self.pass_by("after", "sync", name)

    def _open_file(self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> IO[Any]:
        name = self.concerns(file) if set(mode) & set("wax+") else None
        if name is None:
            return _open(file, mode, buffering, *more, **named)
        self.pass_by("before", "open", name)
        raw = _Raw(self, name, mode)
        self._paths[raw.fileno()] = name
        self.pass_by("after", "open", name)
        if buffering == 0:
            return raw  # type: ignore[return-value]
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *more, **named)


class _Raw(io.FileIO):
    """A file whose writes are points."""

    def __init__(self, faults: Faults, name: str, mode: str) -> None:
        super().__init__(name, mode.replace("b", "").replace("t", ""))
        self._faults, self._called = faults, name

    def write(self, data: Any) -> int:
        whole = bytes(data)
        self._faults.pass_by("before", "write", self._called)
        self._faults.pass_by("half", "write", self._called, lambda: super(_Raw, self).write(whole[: len(whole) // 2]))
        written = super().write(whole)
        self._faults.pass_by("after", "write", self._called)
        return written

    def close(self) -> None:
        if not self.closed:
            self._faults._paths.pop(self.fileno(), None)
        super().close()


if "GLORIA_FAULT" in os.environ:
    Faults(Path(os.environ["GLORIA_FAULT_BELOW"]), os.environ["GLORIA_FAULT"]).install()
