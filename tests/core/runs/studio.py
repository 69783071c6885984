"""A whole run without a network: latents that depend on all that they should, and a decoder that looks back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gloria_core.runs.chunk_file import Ingredient
from gloria_core.runs.digest import digest_of
from gloria_core.runs.folder import RunFolder
from gloria_core.runs.job import ChunkNews, Drift, Frames, RunJob, RunResult, Script
from gloria_core.runs.make import make
from gloria_core.runs.reroll import Reroll, by_chunk, parse_rerolls
from gloria_core.runs.reuse import Decision, told
from gloria_core.sampling.chunks import Chunk, plan
from gloria_core.sampling.long_video import ChunkJob, PrefixMode
from gloria_core.sampling.seeds import take_seed

SIZE = (32, 16)
SHAPE = (1, 2, 2, 4)
FPS = Fraction(16)


class StopError(Exception):
    """Somebody has stopped the run."""


@dataclass
class Studio:
    """What is wanted, and what happened when it was made."""

    folder: Path
    num_frames: int = 60
    prompts: Mapping[int, str] = field(default_factory=dict)
    seed: int = 7
    reroll: str = ""
    bridges: bool = False
    mode: PrefixMode = PrefixMode.HELD
    start: Tensor | None = None
    skipped: int = 0
    drift: Drift | None = None
    guard: Any = None
    with_pictures: bool = False
    lookback: int | None = 1
    look: str = "plain"
    stop_at: int | None = None
    """Number of the call of the sampler or decoder at which the run is stopped."""
    sampled: list[int] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    pictures: list[Frames | None] = field(default_factory=list)
    frames: list[Frames] = field(default_factory=list)
    news: list[ChunkNews] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    drifting_chunks: list[int] = field(default_factory=list)
    more: Mapping[str, str] = field(default_factory=dict)
    calls: int = 0
    warmed: int = 0

    def again(self, **changes: Any) -> Studio:
        """The same studio on another day."""
        fresh = {name: [] for name in ("sampled", "decoded", "seeds", "pictures", "frames", "news", "lines")}
        return replace(self, **{**fresh, "drifting_chunks": [], "calls": 0, "warmed": 0, "stop_at": None, **changes})

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "run")

    def make(self, *, keep_frames: bool = False, more: Mapping[str, str] | None = None, **changes: Any) -> RunResult:
        """Make the film; ``more`` are further ingredients, ``changes`` are of the job."""
        self.more = more or {}
        count = len(list(self.folder.glob("video*.mp4")))
        job = replace(self.job(), **changes)
        if keep_frames:
            job = replace(job, on_frames=self.frames.append)
        return make(job, self.run, self, lambda: self.folder / f"video_{count + 1}.mp4")

    def job(self) -> RunJob[str]:
        chunks = plan(self.num_frames, 9, 4)
        rerolls = by_chunk(parse_rerolls(self.reroll), chunks, float(FPS))
        decoder = Decoder(self)
        return RunJob(
            chunks=chunks,
            shape=SHAPE,
            prefix_mode=self.mode,
            start=self.start,
            skipped_frames=self.skipped,
            script=lambda chunk, attempt: self.script(chunk, rerolls.get(chunk.index), attempt),
            plain=lambda chunk: self.script(chunk, None, 0),
            sampler=self.sample,
            decoder=decoder,
            pictures=decoder.prefix_pictures if self.with_pictures else None,
            guard=self.guard,
            drift=self.drift,
            fps=FPS,
            size=SIZE,
            look=lambda chunk: self.look,
            show=lambda frames, chunk, prompt: frames,
        )

    def script(self, chunk: Chunk, reroll: Reroll | None, attempt: int) -> Script[str]:
        prompt = (reroll and reroll.prompt) or self.prompts.get(chunk.index, "walks")
        seed = take_seed(self.seed, chunk.index, (reroll.attempt if reroll else 0) + attempt)
        if reroll is not None and reroll.seed is not None:
            seed = reroll.seed
        bridge = reroll is not None and (self.bridges if reroll.bridge is None else reroll.bridge)
        words = {"prompt": prompt, "seed": str(seed), **self.more}
        return Script(
            chunk=chunk,
            seed=seed,
            prompt=prompt,
            ingredients={name: Ingredient(digest_of(value), value) for name, value in words.items()},
            conditions=lambda: prompt,
            take=reroll.take if reroll else None,
            bridge=bridge,
        )

    def sample(self, job: ChunkJob[str]) -> Tensor:
        self.count()
        self.sampled.append(job.chunk.index)
        self.seeds.append(job.seed)
        self.pictures.append(job.pictures)
        before = 0.0 if job.prefix is None else float(job.prefix.mean())
        shown = 0.0 if job.pictures is None else float(job.pictures.mean()) / 255
        return (job.noise * 0.2 + 0.5 * before + 0.1 * shown + len(job.conditions) * 0.01).tanh()

    def count(self) -> None:
        self.calls += 1
        if self.stop_at == self.calls:
            raise StopError

    # what a Watch is asked

    def planned(self, decisions: list[Decision], notes: list[str]) -> None:
        self.lines = [*notes, *told(decisions)]

    def checkpoint(self) -> None:
        pass

    def shown(self, chunk: Chunk, frames: Frames) -> None:
        pass

    def finished(self, news: ChunkNews) -> None:
        self.news.append(news)

    def drifting(self, chunk: Chunk, drift: Mapping[str, float], attempt: int) -> None:
        self.drifting_chunks.append(chunk.index)


class Decoder:
    """Causal: a latent's frames also show the latent before it."""

    name = "test decoder"

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.lookback = studio.lookback
        self.before: Tensor | None = None

    def frames(self, latents: Tensor) -> Iterator[Frames]:
        before = self.before
        for index in range(latents.shape[2]):
            self.studio.count()
            now = latents[0, :, index]
            self.studio.decoded.append(index)
            yield self._picture(now, before)
            before = now
        self.before = before

    def _picture(self, now: Tensor, before: Tensor | None) -> Frames:
        mixed = now if before is None else 0.8 * now + 0.2 * before
        picture = (mixed.mean(0) * 100 + 128).round().clamp(0, 255).to(torch.uint8).numpy()
        large = np.kron(picture, np.ones((8, 8), np.uint8))
        return np.repeat(np.repeat(large[None, ..., None], 3, axis=3), 1 if before is None else 4, axis=0)

    def warm(self, latents: Tensor) -> None:
        self.studio.warmed += 1
        self.before = latents[0, :, -1]

    def reset(self) -> None:
        self.before = None

    def snapshot(self) -> object:
        return self.before

    def restore(self, state: Any) -> None:
        self.before = state

    def prefix_pictures(self, prefix: Tensor) -> Frames:
        assert self.before is not None, "the decoder is not in its place"
        return self._picture(prefix[0, :, -1], self.before)
