"""How a job stands, read from its folder alone: the same for a node, a page that was reloaded, and a script."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..events import read_events
from ..runs.forecast import duration
from .config import TrainConfig
from .job import Job
from .stages import read_stages

_STATES = {
    "new": "not begun",
    "running": "training",
    "stopping": "stopping, a checkpoint is made first",
    "stopped": "stopped; resume it to go on",
    "finished": "finished",
    "failed": "failed",
    "lost": "ended without a word",
}
_STAGE = re.compile(r"\d+-\w+")
_LOST = (
    "The process that trained ended without a word: it was killed, or the machine ran out of memory or was switched "
    "off. What was saved is kept; resume to go on."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatus:
    """How a job stands."""

    name: str
    state: str
    """``new``, ``running``, ``stopping``, ``stopped``, ``finished``, ``failed`` or ``lost`` (ended without a word)."""
    stage: str = ""
    """Folder of the stage that is trained, in a job of several."""
    step: int = 0
    """Steps of that stage."""
    total_steps: int = 0
    """Steps that the stage will have."""
    done: float = 0.0
    """Share of all steps of all stages, 0..1."""
    loss: float | None = None
    held_out: float | None = None
    lr: float | None = None
    samples_per_s: float | None = None
    memory_mb: float | None = None
    eta_s: float | None = None
    error: str = ""
    """Why it ended early, in a sentence."""
    lines: list[str] = field(default_factory=list)
    """The process's last lines, where it failed."""
    file: str = ""
    """What a finished job has written."""
    samples: list[str] = field(default_factory=list)
    """Sample sheets, relative to the job's folder, oldest first; a film of the same may stand beside each (.mp4)."""

    def as_json(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return asdict(self)

    def told(self) -> str:
        """Tell it to a person, in lines; the first alone will do where there is little room."""
        stage = f", stage {self.stage}" if self.stage else ""
        head = f"{self.name}: {_STATES[self.state]}{stage}, step {self.step} of {self.total_steps}"
        numbers = [
            f"loss {self.loss:.4f}" if self.loss is not None else "",
            f"held-out loss {self.held_out:.4f}" if self.held_out is not None else "",
            f"{self.samples_per_s:.2g} clips a second" if self.samples_per_s is not None else "",
            f"{self.memory_mb / 1000:.1f} GB" if self.memory_mb else "",
            f"about {duration(self.eta_s)} left" if self.eta_s is not None else "",
        ]
        return "\n".join(
            [", ".join([head, *filter(None, numbers)]), *([self.error] if self.error else []), *self.lines]
        )


def runs_of(job: Job) -> list[Path]:
    """Return the run folders of a job: itself, or those of the stages that were begun."""
    stages = sorted(path for path in job.path.glob("*-*") if _STAGE.fullmatch(path.name) and path.is_dir())
    return stages or [job.path]


def job_events(job: Job) -> list[dict[str, Any]]:
    """Return the events of a job and its stages in the order of time; each of a stage names it."""
    found = [{**event, "stage": ""} for event in read_events(job.path / "events.jsonl")]
    for run in runs_of(job):
        if run != job.path:
            found += [{**event, "stage": run.name} for event in read_events(run / "events.jsonl")]
    return sorted(found, key=lambda event: float(event.get("time", 0.0)))


def read_status(job: Job, events: Sequence[dict[str, Any]] | None = None) -> JobStatus:
    """Return how a job stands.

    Args:
        job: any.
        events: its events, where they are known already.
    """
    events = job_events(job) if events is None else events
    state, error = _state(job, events)
    stage = next((event["stage"] for event in reversed(events) if event["stage"]), "")
    own = [event for event in events if event["stage"] == stage]
    train = _last(own, "train")
    step = int(_last(own, "train", "checkpoint", "start", "resume").get("step", 0))
    totals = _totals(job)
    number = int(stage.partition("-")[0]) if stage else 1
    total = totals[number - 1] if number <= len(totals) else 0
    failed = state in ("failed", "lost")
    return JobStatus(
        name=job.name,
        state=state,
        stage=stage,
        step=step,
        total_steps=total,
        done=(sum(totals[: number - 1]) + step) / sum(totals) if totals else 0.0,
        loss=train.get("loss"),
        held_out=_last(own, "held_out").get("loss"),
        lr=train.get("lr"),
        samples_per_s=train.get("samples_per_s"),
        memory_mb=train.get("memory_mb"),
        eta_s=train.get("eta_s") if state == "running" else None,
        error=error,
        lines=job.last_lines() if failed else [],
        file=_last(events, "exported").get("file", "") if state == "finished" else "",
        samples=[path.relative_to(job.path).as_posix() for run in runs_of(job) for path in _sheets(run)],
    )


def _state(job: Job, events: Sequence[dict[str, Any]]) -> tuple[str, str]:
    if job.is_running:
        return ("stopping" if job.stop_file.exists() else "running"), ""
    if not events:
        return "new", ""
    ends = ("error", "end", "exported", "start", "resume", "train")
    last: dict[str, Any] = next((event for event in reversed(events) if event["event"] in ends), {})
    match last.get("event"):
        case "error":
            return "failed", str(last.get("sentence", ""))
        case "exported":
            return "finished", ""
        case "end" if last.get("reason") != "finished":
            return "stopped", ""
        case _:
            return "lost", _LOST


def _totals(job: Job) -> list[int]:
    try:
        configs: list[TrainConfig] = read_stages(job.config)
    except ConfigError:
        return []
    return [config.run.total_steps for config in configs]


def _last(events: Sequence[dict[str, Any]], *kinds: str) -> dict[str, Any]:
    return next((event for event in reversed(events) if event["event"] in kinds), {})


def _sheets(run: Path) -> list[Path]:
    return sorted((run / "samples").glob("step-*.png"))
