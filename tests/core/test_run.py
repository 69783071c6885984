"""The command line and its set-up, without network: pure functions, failures, and what they leave behind."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launch import LaunchError, client, console, demo, environment, preflight, process, server
from launch.websocket import ClosedError, WebSocket

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = {
    "1": {"class_type": "GloriaSampler", "inputs": {"seconds": 60.0, "seed": 1, "model": ["2", 0], "audio": ["3", 0]}},
    "2": {"class_type": "GloriaNano", "inputs": {}},
    "3": {"class_type": "GloriaLoadSpeech", "inputs": {"audio": "bundled speech"}},
    "4": {"class_type": "KSampler", "inputs": {"seed": 5}},
}


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--seconds", "0"], "longer than 0 s"),
        (["demo", "--seconds", "nan"], "longer than 0 s"),
        (["demo", "--seed", "-1"], "--seed -1"),
        (["demo", "--audio", "no such file.wav"], "no file no such file.wav"),
        (["demo", "--out", "film.avi"], "ends in .mp4"),
        (["demo", "--port", "70000"], "1 to 65535"),
        (["comfyui", "--comfyui", "no such folder"], "not a ComfyUI folder"),
    ],
)
def test_bad_values_end_in_one_sentence_and_code_1(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "dance" in done.stderr


def test_an_old_python_can_read_run_py_as_far_as_its_message() -> None:
    source = (ROOT / "run.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [alias.name for node in imports for alias in node.names if node.lineno < guard.lineno] == ["sys"]


def test_a_taken_port_is_named() -> None:
    with socket.socket() as holder:
        holder.bind((server.LOOPBACK, 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(LaunchError, match=f"Port {port} is taken"):
            server.choose_port(port)
    assert server.port_is_free(server.choose_port(None))


# --- the workflow and its progress


def test_patch_sets_values_but_neither_links_nor_other_packs_nodes() -> None:
    prompt = demo.patch(WORKFLOW, {"seconds": 4.0, "seed": 9, "audio": "speech.wav"})
    assert prompt["1"]["inputs"] == {"seconds": 4.0, "seed": 9, "model": ["2", 0], "audio": ["3", 0]}
    assert prompt["3"]["inputs"]["audio"] == "speech.wav"
    assert prompt["4"]["inputs"]["seed"] == 5
    assert WORKFLOW["1"]["inputs"]["seconds"] == 60.0


def test_patch_refuses_an_input_that_the_workflow_lacks() -> None:
    with pytest.raises(LaunchError, match="no input named character"):
        demo.patch(WORKFLOW, {"character": "Mira"})


def test_the_example_workflow_takes_every_option_of_the_demo() -> None:
    values = {"seconds": 4.0, "seed": 3, "layout": "plain", "character": "Mira", "audio": "speech.wav"}
    prompt = demo.patch(json.loads(demo.WORKFLOW.read_text(encoding="utf-8")), values)
    inputs = [node["inputs"] for node in prompt.values()]
    for name, value in values.items():
        assert any(given.get(name) == value for given in inputs), name


def test_progress_tells_chunk_step_and_time_left() -> None:
    progress = demo.Progress(console.LiveLine(io.StringIO()), begun=0.0)
    report = {"chunks": 4, "steps": 8}
    assert progress.describe({**report, "chunk": 1, "step": 8}, now=10.0) == "chunk 1 of 4, step 8 of 8, 0:10 elapsed"
    text = progress.describe({**report, "chunk": 2, "step": 8}, now=30.0)
    assert text == "chunk 2 of 4, step 8 of 8, 0:30 elapsed, about 0:40 left"
    assert progress.describe({**report, "chunk": 4, "step": 8}, now=70.0).endswith("about 0:00 left")


def test_films_are_the_saved_mp4s_in_order() -> None:
    outputs = {
        "1": {"images": [{"filename": "a.mp4", "subfolder": "x", "type": "output"}], "animated": [True]},
        "2": {"images": [{"filename": "b.png", "type": "output"}, {"filename": "c.mp4", "type": "temp"}]},
        "3": {"gifs": [{"filename": "d.mp4", "subfolder": "", "type": "output"}]},
    }
    assert demo.films({"outputs": outputs}) == [("x", "a.mp4"), ("", "d.mp4")]


def test_a_film_is_delivered_whole_or_not_at_all(tmp_path: Path) -> None:
    film = tmp_path / "made.mp4"
    film.write_bytes(b"film")
    target = tmp_path / "new folder" / "film.mp4"
    assert demo._deliver(film, target) == target
    assert target.read_bytes() == b"film"
    with pytest.raises(LaunchError, match="cannot be put"):
        demo._deliver(tmp_path / "missing.mp4", tmp_path / "other.mp4")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["film.mp4"]


@pytest.mark.parametrize(("wanted", "name"), [("mira", "Mira"), ("2", "Bruno"), (" BRUNO ", "Bruno")])
def test_a_character_has_a_name_and_a_number(wanted: str, name: str) -> None:
    assert preflight.find_character(wanted, ("Mira", "Bruno")) == name


@pytest.mark.parametrize("wanted", ["0", "3", "Gloria", "-1"])
def test_an_unknown_character_is_answered_with_the_known_ones(wanted: str) -> None:
    with pytest.raises(LaunchError, match=r"Mira, Bruno.* 1 to 2"):
        preflight.find_character(wanted, ("Mira", "Bruno"))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3600, "1:00:00"), (-3, "0:00")])
def test_clock(seconds: float, text: str) -> None:
    assert console.clock(seconds) == text


def test_a_live_line_stays_quiet_where_it_cannot_be_rewritten() -> None:
    stream = io.StringIO()
    line = console.LiveLine(stream)
    for number in range(100):
        line.show(f"step {number}")
    line.close("done")
    assert stream.getvalue() == "step 0\ndone\n"


# --- set-up


def test_a_stamp_holds_for_exactly_its_requirements(tmp_path: Path) -> None:
    groups = {"run": ["a>=1", "b"], "test": ["c"]}
    assert environment.stale_groups(tmp_path, groups) == ["run", "test"]
    environment.write_stamp(tmp_path, {"run": ["b", "a>=1"]})
    assert environment.stale_groups(tmp_path, groups) == ["test"]
    environment.write_stamp(tmp_path, {"test": ["c"]})
    assert environment.stale_groups(tmp_path, groups) == []
    assert environment.stale_groups(tmp_path, {"run": ["a>=2", "b"]}) == ["run"]


def test_a_damaged_stamp_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "gloria-stamp.json").write_text("{", encoding="utf-8")
    assert environment.stale_groups(tmp_path, {"run": ["a"]}) == ["run"]


def test_torch_of_the_host_is_left_to_the_pinned_one() -> None:
    assert environment.listed("torch\n# comment\nnumpy>=1 # why\n\ntorchsde\n") == ["numpy>=1", "torchsde"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty machine: nothing is set up, and its folder has a space in its name."""
    place = tmp_path / "a machine"
    place.mkdir()
    monkeypatch.setattr(environment, "VENV", place / ".venv")
    monkeypatch.setattr(environment, "PRIVATE", place / ".host")
    monkeypatch.setattr(environment, "HOST", place / ".host" / "ComfyUI")
    return place


