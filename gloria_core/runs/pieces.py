"""From finished latents to pieces of film: decoded once, in order, measured, laid out and handed to the encoder."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import MediaError
from ..media import FilmWriter, num_frames_in
from ..sampling.chunks import Chunk
from ..sampling.long_video import FinishedChunk, finished_frames, finished_part
from ..whole import written_whole
from .chunk_file import read_latents
from .digest import digest_of
from .folder import RunFolder, Take, read_json
from .job import FORGOTTEN, Frames, RunJob, Watch

C = TypeVar("C")
_MEASURED = 16
"""Frames of a chunk that drift is measured on."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A take as a piece of film."""

    take: Take
    segment: Path
    """Its file, which is there unless ``waiting`` holds frames."""
    drift: Mapping[str, float] | None
    reused: bool
    """Whether the file was there before."""
    waiting: tuple[Frames, ...] | None = None
    """Laid-out frames that are not encoded yet; None where there are none in memory."""
    decoded: tuple[Frames, ...] = ()
    """The same before they were laid out, where somebody wants them."""
    decoder: Any = None
    """The decoder's state behind the take; None where it was not decoded."""

    @property
    def similarity(self) -> float:
        """How little the chunk drifts; 1 where that was not measured."""
        return 1.0 if self.drift is None else self.drift["similarity"]


