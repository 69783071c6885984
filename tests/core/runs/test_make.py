"""Whole runs: made, stopped anywhere, gone on with, changed, rolled again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gloria_core.errors import PlanError
from gloria_core.events import read_events
from gloria_core.media import iter_frames
from gloria_core.runs.chunk_file import read_latents
from gloria_core.runs.folder import RunInUseError, read_json
from gloria_core.runs.job import Drift, Frames
from gloria_core.sampling.long_video import PrefixMode, blend
from tests.core.runs.studio import StopError, Studio


def latents_of(studio: Studio) -> list[torch.Tensor]:
    """The latents of the takes that make up the film, by chunk."""
    chosen = {news.record.index: news.record for news in studio.news}
    return [read_latents(studio.run.chunk_path(i, r.take), r) for i, r in sorted(chosen.items())]


def film_of(path: Path) -> np.ndarray:
    return np.concatenate(list(iter_frames(path)))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two films show the same; of equal frames x264 does not always make the same bytes."""
    return one.shape == other.shape and bool(np.abs(one.astype(int) - other).mean() < 0.5)


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def test_a_run_from_beginning_to_end(studio: Studio) -> None:
    made = studio.make(keep_frames=True)
    assert studio.sampled == [0, 1, 2]
    assert made.video.name == "video_1.mp4"
    film = film_of(made.video)
    assert len(film) == 60
    true = np.concatenate(studio.frames)
    assert np.abs(film.astype(int) - true).mean() < 3, "H.264 at quality 18"
    assert np.array_equal(made.last_frame, true[-1])
    told = read_json(studio.run.settings)
    assert told["state"] == "finished"
    assert [entry["chunk"] for entry in told["chunks"]] == [1, 2, 3]
    events = [event["event"] for event in read_events(studio.run.path / "events.jsonl")]
    assert events == ["planned", *["sampled", "chunk"] * 3, "finished"]


def test_the_same_again_makes_nothing_and_no_second_video(studio: Studio) -> None:
    first = studio.make()
    again = studio.again()
    second = again.make()
    assert again.sampled == again.decoded == []
    assert second.video == first.video
    assert np.array_equal(first.last_frame, second.last_frame)
    assert again.lines == ["Chunks 1-3 are on disk and used again."]


def test_a_deleted_video_is_put_together_again(studio: Studio) -> None:
    first = studio.make()
    film = film_of(first.video)
    first.video.unlink()
    again = studio.again()
    assert np.array_equal(film_of(again.make().video), film)
    assert again.sampled == again.decoded == []


@pytest.mark.parametrize("how", ["absolute", "relative", "dots", "link", "no text"])
def test_a_video_outside_the_output_folder_is_none_of_ours(tmp_path: Path, how: str) -> None:
    """Anybody may have written run.json, and what it names is given out."""
    (tmp_path / "output" / "runs").mkdir(parents=True)
    studio = Studio(tmp_path / "output" / "runs")
    first = studio.make()
    secret, link = tmp_path / "secret.mp4", first.video.with_name("linked.mp4")
    secret.write_bytes(first.video.read_bytes())
    link.symlink_to(secret)
    named: dict[str, Any] = {
        "absolute": str(secret),
        "relative": os.path.relpath(secret),
        "dots": str(tmp_path / "output" / ".." / "secret.mp4"),
        "link": str(link),
        "no text": ["x"],
    }
    told = read_json(studio.run.settings)
    assert told["video"] == str(first.video)
    studio.run.write_json(studio.run.settings, {**told, "video": named[how]})
    again = studio.again().make()
    assert again.video.resolve().is_relative_to(studio.folder.resolve())
    studio.run.write_json(studio.run.settings, {**told, "video": str(studio.folder / ".." / "runs" / "video_1.mp4")})
    assert studio.again().make().video.samefile(first.video), "that one lies inside"


