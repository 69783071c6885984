"""A process that dies inside any of its writes loses nothing that was finished, and leaves nothing behind."""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from gloria_core.errors import GloriaError
from gloria_core.events import read_events
from gloria_core.media import iter_frames
from gloria_core.media.segment import num_frames_in
from gloria_core.runs.chunk_file import read_latents
from gloria_core.runs.folder import read_json
from tests.core.runs.dying import studio
from tests.core.runs.studio import Studio
from tests.faults import Faults

ROOT = Path(__file__).resolve().parents[3]
FRAMES = 49

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork; the host's tests kill there too"),
]


def latents_of(made: Studio) -> list[torch.Tensor]:
    return [read_latents(made.run.chunk_path(n.record.index, n.record.take), n.record) for n in made.news]


def check_what_is_left(folder: Path) -> set[int]:
    """Whatever has its name is whole; returns the chunks that are finished."""
    run = folder / "run"
    if not (run / "segments").is_dir():
        return set()
    takes, broken = studio(folder).run.takes()
    assert not broken
    for segment in (run / "segments").glob("*.mp4"):
        assert num_frames_in(segment) == sum(1 for frames in iter_frames(segment) for _ in frames)
    for told in run.rglob("*.json"):
        assert isinstance(json.loads(told.read_text(encoding="utf-8")), dict)
    for film in [*run.glob("film.mp4"), *folder.glob("video*.mp4")]:
        assert sum(len(frames) for frames in iter_frames(film)) >= 33
    return {take.record.index for take in takes}


def check_it_goes_on(folder: Path, finished: set[int], whole: Studio) -> None:
    """The same again makes the rest, and the very same; nothing half-made or double is left."""
    again = studio(folder)
    made = again.make()
    assert not finished & set(again.sampled), "a finished chunk was sampled again"
    assert all(torch.equal(a, b) for a, b in zip(latents_of(again), latents_of(whole), strict=True))
    film = np.concatenate(list(iter_frames(made.video)))
    assert film.shape == (FRAMES, 16, 32, 3)
    told = read_json(again.run.settings)
    assert told["state"] == "finished"
    assert [entry["chunk"] for entry in told["chunks"]] == [1, 2]
    assert [path.name for path in folder.glob("*.mp4")] == [Path(told["video"]).name], "the film is there twice"
    assert not list(folder.rglob("*.partial*"))
    assert not (again.run.path / "film.mp4").exists()
    assert read_events(again.run.path / "events.jsonl")[-1]["event"] == "finished"


def test_dying_inside_every_write(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "tests.core.runs.dying", str(tmp_path)], cwd=ROOT, env=environment, check=True
    )
    points = (tmp_path / "points.txt").read_text(encoding="utf-8").splitlines()
    for written in ("take-1.safetensors", "take-1.json", ".npy", "run.json", "events.jsonl", "film.mp4", "video_1.mp4"):
        assert sum(written in point for point in points) >= 5, f"the points of {written} are not seen"
    whole = studio(tmp_path / "again")
    whole.make()
    wrong = {}
    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        try:
            check_it_goes_on(folder, check_what_is_left(folder), whole)
        except Exception as problem:  # noqa: BLE001 - all of them are told at once, each with its point
            wrong[point] = f"{type(problem).__name__}: {problem}"[:300]
    assert not wrong, "\n".join(f"{point}: {told}" for point, told in wrong.items())


def test_a_disk_that_is_full_from_any_write_on(tmp_path: Path) -> None:
    """The error is one sentence that names a file, what is finished stays, and with room again the run goes on."""
    counted = Faults(tmp_path / "whole")
    whole = studio(tmp_path / "whole")
    with installed(counted):
        whole.make()
    wrong = {}
    points = [point for point in counted.points if not point.startswith("after")]
    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        wanted, told = studio(folder), ""
        with installed(Faults(folder, full_at=point)):
            try:
                wanted.make()
            except GloriaError as problem:
                told = str(problem)
            except Exception as problem:  # noqa: BLE001 - any other kind is what is looked for
                wrong[point] = repr(problem)
        try:
            assert point in wrong or ("pace" in told and str(folder) in told), f"it says: {told!r}"
            check_it_goes_on(folder, check_what_is_left(folder), whole)
        except Exception as problem:  # noqa: BLE001 - all of them are told at once, each with its point
            wrong[point] = f"{type(problem).__name__}: {problem}"[:300]
    assert len(points) > 100
    assert not wrong, "\n".join(f"{point}: {told}" for point, told in wrong.items())


@contextmanager
def installed(faults: Faults) -> Iterator[None]:
    faults.install()
    try:
        yield
    finally:
        faults.uninstall()


def test_the_same_film_is_made_of_the_same_pieces(tmp_path: Path) -> None:
    """Byte for byte: so a film that got its name just before the process died is known again."""
    first = studio(tmp_path).make().video
    first.rename(tmp_path / "kept")
    assert filecmp.cmp(studio(tmp_path).make().video, tmp_path / "kept", shallow=False)
