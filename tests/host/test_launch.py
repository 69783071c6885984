"""The command line with the real host: what an interruption and a user's own ComfyUI leave behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch import environment, server

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.host


def _servers(words: str) -> list[psutil.Process]:
    return [child for child in psutil.process_iter(["cmdline"]) if words in " ".join(child.info["cmdline"] or [])]


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stopped_demo_leaves_no_process_and_no_file(number: signal.Signals, tmp_path: Path) -> None:
    """`run.py` is told to stop while the host starts."""
    out = tmp_path / "film.mp4"
    runs = environment.PRIVATE / "runs"
    before = set(runs.glob("*"))
    command = [sys.executable, str(ROOT / "run.py"), "demo", "--seconds", "4", "--out", str(out)]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not (mine := [run for run in set(runs.glob("*")) - before if _servers(str(run))]) and child.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert mine, child.communicate()
    time.sleep(1.0)  # well into the host's own imports
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in said
    assert not mine[0].exists()
    assert not _servers(str(mine[0]))
    assert list(tmp_path.iterdir()) == []


def _digest(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_users_own_comfyui_is_not_changed(host_environment: environment.Environment, tmp_path: Path) -> None:
    own = tmp_path / "my ComfyUI"
    shutil.copytree(host_environment.host, own, ignore=shutil.ignore_patterns("__pycache__"))
    (own / "models" / "loras").mkdir(parents=True, exist_ok=True)
    (own / "models" / "loras" / "mine.safetensors").touch()
    before = _digest(own)
    mine = environment.Environment(host_environment.python, environment.check_host(own), own=True)
    settings = server.Settings(base=tmp_path / "base", log=tmp_path / "log", threads=1, only_gloria=False)
    with server.running(mine, settings) as running:
        server.wait_until_ready(running)
        client = server.Client(running.url)
        assert any(name.startswith("Gloria") for name in client.get("/object_info"))
        assert "mine.safetensors" in client.get("/models/loras")
    assert _digest(own) == before
