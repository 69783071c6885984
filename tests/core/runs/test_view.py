from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gloria_core.errors import PlanError
from gloria_core.media import FilmSound
from gloria_core.runs.folder import RunFolder
from gloria_core.runs.view import (
    MOST_EVENTS,
    NotThereError,
    events_after,
    film_file,
    find_run,
    list_runs,
    run_view,
    segment_file,
    waveform,
)
from tests.core.runs.shelf import CHUNKS, put, record
from tests.core.runs.studio import StopError, Studio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An output folder, whose name has a space as artists' folders have."""
    folder = tmp_path / "my output"
    (folder / "gloria_runs").mkdir(parents=True)
    return folder


def made(root: Path, **wanted: Any) -> Path:
    Studio(root / "gloria_runs", **wanted).make()
    return root / "gloria_runs" / "run"


def told(root: Path, name: str, **said: Any) -> Path:
    folder = RunFolder(root / "gloria_runs" / name)
    story = {"name": name, "state": "finished", "updated": 5.0, "num_chunks": 3, "num_frames": 60, "fps": "16"}
    folder.write_json(folder.settings, {**story, **said})
    return folder.path


def test_a_finished_run(root: Path) -> None:
    run = made(root, prompts={1: "turns to /the left/"}, seed=2**60)
    view = run_view(run, root)
    assert (view["name"], view["state"], view["reason"]) == ("run", "finished", None)
    assert (view["num_chunks"], view["num_frames"], view["fps"], view["seconds"]) == (3, 60, 16.0, 3.75)
    assert [chunk["chunk"] for chunk in view["chunks"]] == [1, 2, 3]
    assert view["chunks"][0]["start_s"] == 0
    assert view["chunks"][-1]["end_s"] == 3.75
    assert view["chunks"][1]["prompt"] == "turns to /the left/", "a person's words are shown as they are"
    assert view["planned"] == ["make"] * 3
    assert view["video"] == {"filename": "video_1.mp4", "subfolder": "gloria_runs", "type": "output"}
    assert str(root) not in json.dumps(view)
    story = json.loads((run / "run.json").read_text())
    assert [chunk["seed"] for chunk in view["chunks"]] == [str(chunk["seed"]) for chunk in story["chunks"]]
    for number, chunk in enumerate(view["chunks"], start=1):
        assert segment_file(run, root, number) == run / "segments" / chunk["segment"]
    assert film_file(run, root) == root / "gloria_runs" / "video_1.mp4"


def test_all_takes_are_listed_by_chunk(root: Path) -> None:
    made(root)
    run = made(root, reroll="2")
    takes = run_view(run, root)["takes"]
    assert {number: [take["take"] for take in found] for number, found in takes.items()} == {
        "1": [1],
        "2": [1, 2],
        "3": [1, 2],
    }
    assert [take["in_film"] for take in takes["2"]] == [False, True]
    assert takes["2"][0]["seed"] != takes["2"][1]["seed"]
    assert isinstance(takes["2"][0]["seed"], str)


def test_a_stopped_run_shows_its_growing_film(root: Path) -> None:
    with pytest.raises(StopError):
        made(root, stop_at=12)
    run = root / "gloria_runs" / "run"
    view = run_view(run, root)
    assert view["state"] == "stopped"
    assert view["reason"] == "StopError"
    assert view["video"] is None
    assert 0 < len(view["chunks"]) < 3
    assert film_file(run, root) == run / "film.mp4"
    with pytest.raises(NotThereError, match="Chunk 3 of the run 'run'"):
        segment_file(run, root, 3)


def test_a_killed_run_is_not_running(root: Path) -> None:
    run = told(root, "killed", state="running")
    (run / "lock").touch()
    assert run_view(run, root)["state"] == "stopped"
    assert "queue the same again" in run_view(run, root)["reason"]
    with RunFolder(run).locked():
        assert run_view(run, root)["state"] == "running"
        assert list_runs(root / "gloria_runs", root)[0]["state"] == "running"
    with RunFolder(run).locked():
        pass  # looking has not kept the lock


def test_looking_makes_nothing(root: Path) -> None:
    bare = root / "gloria_runs" / "bare"
    bare.mkdir()
    (bare / "run.json").write_text('{"state": "running"}')
    before = sorted(root.rglob("*"))
    assert run_view(bare, root)["state"] == "stopped"
    assert events_after(bare, root, 0) == {"events": [], "next": 0, "more": False}
    assert [run["name"] for run in list_runs(root / "gloria_runs", root)] == ["bare"]
    assert list_runs(root / "nowhere", root) == []
    for name in ("missing", "bare2"):
        with pytest.raises(NotThereError, match="There is no run"):
            find_run(root / "gloria_runs", name, root)
    assert sorted(root.rglob("*")) == before


