"""``python -m gloria_core.render JOB.json``: make a video without ComfyUI, or go on with it where it was stopped.

Exit status: 0 finished, 2 the job cannot be met (one sentence says why), 3 stopped by SIGINT or SIGTERM. After a stop
or a kill the same command goes on.
"""

import argparse
import json
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

from ..errors import GloriaError
from .job import RenderJob, read_job
from .render import device_of, dry_run, render
from .workflow import api_prompt

FINISHED, REFUSED, STOPPED = 0, 2, 3
"""Exit status."""


class StopError(KeyboardInterrupt):
    """Somebody wants the process to end."""


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, render, and return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        job = _job(options)
        if options.workflow:
            _say(json.dumps({"prompt": api_prompt(job)}, indent=2))
        elif options.dry_run:
            dry_run(job, _say)
        else:
            _say(f"film: {render(job, _say)}")
    except GloriaError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except StopError as error:
        sys.stderr.write(f"{error}\n")
        return STOPPED
    return FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gloria_core.render", description="Make a video from a job file, without ComfyUI."
    )
    parser.add_argument("job", type=Path, metavar="JOB.json", help="the settings of the video")
    parser.add_argument("--output", type=Path, metavar="DIR", help="the output folder, in place of the job's")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:1, in place of the job's")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say what would be made and used again; sample nothing")
    what.add_argument("--workflow", action="store_true", help="print the same job for ComfyUI's POST /prompt")
    return parser


def _job(options: argparse.Namespace) -> RenderJob:
    job = read_job(options.job)
    if options.output is not None:
        job = replace(job, output=str(options.output.resolve()))
    if options.device is not None:
        job = replace(job, model=replace(job.model, device=options.device))
    device_of(job.model.device)
    return job


def _stop(number: int, _frame: FrameType | None) -> None:
    """End at once: what is finished is on the disk, and a second signal does not even wait for the film's writer."""
    name = signal.Signals(number).name
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: os._exit(STOPPED))
    raise StopError(f"Stopped by {name}. What is finished stays; the same command goes on.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
