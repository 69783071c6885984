"""The cache: each thing once, whole or not at all, whoever writes and whenever somebody dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gloria_core.data.cache import Cache, DamagedEntryError, compact
from gloria_core.errors import CheckpointError, DatasetError

ROOT = Path(__file__).resolve().parents[3]

WRITER = """
import sys, time, torch
from pathlib import Path
from gloria_core.data.cache import Cache
cache = Cache(Path(sys.argv[1]))
for index in range(int(sys.argv[2]), int(sys.argv[3])):
    cache.put(f"key{index}", {"x": torch.full((2000,), float(index))})
    cache.flush()
    print(index, flush=True)
"""


def writer(folder: Path, first: int, stop: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(stop)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "shards").iterdir())


def test_entries_come_back_in_another_process(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("a", {"x": torch.arange(3.0), "y": torch.ones(2, 2, dtype=torch.float16)})
    assert "a" in cache
    cache.flush()
    again = Cache(tmp_path)
    found = again.get("a")
    assert torch.equal(found["x"], torch.arange(3.0))
    assert found["y"].dtype == torch.float16
    assert "b" not in again


def test_an_entry_that_another_process_writes_is_seen(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert "key3" not in cache
    assert writer(tmp_path, 0, 5).wait() == 0
    assert "key3" in cache


def test_a_kill_loses_nothing_that_was_flushed_and_leaves_nothing_broken(tmp_path: Path) -> None:
    process = writer(tmp_path, 0, 10_000)
    assert process.stdout is not None
    written = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with (tmp_path / "index.jsonl").open("ab") as file:
        file.write(b'\n{"key": "half')  # a line that a process died in
    cache = Cache(tmp_path)
    assert cache.verify() == []
    for index in written:
        assert float(cache.get(f"key{index}")["x"][0]) == index
    cache.put("after", {"x": torch.ones(1)})
    cache.flush()
    assert "after" in Cache(tmp_path)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    both = [writer(tmp_path, 0, 40), writer(tmp_path, 20, 60)]
    assert [process.wait() for process in both] == [0, 0]
    cache = Cache(tmp_path)
    assert all(float(cache.get(f"key{index}")["x"][-1]) == index for index in range(60))
    keys = [json.loads(line)["key"] for line in (tmp_path / "index.jsonl").read_text().splitlines() if line]
    assert len(keys) == len(set(keys)) == 60
    assert cache.verify() == []


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damage_is_found_named_and_mended_by_writing_again(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put("good", {"x": torch.zeros(8)})
    cache.flush()
    cache.put("bad", {"x": torch.ones(8)})
    cache.flush()
    [shard] = [path for path in shards(tmp_path) if b"bad" in path.read_bytes()]
    content = shard.read_bytes()
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(content[:-8] if damage == "cut" else content[:-1] + b"\x01")
    fresh = Cache(tmp_path)
    with pytest.raises(DamagedEntryError, match="prepare the dataset again") as error:
        fresh.get("bad")
    assert error.value.key == "bad"
    assert fresh.verify() == ["bad"]
    assert "bad" not in fresh
    assert "good" in fresh
    fresh.put("bad", {"x": torch.ones(8)})
    fresh.flush()
    assert Cache(tmp_path).verify() == []


def test_what_no_dataset_names_is_removed_and_the_rest_of_its_shard_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for name in ("used", "unused"):
        cache.put(name, {"x": torch.ones(1000)})
    cache.flush()
    cache.put("lone", {"x": torch.ones(1000)})
    cache.flush()
    (cache.sets / "set.json").write_text(json.dumps({"clips": [{"pieces": [{"key": "used"}]}]}))
    before = cache.num_bytes
    assert cache.remove_unused() == before - cache.num_bytes > 0
    assert ["used" in cache, "unused" in cache, "lone" in cache] == [True, False, False]
    assert len(shards(tmp_path)) == 1
    assert Cache(tmp_path).verify() == []


def test_a_file_is_read_once_and_again_when_it_changed(tmp_path: Path) -> None:
    source = tmp_path / "film"
    source.write_bytes(b"one")
    os.utime(source, (1, 1))
    first = Cache(tmp_path / "cache").digest_of_file(source)
    source.write_bytes(b"two")
    os.utime(source, (1, 1))  # as if it were the same: it is not read again
    assert Cache(tmp_path / "cache").digest_of_file(source) == first
    os.utime(source, (2, 2))
    assert Cache(tmp_path / "cache").digest_of_file(source) != first


def test_lines_that_are_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    first = Cache(tmp_path)
    first.put("a", {"x": torch.zeros(1)})
    first.flush()
    entry = json.loads((tmp_path / "index.jsonl").read_text().strip())
    broken: list[object] = [{}, {**entry, "names": 3}, {**entry, "names": [3]}, {**entry, "key": 3}]
    broken += [{**entry, "key": "b", "shard": f"../shards/{entry['shard']}"}, [[1], 2, 3, 4], [1]]
    for name in ("index.jsonl", "files.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.writelines([*(json.dumps(line) + "\n" for line in broken), "[" * 100_000 + "\n"])
    again = Cache(tmp_path)
    assert torch.equal(again.get("a")["x"], torch.zeros(1))
    assert "b" not in again


def test_memory_keeps_what_was_read_last(tmp_path: Path) -> None:
    cache = Cache(tmp_path, memory_bytes=100)
    for name in "abc":
        cache.put(name, {"x": torch.ones(12)})  # 48 bytes
    cache.flush()
    for name in "abc":
        cache.get(name)
    for path in shards(tmp_path):
        path.unlink()
    assert [len(cache.get(name)["x"]) for name in "bc"] == [12, 12]
    with pytest.raises(DamagedEntryError):
        cache.get("a")


def test_what_was_never_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no entry nothing"):
        Cache(tmp_path).get("nothing")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be made"):
        Cache(tmp_path / "file")


def test_half_precision_only_where_it_holds_the_numbers() -> None:
    assert compact(torch.tensor([1.5, 60000.0])).dtype == torch.float16
    assert compact(torch.tensor([1.5, 70000.0])).dtype == torch.float32


def test_a_full_disk_is_told_and_what_waits_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.put("a", {"x": torch.ones(3)})

    def full(*given: object) -> None:
        raise CheckpointError("the shard cannot be written (No space left on device)")

    with monkeypatch.context() as patched:
        patched.setattr("gloria_core.data.cache.write_tensors", full)
        with pytest.raises(DatasetError, match=r"No space left .* free some space and go on"):
            cache.flush()
    assert "a" not in Cache(tmp_path)
    cache.flush()
    assert "a" in Cache(tmp_path)
