"""One live line on the terminal; a line now and then where the output is not a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

QUIET_SECONDS = 15.0


def clock(seconds: float) -> str:
    """Return a duration as `m:ss` (`h:mm:ss` from an hour on), never negative."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class LiveLine:
    """A status line that is rewritten in place, or printed at most every 15 seconds where it cannot be rewritten."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._printed = -QUIET_SECONDS
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace the line by `text`."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + text[:width].ljust(min(len(self._shown), width)))
            self._stream.flush()
        elif time.monotonic() - self._printed >= QUIET_SECONDS:
            self._printed = time.monotonic()
            print(text, file=self._stream, flush=True)
        self._shown = text

    def close(self, text: str = "") -> None:
        """End the line, with `text` as its last state if given."""
        if self._live:
            self.show(text or self._shown)
            print(file=self._stream, flush=True)
        elif text:
            print(text, file=self._stream, flush=True)

    def __enter__(self) -> LiveLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._live and self._shown:
            print(file=self._stream, flush=True)


class Waiting:
    """A live line for work of unknown length: the label and the seconds it has taken."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._line = LiveLine()
        self._begun = time.monotonic()

    def tick(self) -> None:
        """Show the time that has passed; call it a few times a second."""
        self._line.show(f"{self._label} ({clock(time.monotonic() - self._begun)})")

    def __enter__(self) -> Waiting:
        self.tick()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        verdict = "done" if error is None else "given up"
        self._line.close(f"{self._label}: {verdict} after {clock(time.monotonic() - self._begun)}")
