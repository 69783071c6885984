"""Making a run: every chunk is taken from disk or sampled, written, decoded, encoded and forgotten, one by one."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..media import FilmWriter
from ..sampling.chunks import Chunk
from ..sampling.long_video import blend, chunk_job, prefix_for, sample_chunk
from .chunk_file import ChunkRecord, read_latents, read_state, write_chunk
from .digest import digest_of
from .folder import RunFolder, Take
from .foresee import foresee
from .job import ChunkNews, RunJob, RunResult, Script, Watch
from .old_takes import old_takes
from .pieces import Piece, Pieces, last_frame
from .reuse import Decision, Shelf, bridged, decide
from .story import Story
from .waveform import keep_waveform

C = TypeVar("C")


def make(job: RunJob[C], folder: RunFolder, watch: Watch, target: Callable[[], Path]) -> RunResult:
    """Make a video, or as much of it as is not on disk yet.

    Args:
        job: what is wanted.
        folder: where the run lives. What is finished there and fits is used again.
        watch: who follows it.
        target: gives the finished video's file; asked only when there is a new one.

    Raises:
        RunInUseError: somebody else works in the folder.
        GloriaError: the job cannot be done, or the disk refuses. What is finished stays, and the next call goes on.
    """
    with folder.locked():
        folder.sweep()
        takes, broken = folder.takes(to_the_last_byte=True)
        shelf, start = Shelf(takes), _start_digest(job)
        scripts = [job.script(chunk, 0) for chunk in job.chunks]
        plain = [job.plain(chunk).wish for chunk in job.chunks]
        decisions = decide([script.wish for script in scripts], plain, shelf, start)
        forecast = foresee(job, folder, takes, scripts, decisions)
        if job.on_forecast is not None:
            job.on_forecast(forecast)
        watch.planned(decisions, broken)
        story = Story(folder, job, decisions, [*broken, *forecast.warnings()], forecast)
        with story.told():
            keep_waveform(folder, job)
            work = _Work(job, folder, shelf, watch, story)
            if any(script.bridge for script in scripts):  # by these it is known again what was led back to
                work.needed += [found.take for found in decide(plain, plain, shelf, start) if found.take is not None]
            with FilmWriter(folder.film, job.fps, job.size, job.sound) as film:
                for script, decision in zip(scripts, decisions, strict=True):
                    work.chunk(film, script, decision)
                return work.result(film, target)


class _Work(Generic[C]):
    """The chunks of one film, in order."""

    def __init__(self, job: RunJob[C], folder: RunFolder, shelf: Shelf, watch: Watch, story: Story) -> None:
        self.job, self.folder, self.shelf, self.watch, self.story = job, folder, shelf, watch, story
        self.pieces = Pieces(job, folder, watch)
        self.news: list[ChunkNews] = []
        self.needed: list[Take] = []
        """Takes that the same call would look at again, those among them that were worse than others."""
        self.goes_on_from = _start_digest(job)
        """Digest of the latents that the next chunk goes on from."""

    def chunk(self, film: FilmWriter, script: Script[C], decision: Decision) -> None:
        """Make one chunk part of the film; one that drifts is sampled again, and the best attempt taken."""
        began = time.perf_counter()
        chunk, drift = script.chunk, self.job.drift
        threshold = drift.threshold if drift is not None and script.take is None else 0.0
        most = 1 + (drift.tries if drift is not None else 0)
        best = self._attempt(film, script, decision.back_to)
        attempts = 1
        while best.drift is not None and best.similarity < threshold and attempts < most:
            self.watch.drifting(chunk, best.drift, attempts)
            self.story.drifting(chunk, best.drift, attempts)
            piece = self._attempt(film, self.job.script(chunk, attempts), decision.back_to)
            best = max(best, piece, key=lambda one: one.similarity)
            attempts += 1
        self.pieces.settle(film, best)
        self.goes_on_from = best.take.record.tail
        news = ChunkNews(
            record=best.take.record,
            reused=best.reused,
            drift=best.drift,
            attempts=attempts,
            segment=best.segment,
            seconds=0.0 if best.reused else time.perf_counter() - began,
        )
        self.news.append(news)
        self.story.chunk(news)
        self.watch.finished(news)

    def result(self, film: FilmWriter, target: Callable[[], Path]) -> RunResult:
        """Give the film its name, unless it is on disk already."""
        film.flush()
        video = self.story.same_video()
        if video is not None:
            film.forget()
        else:
            video = target()
            self.story.naming(video)
            video = self.story.once(film.finish(video))
        self.story.finished(video)
        segments = {news.segment for news in self.news}
        old = old_takes(self.folder, self.needed, segments, remove=self.job.removes_old)
        if old.removed and old.num_bytes:
            self.story.event("removed", takes=old.num_takes, bytes=old.num_bytes)
        with Image.open(last_frame(self.news[-1].segment)) as picture:
            last = np.asarray(picture.convert("RGB"))
        return RunResult(video=video, last_frame=last, chunks=tuple(self.news), old=old)

    def _attempt(self, film: FilmWriter, script: Script[C], back_to: Take | None) -> Piece:
        """Return a chunk as a piece of film, from disk or made."""
        found = self.shelf.find(bridged(script.wish, back_to), self.goes_on_from)
        ready = self.pieces.ready(found) if found is not None else None
        take = found or self._sample(script, back_to)
        self.needed.append(take)
        return ready or self.pieces.decode(film, take)

    def _sample(self, script: Script[C], back_to: Take | None) -> Take:
        """Sample a chunk and write it to the disk."""
        job, chunk = self.job, script.chunk
        self.watch.checkpoint()
        began = time.perf_counter()
        prefix = self._prefix(chunk)
        asked = chunk_job(chunk, job.shape, script.seed, job.prefix_mode, prefix, script.conditions())
        if prefix is not None and self.pieces.chosen:
            asked = replace(asked, pictures=self.pieces.pictures(prefix))
        latents = sample_chunk(job.sampler, asked).float().cpu()
        latents = self._guarded(chunk, latents, 0 if prefix is None else prefix.shape[2])
        following, tail = self.pieces.following(chunk), ""
        if following is not None and back_to is not None:
            latents, tail = _led_back(latents, following, back_to), back_to.record.tail
        elif following is not None:
            tail = digest_of(prefix_for(following, latents))
        number = self.folder.next_take(chunk.index)
        record = ChunkRecord(
            index=chunk.index,
            take=number,
            latents=(chunk.latents.start, chunk.latents.stop),
            num_prefix=chunk.num_prefix,
            seed=script.seed,
            prompt=script.prompt,
            ingredients=dict(bridged(script.wish, back_to).ingredients),
            prefix=self.goes_on_from,
            tail=tail,
            content=digest_of(latents),
            seconds=time.perf_counter() - began,
        )
        path = self.folder.chunk_path(chunk.index, number)
        write_chunk(path, record, latents, job.guard.state() if job.guard is not None else None)
        self.story.sampled(record)
        return Take(path, record)

    def _guarded(self, chunk: Chunk, latents: Tensor, num_prefix: int) -> Tensor:
        guard, chosen = self.job.guard, self.pieces.chosen
        if guard is None:
            return latents
        guard.load(read_state(chosen[-1].path) if chosen else {})
        return guard(chunk.index, latents, num_prefix)

    def _prefix(self, chunk: Chunk) -> Tensor | None:
        """Return the latents (1, C, P, h, w) that a chunk goes on from."""
        if not self.pieces.chosen:
            return self.job.start
        return prefix_for(chunk, self.pieces.latents(self.pieces.chosen[-1]))


def _start_digest(job: RunJob[C]) -> str:
    return "" if job.start is None else digest_of(job.start.float())


def _led_back(latents: Tensor, following: Chunk, back_to: Take) -> Tensor:
    """Blend a chunk's end into the latents that the next chunk went on from before."""
    num = following.num_prefix
    old = read_latents(back_to.path, back_to.record)[:, :, -num:]
    return torch.cat([latents[:, :, :-num], blend(latents[:, :, -num:], old)], dim=2)
