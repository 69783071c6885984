"""What others may see of trainings: JSON without paths, events from a number on, and pictures by number.

Whatever lies outside of the output folder, be it behind a link, counts as not there. Nothing is made or changed here.
"""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import ConfigError, GloriaError, PlanError
from ..runs.folder import check_name
from ..runs.places import is_file_inside, is_inside
from ..runs.shown import shown
from .curve import loss_curve, thinned
from .job import Job
from .plot import loss_plot
from .status import job_events, read_status, runs_of

MOST_EVENTS = 1000
"""Events in one answer."""
MOST_POINTS = 2000
"""Points of a curve in one answer."""
CACHE = "cache"
"""Folder beside the jobs that footage is encoded into; no job's name."""

_SHORT = ("name", "state", "stage", "step", "total_steps", "done", "loss", "held_out", "eta_s")


class NoJobError(GloriaError):
    """There is no such job, or it has no such thing."""


def job_name(name: str) -> str:
    """Return a job's name, composed; ConfigError where it could not be a folder's name on every system, or is taken."""
    try:
        checked = check_name(name.strip())
    except PlanError as error:
        raise ConfigError(
            f"The job is called {name[:100]!r}; use letters, digits, '_', '-' and '.', beginning with a letter or "
            "digit, such as 'mira'."
        ) from error
    if checked.casefold() == CACHE:
        raise ConfigError(f"The job is called {name!r}, where the prepared footage lies; use a name such as 'mira'.")
    return checked


def find_job(folder: Path, name: str, root: Path) -> Job:
    """Return a job.

    Args:
        folder: of all jobs.
        name: the job's.
        root: the output folder, which ``folder`` lies in.

    Raises:
        ConfigError: it is no name of a job.
        NoJobError: there is no such job, or a part of it leads out of the output folder.
    """
    job = Job(folder / job_name(name))
    inside = is_file_inside(job.config, root) and all(is_inside(path, root) for path in _read_by_others(job))
    if not inside:
        raise NoJobError(f"There is no training called {name!r}; make it with one of the Train nodes.")
    return job


def all_jobs(folder: Path, root: Path, names: Iterable[str] | None = None) -> list[Job]:
    """Return all jobs, or those of these names that are there, the one that changed last first."""
    given = _folders(folder) if names is None else names
    return sorted(_found(folder, dict.fromkeys(given), root), key=lambda job: (-changed(job), job.name))


def list_jobs(
    folder: Path, root: Path, names: Iterable[str] | None = None, count: int | None = None
) -> list[dict[str, Any]]:
    """Return jobs in short, the one that changed last first.

    Args:
        folder: of all jobs.
        root: the output folder, which ``folder`` lies in.
        names: only those of these that are there.
        count: only so many.

    Returns:
        ``name``, ``state``, ``stage``, ``step``, ``total_steps``, ``done`` (0..1), ``loss``, ``held_out``, ``eta_s``
        and ``updated`` (Unix time) of each.
    """
    found = []
    for job in islice(all_jobs(folder, root, names), count):
        status = read_status(job).as_json()
        found.append({key: status[key] for key in _SHORT} | {"updated": changed(job)})
    return found


def job_view(job: Job, root: Path, points: int = 0) -> dict[str, Any]:
    """Return how a job stands (see `status.JobStatus`).

    Args:
        job: from `find_job`.
        root: the output folder.
        points: how many each of its curves may have, at most ``MOST_POINTS``; 0 leaves the curves out.

    Returns:
        The fields of the status, where ``samples`` are numbers for `sample_file`, oldest first, and ``films`` those of
        them that `sample_film` has too; ``curve`` has ``trained`` and ``held_out`` (see `curve.thinned`) and ``stages``
        (name and first step of each).
    """
    events = job_events(job)
    status = read_status(job, events).as_json()
    sheets = dict(enumerate(status["samples"], 1))
    films = [number for number, sheet in sheets.items() if is_file_inside(film_beside(job.path / sheet), root)]
    view: dict[str, Any] = shown({**status, "samples": list(sheets), "films": films}, root)
    if points:
        curve, most = loss_curve(events), min(points, MOST_POINTS)
        drawn = {"trained": thinned(curve.trained, most), "held_out": thinned(curve.held_out, most)}
        view["curve"] = {**drawn, "stages": curve.stages}
    return view


def events_after(job: Job, root: Path, after: int) -> dict[str, Any]:
    """Return a job's events from one on, at most ``MOST_EVENTS``.

    Args:
        job: from `find_job`.
        root: the output folder.
        after: how many events are known already.

    Returns:
        ``events``, ``next`` (what to ask with the next time) and ``more`` (whether to ask at once).
    """
    events = job_events(job)
    part = events[after : after + MOST_EVENTS]
    end = min(after, len(events)) + len(part)
    return {"events": shown(part, root), "next": end, "more": end < len(events)}


def plot_png(job: Job) -> bytes:
    """Return a job's losses as a PNG."""
    file = io.BytesIO()
    loss_plot(job_events(job)).save(file, "PNG")
    return file.getvalue()


def sample_file(job: Job, root: Path, number: int) -> Path:
    """Return a sample sheet by its number from 1, oldest first; NoJobError where there is none."""
    samples = read_status(job).samples
    path = job.path / samples[number - 1] if 0 < number <= len(samples) else job.path
    if not is_file_inside(path, root):
        raise NoJobError(f"The training {job.name!r} has no sample sheet {number}; it has {len(samples)}.")
    return path


def sample_film(job: Job, root: Path, number: int) -> Path:
    """Return the film beside a sample sheet, by the sheet's number; NoJobError where there is none."""
    path = film_beside(sample_file(job, root, number))
    if not is_file_inside(path, root):
        raise NoJobError(f"The training {job.name!r} has no film beside its sample sheet {number}.")
    return path


def film_beside(sheet: Path) -> Path:
    """Return where the film of a sample sheet lies, if it has one."""
    return sheet.with_suffix(".mp4")


def changed(job: Job) -> float:
    """Return when something happened in a job, in Unix time; 0 where nothing did."""
    logs = [run / "events.jsonl" for run in (job.path, *runs_of(job))]
    return max((path.stat().st_mtime for path in (*logs, job.config) if path.is_file()), default=0.0)


def _folders(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _found(folder: Path, names: Iterable[str], root: Path) -> Iterator[Job]:
    for name in names:
        try:
            yield find_job(folder, name, root)
        except GloriaError:
            continue


def _read_by_others(job: Job) -> list[Path]:
    own = [job.log, job.stop_file, job.path / "lock", job.path / "process.json"]
    return [*own, *(run / part for run in (job.path, *runs_of(job)) for part in ("events.jsonl", "samples"))]
