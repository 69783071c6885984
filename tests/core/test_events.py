"""A log of events is read again and again while it grows, and each time only what was added."""

import json
from pathlib import Path
from typing import Any

import pytest

from gloria_core import events
from gloria_core.events import EventLog, read_events


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every line that is parsed."""
    seen: list[Any] = []
    loads = json.loads

    def watched(line: Any) -> Any:
        seen.append(line)
        return loads(line)

    monkeypatch.setattr(events.json, "loads", watched)
    return seen


def steps(path: Path) -> list[int]:
    return [event["step"] for event in read_events(path, "train")]


def test_only_what_was_added_is_read(tmp_path: Path, parsed: list[Any]) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == []
    log = EventLog(path)
    for step in range(100):
        log.write("train", step=step)
    assert steps(path) == list(range(100))
    log.write("train", step=100)
    log.write("end")
    assert steps(path) == list(range(101))
    assert steps(path) == list(range(101))
    assert len(parsed) == 102


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).write("train", step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "train", "st')
    assert steps(path) == [1]
    path.write_bytes(whole + b'{"event": "train", "step": 2}\n')
    assert steps(path) == [1, 2]


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "train", "step": 1}\n{"event": "tr\xff')
    assert steps(path) == [1]
    EventLog(path).write("train", step=2)
    assert steps(path) == [1, 2]


@pytest.mark.parametrize("number", [1, 3, 50])
def test_another_file_in_its_place_is_read_anew(tmp_path: Path, number: int) -> None:
    path = tmp_path / "events.jsonl"
    for step in range(10):
        EventLog(path).write("train", step=step)
    assert len(steps(path)) == 10
    path.unlink()
    assert read_events(path) == []
    for step in range(number):
        EventLog(path).write("train", step=1000 + step)
    assert steps(path) == [1000 + step for step in range(number)]


def test_few_logs_are_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(30)]
    for number, path in enumerate(paths):
        EventLog(path).write("train", step=number)
    assert [steps(path) for path in paths] == [[number] for number in range(30)]
    assert len(events._logs) < 10
