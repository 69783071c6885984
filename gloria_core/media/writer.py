"""A video file that grows while its frames are made: constant memory, and no broken file whatever happens."""

import os
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import MediaError
from .encoder import Mp4Encoder
from .failures import FAILURES, explained
from .segment import check_picture, encoder_name, exact_rate
from .soundtrack import Sound, Soundtrack

_QUEUED_FRAMES, _QUEUED_BATCHES = 8, 4
"""At most 4 batches of 8 frames wait: 88 MB at 1280 x 720."""
_POLL_S = 0.1
"""Waiting is cut into steps, so that an interrupt from the keyboard arrives on every system."""


class VideoWriter:
    """Writes H.264 (yuv420p, BT.709) and AAC into an .mp4, encoding in the background.

    A context manager. While it works, the video is ``NAME.partial.mp4`` beside the target, in fragments, so that what
    is on disk plays even if the process dies. Leaving the block finishes the file and renames it; leaving it by an
    exception deletes it. To keep what is there after an interrupt, call ``finish`` before the exception
    leaves the block.

    Args:
        path: the .mp4 to make, in a folder that exists; a file of that name is replaced at the very end.
        fps: frames a second, above 0.
        size: width and height in pixels, both even.
        audio: a waveform (channels, samples) with its sample rate, or the path of a file whose sound to take. It starts
            with the first frame and is cut where the video ends; silence follows a shorter one. More than two channels
            of a waveform are mixed to one.
        crf: x264's quality: 0 is lossless, 51 the worst.

    Raises:
        MediaError: on a name, size, rate or sound that cannot be; when frames do not fit; when the disk is full or the
            file cannot be written. A failure in the background is raised by the next ``write`` or ``finish``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float,
        size: tuple[int, int],
        audio: Sound | None = None,
        *,
        crf: int = 18,
    ) -> None:
        self.path = Path(path)
        self.partial_path = self.path.with_name(f"{self.path.stem}.partial.mp4")
        self.num_frames = 0
        _check(self.path, size, crf)
        self._size = size
        self._rate = exact_rate(fps)
        self._crf = crf
        self._queue: queue.Queue[NDArray[np.uint8] | None] = queue.Queue(_QUEUED_BATCHES)
        self._failure: MediaError | None = None
        self._discard = False
        self._complete = False
        self._finished = False
        self._soundtrack = Soundtrack(audio) if audio is not None else None
        try:
            self.partial_path.open("wb").close()  # says at once where no file can be made
        except OSError as error:
            self._close_sound()
            raise explained(self.path, error) from error
        self._thread = threading.Thread(target=self._work, name=f"video writer {self.path.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()

    def write(self, frames: NDArray[np.uint8] | Tensor) -> None:
        """Queue frames (n, H, W, 3), uint8, RGB; waits while the encoder is behind.

        Raises:
            MediaError: wrong shape or kind, the writer is finished, or an earlier frame could not be written.
        """
        self._check_alive()
        batch = frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames
        width, height = self._size
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (height, width, 3):
            raise MediaError(
                f"The frames are {batch.dtype} of shape {batch.shape}; this file takes uint8 (n, {height}, {width}, 3)."
            )
        for start in range(0, batch.shape[0], _QUEUED_FRAMES):
            piece = batch[start : start + _QUEUED_FRAMES]
            self._put(np.array(piece, order="C", copy=True))  # the caller may reuse its buffer
            self.num_frames += piece.shape[0]

    def finish(self) -> None:
        """Encode what is queued, close the file and give it its name. A second call does nothing.

        Raises:
            MediaError: nothing was written, or writing failed; no file is left behind then.
        """
        if self._finished:
            return
        done = False
        try:
            self._stop()
            self._check_alive()
            if self.num_frames == 0:
                raise MediaError(f"No frame was written to {self.path}; there is nothing to save.")
            if not self._complete:
                raise MediaError(f"{self.path} could not be written: the encoder died; see the log.")
            self._publish()
            done = True
        finally:
            self._finished = True
            if not done:
                self._delete()

    def abort(self) -> None:
        """Stop and delete what was written; does nothing after ``finish``."""
        if self._finished:
            return
        self._finished = True
        self._discard = True
        try:
            self._stop()
        finally:
            self._delete()

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._finished:
            raise MediaError(f"{self.path} is finished; open another writer for more frames.")

    def _put(self, batch: NDArray[np.uint8] | None) -> None:
        while True:
            try:
                return self._queue.put(batch, timeout=_POLL_S)
            except queue.Full:  # the thread goes on taking from the queue after every failure that it knows
                if not self._thread.is_alive():
                    raise MediaError(f"{self.path} could not be written: the encoder died; see the log.") from None

    def _stop(self) -> None:
        self._put(None)
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
        self._close_sound()

    def _close_sound(self) -> None:
        if self._soundtrack is not None:
            self._soundtrack.close()

    def _publish(self) -> None:
        try:
            with self.partial_path.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.partial_path, self.path)
        except OSError as error:
            raise explained(self.path, error) from error

    def _delete(self) -> None:
        self.partial_path.unlink(missing_ok=True)

    def _work(self) -> None:
        """Encode what comes through the queue until None comes; after a failure, only empty the queue."""
        encoder: Mp4Encoder | None = None
        while (batch := self._queue.get()) is not None:
            if self._failure is None and not self._discard:
                encoder = self._encode(encoder, batch)
        if encoder is not None:
            self._close(encoder)

    def _encode(self, encoder: Mp4Encoder | None, batch: NDArray[np.uint8]) -> Mp4Encoder | None:
        try:
            encoder = encoder or Mp4Encoder(self.partial_path, self._rate, self._size, self._soundtrack, self._crf)
            encoder.add(batch)
        except FAILURES as error:
            self._failure = explained(self.path, error)
        return encoder

    def _close(self, encoder: Mp4Encoder) -> None:
        if self._failure is not None or self._discard:
            return encoder.discard()
        try:
            encoder.close()
            self._complete = True
        except FAILURES as error:
            self._failure = explained(self.path, error)
            encoder.discard()


def _check(path: Path, size: tuple[int, int], crf: int) -> None:
    encoder_name()
    if path.suffix.lower() != ".mp4":
        raise MediaError(f"The video's name is {path.name!r}; it must end in .mp4.")
    if not path.parent.is_dir():
        raise MediaError(f"There is no folder {path.parent}; make it first, or choose another.")
    if path.is_dir():
        raise MediaError(f"{path} is a folder; choose a file name ending in .mp4.")
    check_picture(size, crf)