@pytest.mark.parametrize("mode", list(PrefixMode))
@pytest.mark.parametrize("with_pictures", [False, True])
def test_stopped_anywhere_it_goes_on_to_the_same_latents_and_film(
    tmp_path: Path, mode: PrefixMode, with_pictures: bool
) -> None:
    whole = Studio(tmp_path / "whole", mode=mode, with_pictures=with_pictures)
    film = film_of(whole.make().video)
    for stop in range(1, whole.calls + 1):
        cut = Studio(tmp_path / f"cut{stop}", mode=mode, with_pictures=with_pictures, stop_at=stop)
        with pytest.raises(StopError):
            cut.make()
        finished = len(cut.news)
        assert read_json(cut.run.settings)["state"] == "stopped"
        again = cut.again()
        assert alike(film_of(again.make().video), film), stop
        assert len(again.sampled) <= 3 - finished, "nothing that was finished is sampled again"
        assert all(torch.equal(a, b) for a, b in zip(latents_of(again), latents_of(whole), strict=True)), stop


def test_a_changed_prompt_makes_its_chunk_and_what_follows(studio: Studio) -> None:
    studio.make()
    changed = studio.again(prompts={1: "turns left"})
    made = changed.make()
    assert changed.sampled == [1, 2]
    assert made.video.name == "video_2.mp4"
    assert any("its prompt changed (walks -> turns left)" in line for line in changed.lines)
    back = studio.again()
    back.make()
    assert back.sampled == []


def test_a_longer_video_keeps_what_is_there(studio: Studio) -> None:
    studio.make()
    longer = studio.again(num_frames=100)
    assert len(film_of(longer.make().video)) == 100
    assert longer.sampled == [3, 4]


def test_another_look_decodes_and_samples_nothing(studio: Studio) -> None:
    studio.make()
    other = studio.again(look="strip")
    other.make()
    assert other.sampled == []
    assert len(other.decoded) == 16


def test_a_reroll_and_its_end(studio: Studio) -> None:
    first = studio.make()
    rolled = studio.again(reroll="2")
    second = rolled.make()
    assert rolled.sampled == [1, 2]
    assert rolled.seeds[0] != studio.seeds[1]
    assert second.video != first.video
    assert [news.record.take for news in rolled.news] == [1, 2, 2]
    by_hand = studio.again(reroll="2 take 2")
    by_hand.make()
    assert by_hand.sampled == []
    assert [news.record.take for news in by_hand.news] == [1, 2, 2]
    gone = studio.again()
    gone.make()
    assert gone.sampled == []
    assert [news.record.take for news in gone.news] == [1, 1, 1]


def test_a_bridge_keeps_the_later_chunks_and_ends_where_they_begin(studio: Studio) -> None:
    studio.make()
    before = latents_of(studio)
    rolled = studio.again(reroll="2 seed 5 bridge")
    rolled.make()
    assert rolled.sampled == [1]
    after = latents_of(rolled)
    assert torch.equal(after[2], before[2])
    assert torch.equal(after[1][:, :, -1], before[1][:, :, -1]), "the last latent is the old one"
    onward = studio.again(reroll="2 seed 5 onward")
    onward.make()
    fresh = latents_of(onward)[1]
    assert torch.equal(after[1][:, :, :-4], fresh[:, :, :-4])
    assert torch.equal(after[1][:, :, -4:], blend(fresh[:, :, -4:], before[1][:, :, -4:]))
    assert any("leads back" in line for line in rolled.lines)
    again = rolled.again()
    again.make()
    assert again.sampled == []
    assert [news.record.take for news in again.news] == [1, 2, 1], "the bridge, and not the newer take"


def test_a_take_that_is_not_there(studio: Studio) -> None:
    studio.make()
    with pytest.raises(PlanError, match="no take 9"):
        studio.again(reroll="2 take 9").make()
    assert read_json(studio.run.settings)["state"] == "finished", "nothing was begun"


def test_a_cut_chunk_is_made_again_and_named(studio: Studio) -> None:
    studio.make()
    path = studio.run.chunk_path(1, 1)
    path.write_bytes(path.read_bytes()[:200])
    again = studio.again()
    again.make()
    assert again.sampled == [1], "the same latents come of it, so chunk 3 still fits"
    assert "0001.take-1.safetensors is cut" in again.lines[0]


def test_a_cut_segment_is_made_again(studio: Studio) -> None:
    first = studio.make()
    film = film_of(first.video)
    segment = studio.news[1].segment
    segment.write_bytes(segment.read_bytes()[:300])
    first.video.unlink()
    again = studio.again()
    assert alike(film_of(again.make().video), film)
    assert again.sampled == []
    assert len(again.decoded) == 5