def test_runs_are_listed_newest_first(root: Path) -> None:
    told(root, "old", updated=1.0)
    told(root, "new", updated=3.0, chunks=[{"chunk": 1}, {"chunk": 2}])
    told(root, "middle", updated=2.0, fps="30000/1001")
    (root / "gloria_runs" / "not a name").mkdir()
    (root / "gloria_runs" / "empty").mkdir()
    (root / "gloria_runs" / "file").touch()
    runs = list_runs(root / "gloria_runs", root)
    assert [run["name"] for run in runs] == ["new", "middle", "old"]
    assert runs[0] == {
        "name": "new", "state": "finished", "num_chunks": 3, "updated": 3.0, "seconds": 3.75, "done": 2,
    }  # fmt: skip
    assert runs[1]["seconds"] == 2.002


def test_events_from_a_line_on(root: Path) -> None:
    run = told(root, "long")
    lines = [json.dumps({"event": "x", "n": n, "seed": 2**63}) for n in range(MOST_EVENTS + 5)]
    lines[2] = "cut by a killed proc"
    (run / "events.jsonl").write_text("\n".join(lines) + '\n{"event": "half')
    first = events_after(run, root, 0)
    assert (len(first["events"]), first["next"], first["more"]) == (MOST_EVENTS - 1, MOST_EVENTS, True)
    assert first["events"][0] == {"event": "x", "n": 0, "seed": str(2**63)}
    rest = events_after(run, root, first["next"])
    assert [event["n"] for event in rest["events"]] == list(range(MOST_EVENTS, MOST_EVENTS + 5))
    assert (rest["next"], rest["more"]) == (MOST_EVENTS + 5, False)
    assert events_after(run, root, rest["next"]) == {"events": [], "next": MOST_EVENTS + 5, "more": False}
    assert events_after(run, root, 10**8)["next"] == MOST_EVENTS + 5, "the log began anew"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("{root}/gloria_runs/x/film.mp4 is full", "gloria_runs/x/film.mp4 is full"),
        ("No space: '{root}/a b/film.mp4'", "No space: 'a b/film.mp4'"),
        ("see {root}", "see my output"),
        (
            "[Errno 2] No such file: '/srv/someone/secret/file.safetensors'",
            "[Errno 2] No such file: 'file.safetensors'",
        ),
        (r"cannot open D:\Films\someone\film.mp4", "cannot open film.mp4"),
        (r"cannot open \\server\share\film.mp4", "cannot open film.mp4"),
        ("Chunk 3 and/or 4 of 5 / 6 at 16/1", "Chunk 3 and/or 4 of 5 / 6 at 16/1"),
    ],
)
def test_no_folder_of_this_computer_is_told(root: Path, said: str, shown: str) -> None:
    said = said.format(root=root)
    run = told(root, "paths", state="failed", reason=said, plan=[said], settings={"model": said})
    view = run_view(run, root)
    assert (view["reason"], view["plan"], view["settings"]) == (shown, [shown], {"model": shown})
    (run / "events.jsonl").write_text(json.dumps({"event": "failed", "reason": said}) + "\n")
    assert events_after(run, root, 0)["events"][0]["reason"] == shown


def test_a_video_outside_is_not_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    for video in (tmp_path / "elsewhere.mp4", root / ".." / "elsewhere.mp4", root / "link.mp4", "elsewhere.mp4", "\0"):
        run = told(root, "away", video=str(video))
        assert run_view(run, root)["video"] is None
        with pytest.raises(NotThereError, match="no film"):
            film_file(run, root)


