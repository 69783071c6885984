"""Following a run in the host: what the page, the queue's clients and the log hear of it."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from server import PromptServer

from ...gloria_core.runs.folder import RunFolder
from ...gloria_core.runs.forecast import Forecast, duration
from ...gloria_core.runs.job import ChunkNews, Frames
from ...gloria_core.runs.reuse import Decision, told
from ...gloria_core.runs.video import size_line
from ...gloria_core.sampling.chunks import Chunk
from .progress import VideoProgress, stop_if_interrupted
from .video_job import VideoJob

_log = logging.getLogger(__name__)

PLAN_EVENT = "gloria.plan"
CHUNK_EVENT = "gloria.chunk"


class RunWatch:
    """Tells what a run does, and stops it where the user has asked to.

    Args:
        job: the video.
        folder: where the run lives.
        notes: sentences about the request itself, told with the plan.
    """

    def __init__(self, job: VideoJob, folder: RunFolder, notes: Sequence[str] = ()) -> None:
        self.job, self.folder, self.notes = job, folder, tuple(notes)
        self.num_steps = len(job.request.sigmas) - 1
        self.progress = VideoProgress(len(job.chunks), self.num_steps, job.request.node_id)
        self._to_make = len(job.chunks)
        self._made: list[float] = []
        self._latest: Frames | None = None
        self._forecast: Forecast | None = None
        self.lines: list[str] = []
        """The plan, when it has been told."""

    def foreseen(self, forecast: Forecast) -> None:
        """Hear what the run will cost; it is told with the plan, and what does not fit in the log as a warning too."""
        self._forecast = forecast
        for warning in forecast.warnings():
            _log.warning("Gloria: %s", warning)

    def planned(self, decisions: list[Decision], notes: list[str]) -> None:
        """Tell what will be done: into the log, under the node, and as an event."""
        self._to_make = sum(decision.take is None for decision in decisions)
        cost = self._forecast.lines() if self._forecast is not None else []
        job = self.job
        size = size_line(job.chunks, job.shape, job.size, job.fps, job.request.anchors.anchors)
        lines = self.lines = [size, *self.notes, *notes, *told(decisions), *cost]
        _log.info("Gloria: run %s. %s", self.folder.path.name, " ".join(lines))
        self._send(
            PLAN_EVENT,
            {
                "lines": lines,
                "forecast": self._forecast.told() if self._forecast is not None else None,
                "threshold": self.job.request.drift_threshold,
                "chunks": [self._planned_chunk(decision) for decision in decisions],
            },
        )
        PromptServer.instance.send_progress_text("\n".join(lines), self.job.request.node_id)

    def checkpoint(self) -> None:
        """Raise InterruptProcessingException where the user has asked to stop."""
        stop_if_interrupted()

    def step(self, chunk: Chunk, step: int, prompt: str, preview: Image.Image | None = None) -> None:
        """Tell that ``step`` steps (1-based) of a chunk are done."""
        self.progress.step(chunk.index, min(step, self.num_steps), prompt, preview=preview, left_s=self._left_s())

    def shown(self, chunk: Chunk, frames: Frames) -> None:
        """Keep the last picture for the preview."""
        self._latest = frames[-1]

    def drifting(self, chunk: Chunk, drift: Mapping[str, float], attempt: int) -> None:
        """Say in the log that a chunk is sampled again."""
        _log.warning(
            "Gloria: chunk %d drifts (similarity %.3f); it is sampled again with another seed (attempt %d).",
            chunk.index + 1,
            drift["similarity"],
            attempt + 1,
        )
        self._send(
            CHUNK_EVENT,
            {"chunk": chunk.index + 1, "state": "drifting", "attempts": attempt, "drift": dict(drift)},
        )

    def finished(self, news: ChunkNews) -> None:
        """Tell that a chunk is part of the film, with its last picture as the preview."""
        record = news.record
        if not news.reused:
            self._made.append(news.seconds)
            self._to_make -= 1
            self._tell_time()
        preview = None if self._latest is None or news.reused else Image.fromarray(self._latest)
        self.progress.step(record.index, self.num_steps, record.prompt, preview=preview, left_s=self._left_s())
        self._send(
            CHUNK_EVENT,
            {
                "chunk": record.index + 1,
                "take": record.take,
                "seed": str(record.seed),
                "prompt": record.prompt,
                "state": "reused" if news.reused else "done",
                "attempts": news.attempts,
                "drift": dict(news.drift) if news.drift else None,
                "seconds": news.seconds,
                "segment": news.segment.name,
            },
        )

    def _planned_chunk(self, decision: Decision) -> dict[str, Any]:
        frames, skipped = decision.chunk.frames, self.job.skipped_frames
        return {
            "chunk": decision.chunk.index + 1,
            "start_s": max(0, frames.start - skipped) / self.job.fps,
            "end_s": max(0, frames.stop - skipped) / self.job.fps,
            "state": "reused" if decision.take is not None else "waiting",
        }

    def _tell_time(self) -> None:
        """Say how long everything will take, once the first chunk is made."""
        left = self._left_s()
        if len(self._made) > 1 or not left:
            return
        took, total = duration(self._made[0]), duration(self._made[0] + left)
        line = f"The first chunk took {took}; all that is made now will take about {total}."
        _log.info("Gloria: %s", line)
        PromptServer.instance.send_progress_text("\n".join([*self.lines, line]), self.job.request.node_id)

    def _left_s(self) -> float | None:
        """Return how long the rest should take, by the chunks made so far; None before the first."""
        return sum(self._made) / len(self._made) * max(0, self._to_make) if self._made else None

    def _send(self, event: str, data: Mapping[str, Any]) -> None:
        server = PromptServer.instance
        head = {"node": self.job.request.node_id, "run": self.folder.path.name, "time": time.time()}
        server.send_sync(event, {**head, **data}, server.client_id)
