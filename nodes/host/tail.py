"""The end of a video that another one goes on from."""

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...gloria_core.errors import MediaError
from ...gloria_core.media.frames import last_frames as media_tail
from .api import VideoFromFile
from .vae_stream import from_bytes


def last_frames(video: Any, count: int) -> Tensor:  # noqa: ANN401 - the host's VIDEO
    """Return the last frames of the host's VIDEO (F, H, W, 3), 0..1: ``count`` of them, or all of a shorter one.

    A video on disk is decoded as a stream, so that its length costs no memory.

    Raises:
        MediaError: it has no pictures, or its file cannot be read.
    """
    source = video.get_stream_source() if isinstance(video, VideoFromFile) else None  # others would encode it first
    if isinstance(source, str):
        return _from_file(Path(source), count)
    if isinstance(source, io.BytesIO):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "video.mp4"
            file.write_bytes(source.getvalue())
            return _from_file(file, count)
    images: Tensor = video.get_components().images
    if len(images) == 0:
        raise MediaError("The video to go on from has no pictures; connect another one to 'continue_from'.")
    return torch.as_tensor(images)[-count:, :, :, :3]


def _from_file(path: Path, count: int) -> Tensor:
    return from_bytes(media_tail(path, count))
