"""A film made of segments, encoded in the background: what is finished cannot be lost, and nothing is encoded twice."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from ..whole import partial_of, take_name
from .failures import FAILURES, explained
from .film_sound import FilmSound, SoundPackets
from .growing_film import GrowingFilm
from .segment import SegmentEncoder, check_picture, encoder_name, exact_rate, read_header

_QUEUED_FRAMES, _QUEUED_BATCHES = 8, 4
"""At most 4 batches of 8 frames wait: 88 MB at 1280 x 720."""
_POLL_S = 0.1
"""Waiting is cut into steps, so that an interrupt from the keyboard arrives on every system."""


class FilmWriter:
    """Encodes segments of a film, and puts the film together from new and old ones.

    A context manager. Each segment is a playable .mp4 that has its name only when it is whole and on the disk. The
    growing film beside them plays up to the last finished segment, also after the process was killed. Leaving the
    block, by an exception or not, keeps both; ``finish`` makes the final film of them.

    Args:
        film: the growing film, an .mp4. One that is there stays until the first new segment is finished.
        fps: frames a second, above 0; a fraction is kept exactly.
        size: width and height in pixels, both even.
        sound: what is heard, from the first frame on.
        crf: x264's quality: 0 is lossless, 51 the worst.
        on_segment: told each segment that was encoded, when it can be played; called in the background.

    Raises:
        MediaError: on a name, size, rate or sound that cannot be; when frames or segments do not fit; when the disk is
            full or a file cannot be written. A failure in the background is raised by the next call, and by every later
            one.
    """

    def __init__(
        self,
        film: Path,
        fps: float | Fraction,
        size: tuple[int, int],
        sound: FilmSound | None = None,
        *,
        crf: int = 18,
        on_segment: Callable[[Path], None] | None = None,
    ) -> None:
        encoder_name()
        check_picture(size, crf)
        self.film, self.fps, self.size = film, exact_rate(fps), size
        self.num_frames = 0
        """Frames of the film so far, those that wait for the encoder among them."""
        _check_name(film)
        self._open_segment: Path | None = None
        self._num_open = 0  # frames of the open segment
        self._over = False
        self._failure: MediaError | None = None
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_QUEUED_BATCHES)
        self._sound = SoundPackets(sound) if sound is not None else None
        try:
            self._work = _Work(GrowingFilm(film, self.fps, self._sound), self.fps, size, crf, on_segment)
        except OSError as error:
            self._close_sound()
            raise explained(film, error) from error
        self._thread = threading.Thread(target=self._run, name=f"film writer {film.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._over:
                self.flush()
        finally:
            self.close()

    def begin(self, segment: Path) -> None:
        """Begin a segment: the frames that follow belong to it. A file of that name is replaced at its end."""
        self._check()
        if self._open_segment is not None:
            raise MediaError(f"{self._open_segment.name} is not ended; end or drop it before {segment.name} is begun.")
        _check_name(segment)
        self._open_segment, self._num_open = segment, 0
        self._put(partial(self._work.begin, segment))

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Queue frames (n, H, W, 3), uint8, RGB, of the segment begun; waits while the encoder is behind."""
        self._check()
        if self._open_segment is None:
            raise MediaError("There is no segment to write frames to; begin one first.")
        width, height = self.size
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (height, width, 3):
            raise MediaError(
                f"The frames are {frames.dtype} of shape {frames.shape}; this film takes uint8 (n, {height}, "
                f"{width}, 3)."
            )
        for start in range(0, frames.shape[0], _QUEUED_FRAMES):
            piece = np.array(frames[start : start + _QUEUED_FRAMES], order="C", copy=True)  # the buffer may be reused
            self._put(partial(self._work.write, piece))
            self._num_open += piece.shape[0]
            self.num_frames += piece.shape[0]

    def end(self) -> None:
        """End the segment: it gets its name and becomes part of the film. One without frames makes no file."""
        self._check()
        if self._open_segment is None:
            raise MediaError("There is no segment to end; begin one first.")
        self._open_segment = None
        self._put(self._work.end)

    def append(self, segment: Path) -> None:
        """Take a segment that is on disk already into the film.

        Raises:
            MediaError: it is missing, cut, or of another size or rate.
        """
        self._check()
        if self._open_segment is not None:
            raise MediaError(f"{self._open_segment.name} is not ended; end or drop it before another is appended.")
        header = read_header(segment)
        if header.size != self.size or header.fps != self.fps:
            raise MediaError(
                f"{segment} has {header.size[0]} x {header.size[1]} px at {float(header.fps):.6g} frames a second; "
                f"the film has {self.size[0]} x {self.size[1]} px at {float(self.fps):.6g}. Delete it, and it is made "
                "again."
            )
        self._put(partial(self._work.append, segment))
        self.num_frames += header.num_frames

    def drop(self) -> None:
        """Forget the segment that is begun and not ended, if there is one."""
        if self._open_segment is None:
            return
        self.num_frames -= self._num_open
        self._open_segment = None
        if self._failure is None:  # otherwise the next call tells, and this may be a cleaning up after it
            self._put(self._work.drop)

    def flush(self) -> None:
        """Wait until everything queued is on disk."""
        self._check()
        done = threading.Event()
        self._put(self._work.film.show)
        self._put(done.set)
        while not done.wait(_POLL_S):
            if self._failure is not None or not self._thread.is_alive():
                break
        self._check()
        if not done.is_set():
            raise self._died()

    def finish(self, target: Path) -> Path:
        """Make the final film of all segments, which can be wound to any place, and remove the growing one.

        Args:
            target: an .mp4 that appears whole or not at all; a file of that name is replaced.

        Raises:
            MediaError: no segment is finished, one is still open, or the disk refuses. Segments and growing film stay.
        """
        _check_name(target)
        self.flush()
        if self._open_segment is not None:
            raise MediaError(f"{self._open_segment.name} is not ended; end or drop it before the film is finished.")
        if self.num_frames == 0:
            raise MediaError(f"No frame was written to {self.film}; there is nothing to save.")
        try:
            self._work.film.write_to(target)
        except FAILURES as error:
            raise explained(target, error) from error
        self.forget()
        return target

    def forget(self) -> None:
        """Stop, and remove the growing film; finished segments stay."""
        self.close()
        self._work.film.delete()

    def close(self) -> None:
        """Stop; finished segments and the growing film stay. A second call does nothing."""
        if self._over:
            return
        self._over = True
        self.drop()
        with suppress(MediaError):  # the thread has died
            self._put(None)
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
        self._close_sound()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._over:
            raise MediaError(f"{self.film} is closed; open another writer for more frames.")

    def _put(self, task: Callable[[], None] | None) -> None:
        while True:
            try:
                return self._queue.put(task, timeout=_POLL_S)
            except queue.Full:  # the thread goes on taking from the queue after every failure that it knows
                if not self._thread.is_alive():
                    raise self._died() from None

    def _died(self) -> MediaError:
        return MediaError(f"{self.film} could not be written: the encoder died; see the log. What is finished stays.")

    def _close_sound(self) -> None:
        if self._sound is not None:
            self._sound.close()

    def _run(self) -> None:
        """Do what comes through the queue until None comes; after a failure, only empty the queue."""
        try:
            while (task := self._queue.get()) is not None:
                if self._failure is None:
                    self._try(task)
        finally:
            self._try(self._work.close)

    def _try(self, task: Callable[[], None]) -> None:
        try:
            task()
        except FAILURES as error:
            self._failure = self._failure or explained(self._work.segment or self.film, error)


