"""What a run will cost: the arithmetic, and what is found on the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from gloria_core.errors import MediaError
from gloria_core.runs import foresee
from gloria_core.runs.folder import read_json
from gloria_core.runs.forecast import (
    BITS_PER_PIXEL,
    CACHE,
    DECODING,
    IMAGES,
    LATENTS,
    PASS,
    STATE,
    WAITING,
    WEIGHTS,
    Disk,
    Forecast,
    Memory,
    duration,
    latent_bytes,
    seconds_for,
    sized,
    video_bytes,
)
from gloria_core.runs.view import run_view
from tests.core.runs.studio import SHAPE, Studio

GB = 10**9


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    (tmp_path / "runs").mkdir()
    return Studio(tmp_path / "runs")


def card(free: int, **sampling: int) -> Memory:
    parts = {WEIGHTS: 16 * GB, PASS: 4 * GB, **sampling}
    return Memory(place="graphics card", sampling=parts, decoding={DECODING: 6 * GB}, free=free)


def main(name: str) -> Memory:
    return Memory(place="main memory", sampling={LATENTS: 1}, decoding={name: 9 * GB}, free=GB)


def disk(**changes: int) -> Disk:
    return Disk(**{"latents": 3 * GB, "segments": GB, "film": 2 * GB, "free": 100 * GB, **changes})


def decoding_takes(studio: Studio, seconds: float) -> None:
    for path in studio.run.chunks.glob("*.json"):
        studio.run.write_json(path, {**read_json(path), "seconds": seconds})


def test_sizes() -> None:
    assert latent_bytes(9, (1, 16, 60, 104)) == 9 * 16 * 60 * 104 * 4
    assert video_bytes(100, (832, 480)) == round(100 * 832 * 480 * BITS_PER_PIXEL / 8)
    assert video_bytes(100, (832, 480), 2000.0) == 200_000
    assert disk().needed == 8 * GB, "the film is there twice for a moment"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (40, "40 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (12000, "3 h 20 min"), (7200, "2 h")],
)
def test_times_are_said_as_a_person_says_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_are_said_as_a_person_says_them() -> None:
    sizes = [900, 340_000, 1_500_000, 12_300_000, 1_540_000_000, 123_000_000_000]
    assert [sized(size) for size in sizes] == ["1 kB", "340 kB", "1.5 MB", "12 MB", "1.5 GB", "123.0 GB"]


def test_time_goes_by_the_median() -> None:
    assert seconds_for(10, [2.0, 3.0, 60.0]) == 30.0
    assert seconds_for(10, []) is None


def test_what_fits_warns_of_nothing() -> None:
    forecast = Forecast(disk=disk(), memory=(card(24 * GB),), seconds=720.0, by_chunks=5)
    assert forecast.warnings() == []
    assert forecast.lines() == [
        "Disk: 3.0 GB of latents, and about 1.0 GB of pieces and 2.0 GB of film; 100.0 GB are free.",
        "Graphics card: up to about 20.0 GB (weights 16.0 GB, a forward pass 4.0 GB); 24.0 GB can be had.",
        "It takes about 12 min, by 5 chunks like these on disk.",
    ]
    told = forecast.told()
    assert (told["disk"]["needed"], told["memory"][0]["needed"], told["seconds"]) == (8 * GB, 20 * GB, 720.0)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (card(12 * GB), ("8.0 GB of weights do not fit into the graphics", "slower", "'chunk_latents'", "fp8")),
        (card(3 * GB), ("graphics card may not suffice", "about 6.0 GB", "3.0 GB can be had")),
        (card(10 * GB, **{CACHE: 8 * GB}), ("about 12.0 GB", "fewer anchors")),
        (main(IMAGES), ("main memory may not suffice", "Disconnect 'images'")),
        (main(STATE), ("Make 'width' and 'height' smaller",)),
        (main(WAITING), ("'drift_threshold' to 0",)),
        (main(PASS), ("Lower 'chunk_latents'",)),
    ],
)
def test_what_does_not_fit_names_the_setting_to_lower(memory: Memory, words: tuple[str, ...]) -> None:
    [warning] = Forecast(disk=disk(), memory=(memory,)).warnings()
    assert all(word in warning for word in words), warning


def test_a_disk_that_may_become_full_is_warned_of() -> None:
    [warning] = Forecast(disk=disk(free=5 * GB)).warnings()
    assert "8.0 GB are written, and 5.0 GB are free" in warning


def test_a_run_tells_its_forecast_and_then_its_time(studio: Studio) -> None:
    heard: list[Forecast] = []
    studio.make(on_forecast=heard.append)
    assert heard[0].disk.latents == 3 * latent_bytes(9, SHAPE), "three chunks of 9 latents"
    assert heard[0].disk.free == pytest.approx(shutil.disk_usage(studio.folder).free, rel=0.1)
    assert heard[0].seconds is None, "nothing like it was ever made"
    told = read_json(studio.run.settings)
    assert told["forecast"] == heard[0].told()
    assert run_view(studio.run.path, studio.folder)["forecast"] == told["forecast"]

    studio.again(num_frames=100).make(on_forecast=heard.append)
    assert heard[1].disk.latents == 2 * latent_bytes(9, SHAPE), "two more; three are on disk"
    studio.again(num_frames=100).make(on_forecast=heard.append)
    assert (heard[2].disk.latents, heard[2].disk.segments, heard[2].seconds) == (0, 0, None)


def test_the_film_is_reckoned_by_the_pieces_on_disk(studio: Studio) -> None:
    heard: list[Forecast] = []
    made = studio.make(on_forecast=heard.append)
    studio.again(num_frames=120).make(on_forecast=heard.append)
    on_disk = sum(news.segment.stat().st_size for news in made.chunks)
    assert heard[1].disk.film == pytest.approx(2 * on_disk, rel=0.01)
    assert heard[0].disk.film == video_bytes(60, (32, 16))


def test_the_time_goes_by_chunks_alike_here_or_in_a_run_beside(studio: Studio) -> None:
    alike = ("model", "sampler", "size", "guidance")
    heard: list[Forecast] = []
    studio.make(more=dict.fromkeys(alike, "1"), on_forecast=heard.append)
    decoding_takes(studio, 20.0)
    studio.again(num_frames=100).make(more=dict.fromkeys(alike, "1"), on_forecast=heard.append)
    assert heard[1].by_chunks == 3
    assert heard[1].seconds == pytest.approx(40, abs=2), "two chunks, as long as those on disk"

    decoding_takes(studio, 20.0)
    shutil.copytree(studio.run.path, studio.folder / "another")
    shutil.rmtree(studio.run.path)
    studio.again().make(more=dict.fromkeys(alike, "1"), on_forecast=heard.append)
    assert heard[2].seconds == pytest.approx(60, abs=2), "by the run beside it"
    shutil.rmtree(studio.run.path)
    studio.again().make(more={**dict.fromkeys(alike, "1"), "model": "2"}, on_forecast=heard.append)
    assert heard[3].seconds is None, "another model"


def test_a_run_json_of_somebody_else_is_no_hindrance(studio: Studio) -> None:
    studio.make()
    times = {"start_s": 0.0, "end_s": 1.0}
    for chunks in (
        [{"chunk": "x"}],
        [1],
        {},
        None,
        [{**times, "segment": 3}],
        [{**times, "segment": "../no.mp4"}],
        [{**times, "end_s": float("inf"), "segment": "."}],
        [{**times, "end_s": float("nan"), "segment": "."}],
    ):
        told = read_json(studio.run.settings)
        studio.run.write_json(studio.run.settings, {**told, "chunks": chunks})
        studio.again().make()


def test_a_disk_that_is_certainly_too_small_refuses_before_anything_is_sampled(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = shutil.disk_usage(os.curdir)
    monkeypatch.setattr(foresee.shutil, "disk_usage", lambda _path: usage._replace(free=100))
    with pytest.raises(MediaError, match=r"latents of 3 chunks take 2 kB, and 0 kB .* are free"):
        studio.make()
    assert studio.sampled == []
    studio.num_frames = 1
    monkeypatch.undo()
    studio.make()
