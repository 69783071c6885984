"""``python -m gloria_core.train JOB``: train, or go on with, what a job's folder or a file of settings describes.

Several processes: ``torchrun --standalone --nproc-per-node=2 -m gloria_core.train JOB``, same arguments.
"""

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from ..checkpoint import inspect
from ..errors import GloriaError
from ..events import EventLog
from .advice import out_of_memory
from .config import TrainConfig
from .export import export_run
from .job import Job
from .loop import TrainResult
from .process import peak_memory_mb
from .stages import any_begun, read_stages, train_stages

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, train, and return the exit status: 0, or 1 after an error told in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m gloria_core.train", description="Train a model.")
    parser.add_argument("config", type=Path, help="a job's folder, or a TOML file of a run or of several stages")
    parser.add_argument("--out", help="the run's folder, in place of run.out")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    parser.add_argument(
        "--stop-after-seconds", type=float, default=math.inf, metavar="N", help="end this leg after N s"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    options = parser.parse_args(arguments)
    is_main = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if is_main else logging.WARNING, format="%(asctime)s %(message)s")
    try:
        if options.config.is_dir():
            result = _train_job(Job(options.config.resolve()), options, is_main)
        else:
            changes = [*options.set, *([_out(options.out)] if options.out else [])]
            result = train_stages(
                read_stages(options.config, changes), resume=options.resume, stop_after_s=options.stop_after_seconds
            )
    except GloriaError as error:
        _log.error("%s", error)
        return 1
    _log.info("%s at step %d: %s", result.reason, result.step, result.checkpoint)
    return 0


def _train_job(job: Job, options: argparse.Namespace, is_main: bool) -> TrainResult:
    """Train in a job's folder, where it stands; whatever ends it early is told in the job's events too."""
    with ExitStack() as stack:
        if is_main:
            stack.enter_context(job.occupied())
            stack.enter_context(_logged(job))
        events = EventLog(job.path / "events.jsonl" if is_main else None)
        configs: list[TrainConfig] = []
        try:
            configs = read_stages(job.config, [*options.set, _out(str(job.path))])
            result = train_stages(
                configs,
                resume=any_begun(configs),
                stop_after_s=options.stop_after_seconds,
                stop_file=job.stop_file,
            )
            if result.finished and is_main:
                written = export_run(Path(configs[-1].run.out))
                events.write("exported", file=written.name)
                _log.info("wrote %s", written)
            return result
        except GloriaError as error:
            events.write("error", sentence=str(error))
            raise
        except (torch.OutOfMemoryError, MemoryError) as error:
            sentence = _memory_sentence(configs)
            events.write("error", sentence=sentence)
            raise GloriaError(sentence) from error
        except Exception as error:
            events.write("error", sentence=f"The training broke off: {type(error).__name__}: {error}")
            raise


def _out(path: str) -> str:
    """Return a run's folder as a change of settings; TOML knows no halves of characters, as JSON writes some."""
    return f"run.out={json.dumps(path, ensure_ascii=False)}"


def _memory_sentence(configs: list[TrainConfig]) -> str:
    cuda = torch.cuda.is_available() and configs[-1].run.device != "cpu"
    where = "the graphics card" if cuda else "this machine"
    peak_mb = peak_memory_mb(torch.device("cuda" if cuda else "cpu"))
    return out_of_memory(configs[-1], _num_blocks(configs[-1]), peak_mb, where)


def _num_blocks(config: TrainConfig) -> int:
    """Return how many blocks the network has; 0 where the task has no weights file that tells."""
    weights = config.task.options.get("weights")
    try:
        return inspect(Path(str(weights))).config.num_layers if weights else 0
    except GloriaError:
        return 0


@contextmanager
def _logged(job: Job) -> Iterator[None]:
    """Write the log into the job's folder too, unless this process's errors go there already."""
    try:
        there = os.path.samestat(os.fstat(sys.stderr.fileno()), job.log.stat())
    except (OSError, ValueError):  # no log yet, or no errors' channel that is a file
        there = False
    if there:
        yield
        return
    handler = logging.FileHandler(job.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    sys.exit(main())
