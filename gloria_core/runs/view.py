"""What others may see of a run: JSON without paths, its events from a line on, and its files, found by name and number.

Whatever lies outside the output folder, be it behind a link, counts as not there. Nothing is made or changed here.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import GloriaError, MediaError
from .folder import RunFolder, check_name, read_json
from .places import finished_video, is_file_inside, is_inside
from .shown import shown
from .waveform import WAVEFORM

MOST_EVENTS = 1000
"""Lines in one answer."""

_STORY, _EVENTS, _FILM, _LOCK = "run.json", "events.jsonl", "film.mp4", "lock"
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\.mp4")
_CHUNK_FIELDS = (
    "chunk", "take", "seed", "prompt", "start_s", "end_s", "reused", "attempts", "seconds", "segment", "drift",
)  # fmt: skip
_KILLED = "The process that made it has ended without a word; queue the same again, and it goes on."


class NotThereError(MediaError):
    """There is no such run, or it has no such thing."""


def list_runs(runs: Path, root: Path, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Return all runs in short, the one that changed last first.

    Args:
        runs: folder of the runs.
        root: the output folder, which ``runs`` lies in.
        names: only those of these that are there.

    Returns:
        ``name``, ``state``, ``num_chunks``, ``done`` (chunks that are part of the film), ``updated`` (Unix time) and
        ``seconds`` (length of the whole film) of each.
    """
    found = []
    for name in dict.fromkeys(_folders(runs) if names is None else names):
        try:
            path = find_run(runs, name, root)
        except GloriaError:
            continue
        told = _told(path, root)
        found.append(_head(path.name, told) | {"done": len(_entries(told))})
    return sorted(found, key=lambda head: (-head["updated"], head["name"]))


def find_run(runs: Path, name: str, root: Path) -> Path:
    """Return the folder of a run.

    Raises:
        PlanError: it is no name of a run.
        NotThereError: there is no such run.
    """
    path = runs / check_name(name)
    if not is_file_inside(path / _STORY, root):
        raise NotThereError(f"There is no run {name!r} in the output folder, or it has not begun yet.")
    return path


def run_view(run: Path, root: Path) -> dict[str, Any]:
    """Return what a run is and how far it is, with all takes on disk.

    Args:
        run: its folder, from ``find_run``.
        root: the output folder.

    Returns:
        What ``list_runs`` says of it but for ``done``, and ``reason`` (why it ended early, or None), ``plan``
        (sentences), ``planned`` (``disk`` or ``make`` for each chunk), ``spans`` (from and to which second of the film
        each is shown), ``settings``, ``forecast`` (see
        `forecast.Forecast.told`), ``meter`` (what compares pictures, and the threshold), ``fps``, ``size``,
        ``num_frames``, ``chunks`` (those that are part of the film, in order), ``takes`` (by the chunk's number) and
        ``video`` (name, subfolder and type for ``/view``, or None). Seeds are strings: a page's numbers are too short.
    """
    told = _told(run, root)
    chunks = _entries(told)
    reason = told.get("reason")
    return {
        **_head(run.name, told),
        "reason": reason if reason is None else shown(str(reason), root),
        "plan": shown(_list(told.get("plan")), root),
        "planned": shown(_list(told.get("planned")), root),
        "spans": shown(_list(told.get("spans")), root),
        "settings": shown(told.get("settings") or {}, root),
        "forecast": shown(told.get("forecast") or {}, root),
        "meter": shown(told.get("meter") or {}, root),
        "fps": _number(told.get("fps")),
        "size": shown(_list(told.get("size")), root),
        "num_frames": _whole(told.get("num_frames")),
        "chunks": [shown({name: entry.get(name) for name in _CHUNK_FIELDS}, root) for entry in chunks],
        "takes": _takes(run, root, {(entry.get("chunk"), entry.get("take")) for entry in chunks}),
        "video": _viewable(told, root),
    }


def events_after(run: Path, root: Path, after: int) -> dict[str, Any]:
    """Return the lines of a run's log from one on, at most ``MOST_EVENTS``.

    Args:
        run: its folder, from ``find_run``.
        root: the output folder.
        after: how many lines are known already.

    Returns:
        ``events``, ``next`` (what to ask with the next time) and ``more`` (whether to ask at once). A ``next`` that
        is smaller than ``after`` means that the log began anew. A line that is still being written is not there yet.
    """
    path = run / _EVENTS
    if not is_file_inside(path, root):
        return {"events": [], "next": 0, "more": False}
    with path.open("rb") as file:
        whole = (line for line in file if line.endswith(b"\n"))
        skipped = sum(1 for _ in islice(whole, after))
        lines = list(islice(whole, MOST_EVENTS))
        more = next(whole, None) is not None
    return {"events": [shown(event, root) for event in _parsed(lines)], "next": skipped + len(lines), "more": more}


