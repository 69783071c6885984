"""The run's diary: one JSON object a line, so that a plot or a page can follow a run while it is written."""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import MediaError


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
    """Return the events of a run, or those of one kind; a line that was cut off, as a process died, is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [item for item in _readable(lines) if event in (None, item["event"])]


def _readable(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            item = json.loads(line)
        except ValueError:
            continue
        if isinstance(item, dict) and "event" in item:
            yield item


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