def test_two_at_once(studio: Studio) -> None:
    with studio.run.locked(), pytest.raises(RunInUseError):
        studio.again().make()


def test_a_video_goes_on_from_the_tail_of_another(studio: Studio) -> None:
    tail = torch.randn(1, 2, 4, 2, 4)
    going_on = studio.again(start=tail, skipped=13)
    made = going_on.make()
    assert len(film_of(made.video)) == 60 - 13
    assert torch.equal(latents_of(going_on)[0][:, :, :4], tail)
    assert studio.again(start=tail + 1, skipped=13).make().video != made.video


class Meter:
    """Says what it is told to, chunk by chunk."""

    def __init__(self, *similarities: float) -> None:
        self.similarities = list(similarities)
        self.first: float | None = None

    name = "told"

    def keep_first(self, frames: Frames) -> None:
        self.first = float(frames.mean())

    def measure(self, frames: Frames) -> Mapping[str, float]:
        return {"similarity": self.similarities.pop(0)}

    def state(self) -> Mapping[str, Any]:
        return {"first": self.first}

    def load(self, state: Mapping[str, Any]) -> None:
        self.first = state["first"]


def test_a_drifting_chunk_is_sampled_again_until_it_is_good(studio: Studio) -> None:
    studio.drift = Drift(meter=Meter(1.0, 0.5, 0.6, 0.95, 1.0), threshold=0.9, tries=3)
    film = film_of(studio.make().video)
    assert studio.sampled == [0, 1, 1, 1, 2]
    assert len(set(studio.seeds)) == 5
    assert studio.drifting_chunks == [1, 1]
    assert [news.attempts for news in studio.news] == [1, 3, 1]
    assert studio.news[1].record.take == 3
    assert len(film) == 60
    again = studio.again(drift=Drift(meter=Meter(), threshold=0.9, tries=3))
    again.make()
    assert again.sampled == [], "the verdicts are on disk too"
    assert [news.record.take for news in again.news] == [1, 3, 1]


def test_another_attempt_is_decoded_from_where_the_first_one_was(studio: Studio) -> None:
    """And not from a decoder that is warmed anew, which is only nearly the same with a Wan VAE."""
    studio.drift, studio.lookback = Drift(meter=Meter(1.0, 0.5, 0.95, 1.0), threshold=0.9, tries=1), None
    studio.make()
    assert studio.warmed == 0


def test_of_bad_attempts_the_best_is_taken(studio: Studio) -> None:
    studio.drift = Drift(meter=Meter(1.0, 0.5, 0.7, 0.6, 1.0), threshold=0.9, tries=2)
    film = film_of(studio.make(keep_frames=False).video)
    assert studio.news[1].record.take == 2
    plain = studio.again(drift=None, reroll="2 take 2", folder=studio.folder)
    assert alike(film_of(plain.make().video), film), "the decoder went on from the right take"


def test_the_last_picture_and_all_pictures_are_those_of_the_chosen_attempts(studio: Studio) -> None:
    studio.drift = Drift(meter=Meter(1.0, 1.0, 0.7, 0.5), threshold=0.9, tries=1)
    made = studio.make(keep_frames=True)
    plain = studio.again(drift=None)
    true = plain.make(keep_frames=True)
    assert [news.record.take for news in plain.news] == [1, 1, 1]
    assert np.array_equal(made.last_frame, true.last_frame)
    assert np.array_equal(np.concatenate(studio.frames), np.concatenate(plain.frames))


def test_the_last_picture_goes_back_with_its_take(studio: Studio) -> None:
    first = studio.make().last_frame
    rolled = studio.again(reroll="3").make().last_frame
    assert not np.array_equal(first, rolled)
    assert np.array_equal(studio.again().make().last_frame, first)


def test_without_a_threshold_drift_is_only_told(studio: Studio) -> None:
    studio.drift = Drift(meter=Meter(1.0, 0.1, 0.1))
    studio.make()
    assert studio.sampled == [0, 1, 2]
    assert read_json(studio.run.settings)["chunks"][1]["drift"] == {"similarity": 0.1}