def _pip_that_prints(text: str) -> object:
    def run_logged(command: list[object], log: Path, *, cwd: Path, tick: object) -> int:
        if "pip" not in command:  # making the environment goes well
            python = environment.venv_python(environment.VENV)
            python.parent.mkdir(parents=True)
            python.touch()
            return 0
        log.write_text(text, encoding="utf-8")
        return 1

    return run_logged


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("ERROR: No matching distribution found for x (from versions: none)", "No network"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("something else", "something else"),
    ],
)
def test_a_failed_set_up_says_why_and_leaves_no_environment(
    machine: Path, monkeypatch: pytest.MonkeyPatch, printed: str, said: str
) -> None:
    monkeypatch.setattr(environment, "run_logged", _pip_that_prints(printed))
    with pytest.raises(LaunchError, match=said):
        environment.prepare()
    assert [path.name for path in machine.iterdir()] == [".host"]
    assert [path.name for path in (machine / ".host").iterdir()] == ["logs"]


def test_without_ensurepip_the_package_to_install_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r"python3\.\d+-venv"):
        environment.prepare()
    assert not (machine / ".venv").exists()


def _ready_venv(venv: Path) -> None:
    python = environment.venv_python(venv)
    python.parent.mkdir(parents=True)
    python.touch()


def test_an_environment_that_was_cut_off_is_built_anew(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    _ready_venv(venv)
    (venv / "half").touch()
    environment._mark(venv).touch()
    with environment._building(venv):
        assert not (venv / "half").exists()
    assert not environment._mark(venv).exists()


@pytest.mark.parametrize(("problem", "fit"), [(environment.NetworkError("x"), True), (KeyboardInterrupt(), False)])
def test_an_environment_outlives_a_lost_network_only(tmp_path: Path, problem: BaseException, fit: bool) -> None:
    venv = tmp_path / ".venv"
    _ready_venv(venv)
    with pytest.raises(type(problem)), environment._building(venv):
        raise problem
    assert venv.exists()
    assert environment._mark(venv).exists() != fit


def test_a_folder_that_is_no_comfyui_or_an_old_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="not a ComfyUI folder"):
        environment.check_host(tmp_path)
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").touch()
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.3.70"', encoding="utf-8")
    with pytest.raises(LaunchError, match=r"is ComfyUI 0\.3\.70; Gloria needs 0\.3\.75"):
        environment.check_host(tmp_path)
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0.10.1"', encoding="utf-8")
    assert environment.check_host(tmp_path) == tmp_path.resolve()