def segment_file(run: Path, root: Path, number: int) -> Path:
    """Return the video of a chunk as it is in the film.

    Args:
        run: the run's folder, from ``find_run``.
        root: the output folder.
        number: the chunk's number, from 1.

    Raises:
        NotThereError: the chunk is not part of the film (yet), or its file is gone.
    """
    entry = next((entry for entry in _entries(_told(run, root)) if entry.get("chunk") == number), None)
    name = str(entry.get("segment")) if entry is not None else ""
    path = run / "segments" / name
    if not _SEGMENT.fullmatch(name) or not is_file_inside(path, root):
        raise NotThereError(f"Chunk {number} of the run {run.name!r} is not part of the film, or not yet.")
    return path


def waveform(run: Path, root: Path) -> dict[str, Any]:
    """Return how loud the film's sound is: ``peaks`` (0 to 100, equally far apart) and ``seconds``, the film's length.

    Args:
        run: the run's folder, from ``find_run``.
        root: the output folder.
    """
    path = run / WAVEFORM
    told = read_json(path) if is_file_inside(path, root) else {}
    return {"peaks": [_whole(peak) for peak in _list(told.get("peaks"))], "seconds": _number(told.get("seconds"))}


def film_file(run: Path, root: Path) -> Path:
    """Return the finished video, or the film as far as it is.

    Raises:
        NotThereError: nothing of it is there yet, or it was moved away.
    """
    place = finished_video(_told(run, root), root) or run / _FILM
    if not is_file_inside(place, root):
        raise NotThereError(f"The run {run.name!r} has no film yet, or its video was moved away.")
    return place


def _folders(runs: Path) -> list[str]:
    try:
        return sorted(path.name for path in runs.iterdir() if path.is_dir())
    except OSError:
        return []


def _told(run: Path, root: Path) -> dict[str, Any]:
    """Return what run.json says; a run that nobody works on any more is not running, whatever it says."""
    told = read_json(run / _STORY)
    if told.get("state") != "running" or _in_use(run, root):
        return told
    again = read_json(run / _STORY)  # it may have ended, or begun anew, between the two looks
    if again.get("updated") != told.get("updated"):
        return again
    return {**again, "state": "stopped", "reason": _KILLED}


def _in_use(run: Path, root: Path) -> bool:
    folder = _run_folder(run, root)
    if folder is None or not is_file_inside(run / _LOCK, root):
        return False
    try:
        with folder.locked():
            return False
    except MediaError:
        return True


def _run_folder(run: Path, root: Path) -> RunFolder | None:
    """Return the run with its files; None where some folder is missing, which would be made."""
    whole = all(path.is_dir() and is_inside(path, root) for path in (run / "chunks", run / "segments"))
    return RunFolder(run) if whole else None


def _takes(run: Path, root: Path, in_film: set[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what is on disk of each chunk, by its number from 1, the oldest take first."""
    folder = _run_folder(run, root)
    found: dict[str, list[dict[str, Any]]] = {}
    for take in folder.takes()[0] if folder is not None else []:
        if not is_inside(take.path, root):
            continue
        record, number = take.record, take.record.index + 1
        seen = read_json(take.seen_path) if is_file_inside(take.seen_path, root) else {}
        entry = {
            "take": record.take,
            "seed": record.seed,
            "prompt": record.prompt,
            "seconds": record.seconds,
            "drift": seen.get("drift"),
            "in_film": (number, record.take) in in_film,
        }
        found.setdefault(str(number), []).append(shown(entry, root))
    return found


def _head(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    fps, frames = _number(told.get("fps")), _whole(told.get("num_frames"))
    return {
        "name": name,
        "state": str(told.get("state", "stopped")),
        "num_chunks": _whole(told.get("num_chunks")),
        "updated": _number(told.get("updated")),
        "seconds": round(frames / fps, 3) if fps else 0.0,
    }


def _entries(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in _list(told.get("chunks")) if isinstance(entry, dict)]


def _viewable(told: Mapping[str, Any], root: Path) -> dict[str, str] | None:
    path = finished_video(told, root)
    if path is None:
        return None
    place = path.resolve().relative_to(root.resolve())
    subfolder = place.parent.as_posix() if len(place.parts) > 1 else ""
    return {"filename": place.name, "subfolder": subfolder, "type": "output"}


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _number(value: object) -> float:
    """Return a number, or a fraction such as ``30000/1001``, as a float; 0 where it is neither."""
    try:
        number = float(Fraction(value)) if isinstance(value, str | int | float) else 0.0
    except (ValueError, ArithmeticError):
        return 0.0
    return number if math.isfinite(number) else 0.0
