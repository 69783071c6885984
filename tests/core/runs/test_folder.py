import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from gloria_core.errors import MediaError, PlanError
from gloria_core.runs.folder import RunFolder, RunInUseError, check_name, read_json
from tests.core.runs.shelf import CHUNKS, put, record


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../x",
        "a/b",
        "a\\b",
        ".hidden",
        "-x",
        "x" * 101,
        "a b",
        "x.",
        "a\n",
        "\U0001f408",
        "a\u2215b",
        "a\u202eb",
        "\u0301a",
        "\u9ed1" * 70,
    ],
)
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(PlanError, match="letters, digits"):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["gloria_video", "shot-012.v3", "7", "_x", "\u9ed1\u732b", "\u0939\u093f\u0928\u094d\u0926\u0940"]
)
def test_names_that_are(name: str) -> None:
    assert check_name(name) == name


def test_one_name_is_one_folder_however_its_letters_are_composed() -> None:
    assert check_name("e\u0301te\u0301") == check_name("\u00e9t\u00e9") == "\u00e9t\u00e9"


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "aux.film", "LPT9.x.y"])
def test_names_of_devices(name: str) -> None:
    with pytest.raises(PlanError, match="Windows keeps for a device; use a name"):
        check_name(name)


def test_a_new_folder_in_which_nothing_is_begun_is_gone_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs" / "new").locked():
        assert (tmp_path / "runs" / "new" / "lock").exists()
    assert not (tmp_path / "runs" / "new").exists()
    folder = RunFolder(tmp_path / "runs" / "begun")
    with folder.locked():
        folder.write_json(folder.settings, {})
    assert folder.settings.exists()


def test_takes_are_listed_in_order_and_broken_ones_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for index, take in ((1, 1), (0, 2), (0, 1), (0, 10)):
        put(folder, record(CHUNKS[index], take=take))
    cut = folder.chunk_path(2, 1)
    cut.write_bytes(folder.chunk_path(0, 1).read_bytes()[:100])
    folder.chunk_path(2, 3).write_bytes(folder.chunk_path(0, 1).read_bytes())  # somebody renamed it
    takes, broken = folder.takes()
    assert [(t.record.index, t.record.take) for t in takes] == [(0, 1), (0, 2), (0, 10), (1, 1)]
    assert len(broken) == 2
    assert "0002.take-1" in broken[0]
    assert "take 1 of chunk 1" in broken[1]
    assert folder.next_take(2) == 4, "a broken file's number is not given away"
    assert folder.next_take(5) == 1


def test_only_one_at_a_time(tmp_path: Path) -> None:
    one, other = RunFolder(tmp_path), RunFolder(tmp_path)
    with one.locked(), pytest.raises(RunInUseError, match="another ComfyUI or render process"), other.locked():
        pass
    with other.locked():
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gloria_core.runs.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == b"in"
    folder = RunFolder(tmp_path)
    with pytest.raises(RunInUseError), folder.locked():
        pass
    child.kill()
    child.wait()
    time.sleep(0.05)
    with folder.locked():
        pass


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(MediaError, match="cannot be made"):
        RunFolder(tmp_path / "run")


def test_half_written_files_are_swept_up(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    left = [folder.chunks / "0000.take-1.safetensors.partial", folder.segments / "0000.ab.partial.mp4"]
    kept = folder.segments / "0000.cd.mp4"
    for file in (*left, kept):
        file.write_bytes(b"x")
    folder.sweep()
    assert [file.exists() for file in (*left, kept)] == [False, False, True]


def test_json_is_written_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json(folder.settings, {"state": "running"})
    assert read_json(folder.settings) == {"state": "running"}
    assert read_json(tmp_path / "missing.json") == {}
    folder.settings.write_text("{")
    assert read_json(folder.settings) == {}


def test_somebody_who_only_looks_is_waited_for(tmp_path: Path) -> None:
    looking = RunFolder(tmp_path).locked()
    looking.__enter__()
    Timer(0.1, looking.__exit__, (None, None, None)).start()
    with RunFolder(tmp_path).locked():
        pass
