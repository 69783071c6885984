"""The drift of a run, drawn from its run.json: now, later, and whoever wrote it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gloria_core.evaluate.drift import DriftMeter
from gloria_core.evaluate.plot import PlottedChunk
from gloria_core.runs import drift_picture as module
from gloria_core.runs.drift_picture import drift_picture, drift_png
from gloria_core.runs.folder import read_json
from gloria_core.runs.job import Drift
from gloria_core.runs.view import NotThereError
from tests.core.runs.studio import StopError, Studio

ENTRY = {"start_s": 0.0, "end_s": 2.0, "drift": {"to_first": 0.9, "similarity": 0.9}, "attempts": 1, "take": 1}


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    meter = DriftMeter(None)
    return Studio(tmp_path, drift=Drift(meter=meter, threshold=0.2, tries=0, embedding=meter.embedding.name))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was asked to be drawn last."""
    asked: dict[str, Any] = {}
    real = module.drift_plot

    def plot(chunks: list[PlottedChunk], **how: Any) -> Image.Image:
        asked.update(how, chunks=chunks)
        return real(chunks, **how)

    monkeypatch.setattr(module, "drift_plot", plot)
    return asked


def test_a_run_is_drawn_while_it_works_and_afterwards(studio: Studio, drawn: dict[str, Any]) -> None:
    studio.stop_at = 12
    with pytest.raises(StopError):
        studio.make()
    picture = Image.open(io.BytesIO(drift_png(studio.run.path)))
    assert (picture.format, picture.size) == ("PNG", (1200, 480))
    assert len(drawn["chunks"]) == 1
    studio.again().make()
    whole = np.asarray(Image.open(io.BytesIO(drift_png(studio.run.path))))
    assert len(drawn["chunks"]) == 3
    assert (drawn["threshold"], drawn["embedding"]) == (0.2, "gloria-colour-grid-v1")
    assert read_json(studio.run.settings)["meter"] == {"embedding": "gloria-colour-grid-v1", "threshold": 0.2}
    assert whole.std() > 1
    assert not np.array_equal(whole, np.asarray(picture))


def test_rerolls_and_bridges_are_marked(studio: Studio, drawn: dict[str, Any]) -> None:
    studio.make()
    studio.again(reroll="2 bridge").make()
    drift_png(studio.run.path)
    assert [(chunk.is_reroll, chunk.is_bridge) for chunk in drawn["chunks"]] == [
        (False, False),
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize("told", [{}, {"chunks": []}, {"chunks": "x"}, {"chunks": [1, {}, {"start_s": "0"}]}])
def test_a_run_without_a_finished_chunk_has_no_picture(told: dict[str, Any]) -> None:
    with pytest.raises(NotThereError, match="The run 'film' has no finished chunk yet"):
        drift_picture(told, "film")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"drift": {"to_first": float("nan"), "to_anchor": "0.3", "similarity": None, "more": 3}}, {}),
        ({"drift": {"to_first": 1e300, "to_anchor": -1e300}, "start_s": 1e300, "end_s": -5}, {}),
        ({"drift": [1, 2], "inputs": "x", "take": [2], "attempts": True}, {"meter": []}),
        ({}, {"meter": {"threshold": float("inf"), "embedding": "x" * 100_000}}),
        ({}, {"meter": {"threshold": "high", "embedding": {"a": 1}}}),
    ],
)
def test_whatever_stands_in_run_json_is_drawn_or_left_out(entry: dict[str, Any], told: dict[str, Any]) -> None:
    picture = drift_picture({"chunks": [ENTRY, {**ENTRY, **entry}], **told}, "film")
    assert picture.size == (1200, 480)
