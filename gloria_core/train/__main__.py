"""``python -m gloria_core.train CONFIG.toml``: train, or go on with a run.

Several processes: ``torchrun --standalone --nproc-per-node=2 -m gloria_core.train CONFIG.toml``, same arguments.
"""

import argparse
import logging
import math
import os
import sys
from pathlib import Path

from ..errors import GloriaError
from .stages import read_stages, train_stages


def main(arguments: list[str] | None = None) -> int:
    """Read the command line, train, and return the exit status: 0, or 1 after an error told in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m gloria_core.train", description="Train a model from a TOML file.")
    parser.add_argument("config", type=Path, help="the settings of a run, or of several stages")
    parser.add_argument("--out", help="the run's folder, in place of run.out")
    parser.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    parser.add_argument(
        "--stop-after-seconds", type=float, default=math.inf, metavar="N", help="end this leg after N s"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    options = parser.parse_args(arguments)
    main_process = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if main_process else logging.WARNING, format="%(asctime)s %(message)s")
    overrides = [*options.set, *([f"run.out={options.out!r}"] if options.out else [])]
    try:
        result = train_stages(
            read_stages(options.config, overrides), resume=options.resume, stop_after_s=options.stop_after_seconds
        )
    except GloriaError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    logging.getLogger(__name__).info("%s at step %d: %s", result.reason, result.step, result.checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