class Pieces(Generic[C]):
    """Makes the pieces of one film.

    Args:
        job: the video.
        folder: where the run lives.
        watch: told what is shown, and asked whether to stop.
    """

    def __init__(self, job: RunJob[C], folder: RunFolder, watch: Watch) -> None:
        self.job, self.folder, self.watch = job, folder, watch
        self.chosen: list[Take] = []
        """The takes of which the film consists so far."""
        self._in_decoder: list[Take] | None = None
        """The takes whose latents the decoder has taken; None where it stands somewhere else."""
        self._kept: tuple[Path, Tensor] | None = None
        self._behind: tuple[list[Take], object] | None = None
        """Where a chunk may be rejected: takes, and the decoder's state behind them."""

    def latents(self, take: Take) -> Tensor:
        """Return a take's latents (1, C, T, h, w); the last ones asked for are kept."""
        if self._kept is None or self._kept[0] != take.path:
            self._kept = None  # let go of the old ones first
            self._kept = (take.path, read_latents(take.path, take.record))
        return self._kept[1]

    def following(self, chunk: Chunk) -> Chunk | None:
        """Return the chunk after another one; None after the last."""
        place = chunk.index + 1
        return self.job.chunks[place] if place < len(self.job.chunks) else None

    def ready(self, take: Take) -> Piece | None:
        """Return the piece of a take as it lies on disk, or None.

        Of a take that was rejected for its drift there is the verdict alone: it is decoded again only if it is chosen.
        """
        seen, segment = read_json(take.seen_path), self._segment(take)
        if self.job.drift is not None and seen.get("meter") != self.job.drift.meter.name:
            return None  # it was measured in another way, or not at all
        if self._may_reject and self.chosen and not segment.exists() and seen.get("drift"):
            return Piece(take, segment, seen["drift"], reused=False)
        is_last = self.following(self._chunk(take)) is None
        if not seen or self.job.on_frames is not None or (is_last and not last_frame(segment).exists()):
            return None
        try:
            if not segment.exists() or num_frames_in(segment) != len(self._shown(take)):
                return None
        except MediaError:
            return None
        if not self.chosen and self.job.drift is not None:
            self.job.drift.meter.load(seen["first"])
        return Piece(take, segment, seen.get("drift"), reused=True)

    def decode(self, film: FilmWriter, take: Take) -> Piece:
        """Decode a take, which comes next, and encode it; frames that may be rejected wait in memory instead."""
        segment, began = self._segment(take), time.perf_counter()
        waiting: list[Frames] | None = [] if self._may_reject else None
        wanted: list[Frames] = []
        measured = _EveryFew(len(self._shown(take)))
        last: Frames | None = None
        if waiting is None:
            film.begin(segment)
        try:
            for frames in self._frames(take):
                shown = self.job.show(frames, self._chunk(take), take.record.prompt)
                self.watch.shown(self._chunk(take), shown)
                if waiting is not None:
                    waiting.append(shown)
                else:
                    film.write(shown)
                measured.add(frames)
                last = frames[-1].copy()
                if self.job.on_frames is not None:
                    wanted.append(frames)
        except BaseException:
            self._in_decoder = None  # it stands in the middle of a chunk
            if waiting is None:
                film.drop()
            raise
        self._in_decoder = [*self.chosen, take]
        drift = self._measure(take, measured.frames, began)
        if last is not None and self.following(self._chunk(take)) is None:
            with written_whole(last_frame(segment), kind=MediaError) as partial:
                Image.fromarray(last).save(partial, format="png")
        if waiting is None:
            film.end()
        state = self.job.decoder.snapshot()
        held = None if waiting is None else tuple(waiting)
        return Piece(take, segment, drift, reused=False, waiting=held, decoded=tuple(wanted), decoder=state)

    def settle(self, film: FilmWriter, piece: Piece) -> None:
        """Take a piece into the film."""
        if piece.decoder is None and not piece.reused:
            piece = self.decode(film, piece.take)
        if piece.reused:
            film.append(piece.segment)
        elif piece.waiting is not None:
            film.begin(piece.segment)
            for frames in piece.waiting:
                film.write(frames)
            film.end()
        for frames in piece.decoded:
            assert self.job.on_frames is not None  # they were kept for it
            self.job.on_frames(frames)
        if piece.decoder is not None and self._in_decoder is not None and self._in_decoder[-1:] != [piece.take]:
            self.job.decoder.restore(piece.decoder)
            self._in_decoder = [*self.chosen, piece.take]
        self.chosen.append(piece.take)

    def pictures(self, prefix: Tensor) -> Frames | None:
        """Return what the prefix of the next chunk decodes to, where the weights are shown it; kept beside the take."""
        if self.job.pictures is None:
            return None
        path = self.chosen[-1].path.with_suffix(".pictures.npy")
        if path.exists():
            kept: Frames = np.load(path, allow_pickle=False)
            return kept
        self.bring_decoder(exactly=True)
        pictures = self.job.pictures(prefix)
        with written_whole(path, kind=MediaError) as partial, partial.open("wb") as file:
            np.save(file, pictures, allow_pickle=False)
        return pictures

    def bring_decoder(self, *, exactly: bool = False) -> None:
        """Put the decoder just behind the chosen takes.

        It is given as many latents before that point as it remembers anything of (``FORGOTTEN``), or all where it
        must be in exactly the state of an unbroken decoding.
        """
        if self._in_decoder == self.chosen:
            self._remember()
            return
        decoder = self.job.decoder
        if self._behind is not None and self._behind[0] == self.chosen:
            decoder.restore(self._behind[1])
            self._in_decoder = list(self.chosen)
            return
        needed = decoder.lookback if decoder.lookback is not None else (1 << 60 if exactly else FORGOTTEN)
        first = len(self.chosen)
        while first and needed > 0:
            first -= 1
            needed -= len(self._chunk(self.chosen[first]).new_latents)
        decoder.reset()
        for take in self.chosen[first:]:
            self.watch.checkpoint()
            decoder.warm(self._part(take).latents)
        self._in_decoder = list(self.chosen)
        self._remember()

    def _remember(self) -> None:
        """Keep the decoder's state, to decode another attempt at the next chunk from it."""
        if self._may_reject:
            self._behind = (list(self.chosen), self.job.decoder.snapshot())

    def _frames(self, take: Take) -> Iterator[Frames]:
        """Yield what the film shows of a take, a few frames at a time."""
        self.bring_decoder()
        part, wanted = self._part(take), self._shown(take)
        place = part.frames.start
        for frames in self.job.decoder.frames(part.visible_latents):
            self.watch.checkpoint()
            first, stop = max(wanted.start - place, 0), min(wanted.stop - place, len(frames))
            place += len(frames)
            if first < stop:
                yield frames[first:stop]

    def _measure(self, take: Take, frames: Sequence[Frames], began: float) -> Mapping[str, float] | None:
        """Measure a chunk's drift, and write down what was seen, and how long that took."""
        told: dict[str, Any] = {"decoded": True}
        if self.job.drift is not None and frames:
            meter, sample = self.job.drift.meter, np.stack(frames)
            if not self.chosen:
                meter.keep_first(sample)
                told["first"] = meter.state()
            told |= {"meter": meter.name, "drift": dict(meter.measure(sample))}
        self.folder.write_json(take.seen_path, {**told, "seconds": round(time.perf_counter() - began, 3)})
        found: Mapping[str, float] | None = told.get("drift")
        return found

    @property
    def _may_reject(self) -> bool:
        return self.job.drift is not None and self.job.drift.threshold > 0

    def _segment(self, take: Take) -> Path:
        """Return where a take's piece of film lies; its name tells all that the frames depend on."""
        lookback = self.job.decoder.lookback
        needed, before = FORGOTTEN if lookback is None else lookback, []
        for earlier in reversed(self.chosen):
            if needed <= 0:
                break
            before.append(earlier.record.content)
            needed -= len(self._chunk(earlier).new_latents)
        shown = self._shown(take)
        way = [str(self.job.fps), list(self.job.size), self.job.decoder.name]
        look = [self.job.look(self._chunk(take)), take.record.prompt, *way]
        digest = digest_of(before, take.record.content, [shown.start, shown.stop], look)
        return self.folder.segment_path(take.record.index, digest)

    def _part(self, take: Take) -> FinishedChunk:
        chunk, end = self._chunk(take), self.job.chunks[-1].frames.stop
        return finished_part(chunk, self.latents(take), self.following(chunk), self.job.prefix_mode, end)

    def _shown(self, take: Take) -> range:
        """Return the frames of the video that a take adds to the film."""
        chunk, end = self._chunk(take), self.job.chunks[-1].frames.stop
        frames = finished_frames(chunk, self.following(chunk), self.job.prefix_mode, end)
        skipped = self.job.skipped_frames
        return range(max(frames.start, skipped), max(frames.stop, skipped))

    def _chunk(self, take: Take) -> Chunk:
        return self.job.chunks[take.record.index]


def last_frame(segment: Path) -> Path:
    """Return where the last picture of the video lies as it was decoded, beside the segment that ends with it."""
    return segment.with_suffix(".png")


class _EveryFew:
    """Keeps a few frames of a chunk, spread evenly."""

    def __init__(self, total: int) -> None:
        self._step = max(1, -(-total // _MEASURED))
        self._place = 0
        self.frames: list[Frames] = []

    def add(self, frames: Frames) -> None:
        """Look at the next frames (n, H, W, 3)."""
        for frame in frames:
            if self._place % self._step == 0:
                self.frames.append(frame.copy())
            self._place += 1
