"""The file that a waveform was read from, as long as the two are still one."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class OriginalSound:
    """A sound file and what was read from it, so that a film can have the file's own packets in place of a copy."""

    path: Path
    num_bytes: int
    """Size of the file."""
    modified_ns: int
    """When the file was last written to."""
    waveform: str
    """Digest of every sample that was read, and of the sample rate."""

    @classmethod
    def read_from(cls, path: str | os.PathLike[str], waveform: Tensor, sample_rate: int) -> "OriginalSound":
        """Remember where a waveform comes from.

        Args:
            path: the file.
            waveform: (channels, samples), as `read_audio` has returned it.
            sample_rate: in Hz.

        Raises:
            OSError: the file is not there any more.
        """
        file = Path(path).absolute()
        found = file.stat()
        return cls(file, found.st_size, found.st_mtime_ns, _digest(waveform, sample_rate))

    def sounds_like(self, waveform: Tensor, sample_rate: int) -> bool:
        """Return whether a waveform (channels, samples) is still what was read, to the last sample."""
        return self.waveform == _digest(waveform, sample_rate)

    def is_there(self) -> bool:
        """Return whether the file is where it was, and as it was."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.num_bytes, self.modified_ns)


def _digest(waveform: Tensor, sample_rate: int) -> str:
    told = f"{sample_rate} Hz {tuple(waveform.shape)} {waveform.dtype}"
    state = hashlib.blake2b(told.encode(), digest_size=16)
    samples: Any = waveform.detach().cpu().float().contiguous().numpy()  # a buffer, which its type does not say
    state.update(samples)
    return state.hexdigest()
