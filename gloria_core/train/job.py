"""A training as a folder, and the process that works in it: starting it, asking it to stop, ending it.

- ``config.toml``: every setting, also those that were left as they are
- ``events.jsonl``: what happened, a line each
- ``log.txt``: what the process said, its own last words among it
- ``checkpoints/``, ``samples/``: what the training leaves; in a job of stages they lie in a folder of each stage
- ``lock``: held by the process as long as it lives; ``stop``: the wish that it end; ``process.json``: which one it is
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, GloriaError
from ..lock import is_locked, release, take
from ..whole import written_whole

PACK = Path(__file__).resolve().parents[2]
"""Folder in which ``gloria_core`` lies."""
_LAST_LINES = 40


class JobInUseError(GloriaError):
    """Another process trains in the folder."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The job's name."""
        return self.path.name

    @property
    def config(self) -> Path:
        """The settings."""
        return self.path / "config.toml"

    @property
    def log(self) -> Path:
        """What the process said."""
        return self.path / "log.txt"

    @property
    def stop_file(self) -> Path:
        """Exists while somebody wishes the process to end."""
        return self.path / "stop"

    @property
    def is_running(self) -> bool:
        """Whether a process trains here."""
        return is_locked(self.path / "lock")

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Keep other processes out, and say which one this is.

        Raises:
            JobInUseError: another process trains here.
            ConfigError: the folder may not be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+b")
        except OSError as error:
            raise ConfigError(f"The job's folder {self.path} may not be written to ({error.strerror}).") from error
        with lock:
            if not take(lock):
                raise JobInUseError(
                    f"The job {self.name!r} is being trained by another process. Stop that one first (Stop Training), "
                    "or give this job another name."
                )
            try:
                self.stop_file.unlink(missing_ok=True)
                self._write_process()
                yield
            finally:
                release(lock)

    def last_lines(self, count: int = _LAST_LINES) -> list[str]:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * count))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-count:]

    def ask_to_stop(self) -> None:
        """Wish that the process make a checkpoint and end; it looks between two steps."""
        with contextlib.suppress(OSError):
            self.stop_file.touch()

    def kill(self) -> None:
        """End the process and all that it has started at once. What is on the disk stays."""
        leader = self._process().get("pid", 0)
        if not self.is_running or not leader:
            return
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                subprocess.run(["taskkill", "/F", "/T", "/PID", str(leader)], capture_output=True, check=False)
            elif os.getpgid(leader) == leader:
                os.killpg(leader, signal.SIGKILL)
            else:  # somebody started it among other things, which are to live
                os.kill(leader, signal.SIGKILL)

    def _process(self) -> dict[str, int]:
        try:
            told = json.loads((self.path / "process.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}

    def _write_process(self) -> None:
        leader = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid()
        with written_whole(self.path / "process.json") as partial:
            partial.write_text(json.dumps({"pid": leader}), encoding="utf-8")


def start(job: Job, *, num_processes: int = 1, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the process that trains a job; it goes on where the job stands, and outlives this process.

    Args:
        job: with its settings written.
        num_processes: more than one are started through torchrun, one for each graphics card.
        environment: more variables.

    Raises:
        JobInUseError: a process trains there already.
        ConfigError: there are no settings.
    """
    if not job.config.is_file():
        raise ConfigError(f"The job {job.name!r} has no config.toml; make it with one of the Train nodes.")
    if job.is_running:
        raise JobInUseError(f"The job {job.name!r} is running already; watch it, or stop it first.")
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    command = [sys.executable, *(many if num_processes > 1 else []), "-m", "gloria_core.train", str(job.path)]
    job.stop_file.unlink(missing_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=PACK,
            env={**_clean_environment(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Windows ignores it: there a child outlives its parent anyway
        )


def _clean_environment() -> dict[str, str]:
    """Return this process's variables for one of its own: where the pack is, and no allocator of the host's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    }
    path = os.pathsep.join([str(PACK), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "PYTHONUNBUFFERED": "1"}
