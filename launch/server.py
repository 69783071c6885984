"""The host with the pack in a private folder: nothing is written anywhere else.

The host keeps models, custom nodes, input, output, temporary files and user settings under one base directory. We give
it one of ours, and put a copy of the pack there: exactly what a user's installation has, on every system. So two
servers never meet, and a user's own ComfyUI stays as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import LaunchError
from .client import Client, UnreachableError
from .environment import PRIVATE, ROOT, Environment
from .process import last_lines, start, stop_tree

LOOPBACK = "127.0.0.1"
START_SECONDS = 300.0
POLL_SECONDS = 0.25

PACK_NAME = "gloria"
PACK_PARTS = (
    "__init__.py", "gloria_core", "nodes", "web", "locales", "example_workflows", "requirements.txt", "pyproject.toml",
    "LICENSE",
)  # fmt: skip
"""What a published pack consists of."""

IMPORT_TROUBLE = ("IMPORT FAILED", "Cannot import", "Error while calling comfy_entrypoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a host is started."""

    base: Path
    """Private base directory; made if missing, and the caller's to remove."""

    log: Path
    """File that takes what the host prints."""

    cpu: bool = True
    """True where torch finds no accelerator."""

    port: int | None = None
    """Port on the loopback address; a free one if None."""

    output: Path | None = None
    """Folder for results; `base/output` if None."""

    threads: int | None = None
    """Number of CPU threads; the host's choice if None."""

    only_gloria: bool = True
    """Load no other pack and no API nodes, and let the page talk to nobody outside."""

    extra: tuple[str, ...] = field(default=())
    """Further options for the host's command line."""

    python_path: Path | None = None
    """Folder of further Python packages that the host finds."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running host."""

    process: subprocess.Popen[bytes]
    port: int
    settings: Settings

    @property
    def url(self) -> str:
        """Address of the page and the API, without a trailing slash."""
        return f"http://{LOOPBACK}:{self.port}"

    def require_alive(self) -> None:
        """Raise LaunchError with the end of the log if the host has ended.

        Raises:
            LaunchError: the host has ended.
        """
        code = self.process.poll()
        if code is not None:
            log = self.settings.log
            what = f"ComfyUI ended by itself (exit code {code})"
            raise LaunchError(f"{what}. The last lines of {log}:\n{last_lines(log)}")


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        if os.name != "nt":  # there the option would allow two servers on one port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_port(wanted: int | None) -> int:
    """Return the wanted port, or a free one if None.

    Raises:
        LaunchError: the wanted port is taken or no port number.
    """
    if wanted is None:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            return int(probe.getsockname()[1])
    if not 1 <= wanted <= 65535:
        raise LaunchError(f"--port {wanted}: a port is a number from 1 to 65535. Try --port 8189.")
    if not port_is_free(wanted):
        raise LaunchError(f"Port {wanted} is taken by another program, perhaps a ComfyUI. Choose another: --port N.")
    return wanted


def copy_pack(folder: Path) -> Path:
    """Put a fresh copy of the pack into `folder`, under its name; returns where it lies."""
    target = folder / PACK_NAME
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in PACK_PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy2(source, target / name)
    return target


def host_command(environment: Environment, settings: Settings, port: int) -> list[str | Path]:
    """Return the command line that starts the host."""
    base = settings.base
    command: list[str | Path] = [
        environment.python, environment.host / "main.py", "--listen", LOOPBACK, "--port", str(port),
        "--disable-auto-launch", "--base-directory", base,
        "--output-directory", settings.output or base / "output",
        "--database-url", f"sqlite:///{(base / 'user' / 'comfyui.db').as_posix()}",
    ]  # fmt: skip
    if settings.cpu:
        command += ["--cpu", "--use-pytorch-cross-attention"]  # the host's own choice for a CPU is slower
    if settings.only_gloria:
        command += ["--disable-api-nodes", "--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME]
    if environment.own and not settings.only_gloria:
        command += ["--extra-model-paths-config", _share_models(environment.host, base)]
    return [*command, *settings.extra]


def _share_models(host: Path, base: Path) -> Path:
    """Write the file that lets the private base directory read the models of a user's own ComfyUI."""
    kinds = sorted(folder.name for folder in (host / "models").glob("*") if folder.is_dir())
    paths = {"base_path": str(host), **{kind: f"models/{kind}" for kind in kinds}}
    file = base / "models_of_my_comfyui.yaml"
    file.write_text(json.dumps({"comfyui": paths}), encoding="utf-8")  # JSON is YAML too
    return file


def _surroundings(environment: Environment, settings: Settings) -> dict[str, str]:
    variables = dict(os.environ)
    variables.pop("PYTHONPATH", None)
    if settings.python_path:
        variables["PYTHONPATH"] = str(settings.python_path)
    variables["PYTHONUNBUFFERED"] = "1"
    if environment.own:
        variables["PYTHONPYCACHEPREFIX"] = str(PRIVATE / "pycache")
    if settings.threads:
        variables["OMP_NUM_THREADS"] = str(settings.threads)
    return variables


@contextmanager
def running(environment: Environment, settings: Settings) -> Iterator[Server]:
    """Start the host with the pack, and end its whole process tree in any case; see `wait_until_ready`.

    Args:
        environment: the Python and the host.
        settings: how to start it.

    Raises:
        LaunchError: the port is taken.
    """
    port = choose_port(settings.port)
    for name in ("input", "output", "temp", "user", "models"):
        (settings.base / name).mkdir(parents=True, exist_ok=True)
    copy_pack(settings.base / "custom_nodes")
    command = host_command(environment, settings, port)
    child = start(command, settings.log, cwd=settings.base, env=_surroundings(environment, settings))
    try:
        yield Server(child, port, settings)
    finally:
        stop_tree(child)


def wait_until_ready(server: Server, tick: Callable[[], None] = lambda: None) -> None:
    """Wait until a host answers, calling `tick` a few times a second.

    Raises:
        LaunchError: the host ended, was silent for five minutes, or could not load the pack.
    """
    client, log = Client(server.url), server.settings.log
    limit = time.monotonic() + START_SECONDS
    while (arguments := _arguments(client)) is None:
        tick()
        server.require_alive()
        if time.monotonic() > limit:
            raise LaunchError(
                f"ComfyUI did not answer within {START_SECONDS:.0f} s. The last lines of {log}:\n{last_lines(log)}"
            )
        time.sleep(POLL_SECONDS)
    if str(server.settings.base) not in arguments:
        raise LaunchError(f"Port {server.port} was taken by another ComfyUI meanwhile. Run the same command again.")
    trouble = import_trouble(log)
    if trouble:
        raise LaunchError(f"ComfyUI could not load the pack:\n{trouble}\nThe whole log is in {log}.")


def _arguments(client: Client) -> list[str] | None:
    """Return the command line of the host that answers, None if nobody does."""
    try:
        return list(client.get("/system_stats")["system"]["argv"])
    except UnreachableError:
        return None


def import_trouble(log: Path) -> str:
    """Return the lines in which the host says that our pack failed to load; empty when it loaded."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    ours = [line for line in lines if PACK_NAME in line.lower() and any(sign in line for sign in IMPORT_TROUBLE)]
    return "\n".join(f"    {line}" for line in ours)
