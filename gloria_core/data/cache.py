"""What was encoded, kept on the disk: each thing once, by its key, in shards that are there whole or not at all.

- ``index.jsonl``: a line for each entry: key, shard, names, digest
- ``shards/DIGEST.safetensors``: tensors of many entries, called ``KEY/NAME``
- ``files.jsonl``: digests of source files, by path, size and time, so that footage is read once
- ``sets/``: which entries a prepared dataset consists of (see ``prepared``)

A key is a digest of what went in: the contents of the source, the part of it, its size, the encoder's id. So a changed
clip, and nothing else, is encoded again, and equal clips share one entry. Several processes may write at once.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoint import write_tensors
from ..errors import CheckpointError, DatasetError
from ..lock import release, take
from ..runs.digest import digest_of
from ..whole import written_whole

Tensors = Mapping[str, Tensor]

_SHARD_BYTES = 64 << 20
_SHARD_S = 30.0
"""A shard is written when so much has come together, or so long after its first entry: what a crash can cost."""
_PATIENCE_S = 60.0
_READ = 1 << 22


class DamagedEntryError(DatasetError):
    """An entry is not what was written; ``key`` tells which."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    shard: str
    names: tuple[str, ...]
    digest: str


class Cache:
    """A folder of encoded footage.

    Args:
        folder: is made where it is missing.
        memory_bytes: entries that were read last are kept in memory, up to so much.

    Raises:
        DatasetError: the folder cannot be made.
    """

    def __init__(self, folder: Path, *, memory_bytes: int = 0) -> None:
        self.folder, self.sets = folder, folder / "sets"
        self._shards, self._index, self._files = folder / "shards", folder / "index.jsonl", folder / "files.jsonl"
        try:
            for path in (self._shards, self.sets):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(
                f"The cache's folder {folder} cannot be made ({error.strerror}); choose another one."
            ) from error
        self._entries: dict[str, _Entry] = {}
        self._mark = (0, 0)
        self._memory = _Memory(memory_bytes)
        self._waiting: dict[str, Tensors] = {}
        self._waiting_since = 0.0
        self._digests = {tuple(row[:3]): row[3] for row in _rows(self._files) if _is_file(row)}

    def __contains__(self, key: str) -> bool:
        """Tell whether an entry is there, written by whomever."""
        if key not in self._entries:
            self._follow()
        return key in self._entries or key in self._waiting

    def put(self, key: str, tensors: Tensors) -> None:
        """Keep an entry; it is on the disk after the next `flush` at the latest.

        Raises:
            DatasetError: the disk refuses.
        """
        self._waiting_since = self._waiting_since if self._waiting else time.monotonic()
        self._waiting[key] = tensors
        held = sum(_bytes_of(entry) for entry in self._waiting.values())
        if held >= _SHARD_BYTES or time.monotonic() - self._waiting_since >= _SHARD_S:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting: the shard first, then the lines that name it.

        Raises:
            DatasetError: the disk refuses; what is waiting stays so.
        """
        if not self._waiting:
            return
        with self._locked():
            self._follow()
            new = {key: entry for key, entry in self._waiting.items() if key not in self._entries}
            self._add(new)
            self._follow()
        self._waiting.clear()

    def get(self, key: str) -> dict[str, Tensor]:
        """Return an entry's tensors.

        Raises:
            DamagedEntryError: its shard is gone or cut, or its numbers are not those that were written.
            DatasetError: it was never written.
        """
        remembered = self._waiting.get(key) or self._memory.get(key)
        if remembered is not None:
            return dict(remembered)
        if key not in self:
            raise DatasetError(f"The cache {self.folder} has no entry {key}; prepare the dataset again.")
        found = self._load(key)
        self._memory.put(key, found)
        return found

    def _load(self, key: str) -> dict[str, Tensor]:
        entry = self._entries[key]
        try:
            with safe_open(self._shards / entry.shard, framework="pt") as file:
                found = {name: file.get_tensor(f"{key}/{name}") for name in entry.names}
        except (OSError, SafetensorError) as error:
            raise DamagedEntryError(
                key, f"The cache's shard {entry.shard} cannot be read ({error}); prepare the dataset again."
            ) from error
        if digest_of(*(found[name] for name in entry.names)) != entry.digest:
            raise DamagedEntryError(
                key, f"The cache's shard {entry.shard} was changed after it was written; prepare the dataset again."
            )
        return found

    def verify(self) -> list[str]:
        """Read every entry, forget those that are damaged, and return their keys."""
        self._follow()
        damaged = []
        for key in list(self._entries):
            try:
                self._load(key)
            except DamagedEntryError:
                damaged.append(key)
        if damaged:
            self._forget(damaged.__contains__)
        return damaged

    def remove_unused(self) -> int:
        """Delete the entries that no prepared dataset of ``sets`` names; return how many bytes that freed."""
        used = {key for path in self.sets.glob("*.json") for key in _keys_in(path)}
        before = self.num_bytes
        self._forget(lambda key: key not in used)
        return before - self.num_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(path.stat().st_size for path in self._shards.glob("*.safetensors"))

    def digest_of_file(self, path: Path) -> str:
        """Return the digest of a file's contents; a file that was read before and has not changed is not read again.

        Raises:
            DatasetError: the file is missing or cannot be read.
        """
        try:
            stat = path.stat()
            known = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
            if known not in self._digests:
                state = blake2b(digest_size=16)
                with path.open("rb") as file:
                    while block := file.read(_READ):
                        state.update(block)
                self._digests[known] = state.hexdigest()
                _append(self._files, [[*known, state.hexdigest()]])
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}); check its name and its folder.") from error
        return self._digests[known]

    def _add(self, entries: Mapping[str, Tensors]) -> None:
        """Write a shard and its lines; the lock is held."""
        if not entries:
            return
        digests = {key: digest_of(*(tensors[n] for n in sorted(tensors))) for key, tensors in entries.items()}
        shard = digest_of(sorted(digests.items())) + ".safetensors"
        joined = {f"{key}/{name}": tensor for key, tensors in entries.items() for name, tensor in tensors.items()}
        try:
            write_tensors(self._shards / shard, joined, {})
            new = [_Entry(key, shard, tuple(sorted(tensors)), digests[key]) for key, tensors in entries.items()]
            _append(self._index, [asdict(entry) for entry in new])
        except (CheckpointError, OSError) as error:
            raise DatasetError(
                f"The cache {self.folder} cannot be written ({error}); free some space and go on: what is finished "
                "stays."
            ) from error

    def _follow(self) -> None:
        """Read what was added to the index since it was read last, by whomever."""
        stat = self._index.stat() if self._index.exists() else None
        mark = (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
        if mark == self._mark:
            return
        self._entries = {
            row["key"]: _Entry(row["key"], row["shard"], tuple(row["names"]), row["digest"])
            for row in _rows(self._index)
            if _is_entry(row)
        }
        self._mark = mark

    def _forget(self, unwanted: Callable[[str], bool]) -> None:
        """Take entries out; what else is in their shards moves to a new one."""
        with self._locked():
            self._follow()
            lost = {entry.shard for key, entry in self._entries.items() if unwanted(key)}
            moved: dict[str, Tensors] = {}
            for key, entry in self._entries.items():
                if entry.shard in lost and not unwanted(key):
                    with suppress(DamagedEntryError):
                        moved[key] = self._load(key)
            stay = [asdict(entry) for entry in self._entries.values() if entry.shard not in lost]
            with written_whole(self._index, kind=DatasetError) as partial:
                partial.write_text("".join(json.dumps(row) + "\n" for row in stay), encoding="utf-8")
            self._add(moved)
            self._follow()
            named = {entry.shard for entry in self._entries.values()}
            for path in self._shards.iterdir():
                if path.name not in named:
                    with suppress(OSError):  # some process may be reading it
                        path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes out for a moment.

        Raises:
            DatasetError: another process holds the lock for a minute, or the folder cannot be written to.
        """
        until = time.monotonic() + _PATIENCE_S
        try:
            while True:
                with (self.folder / "lock").open("a+b") as file:
                    if take(file):
                        try:
                            yield
                        finally:
                            release(file)
                        return
                if time.monotonic() > until:
                    raise DatasetError(f"Another process has been writing to the cache {self.folder} for a minute.")
        except OSError as error:
            raise DatasetError(
                f"The cache {self.folder} may not be written to ({error.strerror}); choose another one."
            ) from error


