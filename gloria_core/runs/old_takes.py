"""What lies in a run's folder that its finished film does not need: other takes, and pieces of other looks."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .folder import RunFolder, Take
from .forecast import sized

KEEP, REMOVE = "keep", "remove when finished"
"""What becomes of what the finished film does not need."""

_OF_A_TAKE = re.compile(r"(\d{4,}\.take-\d+)\.(?:safetensors|json|pictures\.npy)")
_OF_A_SEGMENT = re.compile(r"(\d{4,}\.[0-9a-f]{16})\.(?:mp4|png)")


@dataclass(frozen=True, slots=True)
class OldTakes:
    """What a film does not need."""

    num_takes: int
    """Takes of chunks among it; the rest are pieces of film."""
    num_bytes: int
    removed: bool = False
    """Whether it was deleted."""

    @property
    def sentence(self) -> str:
        """What a person hears of it; empty where there is nothing."""
        if not self.num_bytes:
            return ""
        takes = f"{self.num_takes} old take{'' if self.num_takes == 1 else 's'} and unused pieces of film"
        what = takes if self.num_takes else "Unused pieces of film"
        size = sized(self.num_bytes)
        if self.removed:
            return f"{what} held {size} and were removed."
        return f"{what} hold {size}; 'old_takes' set to {REMOVE!r} deletes what this film does not need."


def old_takes(folder: RunFolder, needed: Iterable[Take], segments: Collection[Path], *, remove: bool) -> OldTakes:
    """Return what a finished film does not need, and delete it where that is wished.

    Only files that are named as a run names its own are looked at; what is open in a player may stay.

    Args:
        folder: the run, whose lock the caller holds.
        needed: the takes that stay.
        segments: the pieces of film that stay.
        remove: whether to delete the rest.
    """
    takes = {take.path.stem for take in needed}
    pieces = {segment.stem for segment in segments}
    old = [
        *((path, name) for path, name in _named(folder.chunks, _OF_A_TAKE) if name not in takes),
        *((path, name) for path, name in _named(folder.segments, _OF_A_SEGMENT) if name not in pieces),
    ]
    gone = [(name, size) for path, name in old if (size := _size(path, remove=remove))]
    num_takes = len({name for name, _ in gone if ".take-" in name})
    return OldTakes(num_takes, sum(size for _, size in gone), removed=remove)


def _named(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, str]]:
    matches = ((path, pattern.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return [(path, match[1]) for path, match in matches if match is not None]


def _size(path: Path, *, remove: bool) -> int:
    """Return a file's bytes, once it is deleted where that is wished; 0 where it could not be."""
    try:
        size = path.lstat().st_size
        if remove:
            path.unlink()
    except OSError:  # a player holds it, or it is gone already
        return 0
    return size
