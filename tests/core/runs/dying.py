"""Makes a run again and again, and dies at another write each time: ``python -m tests.core.runs.dying FOLDER``.

Writes FOLDER/points.txt: all write points of the run, in order. What the N-th death (from 0) left lies in FOLDER/N.
Each death is that of a fork, so that libraries are imported once.
"""

import os
import sys
from pathlib import Path

import torch

from tests.core.runs.studio import Studio
from tests.faults import Faults


def studio(folder: Path) -> Studio:
    """The run that dies: two chunks, shown pictures of its prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    return Studio(folder, num_frames=49, with_pictures=True)


def forked(folder: Path, die_at: str | None) -> int:
    """Make the run in a fork; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        faults = Faults(folder, die_at)
        wanted = studio(folder)
        faults.install()
        wanted.make()
        points = "\n".join(faults.points)
        (folder / "points.txt").write_text(points, encoding="utf-8")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    if forked(folder / "whole", None):
        raise SystemExit("the run itself failed")
    points = (folder / "whole" / "points.txt").read_text(encoding="utf-8")
    for number, point in enumerate(points.splitlines()):
        if forked(folder / str(number), point) != -9:
            raise SystemExit(f"nobody died at: {point}")
    (folder / "points.txt").write_text(points, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