class _Memory:
    """The entries that were read last, up to a number of bytes; several threads may ask."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: dict[str, Tensors] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Tensors | None:
        """Return an entry, which is now the latest."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is not None:
                self._kept[key] = found
            return found

    def put(self, key: str, tensors: Tensors) -> None:
        """Keep an entry, and let go of the oldest ones that do not fit any more."""
        size = _bytes_of(tensors)
        with self._lock:
            if size > self._limit or key in self._kept:
                return
            self._kept[key] = tensors
            self._bytes += size
            while self._bytes > self._limit:
                self._bytes -= _bytes_of(self._kept.pop(next(iter(self._kept))))


def _bytes_of(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def compact(tensor: Tensor) -> Tensor:
    """Return a tensor in half precision, or in single where a number is too large for half."""
    half = tensor.to("cpu", torch.float16)
    return (half if bool(half.isfinite().all()) else tensor.to("cpu", torch.float32)).contiguous()


def _append(path: Path, rows: Iterable[object]) -> None:
    """Add lines to a file and force them to the disk; they begin anew where a process died in the middle of a line."""
    with path.open("ab") as file:
        file.write(b"\n" + b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def _rows(path: Path) -> Iterator[Any]:
    """Yield the lines of a file; one that was cut off, as a process died, is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        with suppress(ValueError, RecursionError):
            yield json.loads(line)


def _is_file(row: object) -> bool:
    """Tell whether a line is a file's path, size, time and digest."""
    return isinstance(row, list) and [type(item) for item in row] == [str, int, int, str]


def _is_entry(row: object) -> bool:
    """Tell whether a line is an entry's, and leads to no other folder."""
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("key", "shard", "digest")):
        return False
    names = row.get("names")
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and Path(row["shard"]).name == row["shard"]
    )


def _keys_in(path: Path) -> Iterator[str]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    yield from _keys_of(told)


def _keys_of(value: object) -> Iterator[str]:
    """Yield what stands under ``key``, or a name that ends in ``_key`` or ``_keys``, anywhere in parsed JSON."""
    if isinstance(value, list):
        for item in value:
            yield from _keys_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "key" or name.endswith(("_key", "_keys")):
                yield from [item] if isinstance(item, str) else item
            else:
                yield from _keys_of(item)
