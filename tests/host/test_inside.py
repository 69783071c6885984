"""Runs the checks of the folder `inside`: they need the host's modules but no server. Each file has its own process.

They cannot run in this process: the host has top-level modules of its own, one of them called `nodes`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from launch.environment import Environment

pytestmark = pytest.mark.host

INSIDE = Path(__file__).parent / "inside"
FILES = sorted(INSIDE.glob("check_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_checks_inside_the_host(file: Path, host_environment: Environment) -> None:
    options = ["-o", "addopts=", "-o", "python_files=check_*.py", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command = [str(host_environment.python), "-m", "pytest", "-q", *options, f"--confcutdir={INSIDE}", str(file)]
    surroundings = {**os.environ, "GLORIA_HOST_FOLDER": str(host_environment.host), "OMP_NUM_THREADS": "1"}
    surroundings.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=INSIDE, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
