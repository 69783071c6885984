"""Video and sound files: look at them, read them, write them as a stream. Nothing here knows a model."""

from .container import MediaInfo, probe
from .frames import iter_frames
from .sound import read_audio, write_audio
from .writer import VideoWriter

__all__ = ["MediaInfo", "VideoWriter", "iter_frames", "probe", "read_audio", "write_audio"]
