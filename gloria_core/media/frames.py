"""The pictures of a video file, a few at a time."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ..errors import MediaError
from .container import is_picture, open_media, video_stream


def iter_frames(path: str | os.PathLike[str], *, batch_size: int = 16) -> Iterator[NDArray[np.uint8]]:
    """Decode a video from its start, in memory that does not grow with its length.

    The rotation that a phone writes into the header is applied, so pictures are upright. Damaged packets are stepped
    over.

    Args:
        path: a video file of any container.
        batch_size: pictures in each batch; the last one may be smaller.

    Yields:
        (n, H, W, 3) uint8, RGB.

    Raises:
        MediaError: the file is missing, is no media file, has no moving pictures, or none that can be decoded.
    """
    if batch_size < 1:
        raise MediaError(f"batch_size is {batch_size}; take at least 1 picture at a time.")
    file = Path(path)
    batch: list[NDArray[np.uint8]] = []
    found = False
    with open_media(file) as container:
        stream = video_stream(container)
        if stream is None or is_picture(container):
            raise MediaError(f"{file} has no moving pictures; give a video such as .mp4, .mov, .mkv or .webm.")
        stream.thread_type = "AUTO"
        for picture in _decode(container, stream):
            found = True
            if batch and picture.shape != batch[0].shape:
                yield np.stack(batch)
                batch = []
            batch.append(picture)
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
    if batch:
        yield np.stack(batch)
    if not found:
        raise MediaError(f"{file} holds no picture that can be decoded; export it again as H.264 .mp4.")


def last_frames(path: str | os.PathLike[str], count: int) -> NDArray[np.uint8]:
    """Return the last frames of a video (F, H, W, 3): ``count`` of them, or all of a shorter one.

    It is decoded as a stream, so that its length costs no memory.

    Raises:
        MediaError: as for `iter_frames`.
    """
    kept: deque[NDArray[np.uint8]] = deque(maxlen=count)
    for batch in iter_frames(path):
        kept.extend(batch[-count:])
    return np.stack(list(kept))


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[NDArray[np.uint8]]:
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                yield _upright(frame)
    except (av.error.InvalidDataError, av.error.EOFError):
        return


def _upright(frame: VideoFrame) -> NDArray[np.uint8]:
    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture
