"""What a run tells of itself: run.json, rewritten whole after every chunk, and a line in the log for each event."""

import filecmp
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import GloriaError
from ..sampling.chunks import Chunk
from ..whole import partial_of
from .chunk_file import ChunkRecord
from .digest import digest_of
from .folder import RunFolder, read_json
from .forecast import Forecast
from .job import ChunkNews, RunJob
from .places import finished_video, named_video
from .reuse import Decision, told

VERSION = 1
"""Of run.json."""


class Story:
    """Writes the story of one call on a run."""

    def __init__(
        self,
        folder: RunFolder,
        job: RunJob[Any],
        decisions: Sequence[Decision],
        notes: Sequence[str],
        forecast: Forecast,
    ) -> None:
        self._folder, self._job = folder, job
        before = read_json(folder.settings)
        self._before = before.get("recipe"), finished_video(before, folder.output)
        self._is_sure = before.get("state") == "finished"
        _sweep_video(before, folder.output)
        self._segments: list[str] = []
        self._chunks = bytearray()
        """What run.json says of the chunks: it grows, and would take ever longer to put into words anew."""
        self._told: dict[str, Any] = {
            "version": VERSION,
            "name": folder.path.name,
            "state": "running",
            "software": {"python": platform.python_version(), "torch": torch.__version__},
            "settings": dict(job.settings),
            "fps": str(job.fps),
            "size": list(job.size),
            "num_chunks": len(job.chunks),
            "num_frames": job.chunks[-1].frames.stop - job.skipped_frames,
            "plan": [*notes, *told(decisions)],
            "forecast": forecast.told(),
            "meter": _meter(job),
            "planned": ["disk" if d.take is not None else "make" for d in decisions],
            "spans": [shown_s(job, chunk) for chunk in job.chunks],
        }
        self._write()
        self.event("planned", plan=self._told["plan"])

    def event(self, event: str, **fields: object) -> None:
        """Append a line to the log."""
        self._folder.events.write(event, **fields)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Write down how the work in the block ends."""
        try:
            yield
        except BaseException as error:
            failed = isinstance(error, GloriaError | MemoryError | RuntimeError | OSError)
            self._told |= {"state": "failed" if failed else "stopped", "reason": str(error) or type(error).__name__}
            try:
                self._write()
                self.event(self._told["state"], reason=self._told["reason"], chunks=len(self._segments))
            except (GloriaError, OSError):
                pass  # the disk that refused the work refuses its story too; the first error is the one to tell
            raise

    def sampled(self, record: ChunkRecord) -> None:
        """Tell of a chunk whose latents are on disk."""
        self.event("sampled", chunk=record.index + 1, take=record.take, seed=record.seed, seconds=record.seconds)

    def drifting(self, chunk: Chunk, drift: Mapping[str, float], attempt: int) -> None:
        """Tell of a chunk that is sampled again."""
        self.event("drifting", chunk=chunk.index + 1, attempt=attempt, **drift)

    def chunk(self, news: ChunkNews) -> None:
        """Tell of a chunk that is part of the film."""
        record = news.record
        chunk = self._job.chunks[record.index]
        start_s, end_s = shown_s(self._job, chunk)
        entry = {
            "chunk": record.index + 1,
            "take": record.take,
            "seed": record.seed,
            "prompt": record.prompt,
            "start_s": start_s,
            "end_s": end_s,
            "reused": news.reused,
            "attempts": news.attempts,
            "seconds": round(news.seconds, 3),
            "segment": news.segment.name,
            "drift": dict(news.drift) if news.drift else None,
            "inputs": {name: asdict(value) for name, value in record.ingredients.items()},
        }
        self._segments.append(news.segment.name)
        self._chunks += (b",\n" if self._chunks else b"") + json.dumps(entry).encode()
        self._write()
        self.event("chunk", **{name: value for name, value in entry.items() if name != "inputs"})

    def same_video(self) -> Path | None:
        """Return the video of an earlier call that is just this one, if it is still there."""
        recipe, video = self._before
        return video if self._is_sure and recipe == self._recipe() else None

    def naming(self, video: Path) -> None:
        """Tell where the video will lie, before it does: so a process that dies in between leaves nothing unknown."""
        self._told |= {"video": str(video.absolute()), "recipe": self._recipe()}
        self._write()

    def once(self, video: Path) -> Path:
        """Return the finished video, or the same one of a call that died just after it; then the new one is deleted."""
        recipe, earlier = self._before
        if earlier is None or recipe != self._recipe() or not filecmp.cmp(earlier, video, shallow=False):
            return video
        video.unlink()
        return earlier

    def finished(self, video: Path) -> None:
        """Tell that the video is done."""
        self._told |= {"state": "finished", "video": str(video.absolute()), "recipe": self._recipe()}
        self._write()
        self.event("finished", video=video.name)

    def _recipe(self) -> str:
        return digest_of(self._segments, self._job.sound_digest, str(self._job.fps))

    def _write(self) -> None:
        self._told["updated"] = round(time.time(), 2)
        head = json.dumps(self._told, indent=1).removesuffix("\n}").encode()
        self._folder.write_pieces(self._folder.settings, [head, b',\n "chunks": [\n', self._chunks, b"\n ]\n}\n"])


def shown_s(job: RunJob[Any], chunk: Chunk) -> tuple[float, float]:
    """Return the seconds of the film from which and up to which a chunk is shown."""
    fps, skipped = float(job.fps), job.skipped_frames
    start, stop = (round(max(0, frame - skipped) / fps, 3) for frame in (chunk.frames.start, chunk.frames.stop))
    return start, stop


def _sweep_video(told: Mapping[str, Any], output: Path) -> None:
    """Delete what a process left that died while it wrote the video."""
    video = named_video(told, output)
    if video is not None:
        partial_of(video).unlink(missing_ok=True)


def _meter(job: RunJob[Any]) -> dict[str, Any] | None:
    """Return how drift is measured, as it is drawn later."""
    return None if job.drift is None else {"embedding": job.drift.embedding, "threshold": job.drift.threshold}
