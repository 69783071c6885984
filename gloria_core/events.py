"""The run's diary: one JSON object a line, so that a plot or a page can follow a run while it is written."""

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import MediaError

_MOST_LOGS, _COMPARED = 8, 256
_NUMBERS, _END = ("loss", "lr", "samples_per_s", "memory_mb", "eta_s"), 1e300
_logs: dict[Path, "_Log"] = {}
_lock = threading.Lock()


class EventLog:
    """Appends events to a file; writes nothing where the path is None (processes other than the first)."""

    def __init__(self, path: Path | None) -> None:
        """Write to ``path``, after what is there already."""
        self._path = path

    def write(self, event: str, **fields: object) -> None:
        """Append one event with its time; numbers are rounded to six digits, NaN and infinity become null.

        Raises:
            MediaError: the disk refuses. Half a line may be left, and the next event begins a new one.
        """
        if self._path is None:
            return
        line = {"event": event, "time": round(time.time(), 2), **{key: _plain(value) for key, value in fields.items()}}
        try:
            with self._path.open("a+b") as file:
                file.write(_ended(file) + json.dumps(line).encode() + b"\n")
        except OSError as error:
            raise MediaError(
                f"{self._path} cannot be written ({error.strerror or error}): free some space and begin again; what is "
                "finished stays."
            ) from error


def read_events(path: Path, event: str | None = None) -> list[dict[str, Any]]:
    """Return the events of a run, or those of one kind; a line that was cut off, as a process died, is left out.

    Of a file that is asked for again only what was added is read. The events are shared: they are not to be changed.
    """
    if not path.exists():
        return []
    with _lock:
        log = _logs.pop(path, None) or _Log(path)
        log.go_on()
        _logs[path] = log  # the last one used comes last
        while len(_logs) > _MOST_LOGS:
            del _logs[next(iter(_logs))]
        return [item for item in log.events if event in (None, item["event"])]


class _Log:
    """What is known of a file of events: it grows, unless somebody puts another in its place."""

    def __init__(self, path: Path) -> None:
        self.path, self.events = path, list[dict[str, Any]]()
        self._place, self._last = 0, b""

    def go_on(self) -> None:
        """Read the lines that were added."""
        with self.path.open("rb") as file:
            file.seek(self._place - len(self._last))
            if file.read(len(self._last)) != self._last:  # another file
                self.events, self._place, self._last = [], 0, b""
                file.seek(0)
            *lines, _ = file.read().split(b"\n")
        if lines:
            self.events += _readable(lines)
            self._place += sum(len(line) + 1 for line in lines)
            self._last = lines[-1][-_COMPARED:] + b"\n"


def _readable(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(item, dict) and _is_sound(item):
            yield item


def _is_sound(item: dict[str, Any]) -> bool:
    """Tell whether an event can be one of ours: a job's folder may come from anywhere."""
    sure = (item.get("time", 0.0), item.get("step", 0))
    more = (item[name] for name in _NUMBERS if item.get(name) is not None)
    return isinstance(item.get("event"), str) and all(
        isinstance(value, int | float) and abs(value) < _END for value in (*sure, *more)
    )


def _ended(file: BinaryIO) -> bytes:
    """Return what ends the last line of a file, which another process may have died in; nothing where it is ended."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