@pytest.mark.parametrize(
    "name",
    [
        "../run.json",
        "../../../secret.mp4",
        "/etc/passwd",
        "",
        ".",
        "..",
        "a\\b.mp4",
        "x\0.mp4",
        "link.mp4",
        "no.mp4",
        None,
    ],
)
def test_a_segment_must_be_a_plain_file_of_its_run(root: Path, tmp_path: Path, name: str | None) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    run = told(root, "segments", chunks=[{"chunk": 1, "segment": name}])
    (run / "segments" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(NotThereError, match="Chunk 1"):
        segment_file(run, root, 1)


def test_links_out_of_the_output_folder_are_not_followed(root: Path, tmp_path: Path) -> None:
    runs, outside = root / "gloria_runs", tmp_path / "outside"
    away = told(outside, "away")
    put(RunFolder(away), record(CHUNKS[0]))
    (runs / "linked").symlink_to(away, target_is_directory=True)
    with pytest.raises(NotThereError):
        find_run(runs, "linked", root)
    assert list_runs(runs, root) == []
    run = told(root, "mine")
    for name in ("chunks", "segments"):
        (run / name).rmdir()
        (run / name).symlink_to(away / name, target_is_directory=True)
    (away / "film.mp4").write_bytes(b"secret")
    (away / "events.jsonl").write_text('{"event": "secret"}\n')
    (run / "film.mp4").symlink_to(away / "film.mp4")
    (run / "events.jsonl").symlink_to(away / "events.jsonl")
    assert run_view(run, root)["takes"] == {}
    assert events_after(run, root, 0)["events"] == []
    with pytest.raises(NotThereError):
        film_file(run, root)
    (run / "loop").symlink_to(run / "loop")
    (run / "film.mp4").unlink()
    (run / "film.mp4").symlink_to(run / "loop")
    with pytest.raises(NotThereError):
        film_file(run, root)


@pytest.mark.parametrize(
    "said",
    [
        {"chunks": 3, "plan": "x", "planned": None, "settings": None, "size": {}, "fps": "0", "updated": "never"},
        {"chunks": [1, None], "num_frames": "many", "fps": "1/0", "num_chunks": [], "video": 7, "state": None},
        {"chunks": [{"chunk": 1, "drift": {"similarity": float("nan")}}], "fps": float("inf"), "updated": float("nan")},
    ],
)
def test_a_story_that_somebody_wrote_by_hand(root: Path, said: dict[str, Any]) -> None:
    run = told(root, "odd", **said)
    json.dumps(run_view(run, root), allow_nan=False)
    json.dumps(list_runs(root / "gloria_runs", root), allow_nan=False)


def test_names_are_checked_before_anything_is_looked_up(root: Path) -> None:
    (root / "run.json").write_text("{}")
    for name in ("..", "../gloria_runs", "/", "a\0", ""):
        with pytest.raises(PlanError, match="letters, digits"):
            find_run(root / "gloria_runs", name, root)


def test_runs_are_found_by_name(root: Path) -> None:
    runs = root / "gloria_runs"
    for name in ("a", "b", "c"):
        told(root, name)
    asked = ["c", "a", "c", "gone", "..", "/etc", ""]
    assert sorted(run["name"] for run in list_runs(runs, root, asked)) == ["a", "c"]
    assert list_runs(runs, root, []) == []


def test_where_each_chunk_lies_before_it_is_made(root: Path) -> None:
    studio = Studio(root / "gloria_runs", stop_at=1)
    with pytest.raises(StopError):
        studio.make()
    view = run_view(root / "gloria_runs" / "run", root)
    assert view["chunks"] == []
    assert [span[0] for span in view["spans"]] == [0.0, view["spans"][0][1], view["spans"][1][1]]
    assert view["spans"][-1][1] == 3.75


def test_the_waveform_is_measured_once_and_follows_the_sound(root: Path) -> None:
    studio, run = Studio(root / "gloria_runs"), root / "gloria_runs" / "run"
    studio.make()
    assert waveform(run, root) == {"peaks": [], "seconds": 0.0}
    loud = FilmSound((torch.ones(1, 16000 * 4) * 0.5, 16000))
    studio.again().make(sound=loud, sound_digest="loud")
    assert waveform(run, root) == {"peaks": [50] * 600, "seconds": 3.75}
    kept = (run / "waveform.json").stat().st_mtime_ns
    studio.again().make(sound=loud, sound_digest="loud")
    assert (run / "waveform.json").stat().st_mtime_ns == kept
    quiet = FilmSound((torch.ones(1, 16000 * 4) * 0.1, 16000))
    studio.again().make(sound=quiet, sound_digest="quiet")
    assert waveform(run, root)["peaks"] == [10] * 600
    studio.again().make()
    assert waveform(run, root)["peaks"] == []


def test_a_waveform_that_somebody_wrote(root: Path) -> None:
    run = told(root, "odd")
    (run / "waveform.json").write_text('{"peaks": [1, "2", null], "seconds": "x"}')
    assert waveform(run, root) == {"peaks": [1, 0, 0], "seconds": 0.0}
    (run / "waveform.json").unlink()
    (run / "waveform.json").symlink_to(root.parent / "away.json")
    (root.parent / "away.json").write_text('{"peaks": [7]}')
    assert waveform(run, root)["peaks"] == []
