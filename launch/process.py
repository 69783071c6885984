"""Child processes that can be ended together with everything they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from . import LaunchError

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.2

INTERRUPTED = 130
"""Exit code after Ctrl-C, the shells' convention."""


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Turn a signal into KeyboardInterrupt, so that one clean-up path serves Ctrl-C, a closed terminal and `kill`."""
    ignore_signals()
    raise KeyboardInterrupt


def _stop_signals() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def catch_signals() -> None:
    """Let every signal that means "stop" raise KeyboardInterrupt in the main thread."""
    for number in _stop_signals():
        signal.signal(number, raise_interrupt)


def ignore_signals() -> None:
    """Let nothing cut the clean-up short once it has begun."""
    for number in _stop_signals():
        signal.signal(number, signal.SIG_IGN)


def start(
    command: Sequence[str | Path], log: Path, *, cwd: Path, env: Mapping[str, str] | None = None, append: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command as the head of its own process group, its output going to `log`.

    Args:
        command: program and arguments.
        log: file for stdout and stderr; its folder is made.
        cwd: working directory of the child.
        env: whole environment of the child; the present one if None.
        append: keep what `log` holds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("ab" if append else "wb") as sink:
        if os.name == "nt":
            flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            return subprocess.Popen(
                words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, creationflags=flags
            )
        return subprocess.Popen(
            words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )


def stop_tree(child: subprocess.Popen[bytes]) -> None:
    """End a child of `start` and all its descendants: first politely, after five seconds by force."""
    if os.name == "nt":
        if child.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(child.pid)], capture_output=True, check=False)
    else:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
        _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody left in it (macOS says "not permitted" for zombies)
        return


def run_logged(command: Sequence[str | Path], log: Path, *, cwd: Path, tick: Callable[[], None]) -> int:
    """Run a command to its end, calling `tick` while it works; returns its exit code."""
    child = start(command, log, cwd=cwd, append=True)
    try:
        while True:
            tick()
            try:
                return child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        stop_tree(child)
        raise


def last_lines(log: Path, count: int = 12) -> str:
    """Return the last lines of a log, or a word that there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as problem:
        return f"(no log: {problem})"
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (the log is empty)"


def require_file(path: Path, what: str) -> None:
    """Raise LaunchError unless `path` is a file.

    Raises:
        LaunchError: it is missing, or a folder.
    """
    if not path.is_file():
        raise LaunchError(f"{what}: there is no file {path}. Check the path.")
