"""What a finished film does not need: told, and removed where that is wished; the rest is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gloria_core.events import read_events
from gloria_core.runs.job import Drift, Frames
from tests.core.runs.studio import StopError, Studio


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def names(studio: Studio) -> set[str]:
    return {path.name for path in (*studio.run.chunks.iterdir(), *studio.run.segments.iterdir())}


def takes(studio: Studio) -> list[str]:
    return sorted(path.name for path in studio.run.chunks.glob("*.safetensors"))


class Strict:
    """Takes the second attempt of the second chunk alone."""

    name = "strict"

    def __init__(self) -> None:
        self.calls = 0

    def keep_first(self, frames: Frames) -> None:
        pass

    def measure(self, frames: Frames) -> Mapping[str, float]:
        self.calls += 1
        return {"similarity": 0.1 if self.calls == 2 else 0.9}

    def state(self) -> Mapping[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        pass


def test_old_takes_are_told_and_stay(studio: Studio) -> None:
    assert studio.make().old.sentence == ""
    rolled = studio.again(reroll="2").make()
    assert rolled.old.num_takes == 2
    assert rolled.old.num_bytes > 1000
    assert "2 old takes" in rolled.old.sentence
    assert "'old_takes'" in rolled.old.sentence
    assert len(takes(studio)) == 5


def test_old_takes_are_removed_when_the_film_is_finished(studio: Studio) -> None:
    studio.make()
    rolled = studio.again(reroll="2")
    made = rolled.make(removes_old=True)
    assert takes(studio) == ["0000.take-1.safetensors", "0001.take-2.safetensors", "0002.take-2.safetensors"]
    assert {path.suffix for path in studio.run.segments.iterdir()} == {".mp4", ".png"}
    assert len(list(studio.run.segments.glob("*.mp4"))) == 3
    assert made.old.removed
    assert made.old.sentence.endswith("were removed.")
    assert [event["event"] for event in read_events(studio.run.path / "events.jsonl")][-1] == "removed"
    assert made.video.is_file()
    again = studio.again(reroll="2")
    assert again.make(removes_old=True).video == made.video
    assert again.sampled == again.decoded == []


def test_nothing_is_removed_before_the_film_is_finished(studio: Studio) -> None:
    studio.make()
    before = names(studio)
    for call in range(1, 40):
        stopped = studio.again(reroll="2", stop_at=call)
        try:
            stopped.make(removes_old=True)
        except StopError:
            assert before <= names(studio), f"stopped at call {call}"
        else:
            assert call > 2
            break
    assert not before <= names(studio)


def test_pieces_of_another_look_go_too(studio: Studio) -> None:
    studio.make()
    made = studio.again(look="strip").make(removes_old=True)
    assert (made.old.num_takes, len(list(studio.run.segments.glob("*.mp4")))) == (0, 3)
    assert made.old.num_bytes > 0


def test_a_bridge_keeps_what_it_leads_back_to(studio: Studio) -> None:
    studio.make()
    studio.again(reroll="2", bridges=True).make(removes_old=True)
    assert len(takes(studio)) == 4, "the take that was led back to stays: by it the bridge is known again"
    again = studio.again(reroll="2", bridges=True)
    again.make(removes_old=True)
    assert again.sampled == []
    plain = studio.again()
    plain.make()
    assert plain.sampled == [], "and so the first film is there too"


def test_a_worse_attempt_stays_because_it_would_be_made_again(studio: Studio) -> None:
    def drift() -> Drift:
        return Drift(meter=Strict(), threshold=0.5, tries=2)

    first = studio.again(drift=drift())
    first.make(removes_old=True)
    assert first.sampled == [0, 1, 1, 2]
    again = studio.again(drift=drift())
    again.make(removes_old=True)
    assert again.sampled == []


def test_only_files_of_a_run_are_looked_at(studio: Studio) -> None:
    studio.make()
    mine = [studio.run.chunks / "notes.txt", studio.run.segments / "0001.my-favourite.mp4", studio.run.path / "a.mp4"]
    for path in mine:
        path.write_text("mine")
    (studio.run.chunks / "0007.take-1.safetensors").mkdir()
    np.save(studio.run.chunks / "0001.take-1.pictures.npy", np.zeros(3))
    studio.again(reroll="2").make(removes_old=True)
    assert all(path.read_text() == "mine" for path in mine)
    assert (studio.run.chunks / "0007.take-1.safetensors").is_dir()
    assert not (studio.run.chunks / "0001.take-1.pictures.npy").exists()