class _Work:
    """What is done in the background."""

    def __init__(
        self,
        film: GrowingFilm,
        fps: Fraction,
        size: tuple[int, int],
        crf: int,
        on_segment: Callable[[Path], None] | None,
    ) -> None:
        self.film = film
        self.segment: Path | None = None
        self._look = (fps, size, crf)
        self._on_segment = on_segment
        self._encoder: SegmentEncoder | None = None

    def begin(self, segment: Path) -> None:
        self.segment = segment

    def write(self, frames: NDArray[np.uint8]) -> None:
        assert self.segment is not None  # the writer sees to it
        if self._encoder is None:
            self._encoder = SegmentEncoder(partial_of(self.segment), *self._look)
        self._encoder.add(frames)

    def end(self) -> None:
        if self._encoder is not None and self.segment is not None:
            self._encoder.close()
            take_name(partial_of(self.segment), self.segment)
            self._encoder = None
            self.film.append(self.segment)
            self.film.show()
            if self._on_segment is not None:
                self._on_segment(self.segment)
        self.segment = None

    def append(self, segment: Path) -> None:
        self.film.append(segment)
        if not self.film.path.exists():
            self.film.show()

    def drop(self) -> None:
        if self._encoder is not None:
            self._encoder.discard()
        self._encoder = self.segment = None

    def close(self) -> None:
        self.drop()
        self.film.close()


def _check_name(path: Path) -> None:
    if path.suffix.lower() != ".mp4":
        raise MediaError(f"The video's name is {path.name!r}; it must end in .mp4.")
    if not path.parent.is_dir():
        raise MediaError(f"There is no folder {path.parent}; make it first, or choose another.")
    if path.is_dir():
        raise MediaError(f"{path} is a folder; choose a file name ending in .mp4.")
