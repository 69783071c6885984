"""The folder of a run: where each thing lies, who works in it, and what is finished.

- ``run.json``: what the run is, rewritten whole after every chunk
- ``events.jsonl``: what happened, a line each
- ``film.mp4``: the video as far as it is, while the run works
- ``chunks/0003.take-1.safetensors``: the latents of chunk 3 (from 0) and what they were made from
- ``chunks/0003.take-1.json``: what was seen when they were decoded
- ``segments/0003.DIGEST.mp4``: the chunk as a video of its own; beside the last one lies its last picture
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MediaError, PlanError
from ..events import EventLog
from ..lock import release, take
from ..whole import written_whole
from .chunk_file import ChunkFileError, ChunkRecord, read_latents, read_record

_MOST_LETTERS, _MOST_BYTES = 100, 200
"""Of a run's name; file systems take 255 bytes, and some of its letters may take four."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for its devices, whatever ending they have."""
_CHUNK = re.compile(r"(\d{4,})\.take-(\d+)\.safetensors")
_ADVICE = "free some space, or choose another run; what is finished stays"


class RunInUseError(MediaError):
    """Another process works in the folder."""


@dataclass(frozen=True, slots=True)
class Take:
    """A finished chunk in a run's folder."""

    path: Path
    record: ChunkRecord

    @property
    def seen_path(self) -> Path:
        """Where lies what was seen when it was decoded."""
        return self.path.with_suffix(".json")


def check_name(name: str) -> str:
    """Return a run's name, composed as NFC; PlanError where it could not be a folder's name on every system.

    Letters and digits of all scripts will do. Signs that look like a dot or a slash are none, nor is what is not seen.
    """
    told, name = name, unicodedata.normalize("NFC", name)
    if _DEVICES.fullmatch(name):
        raise PlanError(f"The run is called {told!r}, which Windows keeps for a device; use a name such as 'my-film'.")
    fits = 0 < len(name) <= _MOST_LETTERS and len(name.encode(errors="replace")) <= _MOST_BYTES
    if not fits or not all(map(_is_plain, name)) or not (_is_letter(name[0]) or name[0] == "_") or name[-1] == ".":
        raise PlanError(
            f"The run is called {told[:_MOST_LETTERS]!r}; use up to {_MOST_LETTERS} letters, digits, '_', '-' and '.', "
            f"beginning with a letter, digit or '_' (at most {_MOST_BYTES} bytes), such as 'my-film'."
        )
    return name


def _is_letter(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LN"


def _is_plain(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LMN" or sign in "._-"


class RunFolder:
    """A run on disk.

    Args:
        path: the folder; it is made where it is missing.
        output: the folder below which finished videos lie; OUTPUT where ``path`` is OUTPUT/gloria_runs/NAME.

    Raises:
        MediaError: the folder cannot be made.
    """

    def __init__(self, path: Path, output: Path | None = None) -> None:
        self.path, self.output = path, output or path.parent.parent
        self.chunks, self.segments = path / "chunks", path / "segments"
        self.film, self.settings = path / "film.mp4", path / "run.json"
        self.events = EventLog(path / "events.jsonl")
        self._highest: dict[int, int] | None = None
        """The highest number of a take of each chunk when the first new one was made."""
        self._is_new = not path.is_dir()
        self._make()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the system lets go of the lock when this process ends, however it ends.

        A folder that is new, and in which nothing was begun, is removed in the end.

        Raises:
            RunInUseError: another process, or another run of this one, works here.
            MediaError: the folder may not be written to.
        """
        self._make()
        try:
            lock = (self.path / "lock").open("a+b")
        except OSError as error:
            raise MediaError(
                f"The run's folder {self.path} may not be written to ({error.strerror}): change its permissions, or "
                "choose another name for the run."
            ) from error
        with lock:
            if not take(lock):
                raise RunInUseError(
                    f"The run {self.path.name!r} is being worked on by another ComfyUI or render process. Wait until "
                    "it has finished, or choose another name for this run."
                )
            try:
                yield
            finally:
                release(lock)
                lock.close()
                self._leave_nothing()

    def _make(self) -> None:
        try:
            for folder in (self.path, self.chunks, self.segments):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(
                f"The run's folder {self.path} cannot be made ({error.strerror}): choose another output folder, or "
                "another name for the run."
            ) from error

    def _leave_nothing(self) -> None:
        if not self._is_new or self.settings.exists():
            return
        with suppress(OSError):  # there is something in it all the same
            (self.path / "lock").unlink(missing_ok=True)
            for folder in (self.chunks, self.segments, self.path):
                folder.rmdir()

    def sweep(self) -> None:
        """Delete what a killed process left half-written."""
        for folder in (self.path, self.chunks, self.segments):
            for partial in folder.glob("*.partial*"):
                partial.unlink(missing_ok=True)

    def takes(self, *, to_the_last_byte: bool = False) -> tuple[list[Take], list[str]]:
        """Return all finished chunks that are whole, by chunk and take, and a sentence for each that is not.

        Args:
            to_the_last_byte: read all latents, about 1 GB a second, and compare them with their digests. Without it a
                file that is cut is noticed, and one that is damaged inside is not.
        """
        found, broken = [], []
        for path in sorted(self.chunks.glob("*.safetensors")):
            match = _CHUNK.fullmatch(path.name)
            if match is None:
                continue
            try:
                record = read_record(path)
                if to_the_last_byte:
                    read_latents(path, record)
            except ChunkFileError as error:
                broken.append(str(error))
                continue
            if (record.index, record.take) == (int(match[1]), int(match[2])):
                found.append(Take(path, record))
            else:
                broken.append(f"{path.name} holds take {record.take} of chunk {record.index + 1}.")
        return sorted(found, key=lambda take: (take.record.index, take.record.take)), broken

    def chunk_path(self, index: int, take: int) -> Path:
        """Return where a take of a chunk lies."""
        return self.chunks / f"{index:04}.take-{take}.safetensors"

    def next_take(self, index: int) -> int:
        """Return a number that no take of a chunk has, broken ones included."""
        if self._highest is None:  # looked up once: a folder of thousands of files takes its time
            self._highest = {}
            for match in filter(None, map(_CHUNK.fullmatch, os.listdir(self.chunks))):
                self._highest[int(match[1])] = max(self._highest.get(int(match[1]), 0), int(match[2]))
        number = 1 + self._highest.get(index, 0)
        while self.chunk_path(index, number).exists():
            number += 1
        return number

    def segment_path(self, index: int, digest: str) -> Path:
        """Return where the video of a chunk lies that shows certain contents in a certain way."""
        return self.segments / f"{index:04}.{digest[:16]}.mp4"

    def write_json(self, path: Path, told: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all; MediaError where the disk refuses."""
        self.write_text(path, json.dumps(told, indent=1))

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file whole or not at all; MediaError where the disk refuses."""
        self.write_pieces(path, [text.encode()])

    def write_pieces(self, path: Path, pieces: Iterable[bytes | bytearray]) -> None:
        """Write a file of some pieces whole or not at all; MediaError where the disk refuses."""
        with written_whole(path, kind=MediaError, advice=_ADVICE) as partial, partial.open("wb") as file:
            file.writelines(pieces)


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a run says; an empty mapping where it is missing or no such file."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
