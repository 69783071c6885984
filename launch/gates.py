"""The test command: linter, type checker and every test that needs no GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .environment import PRIVATE, ROOT, Environment, NetworkError, bring_frontend
from .server import PACK_NAME, copy_pack

LINTED = ("run.py", "__init__.py", "launch", "gloria_core", "nodes", "tests")


def run_all(environment: Environment, extra: Sequence[str]) -> int:
    """Run every gate, the tests last, and print what failed; returns 0 if all passed, else 1.

    Args:
        environment: where the tools are installed.
        extra: further arguments for pytest.
    """
    python = str(environment.python)
    variables = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if environment.own:
        variables["GLORIA_HOST"] = str(environment.host)
    # The pack's modules import each other relatively, from one package: the type checker sees it as the host does.
    checked = PRIVATE / "check"
    copy_pack(checked)
    shutil.copytree(ROOT / "launch", checked / "launch", dirs_exist_ok=True)
    shutil.copy2(ROOT / "run.py", checked)
    types = ["mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", PACK_NAME, "-p", "launch", "-m", "run"]
    gates: list[tuple[str, list[str], Path]] = [
        ("ruff", [python, "-m", "ruff", "check", *(name for name in LINTED if (ROOT / name).exists())], ROOT),
        ("mypy", [python, "-m", *types], checked),
        *_node_gate(),
        ("pytest", [python, "-m", "pytest", "-m", "not gpu", "-rs", "--durations=10", *extra], ROOT),
    ]
    _try_frontend(environment)
    failed = []
    for name, command, folder in gates:
        print(f"== {name}", flush=True)
        if subprocess.run(command, cwd=folder, env=variables, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}.", flush=True)
    return int(bool(failed))


def _node_gate() -> list[tuple[str, list[str], Path]]:
    """Return the gate that tests the page's pure functions, where the machine has node."""
    node = shutil.which("node")
    if node is None:
        print("== node: skipped, there is no node on the path (the functions of web/js/lib are not tested)", flush=True)
        return []
    return [("node", [node, "--test", *sorted(map(str, (ROOT / "tests" / "web" / "js").glob("*.test.mjs")))], ROOT)]


def _try_frontend(environment: Environment) -> None:
    """Bring the newest page; without a network the tests of the page say so, or use an older one."""
    try:
        bring_frontend(environment.python)
    except NetworkError as problem:
        print(f"The newest page could not be brought: {str(problem).splitlines()[0]}", flush=True)