def test_the_copied_pack_holds_what_a_user_gets(tmp_path: Path) -> None:
    pack = server.copy_pack(tmp_path)
    assert {"__init__.py", "gloria_core", "nodes"} <= {path.name for path in pack.iterdir()}
    assert not {"tests", "run.py", "launch", ".git"} & {path.name for path in pack.iterdir()}
    assert not list(pack.rglob("__pycache__"))


def test_trouble_with_our_pack_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("  0.0 seconds: /x/custom_nodes/gloria\n", encoding="utf-8")
    assert server.import_trouble(log) == ""
    log.write_text("  0.0 seconds (IMPORT FAILED): /x/custom_nodes/gloria\n", encoding="utf-8")
    assert "IMPORT FAILED" in server.import_trouble(log)


# --- processes


@pytest.mark.skipif(os.name == "nt", reason="looks for the grandchild with a POSIX signal")
def test_stopping_a_tree_ends_grandchildren_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    log = tmp_path / "log"
    child = process.start([sys.executable, "-c", code], log, cwd=tmp_path)
    try:
        limit = time.monotonic() + 20
        while not log.read_text().strip() and time.monotonic() < limit:
            time.sleep(0.02)
        grandchild = int(log.read_text())
        os.kill(grandchild, 0)
    finally:
        process.stop_tree(child)
    assert child.returncode is not None
    limit = time.monotonic() + 5
    while _exists(grandchild) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not _exists(grandchild)


def _exists(number: int) -> bool:
    state = Path(f"/proc/{number}/stat")
    if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
        return False  # dead, and waiting for the system's first process to notice
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


# --- talking to the host


def test_a_refused_prompt_becomes_a_sentence() -> None:
    error = {"message": "Value not in list", "details": "audio: 'x.wav'"}
    answer = {"error": {"message": "invalid"}, "node_errors": {"3": {"class_type": "LoadAudio", "errors": [error]}}}
    assert client.refusal(answer) == "LoadAudio: Value not in list (audio: 'x.wav')"
    assert client.refusal({"error": {"message": "No outputs", "details": "add one"}}) == "No outputs (add one)"


def test_a_failed_node_becomes_a_sentence() -> None:
    data = {"node_type": "GloriaNano", "exception_message": "The file is cut.\n", "exception_type": "CheckpointError"}
    assert client.failure("execution_error", data) == "GloriaNano: The file is cut."
    assert "interrupted" in client.failure("execution_interrupted", {})


def _frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    head = bytes([(0x80 if last else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + bytes([126]) + len(payload).to_bytes(2, "big") + payload
    return head + bytes([127]) + len(payload).to_bytes(8, "big") + payload


def _serve_once(listener: socket.socket, frames: bytes, heard: list[bytes]) -> None:
    connection, _ = listener.accept()
    with connection:
        request = connection.recv(4096)
        key = next(line for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key")).split(b": ")[1]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        connection.sendall(head + frames)
        heard.append(connection.recv(64))


def test_the_websocket_reads_long_broken_and_mixed_messages() -> None:
    long, longer = "x" * 1000, "y" * 70000
    frames = (
        _frame(0x1, b"one") + _frame(0x2, b"\0" * 200) + _frame(0x9, b"ping") + _frame(0x1, b"t", last=False)
        + _frame(0x9, b"") + _frame(0x0, b"wo") + _frame(0x1, long.encode()) + _frame(0x1, longer.encode())
        + _frame(0x8, b"")
    )  # fmt: skip
    heard: list[bytes] = []
    with socket.create_server((server.LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=_serve_once, args=(listener, frames, heard))
        thread.start()
        with WebSocket(server.LOOPBACK, listener.getsockname()[1], "/ws") as reader:
            assert [reader.receive(5.0) for _ in range(4)] == ["one", "two", long, longer]
            with pytest.raises(ClosedError):
                reader.receive(5.0)
        thread.join()
    mask, masked = heard[0][2:6], heard[0][6:10]
    assert heard[0][:2] == bytes([0x8A, 0x84])
    assert bytes(byte ^ mask[index] for index, byte in enumerate(masked)) == b"ping"


def test_nobody_at_the_address_is_told_from_an_error() -> None:
    with pytest.raises(client.UnreachableError):
        client.Client(f"http://{server.LOOPBACK}:{server.choose_port(None)}").get("/system_stats")
