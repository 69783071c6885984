"""What the training process is to its machine: its place among others, threads, memory, signals, background work."""

import ctypes
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ConfigError
from ..types import TrainBatch

_PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the main one makes samples alone, and ten minutes, NCCL's own, may be too
few for those of a 14B and its VAE."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes that train together, as one of them sees it."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor with its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(device: str, *, always: bool = False) -> Iterator[World]:
    """Join the processes that ``torchrun`` started (or be the only one), and leave them at the end.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        always: join also where there is only one process.
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ConfigError("run.device is 'cuda', and this machine's torch sees no CUDA device; use 'auto' or 'cpu'.")
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(place)
    kind = "nccl" if cuda else "gloo"
    if size > 1:
        dist.init_process_group(kind, timeout=_PATIENCE)
    elif always:
        dist.init_process_group(kind, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield World(rank, size, place)
    finally:
        if size > 1 or always:
            dist.destroy_process_group()


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory instead of handing it back, and tell whether it does.

    On a CPU every step frees and takes the same large blocks; handing them back makes the kernel clear the same pages
    again and again. Measured on a small model: a fifth fewer page faults, no gain in time on an idle machine. Only
    glibc knows the setting; elsewhere nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    done = [mallopt(mmap_threshold, 1 << 25), mallopt(trim_threshold, 2**31 - 1), mallopt(top_pad, 1 << 26)]
    return all(result == 1 for result in done)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that this process has taken so far, on the device where it computes, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:  # what getrusage says begins with the most that the parent process has ever had
        with open("/proc/self/status", encoding="ascii") as file:
            return next(float(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return _most_resident_mb()


def _most_resident_mb() -> float:
    if sys.platform == "win32":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


class StopSignal:
    """Turns SIGTERM, SIGINT and a file into a wish that the loop looks at between steps; a second Ctrl-C ends at once.

    Args:
        file: whose being there is the wish too; None looks for none.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._name, self._file = "", file

    @property
    def name(self) -> str:
        """Who wishes: the name of a signal, ``stop`` for the file, or nothing."""
        if not self._name and self._file is not None and self._file.exists():
            self._name = "stop"
        return self._name

    @contextmanager
    def watching(self) -> Iterator["StopSignal"]:
        """Catch the signals for the length of a ``with`` block; only the main thread of a process can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._name = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Prefetcher:
    """Makes batches in a background thread, in order, a few ahead."""

    def __init__(self, make: Callable[[int], TrainBatch], first: int, ahead: int) -> None:
        """Start to make batch ``first``, ``first + 1``, ...; ``ahead`` = 0 makes each when it is asked for."""
        self._make, self._next = make, first
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ready: deque[Future[TrainBatch]] = deque()
        for _ in range(ahead):
            self._order()

    def take(self) -> TrainBatch:
        """Return the next batch; raises what the task raised while making it."""
        self._order()
        return self._ready.popleft().result()

    def close(self) -> None:
        """End the thread, after the batch that it is making."""
        self._threads.shutdown(cancel_futures=True)

    def _order(self) -> None:
        self._ready.append(self._threads.submit(self._make, self._next))
        self._next += 1
